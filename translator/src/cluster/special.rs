//! Clusters that stand for no service: nowhere, and wherever the client wanted to go.

use std::time::Duration;

use pilotfish_model::name::{Host, Str};
use pilotfish_model::sidecar::OutboundMode;
use pilotfish_model::tls::ClientTlsMode;

use super::input::{ClusterInput, ClusterLabels, DYNAMIC_DNS_CACHE, Discovery, DnsFamily, NameCache};
use super::outbound::{keepalive, preserve_case, verifies_request_host};
use super::protocol::{HttpVersion, UpstreamHttp};
use super::security::{Security, TlsChoice};
use crate::context::{Common, Context};
use crate::naming;
use crate::tls::UpstreamTls;

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
    let peer_exchange = peer_exchange(common);
    let pool = common.config.default_traffic_policy.as_ref().and_then(|p| p.connection_pool.clone());
    add(ClusterInput {
        http: http(),
        peer_exchange: peer_exchange.clone(),
        pool,
        ..base(common, naming::PASSTHROUGH, Discovery::OriginalDst { port: None })
    });
    add(ClusterInput {
        http: http(),
        stat_name: naming::PASSTHROUGH.into(),
        bind: passthrough_sources(common),
        ..base(common, naming::INBOUND_PASSTHROUGH, Discovery::OriginalDst { port: None })
    });
    let mode = context.scope.outbound_policy().map_or(context.config().outbound_traffic_policy.mode, |p| p.mode);
    if mode == OutboundMode::AllowAnyDynamicDns {
        add(unknown_hosts(common, ClusterInput { http: http(), peer_exchange, ..base(common, naming::DYNAMIC_DNS, dynamic_dns(common)) }));
    }
}

/// The cluster of hosts that requests name, with the mesh's TLS towards them.
fn unknown_hosts(common: Common<'_>, mut input: ClusterInput) -> ClusterInput {
    let Some(tls) = &common.config.outbound_traffic_policy.tls else { return input };
    let made = match tls.mode {
        ClientTlsMode::IstioMutual => UpstreamTls::mesh(common.config, common.class, tls.sni.clone(), tls.subject_alt_names.clone(), false),
        _ => UpstreamTls::user(common.config, common.class, tls, false),
    };
    let Some(made) = made else {
        // Nothing may go out in clear text that was meant to be secured: there is nobody to send to.
        input.discovery = Discovery::Static(None);
        return input;
    };
    input.http.auto_sni = tls.sni.is_empty();
    input.http.auto_san = verifies_request_host(common.config, tls);
    // Envoy wants both, unless it is told that it does not matter who answers.
    let insecure = !(input.http.auto_sni && input.http.auto_san);
    if let Discovery::DynamicDns { insecure: of_cluster, .. } = &mut input.discovery {
        *of_cluster = insecure;
    }
    input.labels.user_tls = tls.mode != ClientTlsMode::IstioMutual;
    input.security = Security { tls: TlsChoice::Always(Box::new(made)), proxy_protocol: None };
    input
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
        peer_exchange: None,
        remaining_limits: common.config.features.remaining_limits,
        buffer: common.class.proxy_config.connection_settings.as_ref().and_then(|c| c.cluster_per_connection_buffer_limit_bytes),
    }
}

/// What proxies tell each other, if they do.
pub(super) fn peer_exchange(common: Common<'_>) -> Option<Vec<Str>> {
    let features = &common.config.features;
    (common.class.is_istio() && features.peer_exchange).then(|| features.peer_exchange_labels.clone())
}

/// Servers that requests name.
fn dynamic_dns(common: Common<'_>) -> Discovery {
    Discovery::DynamicDns { cache: cache(common, DYNAMIC_DNS_CACHE.into()), insecure: true }
}

fn cache(common: Common<'_>, name: Str) -> NameCache {
    NameCache { name, family: dns_family(common), hosts: common.config.features.dynamic_dns_hosts }
}

/// Where names below a service's wildcard are kept.
pub(crate) fn cache_of(common: Common<'_>, host: &Host) -> NameCache {
    cache(common, format!("{host}_dfp_dns_cache").into())
}

/// IPv4 if there is any, unless both are in use.
pub(super) fn dns_family(common: Common<'_>) -> DnsFamily {
    match common.class.ipv4 {
        true if common.class.dual_stack => DnsFamily::All,
        true => DnsFamily::V4,
        // Hosts that capture IPv4 as well reach servers by it.
        false if common.config.features.ipv4_beside_ipv6 => DnsFamily::All,
        false => DnsFamily::V6,
    }
}

/// Addresses by which the inbound capture rules know the proxy's own connections to the workload.
fn passthrough_sources(common: Common<'_>) -> Vec<Str> {
    let class = common.class;
    let families = [(class.ipv4, "127.0.0.6"), (class.ipv6, "::6")];
    families.into_iter().filter(|(has, _)| *has).map(|(_, ip)| ip.into()).collect()
}

/// The main one of these addresses; where both families are listened on, both.
pub(super) fn inbound_source(common: Common<'_>) -> Vec<Str> {
    passthrough_sources(common).into_iter().take(if common.class.dual_stack { 2 } else { 1 }).collect()
}
