//! [`ClusterInput`]: everything that one cluster depends on, and the cluster made of it.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use pilotfish_envoy::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbConfig, LbPolicy, OriginalDstLbConfig,
};
use pilotfish_envoy::pb::envoy::config::cluster::v3::{Cluster, Filter};
use pilotfish_envoy::pb::envoy::config::core::v3::{
    BindConfig, ExtraSourceAddress, SocketAddress, TypedExtensionConfig, socket_address::PortSpecifier,
};
use pilotfish_envoy::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use pilotfish_envoy::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3 as dynamic;
use pilotfish_envoy::pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use pilotfish_envoy::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use pilotfish_envoy::{HostAddress, Metadata, Value, any};
use pilotfish_model::destination_rule::{ConnectionPool, LoadBalancer, OutlierDetection, RetryBudget, TcpKeepalive};
use pilotfish_model::name::Str;
use prost::Message;

use super::protocol::UpstreamHttp;
use super::security::Security;
use super::{duration, lb, pool, protocol, security};
use crate::config_source;
use crate::endpoint::{AssignmentInput, Localities, assignment};
use crate::{extensions, metadata};

/// Clusters of `Discovery::OriginalDst` forget idle addresses after this time: practically never.
const NO_CLEANUP: prost_types::Duration = prost_types::Duration { seconds: 9_223_372_035, nanos: 0 };
pub(super) const DNS_RESOLVER: &str = "envoy.network.dns_resolver.cares";
const DYNAMIC_CLUSTER: &str = "envoy.clusters.dynamic_forward_proxy";
/// Cache of names that `Discovery::DynamicDns` and its HTTP filter share.
pub const DYNAMIC_DNS_CACHE: &str = "allow_any_dfp_dns_cache";

/// Everything that a cluster depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterInput {
    /// Its name.
    pub name: Str,
    /// Its name in statistics, without terminator.
    pub stat_name: Str,
    /// That name ends with `;`, by which Istio's Envoy tells where it ends (Istio flavour).
    pub terminated: bool,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// Mesh-wide limits and settings beneath the policy.
    pub connect_timeout: Duration,
    /// Mesh-wide TCP keepalive.
    pub keepalive: Option<TcpKeepalive>,
    /// Connection pool of the policy.
    pub pool: Option<ConnectionPool>,
    /// Only limits, no policies: the cluster takes nothing or everything.
    pub balanced: Option<Balanced>,
    /// No circuit breakers and no connection settings but the time-out.
    pub inert: bool,
    /// HTTP towards the server.
    pub http: UpstreamHttp,
    /// TLS.
    pub security: Security,
    /// What telemetry shows.
    pub labels: ClusterLabels,
    /// Source addresses of connections, the main one first.
    pub bind: Vec<Str>,
    /// Keep addresses of `Discovery::OriginalDst` for ever.
    pub no_cleanup: bool,
    /// Learn what the peer is (Istio flavour), and tell it these labels beside the usual ones.
    pub peer_exchange: Option<Vec<Str>>,
    /// Statistics of how far limits are used up.
    pub remaining_limits: bool,
    /// What is kept of a connection's bytes, if limited.
    pub buffer: Option<u32>,
}

/// Where endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Discovery {
    /// From this server.
    Eds,
    /// From DNS; `one`: one answer at a time.
    Dns {
        /// Names.
        endpoints: Box<AssignmentInput>,
        /// Address families.
        family: DnsFamily,
        /// Where answers give no time to live.
        refresh: Duration,
        /// Use one answer at a time.
        one: bool,
        /// Spreads re-resolutions of one name over time.
        jitter: Duration,
        /// c-ares opens a new socket after so many queries, so that answers keep coming after a resolver moved; `None`: the
        /// client has another resolver.
        queries_per_socket: Option<u32>,
    },
    /// What the client asked for.
    OriginalDst {
        /// Port of the server, if not the one that the client asked for.
        port: Option<u16>,
    },
    /// One fixed endpoint, or none.
    Static(Option<StaticEndpoint>),
    /// What the request names.
    DynamicDns {
        /// Where names are kept, which its filter must share.
        cache: NameCache,
        /// Servers may be whoever they are: TLS is not verified, or there is none.
        insecure: bool,
    },
}

/// A fixed endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StaticEndpoint {
    /// By address and port.
    Ip(Str, u16),
    /// By path.
    Pipe(Str),
}

/// Which addresses a name is resolved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum DnsFamily {
    V4,
    V6,
    /// All there are: the client tries one after the other.
    All,
}

/// Where a proxy keeps the names that requests bring: resolved by a filter, used by a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameCache {
    /// Its name.
    pub name: Str,
    /// Address families.
    pub family: DnsFamily,
    /// Names that are kept.
    pub hosts: u32,
}

impl NameCache {
    /// As cluster and filter have it: what both say must be the same.
    pub(crate) fn config(&self) -> DnsCacheConfig {
        let (name, max_hosts) = (self.name.to_string(), Some(self.hosts));
        DnsCacheConfig { name, dns_lookup_family: self.family.proto(), max_hosts, ..Default::default() }
    }
}

/// Policies of clusters that choose among endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Balanced {
    /// Load balancing.
    pub balancer: Option<LoadBalancer>,
    /// How the balancer treats localities.
    pub localities: Localities,
    /// Outlier detection.
    pub outlier: Option<OutlierDetection>,
    /// Retry budget.
    pub retry_budget: Option<RetryBudget>,
    /// Endpoints that are not ready are known as such.
    pub unready: bool,
    /// Endpoints that drain still take the sessions they have.
    pub persistent_session: bool,
    /// Keys of Redis are spread over the endpoints.
    pub redis: bool,
    /// An inbound cluster: nothing to choose from, and no panic to switch off.
    pub inbound: bool,
}

/// What telemetry shows of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct ClusterLabels {
    /// API path of the rule.
    pub config: Option<Str>,
    /// Subset.
    pub subset: Option<Str>,
    /// Services: host, name, namespace.
    pub services: Vec<(Str, Str, Str)>,
    /// Outside of the mesh.
    pub external: bool,
    /// Keep the ALPN as the user's TLS says.
    pub user_tls: bool,
}

/// Makes the cluster.
pub fn build(input: &ClusterInput) -> Cluster {
    let mut cluster = Cluster {
        name: str::to_owned(&input.name),
        alt_stat_name: alt_stat_name(input),
        connect_timeout: Some(duration(pool::connect_timeout(input))),
        metadata: labels(&input.labels),
        upstream_bind_config: bind(&input.bind),
        cleanup_interval: input.no_cleanup.then_some(NO_CLEANUP),
        per_connection_buffer_limit_bytes: input.buffer,
        ..Default::default()
    };
    discover(input, &mut cluster);
    if input.inert {
        return cluster;
    }
    cluster.circuit_breakers = Some(pool::circuit_breakers(input));
    cluster.upstream_connection_options = pool::connection_options(input);
    let errors = input.balanced.as_ref().and_then(|b| b.outlier.as_ref()).map(|o| o.http_error_codes.as_slice());
    cluster.typed_extension_protocol_options = protocol::options(&input.http, input.pool.as_ref(), errors);
    if let Some(balanced) = &input.balanced {
        lb::apply(balanced, &mut cluster);
    }
    security::apply(&input.security, &mut cluster);
    match input.peer_exchange.as_deref() {
        Some([]) => cluster.filters.push(PEER_EXCHANGE.clone()),
        Some(labels) => cluster.filters.push(peer_exchange(labels)),
        None => {}
    }
    cluster
}

fn discover(input: &ClusterInput, cluster: &mut Cluster) {
    let kind = match &input.discovery {
        Discovery::Eds => {
            cluster.eds_cluster_config =
                Some(EdsClusterConfig { service_name: str::to_owned(&input.name), eds_config: Some(config_source::STREAM.clone()) });
            DiscoveryType::Eds
        }
        Discovery::Dns { endpoints, family, refresh, one, jitter, queries_per_socket } => {
            cluster.load_assignment = Some(assignment(endpoints).into_message());
            resolve(cluster, *family, *refresh, *jitter, *queries_per_socket);
            if *one { DiscoveryType::LogicalDns } else { DiscoveryType::StrictDns }
        }
        Discovery::OriginalDst { port } => {
            cluster.lb_policy = LbPolicy::ClusterProvided.into();
            cluster.lb_config = port.map(|port| {
                LbConfig::OriginalDstLbConfig(OriginalDstLbConfig { upstream_port_override: Some(port.into()), ..Default::default() })
            });
            DiscoveryType::OriginalDst
        }
        Discovery::Static(endpoint) => {
            cluster.load_assignment = endpoint.as_ref().map(|e| fixed(&input.name, e));
            DiscoveryType::Static
        }
        Discovery::DynamicDns { cache, insecure } => {
            cluster.lb_policy = LbPolicy::ClusterProvided.into();
            cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(by_request(cache, *insecure)));
            return;
        }
    };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
}

impl DnsFamily {
    fn proto(self) -> i32 {
        match self {
            DnsFamily::V4 => DnsLookupFamily::V4Only.into(),
            DnsFamily::V6 => DnsLookupFamily::V6Only.into(),
            DnsFamily::All => DnsLookupFamily::All.into(),
        }
    }
}

// The successor of these fields (a cluster extension for DNS) is newer than the oldest proxies that must read them.
#[allow(deprecated)]
fn resolve(cluster: &mut Cluster, family: DnsFamily, refresh: Duration, jitter: Duration, queries_per_socket: Option<u32>) {
    cluster.dns_lookup_family = family.proto();
    cluster.dns_refresh_rate = Some(duration(refresh));
    cluster.dns_jitter = Some(duration(jitter));
    cluster.respect_dns_ttl = true;
    cluster.typed_dns_resolver_config = queries_per_socket.map(|queries| TypedExtensionConfig {
        name: DNS_RESOLVER.to_owned(),
        typed_config: Some(any(&CaresDnsResolverConfig { udp_max_queries: Some(queries), ..Default::default() })),
    });
}

fn by_request(cache: &NameCache, insecure: bool) -> CustomClusterType {
    let cache = cache.config();
    let config = dynamic::ClusterConfig {
        allow_insecure_cluster_options: insecure,
        cluster_implementation_specifier: Some(dynamic::cluster_config::ClusterImplementationSpecifier::DnsCacheConfig(cache)),
        ..Default::default()
    };
    CustomClusterType { name: DYNAMIC_CLUSTER.to_owned(), typed_config: Some(any(&config)) }
}

fn fixed(name: &str, endpoint: &StaticEndpoint) -> ClusterLoadAssignment {
    use crate::endpoint::address;
    let address = match endpoint {
        StaticEndpoint::Ip(ip, port) => HostAddress::Socket(ip, *port),
        StaticEndpoint::Pipe(path) => HostAddress::Pipe(path),
    };
    address::single(name, address)
}

fn bind(sources: &[Str]) -> Option<BindConfig> {
    let address =
        |ip: &Str| Some(SocketAddress { address: ip.to_string(), port_specifier: Some(PortSpecifier::PortValue(0)), ..Default::default() });
    let (first, rest) = sources.split_first()?;
    Some(BindConfig {
        source_address: address(first),
        extra_source_addresses: rest.iter().map(|ip| ExtraSourceAddress { address: address(ip), ..Default::default() }).collect(),
        ..Default::default()
    })
}

fn labels(labels: &ClusterLabels) -> Option<Metadata> {
    let service = |(host, name, namespace): &(Str, Str, Str)| Value::texts(&[("host", host), ("name", name), ("namespace", namespace)]);
    let fields = [
        ("config", labels.config.as_deref().map(Value::text)),
        ("subset", labels.subset.as_deref().map(Value::text)),
        ("services", (!labels.services.is_empty()).then(|| Value::list(labels.services.iter().map(service)))),
        ("external", labels.external.then(|| Value::boolean(true))),
        ("alpn_override", labels.user_tls.then(|| Value::text("false"))),
    ];
    let said: Vec<_> = fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    (!said.is_empty()).then(|| metadata::istio(said))
}

/// The network filter by which Istio's proxies tell each other what they are. Encoded once: nearly every cluster has it.
static PEER_EXCHANGE: LazyLock<Bytes> = LazyLock::new(|| peer_exchange(&[]));

fn peer_exchange(labels: &[Str]) -> Bytes {
    let typed_config = Some(any(&metadata::exchange(labels)));
    let filter = Filter { name: extensions::ISTIO_METADATA_EXCHANGE.to_owned(), typed_config, ..Default::default() };
    filter.encode_to_vec().into()
}

/// A plain Envoy uses the cluster's own name where no other is asked for.
fn alt_stat_name(input: &ClusterInput) -> String {
    match input.terminated {
        true => [&*input.stat_name, ";"].concat(),
        false if input.stat_name == input.name => String::new(),
        false => str::to_owned(&input.stat_name),
    }
}
