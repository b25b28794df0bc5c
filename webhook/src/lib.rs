//! Sidecar injection and validation: pure functions of objects, and the HTTPS server that the API server calls.
//!
//! Enter at [`inject::inject`].

pub mod inject;
