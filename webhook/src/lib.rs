//! Sidecar injection and validation: pure functions of objects, and the HTTPS server that the API server calls.
//!
//! Enter at [`inject::inject`], [`validate::review`] and [`server::serve`].

pub mod admission;
pub mod inject;
pub mod metrics;
pub mod server;
pub mod validate;
