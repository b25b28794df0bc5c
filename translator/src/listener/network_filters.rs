//! Network filters of connections that are not read as HTTP, and those that stand before the connection manager.

use std::collections::BTreeSet;
use std::time::Duration;

use pilotfish_envoy::pb::envoy::config::accesslog::v3::AccessLog;
use pilotfish_envoy::pb::envoy::config::listener::v3::Filter;
use pilotfish_envoy::pb::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy;
use pilotfish_envoy::pb::envoy::extensions::filters::network::mysql_proxy::v3::MySqlProxy;
use pilotfish_envoy::pb::envoy::extensions::filters::network::redis_proxy::v3::{RedisProxy, redis_proxy};
use pilotfish_envoy::pb::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3 as sni;
use pilotfish_envoy::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy as TcpProxyConfig, tcp_proxy};
use pilotfish_envoy::pb::envoy::r#type::v3::{HashPolicy, hash_policy};
use pilotfish_model::destination_rule::Tunnel;
use pilotfish_model::extension::Phase;
use pilotfish_model::name::Str;
use pilotfish_model::service::Protocol;

use super::pack::{duration, filter};
use super::settings::{Settings, Side};
use super::stats;
use crate::cluster::NameCache;
use crate::extensions as names;
use crate::metadata;
use crate::security::NetworkFilters;

/// How long an answer of Redis may take.
const REDIS_TIMEOUT: Duration = Duration::from_secs(5);

/// What the filters of one TCP chain depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpProxy {
    /// Name in statistics.
    pub stat_prefix: Str,
    /// Where to.
    pub target: TcpTarget,
    /// Settings of the destination; the default leaves the proxy's.
    pub policy: TcpPolicy,
    /// Write access logs, and close idle connections: everything but black holes.
    pub observed: bool,
    /// Passed on as it came: no policy can look at it.
    pub unread: bool,
    /// What the bytes are.
    pub reading: Reading,
    /// Learn who the peer is: the connection was secured with the mesh's certificates, or may have been.
    pub exchange_metadata: bool,
    /// The name that TLS asks for is resolved, and connected to at this port.
    pub by_name: Option<(NameCache, u16)>,
}

/// What bytes are read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Reading {
    Bytes,
    Mongo,
    Mysql,
    Redis,
}

impl Reading {
    /// On a port of that protocol.
    pub fn of(protocol: Protocol) -> Reading {
        match protocol {
            Protocol::Mongo => Reading::Mongo,
            Protocol::Mysql => Reading::Mysql,
            Protocol::Redis => Reading::Redis,
            _ => Reading::Bytes,
        }
    }
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TcpTarget {
    /// A cluster.
    Cluster(Str),
    /// Clusters by weight.
    Weighted(Vec<(Str, u32)>),
}

/// What a DestinationRule may say about connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpPolicy {
    /// Idle connections are closed after this.
    pub idle_timeout: Option<Duration>,
    /// Connections are closed after this.
    pub max_duration: Option<Duration>,
    /// The client's address decides the endpoint.
    pub hash_source_ip: bool,
    /// Through another proxy.
    pub tunnel: Option<Tunnel>,
}

impl TcpProxy {
    /// To one cluster that gives its name to the statistics.
    pub fn to_cluster(cluster: impl Into<Str>) -> Self {
        let cluster = cluster.into();
        TcpProxy {
            stat_prefix: cluster.clone(),
            target: TcpTarget::Cluster(cluster),
            policy: TcpPolicy::default(),
            observed: true,
            unread: false,
            reading: Reading::Bytes,
            exchange_metadata: false,
            by_name: None,
        }
    }

    /// To nowhere.
    pub fn black_hole() -> Self {
        TcpProxy { observed: false, ..Self::to_cluster(crate::naming::BLACK_HOLE) }
    }
}

/// The whole chain. `security`: filters of policies, which black holes need not.
pub(super) fn tcp_filters(
    settings: &Settings,
    side: Side,
    input: &TcpProxy,
    plugins: &[usize],
    log: &[AccessLog],
    security: &NetworkFilters,
) -> Vec<Filter> {
    let mut filters = Vec::with_capacity(4);
    if input.exchange_metadata {
        filters.extend(metadata_exchange(settings));
    }
    let none = NetworkFilters::default();
    let security = if input.observed && !input.unread { security } else { &none };
    filters.extend_from_slice(&security.custom);
    filters.extend(settings.plugins.network(plugins, Phase::Authn));
    filters.extend(settings.plugins.network(plugins, Phase::Authz));
    filters.extend_from_slice(&security.rules);
    filters.extend(settings.plugins.network(plugins, Phase::Stats));
    filters.extend(settings.plugins.network(plugins, Phase::Unspecified));
    if settings.istio {
        filters.extend(settings.observed(side).stats.iter().map(|s| filter(names::ISTIO_STATS, &stats::config(s, side))));
    }
    let stat_prefix = || input.stat_prefix.to_string();
    match input.reading {
        Reading::Mongo if settings.features.mongo && settings.has(names::MONGO_PROXY) => {
            filters.push(filter(names::MONGO_PROXY, &MongoProxy { stat_prefix: stat_prefix(), ..Default::default() }));
        }
        Reading::Mysql if settings.features.mysql && settings.has(names::MYSQL_PROXY) => {
            filters.push(filter(names::MYSQL_PROXY, &MySqlProxy { stat_prefix: stat_prefix() }));
        }
        // It sends keys where they are kept, so it stands in the place of the proxy of connections.
        Reading::Redis if reads_redis(settings.features.redis, &settings.extensions) => {
            filters.push(filter(names::REDIS_PROXY, &redis(input)));
            return filters;
        }
        _ => {}
    }
    if let Some((cache, port)) = input.by_name.as_ref().filter(|_| settings.has(names::SNI_DYNAMIC_FORWARD_PROXY)) {
        let port = Some(sni::filter_config::PortSpecifier::PortValue((*port).into()));
        let config = sni::FilterConfig { dns_cache_config: Some(cache.config()), port_specifier: port, ..Default::default() };
        filters.push(filter(names::SNI_DYNAMIC_FORWARD_PROXY, &config));
    }
    filters.push(filter(names::TCP_PROXY, &tcp_proxy(settings, input, log)));
    filters
}

/// Learns who the peer is from the first bytes of the connection.
pub(super) fn metadata_exchange(settings: &Settings) -> Option<Filter> {
    let wanted = settings.istio && settings.features.peer_exchange;
    wanted.then(|| filter(names::ISTIO_METADATA_EXCHANGE, &metadata::exchange(&settings.features.peer_exchange_labels)))
}

/// What stands before a connection manager: code that looks at connections, and not yet at requests.
pub(super) fn before_requests(settings: &Settings, plugins: &[usize]) -> Vec<Filter> {
    let phases = [Phase::Authn, Phase::Authz, Phase::Stats, Phase::Unspecified];
    phases.into_iter().flat_map(|phase| settings.plugins.network(plugins, phase)).collect()
}

fn tcp_proxy(settings: &Settings, input: &TcpProxy, log: &[AccessLog]) -> TcpProxyConfig {
    use tcp_proxy::ClusterSpecifier;
    let policy = &input.policy;
    let hash = HashPolicy { policy_specifier: Some(hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {})) };
    let idle_timeout = policy.idle_timeout.or(settings.idle_timeout).filter(|_| input.observed);
    TcpProxyConfig {
        stat_prefix: input.stat_prefix.to_string(),
        cluster_specifier: Some(match &input.target {
            TcpTarget::Cluster(name) => ClusterSpecifier::Cluster(name.to_string()),
            TcpTarget::Weighted(clusters) => ClusterSpecifier::WeightedClusters(weighted(clusters)),
        }),
        idle_timeout: idle_timeout.map(duration),
        max_downstream_connection_duration: policy.max_duration.map(duration),
        hash_policy: policy.hash_source_ip.then_some(hash).into_iter().collect(),
        tunneling_config: policy.tunnel.as_ref().map(|t| tcp_proxy::TunnelingConfig {
            hostname: crate::naming::host_port(&t.target_host, t.target_port),
            use_post: t.post,
            ..Default::default()
        }),
        access_log: if input.observed { log.to_vec() } else { Vec::new() },
        ..Default::default()
    }
}

/// Whether ports of Redis are read as such.
pub(crate) fn reads_redis(wanted: bool, extensions: &BTreeSet<Str>) -> bool {
    wanted && (extensions.is_empty() || extensions.contains(names::REDIS_PROXY))
}

/// Of several clusters the first one has all keys.
fn redis(input: &TcpProxy) -> RedisProxy {
    use redis_proxy::{ConnPoolSettings, PrefixRoutes, prefix_routes::Route};
    let cluster = match &input.target {
        TcpTarget::Cluster(name) => Some(name),
        TcpTarget::Weighted(clusters) => clusters.first().map(|(name, _)| name),
    };
    let route = Route { cluster: cluster.map(ToString::to_string).unwrap_or_default(), ..Default::default() };
    RedisProxy {
        stat_prefix: input.stat_prefix.to_string(),
        latency_in_micros: true,
        settings: Some(ConnPoolSettings { op_timeout: Some(duration(REDIS_TIMEOUT)), ..Default::default() }),
        prefix_routes: Some(PrefixRoutes { catch_all_route: Some(route), ..Default::default() }),
        ..Default::default()
    }
}

fn weighted(clusters: &[(Str, u32)]) -> tcp_proxy::WeightedCluster {
    use tcp_proxy::weighted_cluster::ClusterWeight;
    let one = |(name, weight): &(Str, u32)| ClusterWeight { name: name.to_string(), weight: *weight, ..Default::default() };
    tcp_proxy::WeightedCluster { clusters: clusters.iter().map(one).collect() }
}
