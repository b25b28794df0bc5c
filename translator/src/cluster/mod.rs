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

use crate::context::{Context, OwnContext};
use crate::unit::UnitInput;

pub(crate) use inbound::inbound_rule;
pub use inbound::{InboundTarget, inbound_targets};
pub use input::{ClusterInput, DYNAMIC_DNS_CACHE, NameCache, build};
pub(crate) use lb::table as hash_table;
pub(crate) use special::cache_of;

/// Clusters of one service. `by_route`: those that routes lead to. `by_sni`: those behind an AUTO_PASSTHROUGH gateway.
pub fn of_service(unit: &UnitInput<'_>, by_route: bool, by_sni: bool, add: &mut impl FnMut(ClusterInput)) {
    if by_route {
        outbound::outbound(unit, false, add);
    }
    if by_sni {
        outbound::outbound(unit, true, add);
    }
}

/// Clusters of a scope that stand for no service.
pub fn special(context: &Context<'_>, add: &mut impl FnMut(ClusterInput)) {
    special::special(context, add);
}

/// Clusters to the workload itself.
pub fn inbound(context: &OwnContext<'_>, add: &mut impl FnMut(ClusterInput)) {
    inbound::inbound(context, add);
}

/// A duration on the wire. Configured durations are far below the limit of the type.
pub(crate) fn duration(d: std::time::Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: d.subsec_nanos() as i32 }
}

#[cfg(test)]
mod tests;
