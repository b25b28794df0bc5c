//! Which policies hold at a workload, and the filters that enforce them.
//!
//! [`Security`] is the input: what of the mesh applies to one workload, resolved and hashed. The rest is pure: `rbac` turns
//! rules into Envoy's, `term` single conditions, `ext_authz` asks a server, `jwt` verifies tokens, and `filters` puts them in
//! order. Whatever cannot be enforced as written refuses more, never less.

mod ext_authz;
mod filters;
mod jwt;
mod rbac;
mod resolve;
mod term;
mod trust_domain;

pub(crate) use ext_authz::{BadProvider, ask};
pub(crate) use filters::{HttpFilters, NetworkFilters, can_enforce, http_filters, network_filters};
pub use rbac::grpc_filters;
pub use resolve::Security;
