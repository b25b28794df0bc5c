//! Resources for proxyless gRPC clients and servers, which know a small part of what Envoy knows.
//!
//! A client asks by names that programs use (`xds:///echo.shop:7070`), a server by the address that it listens on. A class
//! has a resource for each name that it may ask for; `listener` says which names these are. What gRPC would not
//! understand (metadata, filters, timeouts of connections) is left out.

mod cluster;
mod listener;
mod route;

pub(crate) use cluster::of_service as clusters;
pub(crate) use listener::{inbound, outbound};
pub(crate) use route::routes;
