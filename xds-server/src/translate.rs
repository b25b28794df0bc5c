//! The seam to the translator: [`Translate`].

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use pilotfish_envoy::{Layer, Layers, Resource, ResourceSet};
use pilotfish_model::Proxy;
use pilotfish_push::Merge;

/// Makes resources out of a world. All methods are pure, and a panic costs only the scope, class or proxy it happened for.
///
/// ```text
///   proxy ─classify─> Class ─scope─> Scope ─view─> View ─endpoints─> Endpoints     shared by all classes of the scope
///                       └──────────────own──────────┴──> Own                       of this class alone
/// ```
///
/// Everything is made out of what was there before and a change. Changes need not be aligned with worlds: a world may be
/// newer than the change that comes with it, and its other changes come later. Applying one twice or late is harmless.
/// [`Translate::view`] may be slow; nothing else may. They are called off the server's async threads, except for
/// [`Translate::classify`], [`Translate::secrets`] and [`Translate::with_credentials`].
pub trait Translate: Send + Sync + 'static {
    /// Everything that resources are made of, immutable.
    type World: Send + Sync + 'static;
    /// What is new in a world.
    type Change: Merge + Clone + Default + Send + Sync + 'static;
    /// All that a proxy's resources depend on. Proxies of one class share one snapshot.
    type Class: Clone + Eq + Hash + Debug + Send + Sync + 'static;
    /// What most of a class's resources depend on. Classes of one scope share these.
    type Scope: Clone + Eq + Hash + Debug + Send + Sync + 'static;
    /// The resources of a scope but for endpoints, and what is needed to advance them.
    type View: Send + Sync + 'static;
    /// The endpoints of a view.
    type Endpoints: Send + Sync + 'static;
    /// The resources of a class that are not its scope's.
    type Own: Send + Sync + 'static;

    /// Namespace of a proxy that names none.
    fn root_namespace<'a>(&self, world: &'a Self::World) -> &'a str;
    /// DNS suffix of the cluster.
    fn domain<'a>(&self, world: &'a Self::World) -> &'a str;

    /// The class of a proxy in this world.
    fn classify(&self, world: &Self::World, proxy: &Proxy) -> Self::Class;
    /// Whether a change may move this proxy to another class. Asked for every proxy and change.
    fn reclassifies(&self, change: &Self::Change, proxy: &Proxy) -> bool;
    /// The scope of a class.
    fn scope(&self, class: &Self::Class) -> Self::Scope;
    /// Scopes with the same word share one turn when many wait: a namespace.
    fn group(&self, scope: &Self::Scope) -> Arc<str>;

    /// A scope in this world; the same `Arc` if the change does not touch it.
    fn view(&self, world: &Self::World, scope: &Self::Scope, before: Option<(&Arc<Self::View>, &Self::Change)>) -> Arc<Self::View>;
    /// The endpoints of a view in this world. With `changed` (and `before` of the same view) only these are looked at.
    fn endpoints(
        &self,
        world: &Self::World,
        view: &Arc<Self::View>,
        before: Option<&Arc<Self::Endpoints>>,
        changed: Option<&Self::Change>,
    ) -> Arc<Self::Endpoints>;
    /// A class in this world; the same `Arc` if the change does not touch it.
    fn own(
        &self,
        world: &Self::World,
        class: &Self::Class,
        view: &Arc<Self::View>,
        before: Option<(&Arc<Self::Own>, &Self::Change)>,
    ) -> Arc<Self::Own>;

    /// Whether a change touches a view. Cheap: asked for every live scope and change.
    fn touches_view(&self, world: &Self::World, view: &Self::View, change: &Self::Change) -> bool;
    /// Whether a change touches what a class has of its own. As cheap.
    fn touches_own(&self, world: &Self::World, own: &Self::Own, change: &Self::Change) -> bool;
    /// Whether the endpoints that changed are any of the view's. As cheap.
    fn touches_endpoints(&self, view: &Self::View, change: &Self::Change) -> bool;
    /// Whether a change touches any key material.
    fn touches_secrets(&self, change: &Self::Change) -> bool;

    /// Resources of a view.
    fn view_layers<'a>(&self, view: &'a Self::View) -> &'a Layers;
    /// Resources of endpoints.
    fn endpoint_layer<'a>(&self, endpoints: &'a Self::Endpoints) -> &'a Arc<Layer>;
    /// Resources of a class alone.
    fn own_layers<'a>(&self, own: &'a Self::Own) -> &'a Layers;

    /// Key material for this one proxy: of the names that it asks for, those that exist and that the proxy's namespace
    /// owns. Called for each stream and world, if the peer may have any at all: a look-up, nothing slow.
    fn secrets(&self, world: &Self::World, proxy: &Proxy, names: &[Arc<str>]) -> Vec<Resource>;
    /// Of these settings of extensions, which are those of a proxy's class, the ones that say more to a proxy that has proved who it
    /// is: with the credentials by which its modules are pulled. Called like [`Translate::secrets`].
    fn with_credentials(&self, world: &Self::World, extensions: &ResourceSet) -> Vec<Resource>;
}
