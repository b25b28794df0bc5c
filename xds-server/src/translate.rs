//! The seam to the translator: [`Translate`].

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use pilotfish_envoy::{Resource, Snapshot};
use pilotfish_model::Proxy;

/// Makes resources out of a world. All methods are pure, and a panic costs only the class (or the proxy) it happened for.
/// [`Translate::classify`] and [`Translate::translate`] may be slow: the server calls them off its async threads.
pub trait Translate: Send + Sync + 'static {
    /// Everything that resources are made of, immutable.
    type World: Send + Sync + 'static;
    /// All that a proxy's resources depend on. Proxies of one class share one snapshot.
    type Class: Clone + Eq + Hash + Ord + Debug + Send + Sync + 'static;

    /// Namespace of a proxy that names none.
    fn root_namespace<'a>(&self, world: &'a Self::World) -> &'a str;
    /// DNS suffix of the cluster.
    fn domain<'a>(&self, world: &'a Self::World) -> &'a str;
    /// The class of a proxy in this world.
    fn classify(&self, world: &Self::World, proxy: &Proxy) -> Self::Class;
    /// The resources of a class. Shared by all its proxies: no key material.
    fn translate(&self, world: &Self::World, class: &Self::Class) -> Snapshot;
    /// Key material for this one proxy: of the names that it asks for, those that exist and that the proxy's namespace
    /// owns. Called for each stream and world, if the peer may have any at all: a look-up, nothing slow.
    fn secrets(&self, world: &Self::World, proxy: &Proxy, names: &[Arc<str>]) -> Vec<Resource>;
    /// Whether the class's clients hold resources to the validation rules of Envoy's protos. gRPC libraries do not, and are
    /// sent less than Envoy would accept.
    fn is_checked(&self, _class: &Self::Class) -> bool {
        true
    }
}
