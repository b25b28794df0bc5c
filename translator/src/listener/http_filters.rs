//! HTTP filters, in their order: peer metadata, protocols, faults and CORS for routes to configure, statistics, router.

use pilotfish_envoy::pb::envoy::config::cluster::v3::cluster::DnsLookupFamily;
use pilotfish_envoy::pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use pilotfish_envoy::pb::envoy::extensions::filters::http::cors::v3::Cors;
use pilotfish_envoy::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as dynamic_forward_proxy;
use pilotfish_envoy::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use pilotfish_envoy::pb::envoy::extensions::filters::http::grpc_stats::v3 as grpc_stats;
use pilotfish_envoy::pb::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use pilotfish_envoy::pb::envoy::extensions::filters::http::router::v3::Router;
use pilotfish_envoy::pb::envoy::extensions::filters::http::stateful_session::v3::StatefulSession;
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use pilotfish_envoy::pb::istio::envoy::config::filter::http::alpn::v2alpha1 as alpn;
use pilotfish_envoy::pb::udpa::r#type::v1::TypedStruct;
use pilotfish_envoy::{Struct, Value};
use pilotfish_model::extension::Phase;

use super::hcm::Shape;
use super::pack::http_filter;
use super::settings::{DnsFamily, Settings, Side};
use super::stats;
use crate::cluster::NameCache;
use crate::extensions as names;
use crate::metadata;
use crate::security::HttpFilters;

/// Cache of names that requests brought, shared with the cluster that connects to them.
const DNS_CACHE: &str = "allow_any_dfp_dns_cache";

/// The filters of a connection manager. `security`: those of policies.
pub(super) fn http_filters(settings: &Settings, shape: &Shape, security: &HttpFilters) -> Vec<HttpFilter> {
    let Shape { side, grpc_web, plugins, caches } = shape;
    let (side, grpc_web) = (*side, *grpc_web);
    let mut filters = Vec::with_capacity(9);
    if settings.istio && settings.features.peer_exchange {
        filters.push(peer_metadata(settings, side));
    }
    filters.extend_from_slice(&security.custom);
    filters.extend(settings.plugins.http(plugins, Phase::Authn));
    filters.extend_from_slice(&security.tokens);
    filters.extend(settings.plugins.http(plugins, Phase::Authz));
    filters.extend_from_slice(&security.rules);
    filters.extend(settings.plugins.http(plugins, Phase::Stats));
    filters.extend(settings.plugins.http(plugins, Phase::Unspecified));
    if grpc_web && settings.has(names::HTTP_GRPC_WEB) {
        filters.push(http_filter(names::HTTP_GRPC_WEB, &GrpcWeb {}));
    }
    if settings.has(names::HTTP_GRPC_STATS) {
        let all = grpc_stats::filter_config::PerMethodStatSpecifier::StatsForAllMethods(false);
        let config = grpc_stats::FilterConfig { emit_filter_state: true, per_method_stat_specifier: Some(all), ..Default::default() };
        filters.push(http_filter(names::HTTP_GRPC_STATS, &config));
    }
    if settings.istio && settings.features.alpn_override && side != Side::Inbound {
        filters.push(http_filter(names::ISTIO_ALPN, &alpn_override()));
    }
    if settings.has(names::HTTP_FAULT) {
        filters.push(http_filter(names::HTTP_FAULT, &HttpFault::default()));
    }
    if settings.has(names::HTTP_CORS) {
        filters.push(http_filter(names::HTTP_CORS, &Cors {}));
    }
    if settings.istio {
        filters.extend(settings.observed(side).stats.iter().map(|s| http_filter(names::ISTIO_STATS, &stats::config(s, side))));
    }
    if settings.features.persistent_sessions && side != Side::Inbound && settings.has(names::HTTP_STATEFUL_SESSION) {
        filters.push(http_filter(names::HTTP_STATEFUL_SESSION, &StatefulSession::default()));
    }
    if settings.has(names::HTTP_DYNAMIC_FORWARD_PROXY) {
        let forwards = |cache| http_filter(names::HTTP_DYNAMIC_FORWARD_PROXY, &forward_proxy(cache));
        filters.extend(caches.iter().map(NameCache::config).map(forwards));
        if let (Side::Outbound, Some(family)) = (side, settings.dynamic_dns) {
            filters.push(forwards(unknown_names(family, settings.features.dynamic_dns_hosts)));
        }
    }
    let quiet = settings.headers.envoy_debug_headers.as_ref().is_some_and(|h| h.disabled == Some(true));
    filters.push(http_filter(names::HTTP_ROUTER, &Router { suppress_envoy_headers: quiet, ..Default::default() }));
    filters
}

/// Learns who the peer is, from headers and from the control plane, and tells it who this workload is.
fn peer_metadata(settings: &Settings, side: Side) -> HttpFilter {
    let empty = || Value::object::<&str>([]);
    let discovery = Value::list([Value::object([("istio_headers", empty())]), Value::object([("workload_discovery", empty())])]);
    let in_mesh = settings.headers.metadata_exchange_headers.as_ref().is_some_and(|m| m.mode.as_deref() == Some("IN_MESH"));
    let headers =
        if in_mesh && side != Side::Inbound { Value::object([("skip_external_clusters", Value::boolean(true))]) } else { empty() };
    let propagation = Value::list([Value::object([("istio_headers", headers)])]);
    let (discover, propagate) = match side {
        Side::Inbound => ("downstream_discovery", "downstream_propagation"),
        Side::Outbound | Side::Gateway => ("upstream_discovery", "upstream_propagation"),
    };
    let labels = metadata::additional_labels(&settings.features.peer_exchange_labels);
    let config = TypedStruct {
        type_url: "type.googleapis.com/io.istio.http.peer_metadata.Config".to_owned(),
        value: Some(Struct::new([(discover, discovery), (propagate, propagation)].into_iter().chain(labels))),
    };
    http_filter(names::ISTIO_METADATA_EXCHANGE, &config)
}

/// Tells mesh servers which HTTP version comes, beside the version itself for servers outside.
fn alpn_override() -> alpn::FilterConfig {
    use alpn::filter_config::{AlpnOverride, Protocol};
    let version = |protocol: Protocol, mesh: &str, plain: &str| AlpnOverride {
        upstream_protocol: protocol as i32,
        alpn_override: vec![mesh.to_owned(), "istio".to_owned(), plain.to_owned()],
    };
    alpn::FilterConfig {
        alpn_override: vec![
            version(Protocol::Http10, "istio-http/1.0", "http/1.0"),
            version(Protocol::Http11, "istio-http/1.1", "http/1.1"),
            version(Protocol::Http2, "istio-h2", "h2"),
        ],
    }
}

fn unknown_names(family: DnsFamily, hosts: u32) -> DnsCacheConfig {
    let family = match family {
        DnsFamily::V4 => DnsLookupFamily::V4Only,
        DnsFamily::V6 => DnsLookupFamily::V6Only,
        DnsFamily::Both => DnsLookupFamily::All,
    };
    DnsCacheConfig { name: DNS_CACHE.to_owned(), dns_lookup_family: family as i32, max_hosts: Some(hosts), ..Default::default() }
}

fn forward_proxy(cache: DnsCacheConfig) -> dynamic_forward_proxy::FilterConfig {
    dynamic_forward_proxy::FilterConfig {
        implementation_specifier: Some(dynamic_forward_proxy::filter_config::ImplementationSpecifier::DnsCacheConfig(cache)),
        ..Default::default()
    }
}
