//! Envoy protos, their descriptors, and encoded resources.
//!
//! Owns the generated types ([`pb`]), packing into Any ([`mod@any`]), the resource types of xDS ([`TypeUrl`]) and resources
//! encoded once ([`Resource`], [`ResourceSet`], [`Snapshot`]). Knows nothing of a mesh. Enter at [`encoded`].

pub mod any;
mod config_source;
pub mod descriptors;
pub mod encoded;
pub mod field;
mod frame;
mod hashed;
pub mod json;
mod lb_endpoint;
pub mod merge;
mod path;
mod raw;
mod structs;
pub mod types;
pub mod validate;

pub use any::any;
pub use config_source::ConfigSource;
pub use encoded::{Fragment, Layer, Layers, Resource, ResourceSet, Snapshot, Sources, Version};
pub use frame::Frame;
pub use hashed::Hashed;
pub use lb_endpoint::{Assignment, EndpointFields, HostAddress, LbEndpoint, LocalityEndpoints};
pub use structs::{FilterTexts, Metadata, Struct, Value};
pub use types::TypeUrl;

/// The generated types, in modules named by their proto packages.
#[allow(missing_docs, unreachable_pub, clippy::all, rustdoc::all)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}
