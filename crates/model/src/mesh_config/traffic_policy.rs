//! What holds for all services where no DestinationRule says it.

use serde::{Deserialize, Deserializer};

use crate::destination_rule::{ConnectionPool, H2Upgrade, Http2Keepalive, OutlierDetection, TcpKeepalive};
use crate::time::Span;

/// Parts of a policy that services have without a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DefaultTrafficPolicy {
    /// Connection pool, of clients and servers.
    #[serde(deserialize_with = "pool")]
    pub connection_pool: Option<ConnectionPool>,
    /// Outlier detection of clients.
    #[serde(deserialize_with = "outlier")]
    pub outlier_detection: Option<OutlierDetection>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct PoolConfig {
    tcp: Option<TcpConfig>,
    http: Option<HttpConfig>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct TcpConfig {
    max_connections: u32,
    connect_timeout: Option<Span>,
    tcp_keepalive: Option<super::TcpKeepaliveConfig>,
    max_connection_duration: Option<Span>,
    idle_timeout: Option<Span>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct HttpConfig {
    http1_max_pending_requests: u32,
    http2_max_requests: u32,
    max_requests_per_connection: u32,
    max_retries: u32,
    idle_timeout: Option<Span>,
    h2_upgrade_policy: Option<UpgradeConfig>,
    use_client_protocol: bool,
    max_concurrent_streams: u32,
    #[serde(rename = "http2KeepAlive")]
    http2_keep_alive: Option<KeepaliveConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum UpgradeConfig {
    Default,
    DoNotUpgrade,
    Upgrade,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct KeepaliveConfig {
    interval: Option<Span>,
    timeout: Option<Span>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct OutlierConfig {
    consecutive_errors: u32,
    split_external_local_origin_errors: bool,
    consecutive_local_origin_failures: Option<u32>,
    consecutive_gateway_errors: Option<u32>,
    #[serde(rename = "consecutive5xxErrors")]
    consecutive_5xx_errors: Option<u32>,
    interval: Option<Span>,
    base_ejection_time: Option<Span>,
    max_ejection_percent: u32,
    min_health_percent: u32,
    outlier_detection_http_error_codes: Vec<u16>,
}

fn pool<'de, D: Deserializer<'de>>(d: D) -> Result<Option<ConnectionPool>, D::Error> {
    let given = |n: u32| Some(n).filter(|n| *n > 0);
    let Some(config) = Option::<PoolConfig>::deserialize(d)? else { return Ok(None) };
    let mut pool = ConnectionPool { has_http: config.http.is_some(), ..ConnectionPool::default() };
    if let Some(t) = config.tcp {
        pool.max_connections = given(t.max_connections);
        pool.connect_timeout = t.connect_timeout.map(Into::into);
        pool.tcp_keepalive = t.tcp_keepalive.map(|k| TcpKeepalive {
            probes: k.probes.filter(|n| *n > 0),
            time: k.time.map(Into::into),
            interval: k.interval.map(Into::into),
        });
        pool.max_connection_duration = t.max_connection_duration.map(Into::into);
        pool.tcp_idle_timeout = t.idle_timeout.map(Into::into);
    }
    if let Some(h) = config.http {
        pool.http1_max_pending_requests = given(h.http1_max_pending_requests);
        pool.http2_max_requests = given(h.http2_max_requests);
        pool.max_requests_per_connection = given(h.max_requests_per_connection);
        pool.max_retries = given(h.max_retries);
        pool.http_idle_timeout = h.idle_timeout.map(Into::into);
        pool.h2_upgrade = h.h2_upgrade_policy.map(|p| match p {
            UpgradeConfig::Default => H2Upgrade::Default,
            UpgradeConfig::DoNotUpgrade => H2Upgrade::DoNotUpgrade,
            UpgradeConfig::Upgrade => H2Upgrade::Upgrade,
        });
        pool.use_client_protocol = h.use_client_protocol;
        pool.max_concurrent_streams = given(h.max_concurrent_streams);
        let keepalive = |k: KeepaliveConfig| Http2Keepalive { interval: k.interval.map(Into::into), timeout: k.timeout.map(Into::into) };
        pool.http2_keepalive = h.http2_keep_alive.map(keepalive);
    }
    Ok(Some(pool))
}

fn outlier<'de, D: Deserializer<'de>>(d: D) -> Result<Option<OutlierDetection>, D::Error> {
    let config = Option::<OutlierConfig>::deserialize(d)?;
    let _deprecated = config.as_ref().map(|o| o.consecutive_errors);
    Ok(config.map(|o| OutlierDetection {
        consecutive_5xx_errors: o.consecutive_5xx_errors,
        consecutive_gateway_errors: o.consecutive_gateway_errors,
        consecutive_local_origin_failures: o.consecutive_local_origin_failures,
        split_external_local_origin_errors: o.split_external_local_origin_errors,
        interval: o.interval.map(Into::into),
        base_ejection_time: o.base_ejection_time.map(Into::into),
        max_ejection_percent: o.max_ejection_percent.min(100),
        min_health_percent: o.min_health_percent.min(100),
        http_error_codes: o.outlier_detection_http_error_codes,
    }))
}
