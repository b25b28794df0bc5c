//! Route configurations (RDS).

pub mod delegate;

use pilotfish_envoy::Resource;

use crate::context::Context;

/// All of a class.
pub fn routes(_context: &Context<'_>) -> Vec<Resource> {
    Vec::new()
}
