//! Resources encoded once: [`Resource`], in [`Layer`]s, put together to a [`ResourceSet`] per type and a [`Snapshot`].
//!
//! ```text
//!  Fragment ─┐                 scope: shared by many classes ─> Layer ─┐
//!  Fragment ─┴─> Resource ──┬─>                                         ├─> ResourceSet (one type) ─> Snapshot (one class)
//!  message ─────> Resource ─┘  own: of one class ─────────────> Layer ─┘
//! ```
//!
//! Everything is immutable and shared by pointers. A layer that was made out of an earlier one knows which names differ, so
//! that what changed is found out once and not once per stream.

mod layer;
mod resource;
mod set;

pub use layer::{Layer, Layers};
pub use resource::{Fragment, Resource, Sources, Version, WeakFragment, WeakResource};
pub use set::{ResourceSet, Snapshot};

#[cfg(test)]
mod testing {
    use std::sync::Arc;

    use super::{Layer, Resource};
    use crate::pb::envoy::config::cluster::v3::Cluster;

    pub(super) fn resource(name: &str, content: &str) -> Resource {
        Resource::new(name, &Cluster { name: content.into(), ..Default::default() })
    }

    pub(super) fn layer(resources: &[(&str, &str)]) -> Arc<Layer> {
        Arc::new(Layer::new(resources.iter().map(|(n, c)| resource(n, c))))
    }
}
