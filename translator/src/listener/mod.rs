//! Listeners (LDS).
//!
//! Three orchestrators ([`outbound`], [`inbound`], [`gateway`]) say which listeners there are, as [`spec::ListenerSpec`]s; [`spec`]
//! turns each into Envoy's message with the leaf builders beside it. Enter at [`of_scope`] and [`of_own`].

pub mod access_log;
pub mod access_log_service;
pub mod extension;
pub(crate) mod extension_config;
pub mod gateway;
pub mod hcm;
pub mod inbound;
pub mod listener_filters;
pub mod network_filters;
pub mod outbound;
pub mod settings;
pub mod spec;
pub mod stat_prefix;
pub mod stats;
pub(crate) mod stats_log;
pub mod telemetry;
pub mod tracing;

mod access_log_file;
mod http_filters;
pub(crate) mod pack;
mod provider;
mod trace_provider;

use pilotfish_model::MeshConfig;
use pilotfish_model::name::Str;

use crate::context::{Context, OwnContext};
use crate::facts::ScopeFacts;

pub(crate) use hcm::Parts;
pub(crate) use inbound::sources as inbound_sources;
pub use settings::Settings;
pub(crate) use spec::Builder;
pub use spec::ListenerSpec;

/// Listeners of a scope: for outbound connections of a sidecar, all of a gateway.
pub fn of_scope(context: &Context<'_>) -> Vec<ListenerSpec> {
    if context.class.is_sidecar() { outbound::listeners(context) } else { gateway::listeners(context) }
}

/// Where captured connections are taken: of the family that they are captured by, or of both.
fn captured_binds(config: &MeshConfig, class: &ScopeFacts, outbound: bool) -> Vec<Str> {
    let second = match (class.ipv4, class.ipv6) {
        (true, true) if class.dual_stack => Some("::"),
        (false, true) if outbound && config.features.ipv4_beside_ipv6 => Some("0.0.0.0"),
        _ => None,
    };
    std::iter::once(class.wildcard_ip()).chain(second).map(Str::from).collect()
}

/// Listeners for what the workload beside a sidecar serves.
pub fn of_own(context: &OwnContext<'_>) -> Vec<ListenerSpec> {
    if context.class.is_sidecar() { inbound::listeners(context) } else { Vec::new() }
}
