//! The DNS name table for agents that capture DNS (NDS).

use pilotfish_envoy::Resource;

use crate::context::Context;

/// One table, without a name, for classes that capture DNS.
pub fn name_table(_context: &Context<'_>) -> Vec<Resource> {
    Vec::new()
}
