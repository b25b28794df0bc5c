//! Pure functions from a mesh and a proxy class to Envoy resources.
//!
//! ```text
//!  Proxy ──classify──> ProxyClass ─┐
//!                                  ├─ Context (scope: what the class sees) ──> cluster   CDS  inputs -> Cluster
//!  Mesh  ──────────────────────────┘                                        ├> endpoint  EDS  inputs -> ClusterLoadAssignment
//!                                                                           ├> listener  LDS  inputs -> Listener
//!                                                                           └> route     RDS  inputs -> RouteConfiguration
//! ```
//!
//! One folder per resource type, one file per Envoy feature. Leaf builders take a struct of exactly the inputs that their
//! output depends on, never the mesh, so that a cache in front of them cannot miss one. Nothing here blocks, reads a clock
//! or knows a client. Enter at [`classify`] and [`translate`].

pub mod class;
pub mod cluster;
pub mod context;
pub mod endpoint;
pub mod extensions;
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
pub mod tls;

use pilotfish_envoy::{ResourceSet, Snapshot, TypeUrl};
use pilotfish_model::{Mesh, Proxy};

pub use class::{ClassFacts, ProxyClass};
pub use context::Context;

/// Everything about a proxy that its output depends on, resolved against the mesh (labels and services of its workload).
pub fn classify(mesh: &Mesh, proxy: &Proxy) -> ProxyClass {
    ProxyClass::new(ClassFacts::of(mesh, proxy))
}

/// All resources of one class.
pub fn translate(mesh: &Mesh, class: &ProxyClass) -> Snapshot {
    let context = Context::new(mesh, class);
    let mut snapshot = Snapshot::new();
    if class.facts().flavour == pilotfish_model::proxy::Flavour::Grpc {
        grpc::translate(&context, &mut snapshot);
        return snapshot;
    }
    snapshot.insert(TypeUrl::Cluster, ResourceSet::new(cluster::clusters(&context)));
    snapshot.insert(TypeUrl::Endpoint, ResourceSet::new(endpoint::assignments(&context)));
    snapshot.insert(TypeUrl::Listener, ResourceSet::new(listener::listeners(&context)));
    snapshot.insert(TypeUrl::Route, ResourceSet::new(route::routes(&context)));
    snapshot.insert(TypeUrl::Secret, ResourceSet::new(tls::file_secrets(&context)));
    snapshot.insert(TypeUrl::NameTable, ResourceSet::new(name_table::name_table(&context)));
    snapshot
}
