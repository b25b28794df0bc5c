//! Clusters that stand for no service: nowhere, and wherever the client wanted to go.

use std::time::Duration;

use pilotfish_model::name::Str;
use pilotfish_model::sidecar::OutboundMode;

use super::input::{ClusterInput, ClusterLabels, Discovery, DnsFamily};
use super::outbound::{keepalive, preserve_case};
use super::protocol::{HttpVersion, UpstreamHttp};
use super::security::Security;
use crate::context::{Common, Context};
use crate::naming;

/// Idle connections to unknown hosts are not worth more.
const PASSTHROUGH_IDLE: Duration = Duration::from_secs(300);

/// Those of a scope.
pub(super) fn special(context: &Context<'_>, add: &mut impl FnMut(ClusterInput)) {
    let common = context.common();
    add(ClusterInput { inert: true, ..base(common, naming::BLACK_HOLE, Discovery::Static(None)) });
    if !context.class.is_sidecar() {
        return;
    }
    let http = || UpstreamHttp {
        version: HttpVersion::AsClient,
        preserve_case: preserve_case(common),
        idle_timeout: Some(PASSTHROUGH_IDLE),
        ..UpstreamHttp::default()
    };
    let peer_exchange = context.class.is_istio();
    let pool = common.config.default_traffic_policy.as_ref().and_then(|p| p.connection_pool.clone());
    add(ClusterInput { http: http(), peer_exchange, pool, ..base(common, naming::PASSTHROUGH, Discovery::OriginalDst) });
    add(ClusterInput {
        http: http(),
        stat_name: naming::PASSTHROUGH.into(),
        bind: passthrough_sources(common),
        ..base(common, naming::INBOUND_PASSTHROUGH, Discovery::OriginalDst)
    });
    let mode = context.scope.outbound_policy().map_or(context.config().outbound_traffic_policy.mode, |p| p.mode);
    if mode == OutboundMode::AllowAnyDynamicDns {
        add(ClusterInput { http: http(), peer_exchange, ..base(common, naming::DYNAMIC_DNS, Discovery::DynamicDns(dns_family(common))) });
    }
}

/// A cluster without anything.
pub(super) fn base(common: Common<'_>, name: &str, discovery: Discovery) -> ClusterInput {
    let name: Str = name.into();
    ClusterInput {
        stat_name: name.clone(),
        terminated: common.class.is_istio(),
        name,
        discovery,
        connect_timeout: common.config.connect_timeout.0,
        keepalive: keepalive(common.config),
        pool: None,
        balanced: None,
        inert: false,
        http: UpstreamHttp::default(),
        security: Security::default(),
        labels: ClusterLabels::default(),
        bind: Vec::new(),
        no_cleanup: false,
        peer_exchange: false,
        buffer: common.class.proxy_config.connection_settings.as_ref().and_then(|c| c.cluster_per_connection_buffer_limit_bytes),
    }
}

/// IPv6 only where there is nothing else.
pub(super) fn dns_family(common: Common<'_>) -> DnsFamily {
    if common.class.ipv4 { DnsFamily::V4 } else { DnsFamily::V6 }
}

/// Addresses by which the inbound capture rules know the proxy's own connections to the workload.
fn passthrough_sources(common: Common<'_>) -> Vec<Str> {
    let class = common.class;
    let families = [(class.ipv4, "127.0.0.6"), (class.ipv6, "::6")];
    let mut sources: Vec<Str> = families.into_iter().filter(|(has, _)| *has).map(|(_, ip)| ip.into()).collect();
    if class.ipv6_first {
        sources.reverse();
    }
    sources
}

/// The main one of these addresses.
pub(super) fn inbound_source(common: Common<'_>) -> Vec<Str> {
    passthrough_sources(common).into_iter().take(1).collect()
}
