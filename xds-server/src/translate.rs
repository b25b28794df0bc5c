//! The seam to the translator: [`Translate`].

use std::fmt::Debug;
use std::hash::Hash;

use pilotfish_envoy::Snapshot;
use pilotfish_model::Proxy;

/// Makes resources out of a world. All methods are pure and may be slow: the server calls them off its async threads,
/// and a panic costs only the class (or the proxy) it happened for.
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
    /// The resources of a class.
    fn translate(&self, world: &Self::World, class: &Self::Class) -> Snapshot;
}
