//! Resources for proxyless gRPC clients.

use pilotfish_envoy::Snapshot;

use crate::context::Context;

/// Fills the snapshot of a gRPC class.
pub fn translate(_context: &Context<'_>, _snapshot: &mut Snapshot) {}
