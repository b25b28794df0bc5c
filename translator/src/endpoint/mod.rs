//! Endpoint assignments (EDS).

use pilotfish_envoy::Resource;

use crate::context::Context;

/// All of a class.
pub fn assignments(_context: &Context<'_>) -> Vec<Resource> {
    Vec::new()
}
