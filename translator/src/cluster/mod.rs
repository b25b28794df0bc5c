//! Clusters (CDS): where connections go and how they are opened.
//!
//! `outbound`, `inbound` and `special` turn the context into [`ClusterInput`]s; [`input::build`] turns each into
//! a cluster without looking at anything else.

mod inbound;
mod input;
mod lb;
mod outbound;
mod pool;
mod protocol;
mod security;
mod special;

use pilotfish_envoy::Resource;

use crate::context::Context;
use crate::gateway;

pub use inbound::{InboundTarget, inbound_targets};
pub use input::{ClusterInput, DYNAMIC_DNS_CACHE, build};
pub(crate) use lb::table as hash_table;
pub(crate) use outbound::service_accounts;

/// All clusters of a class.
pub fn clusters(context: &Context<'_>) -> Vec<Resource> {
    let mut resources = Vec::with_capacity(context.scope.services.len() * 2 + 8);
    let mut add = |input: ClusterInput| resources.push(Resource::new(input.name.clone(), &build(&input)));
    outbound::outbound(context, false, &mut add);
    if context.class.is_router() && gateway::merged(context).has_auto_passthrough() {
        outbound::outbound(context, true, &mut add);
    }
    inbound::inbound(context, &mut add);
    special::special(context, &mut add);
    resources
}

/// A duration on the wire. Configured durations are far below the limit of the type.
pub(crate) fn duration(d: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: d.subsec_nanos() as i32 }
}

#[cfg(test)]
mod tests;
