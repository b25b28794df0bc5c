//! DestinationRule: how a client talks to a service once it is chosen.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::name::{Host, Labels, Meta, Str, Visibility};
use crate::tls::ClientTls;

/// Policies and subsets of one host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DestinationRule {
    /// Identity and age.
    pub meta: Meta,
    /// The host, short names resolved; may be a wildcard.
    pub host: Host,
    /// Policy for all of the host.
    pub policy: TrafficPolicy,
    /// Subsets in order.
    pub subsets: Vec<Subset>,
    /// Who sees it; `None`: the mesh's default.
    pub visibility: Option<Visibility>,
    /// Only for clients with these labels, in its own namespace. Empty: all.
    pub workload_selector: Labels,
}

/// A named part of a service's endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subset {
    /// Name.
    pub name: Str,
    /// Labels of its endpoints.
    pub labels: Labels,
    /// Policy that replaces the host's, component by component.
    pub policy: TrafficPolicy,
}

/// Policy components; `None` leaves a component to the next wider level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TrafficPolicy {
    /// Load balancing.
    pub load_balancer: Option<LoadBalancer>,
    /// Connection pool.
    pub connection_pool: Option<ConnectionPool>,
    /// Outlier detection.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS.
    pub tls: Option<ClientTls>,
    /// Tunnel for TCP and TLS routes.
    pub tunnel: Option<Tunnel>,
    /// PROXY protocol towards the server.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// Retry budget.
    pub retry_budget: Option<RetryBudget>,
    /// Whole components replaced for single ports.
    pub ports: BTreeMap<u16, PortPolicy>,
}

/// What a port may replace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortPolicy {
    /// Load balancing.
    pub load_balancer: Option<LoadBalancer>,
    /// Connection pool.
    pub connection_pool: Option<ConnectionPool>,
    /// Outlier detection.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS.
    pub tls: Option<ClientTls>,
}

/// Load balancing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LoadBalancer {
    /// Algorithm; `None`: the default.
    pub algorithm: Option<LbAlgorithm>,
    /// Locality preference; `None`: the mesh's.
    pub locality: Option<LocalityLb>,
    /// Zones balanced by the proxy itself; where both are given this one holds.
    pub zone_aware: Option<ZoneAwareLb>,
    /// Slow start of new endpoints.
    pub warmup: Option<Warmup>,
}

/// An algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LbAlgorithm {
    /// Default of Envoy for what the user left unspecified.
    Unspecified,
    /// Round robin.
    RoundRobin,
    /// Least requests.
    LeastRequest,
    /// Random.
    Random,
    /// To the address the client asked for.
    Passthrough,
    /// By a hash of the request.
    ConsistentHash(ConsistentHash),
}

/// Consistent hashing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConsistentHash {
    /// What is hashed.
    pub key: HashKey,
    /// Which table.
    pub table: HashTable,
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// A header.
    Header(Str),
    /// A cookie, made if it is not there and `ttl` is given.
    Cookie {
        /// Name.
        name: Str,
        /// Path of a cookie that is made.
        path: Str,
        /// Life time; zero makes a session cookie.
        ttl: Option<Duration>,
        /// Further attributes, in order.
        attributes: Vec<(Str, Str)>,
    },
    /// The client's address.
    SourceIp,
    /// A query parameter.
    QueryParameter(Str),
    /// Not said: every request by its own.
    None,
}

/// Which table consistent hashing uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashTable {
    /// Ring hash; `None`: Envoy's default size.
    Ring(Option<u64>),
    /// Maglev; `None`: Envoy's default size.
    Maglev(Option<u64>),
}

/// Slow start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Warmup {
    /// How long.
    pub duration: Duration,
    /// Share of the weight to begin with, in percent; `None` if only the old field, a duration, is given.
    pub minimum_percent: Option<Permyriad>,
    /// Non-linearity in hundredths (100 is linear); `None` if not given.
    pub aggression: Option<Permyriad>,
}

/// A decimal number with two places, kept exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permyriad(pub u64);

impl Permyriad {
    /// From a number; negative ones become zero.
    pub fn new(value: f64) -> Self {
        Permyriad((value.max(0.0) * 100.0).round() as u64)
    }

    /// As a number.
    pub fn get(self) -> f64 {
        self.0 as f64 / 100.0
    }
}

/// Locality preference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocalityLb {
    /// Explicit shares by origin.
    pub distribute: Vec<Distribute>,
    /// Which region takes over from which.
    pub failover: Vec<(Str, Str)>,
    /// Labels (or `label=value`) whose equality with the client decides the order.
    pub failover_priority: Vec<Str>,
    /// Switched off or on; `None`: the mesh's setting.
    pub enabled: Option<bool>,
}

/// The proxy keeps requests in its own zone as far as that has room, and spreads the rest over other zones of its region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ZoneAwareLb {
    /// Switched off or on; `None`: on.
    pub enabled: Option<bool>,
    /// Which region takes over from which.
    pub failover: Vec<(Str, Str)>,
    /// Labels (or `label=value`) whose equality with the client decides the order.
    pub failover_priority: Vec<Str>,
    /// Fewer endpoints than these are not balanced by zone; `None`: Envoy's default.
    pub min_cluster_size: Option<u32>,
}

/// Shares of one origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Distribute {
    /// Locality of clients, `region/zone/sub-zone` with `*` at the end.
    pub from: Str,
    /// Localities of endpoints and their shares in percent.
    pub to: Vec<(Str, u32)>,
}

/// Connection pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct ConnectionPool {
    pub max_connections: Option<u32>,
    pub connect_timeout: Option<Duration>,
    pub tcp_keepalive: Option<TcpKeepalive>,
    pub max_connection_duration: Option<Duration>,
    pub tcp_idle_timeout: Option<Duration>,
    /// True if the `http` part was given at all.
    pub has_http: bool,
    pub http1_max_pending_requests: Option<u32>,
    pub http2_max_requests: Option<u32>,
    pub max_requests_per_connection: Option<u32>,
    pub max_retries: Option<u32>,
    pub http_idle_timeout: Option<Duration>,
    pub h2_upgrade: Option<H2Upgrade>,
    pub use_client_protocol: bool,
    pub max_concurrent_streams: Option<u32>,
    pub http2_keepalive: Option<Http2Keepalive>,
}

/// Whether HTTP/1.1 becomes HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum H2Upgrade {
    Default,
    DoNotUpgrade,
    Upgrade,
}

/// TCP keepalive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct TcpKeepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

/// HTTP/2 PING keepalive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Http2Keepalive {
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
}

/// Outlier detection. `None` is "not given".
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct OutlierDetection {
    pub consecutive_5xx_errors: Option<u32>,
    pub consecutive_gateway_errors: Option<u32>,
    pub consecutive_local_origin_failures: Option<u32>,
    pub split_external_local_origin_errors: bool,
    pub interval: Option<Duration>,
    pub base_ejection_time: Option<Duration>,
    /// Percent; 0: Envoy's default.
    pub max_ejection_percent: u32,
    /// Percent; 0: none.
    pub min_health_percent: u32,
    /// Statuses that count as errors; empty: 5xx.
    pub http_error_codes: Vec<u16>,
}

/// CONNECT or POST tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// Use POST instead of CONNECT.
    pub post: bool,
    /// Host to tunnel to.
    pub target_host: Str,
    /// Port to tunnel to.
    pub target_port: u16,
}

/// PROXY protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ProxyProtocolVersion {
    V1,
    V2,
}

/// Share of requests that may be retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetryBudget {
    /// Percent, two places; default 20.
    pub percent: Option<Permyriad>,
    /// Retries that are always allowed; default 3.
    pub min_retry_concurrency: Option<u32>,
    /// Requests of this time count, not only those under way; `None`: none.
    pub interval: Option<Duration>,
}
