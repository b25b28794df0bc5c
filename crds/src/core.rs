//! Kubernetes' own kinds, as far as the mesh reads them.

pub mod endpoint_slice;
pub mod metadata;
pub mod pod;
pub mod secret;
pub mod service;

pub use endpoint_slice::EndpointSlice;
pub use metadata::ObjectMeta;
pub use pod::Pod;
pub use secret::Secret;
pub use service::Service;
