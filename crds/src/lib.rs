//! The API types that users write, one file per kind, exactly as they stand in manifests (proto JSON, camelCase).
//!
//! Istio's kinds are closed: an unknown field or enum value is an error, so that a typing mistake is found and not
//! ignored. Kubernetes' core kinds are projections: only what the mesh reads is named, everything else is skipped.
//! Nothing is checked here beyond shape; meaning is the business of whoever converts these types.
//!
//! The same types, with what their attributes add, are the schemas of the CustomResourceDefinitions ([`definitions`]).
//!
//! Enter at [`networking`], [`security`], [`telemetry`], [`extensions`] and [`core`].

// The fields carry the API's own names and meaning; its reference documents them.
#![allow(missing_docs)]

pub mod core;
pub mod definition;
pub mod extensions;
pub mod networking;
pub mod number;
pub mod policy;
mod schema;
pub mod security;
pub mod telemetry;

pub use definition::{check, definitions};
pub use number::Num;
