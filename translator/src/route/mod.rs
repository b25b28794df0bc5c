//! Route configurations (RDS).

pub mod delegate;
pub mod inbound;
pub mod l4;
pub mod names;

use pilotfish_envoy::Resource;

use crate::context::Context;
use crate::naming;

/// What a route is called that no rule of a user made.
pub const DEFAULT_ROUTE: &str = "default";

/// All of a class.
pub fn routes(_context: &Context<'_>) -> Vec<Resource> {
    Vec::new()
}

/// A VirtualService's path in the API, for metadata.
fn config_path(namespace: &str, name: &str) -> String {
    naming::config_path("networking.istio.io", "virtual-service", namespace, name)
}
