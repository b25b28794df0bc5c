//! Listeners (LDS).

use pilotfish_envoy::Resource;

use crate::context::Context;

/// All of a class.
pub fn listeners(_context: &Context<'_>) -> Vec<Resource> {
    Vec::new()
}
