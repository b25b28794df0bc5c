//! Resources for proxyless gRPC clients and servers, which know a small part of what Envoy knows.
//!
//! A client asks by names that programs use (`xds:///echo.shop:7070`), a server by the address that it listens on. A class
//! has a resource for each name that it may ask for; `listener` says which names these are. What gRPC would not
//! understand (metadata, filters, timeouts of connections) is left out.

mod cluster;
mod listener;
mod route;

use pilotfish_envoy::{ResourceSet, Snapshot, TypeUrl};

use crate::context::Context;
use crate::endpoint;

/// Fills the snapshot of a gRPC class.
pub fn translate(context: &Context<'_>, snapshot: &mut Snapshot) {
    snapshot.insert(TypeUrl::Cluster, ResourceSet::new(cluster::clusters(context)));
    snapshot.insert(TypeUrl::Endpoint, ResourceSet::new(endpoint::assignments(context)));
    snapshot.insert(TypeUrl::Listener, ResourceSet::new(listener::outbound(context).into_iter().chain(listener::inbound(context))));
    snapshot.insert(TypeUrl::Route, ResourceSet::new(route::routes(context)));
}
