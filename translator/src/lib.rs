//! Pure functions from a mesh and a proxy class to Envoy resources.
//!
//! ```text
//!  Mesh ──> World ─────┬─────────────────────────────┐         one for all
//!                      │                             │
//!  Proxy ──classify──> ProxyClass ──> ScopeClass ──> View      what a scope sees: clusters, outbound listeners, routes
//!                      │                             ├──> Endpoints   the assignments of that
//!                      └─────────────────────────────┴──> Own  what one class serves: inbound clusters and listeners
//! ```
//!
//! Each of the three is made out of its predecessor: what went into it is recorded, so what did not change is kept by
//! pointer, and [`View::touched_by`] says whether a change concerns it at all. Services are shared between scopes
//! (`unit`), encoded resources between all (`leaf`).
//!
//! One folder per resource type, one file per Envoy feature. Leaf builders take a struct of exactly the inputs that their
//! output depends on, never the mesh, so that the cache in front of them cannot miss one. Nothing here blocks, reads a
//! clock or knows a client. Enter at [`Translator`]; [`translate`] is all of it for one class.

pub mod addresses;
pub mod attach;
pub mod class;
pub mod cluster;
pub mod config_source;
mod context;
pub mod diagnose;
pub mod endpoint;
pub mod extensions;
pub mod facts;
pub mod gateway;
pub mod grpc;
pub mod listener;
pub mod metadata;
pub mod name_table;
pub mod naming;
pub mod policy;
pub mod route;
pub mod scope;
pub mod secret;
pub mod security;
pub mod tls;
pub mod unit;
pub mod world;

mod endpoints;
mod leaf;
mod own;
mod patch;
mod refused;
mod touched;
mod translator;
mod view;
mod work;

use std::sync::Arc;

use pilotfish_envoy::Snapshot;
use pilotfish_model::{Mesh, Proxy};

pub use class::{ClassFacts, ProxyClass, ScopeClass, reclassifies};
pub use context::Context;
pub use endpoints::Endpoints;
pub use own::Own;
pub use patch::{Applied, diagnostics as patch_diagnostics};
pub use refused::Refused;
pub use translator::Translator;
pub use view::View;
pub use work::Work;
pub use world::World;

/// Everything about a proxy that its output depends on, resolved against the mesh (labels and services of its workload).
pub fn classify(world: &World, proxy: &Proxy) -> ProxyClass {
    Translator::default().classify(world, proxy)
}

/// All resources of one class, from nothing.
pub fn translate(mesh: &Arc<Mesh>, class: &ProxyClass) -> Snapshot {
    snapshot(&World::new(mesh.clone()), class)
}

/// The same in a world that is known already.
pub fn snapshot(world: &World, class: &ProxyClass) -> Snapshot {
    snapshot_with_patches(world, class).0
}

/// The same, and what became of the patches in it.
pub fn snapshot_with_patches(world: &World, class: &ProxyClass) -> (Snapshot, Vec<Applied>) {
    let translator = Translator::default();
    let view = translator.view(world, class.scope(), None);
    let endpoints = translator.endpoints(world, &view, None, None);
    let own = translator.own(world, class, &view, None);
    let applied = view.applied().into_iter().chain(own.applied()).collect();
    (Snapshot::from_layers(view.layers(), endpoints.layer(), own.layers()), applied)
}
