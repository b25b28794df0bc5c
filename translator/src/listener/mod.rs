//! Listeners (LDS).
//!
//! Three orchestrators ([`outbound`], [`inbound`], [`gateway`]) say which listeners there are, as [`spec::ListenerSpec`]s; [`spec`]
//! turns each into Envoy's message with the leaf builders beside it. Enter at [`listeners`].

pub mod access_log;
pub mod gateway;
pub mod hcm;
pub mod inbound;
pub mod listener_filters;
pub mod network_filters;
pub mod outbound;
pub mod settings;
pub mod spec;
pub mod stat_prefix;
pub mod tracing;

mod http_filters;
mod pack;
mod trace_provider;

use pilotfish_envoy::Resource;

use crate::context::Context;
use settings::Settings;
use spec::{Builder, ListenerSpec};

/// All of a class.
pub fn listeners(context: &Context<'_>) -> Vec<Resource> {
    let settings = Settings::of(context);
    let mut builder = Builder::new(&settings);
    let specs: Vec<ListenerSpec> = if context.class.is_sidecar() {
        let mut specs = outbound::listeners(context);
        specs.extend(inbound::listeners(context));
        specs
    } else {
        gateway::listeners(context)
    };
    specs.iter().map(|spec| builder.resource(spec)).collect()
}
