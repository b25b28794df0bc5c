//! DestinationRule.

use std::collections::{BTreeMap, BTreeSet};

use pilotfish_crds::Num;
use pilotfish_crds::networking::destination_rule as api;
use pilotfish_model::DestinationRule;
use pilotfish_model::destination_rule::{
    ConnectionPool, ConsistentHash, Distribute, H2Upgrade, HashKey, HashTable, Http2Keepalive, LbAlgorithm, LoadBalancer, LocalityLb,
    OutlierDetection, Permyriad, PortPolicy, ProxyProtocolVersion, RetryBudget, Subset, TcpKeepalive, TrafficPolicy, Tunnel, Warmup,
    ZoneAwareLb,
};

use super::fields::{Path, Scope, labels, strs};
use super::tls;

/// Where neither a table nor a size is given; a table without a size has Envoy's.
const DEFAULT_RING: u64 = 1024;

pub(super) fn convert(scope: &mut Scope<'_>, spec: &api::DestinationRuleSpec) -> DestinationRule {
    let root = Path::SPEC;
    let subsets_path = root.field("subsets");
    let mut names = BTreeSet::new();
    let mut subsets = Vec::with_capacity(spec.subsets.len());
    for (i, s) in spec.subsets.iter().enumerate() {
        let path = subsets_path.index(i);
        if s.name.is_empty() || s.name.contains('|') {
            scope.error(&path.field("name"), format!("{:?} is not a subset name", s.name));
        } else if !names.insert(&s.name) {
            scope.error(&path.field("name"), format!("{:?} occurs twice", s.name));
        }
        subsets.push(Subset {
            name: s.name.as_str().into(),
            labels: labels(&s.labels),
            policy: s.traffic_policy.as_ref().map(|p| policy(scope, &path.field("trafficPolicy"), p)).unwrap_or_default(),
        });
    }
    DestinationRule {
        meta: scope.meta_without_labels(),
        host: scope.host(&root.field("host"), &spec.host),
        policy: spec.traffic_policy.as_ref().map(|p| policy(scope, &root.field("trafficPolicy"), p)).unwrap_or_default(),
        subsets,
        visibility: scope.visibility(&root.field("exportTo"), &spec.export_to),
        workload_selector: spec.workload_selector.as_ref().map(|s| labels(&s.match_labels)).unwrap_or_default(),
    }
}

fn policy(scope: &mut Scope<'_>, path: &Path<'_>, p: &api::TrafficPolicy) -> TrafficPolicy {
    let mut ports = BTreeMap::new();
    let ports_path = path.field("portLevelSettings");
    for (i, s) in p.port_level_settings.iter().enumerate() {
        let path = ports_path.index(i);
        let number = scope.port(&path.field("port").field("number"), s.port.and_then(|p| p.number));
        let policy = PortPolicy {
            load_balancer: s.load_balancer.as_ref().map(|l| load_balancer(scope, &path.field("loadBalancer"), l)),
            connection_pool: s.connection_pool.as_ref().map(|c| connection_pool(scope, &path.field("connectionPool"), c)),
            outlier_detection: s.outlier_detection.as_ref().map(|o| outlier(scope, &path.field("outlierDetection"), o)),
            tls: s.tls.as_ref().map(|t| tls::client(scope, &path.field("tls"), t)),
        };
        ports.entry(number).or_insert(policy);
    }
    TrafficPolicy {
        load_balancer: p.load_balancer.as_ref().map(|l| load_balancer(scope, &path.field("loadBalancer"), l)),
        connection_pool: p.connection_pool.as_ref().map(|c| connection_pool(scope, &path.field("connectionPool"), c)),
        outlier_detection: p.outlier_detection.as_ref().map(|o| outlier(scope, &path.field("outlierDetection"), o)),
        tls: p.tls.as_ref().map(|t| tls::client(scope, &path.field("tls"), t)),
        tunnel: p.tunnel.as_ref().map(|t| tunnel(scope, &path.field("tunnel"), t)),
        proxy_protocol: p.proxy_protocol.as_ref().map(|p| match p.version {
            None | Some(api::ProxyProtocolVersion::V1) => ProxyProtocolVersion::V1,
            Some(api::ProxyProtocolVersion::V2) => ProxyProtocolVersion::V2,
        }),
        retry_budget: p.retry_budget.as_ref().map(|b| retry_budget(scope, &path.field("retryBudget"), b)),
        ports,
    }
}

fn load_balancer(scope: &mut Scope<'_>, path: &Path<'_>, l: &api::LoadBalancerSettings) -> LoadBalancer {
    if l.simple.is_some() && l.consistent_hash.is_some() {
        scope.error(path, "simple and consistentHash exclude each other");
    }
    let simple = l.simple.map(|s| match s {
        api::SimpleLb::Unspecified => LbAlgorithm::Unspecified,
        api::SimpleLb::LeastConn | api::SimpleLb::LeastRequest => LbAlgorithm::LeastRequest,
        api::SimpleLb::Random => LbAlgorithm::Random,
        api::SimpleLb::Passthrough => LbAlgorithm::Passthrough,
        api::SimpleLb::RoundRobin => LbAlgorithm::RoundRobin,
    });
    let hash_path = path.field("consistentHash");
    let hash = l.consistent_hash.as_ref().map(|h| LbAlgorithm::ConsistentHash(consistent_hash(scope, &hash_path, h)));
    LoadBalancer {
        algorithm: hash.or(simple),
        locality: l.locality_lb_setting.as_ref().map(|s| locality(scope, &path.field("localityLbSetting"), s)),
        zone_aware: l.zone_aware_lb_setting.as_ref().map(|z| zone_aware(scope, path, l, z)),
        warmup: warmup(scope, path, l),
    }
}

fn zone_aware(scope: &mut Scope<'_>, path: &Path<'_>, l: &api::LoadBalancerSettings, z: &api::ZoneAwareLbSetting) -> ZoneAwareLb {
    if l.locality_lb_setting.is_some() {
        scope.warning(&path.field("localityLbSetting"), "has no effect: zoneAwareLbSetting is given");
    }
    ZoneAwareLb {
        enabled: z.enabled,
        failover: z.failover.iter().map(|f| (f.from.as_str().into(), f.to.as_str().into())).collect(),
        failover_priority: strs(&z.failover_priority),
        min_cluster_size: z.min_cluster_size.map(|n| n.0),
    }
}

fn warmup(scope: &mut Scope<'_>, path: &Path<'_>, l: &api::LoadBalancerSettings) -> Option<Warmup> {
    let Some(w) = &l.warmup else {
        let duration = scope.duration(&path.field("warmupDurationSecs"), &l.warmup_duration_secs)?;
        return Some(Warmup { duration, minimum_percent: None, aggression: None });
    };
    let path = path.field("warmup");
    if w.duration.is_none() {
        scope.error(&path.field("duration"), "is missing");
    }
    let duration = scope.duration(&path.field("duration"), &w.duration)?;
    if w.minimum_percent.is_some_and(|p| !(0.0..=100.0).contains(&p.0)) {
        scope.error(&path.field("minimumPercent"), "must be between 0 and 100");
    }
    if w.aggression.is_some_and(|a| a.0 <= 0.0) {
        scope.error(&path.field("aggression"), "must be more than 0");
    }
    Some(Warmup {
        duration,
        minimum_percent: Some(Permyriad::new(w.minimum_percent.map_or(10.0, |n| n.0))),
        aggression: Some(Permyriad::new(w.aggression.map_or(1.0, |n| n.0))),
    })
}

fn consistent_hash(scope: &mut Scope<'_>, path: &Path<'_>, h: &api::ConsistentHashLb) -> ConsistentHash {
    let cookie_path = path.field("httpCookie");
    let keys = [
        h.http_header_name.as_ref().map(|n| HashKey::Header(n.as_str().into())),
        h.http_cookie.as_ref().map(|c| HashKey::Cookie {
            name: c.name.as_str().into(),
            path: c.path.as_str().into(),
            ttl: scope.duration(&cookie_path.field("ttl"), &c.ttl),
            attributes: c.attributes.iter().map(|a| (a.name.as_str().into(), a.value.as_str().into())).collect(),
        }),
        h.use_source_ip.filter(|on| *on).map(|_| HashKey::SourceIp),
        h.http_query_parameter_name.as_ref().map(|n| HashKey::QueryParameter(n.as_str().into())),
    ];
    let mut keys = keys.into_iter().flatten();
    let key = keys.next().unwrap_or(HashKey::None);
    if keys.next().is_some() {
        scope.error(path, "only one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName may be given");
    }
    if h.ring_hash.is_some() && h.maglev.is_some() {
        scope.error(path, "ringHash and maglev exclude each other");
    }
    let given = |size: Option<Num<u64>>| size.map(|n| n.0).filter(|n| *n > 0);
    let table = match (&h.maglev, &h.ring_hash) {
        (Some(m), _) => HashTable::Maglev(given(m.table_size)),
        (None, Some(r)) => HashTable::Ring(given(r.minimum_ring_size)),
        (None, None) => HashTable::Ring(Some(given(h.minimum_ring_size).unwrap_or(DEFAULT_RING))),
    };
    ConsistentHash { key, table }
}

fn locality(scope: &mut Scope<'_>, path: &Path<'_>, s: &api::LocalityLbSetting) -> LocalityLb {
    let given = [!s.distribute.is_empty(), !s.failover.is_empty()];
    if given == [true, true] || (given[0] && !s.failover_priority.is_empty()) {
        scope.error(path, "distribute excludes failover and failoverPriority");
    }
    for (i, d) in s.distribute.iter().enumerate() {
        let sum: u64 = d.to.values().map(|w| u64::from(w.0)).sum();
        if sum != 100 {
            scope.error(&path.field("distribute").index(i).field("to"), format!("the shares add up to {sum}, not to 100"));
        }
    }
    LocalityLb {
        distribute: s
            .distribute
            .iter()
            .map(|d| Distribute { from: d.from.as_str().into(), to: d.to.iter().map(|(k, w)| (k.as_str().into(), w.0)).collect() })
            .collect(),
        failover: s.failover.iter().map(|f| (f.from.as_str().into(), f.to.as_str().into())).collect(),
        failover_priority: strs(&s.failover_priority),
        enabled: s.enabled,
    }
}

pub(super) fn connection_pool(scope: &mut Scope<'_>, path: &Path<'_>, c: &api::ConnectionPoolSettings) -> ConnectionPool {
    let mut pool = ConnectionPool { has_http: c.http.is_some(), ..ConnectionPool::default() };
    if let Some(t) = &c.tcp {
        let path = path.field("tcp");
        pool.max_connections = scope.positive(&path.field("maxConnections"), t.max_connections);
        pool.connect_timeout = scope.duration(&path.field("connectTimeout"), &t.connect_timeout);
        pool.tcp_keepalive = t.tcp_keepalive.as_ref().map(|k| {
            let path = path.field("tcpKeepalive");
            TcpKeepalive {
                probes: Some(k.probes.0).filter(|n| *n > 0),
                time: scope.duration(&path.field("time"), &k.time),
                interval: scope.duration(&path.field("interval"), &k.interval),
            }
        });
        pool.max_connection_duration = scope.duration(&path.field("maxConnectionDuration"), &t.max_connection_duration);
        pool.tcp_idle_timeout = scope.duration(&path.field("idleTimeout"), &t.idle_timeout);
    }
    if let Some(h) = &c.http {
        let path = path.field("http");
        pool.http1_max_pending_requests = scope.positive(&path.field("http1MaxPendingRequests"), h.http1_max_pending_requests);
        pool.http2_max_requests = scope.positive(&path.field("http2MaxRequests"), h.http2_max_requests);
        pool.max_requests_per_connection = scope.positive(&path.field("maxRequestsPerConnection"), h.max_requests_per_connection);
        pool.max_retries = scope.positive(&path.field("maxRetries"), h.max_retries);
        pool.http_idle_timeout = scope.duration(&path.field("idleTimeout"), &h.idle_timeout);
        pool.h2_upgrade = h.h2_upgrade_policy.map(|p| match p {
            api::H2UpgradePolicy::Default => H2Upgrade::Default,
            api::H2UpgradePolicy::DoNotUpgrade => H2Upgrade::DoNotUpgrade,
            api::H2UpgradePolicy::Upgrade => H2Upgrade::Upgrade,
        });
        pool.use_client_protocol = h.use_client_protocol;
        pool.max_concurrent_streams = scope.positive(&path.field("maxConcurrentStreams"), h.max_concurrent_streams);
        pool.http2_keepalive = h.http2_keep_alive.as_ref().map(|k| {
            let path = path.field("http2KeepAlive");
            Http2Keepalive {
                interval: scope.duration(&path.field("interval"), &k.interval),
                timeout: scope.duration(&path.field("timeout"), &k.timeout),
            }
        });
    }
    pool
}

fn outlier(scope: &mut Scope<'_>, path: &Path<'_>, o: &api::OutlierDetection) -> OutlierDetection {
    if o.consecutive_errors.0 != 0 {
        scope.warning(&path.field("consecutiveErrors"), "is deprecated and has no effect; use consecutive5xxErrors");
    }
    let mut percent = |name, n| {
        let n = scope.positive(&path.field(name), n).unwrap_or(0);
        if n > 100 {
            scope.error(&path.field(name), "must be between 0 and 100");
        }
        n
    };
    OutlierDetection {
        max_ejection_percent: percent("maxEjectionPercent", o.max_ejection_percent),
        min_health_percent: percent("minHealthPercent", o.min_health_percent),
        consecutive_5xx_errors: o.consecutive_5xx_errors.map(|n| n.0),
        consecutive_gateway_errors: o.consecutive_gateway_errors.map(|n| n.0),
        consecutive_local_origin_failures: o.consecutive_local_origin_failures.map(|n| n.0),
        split_external_local_origin_errors: o.split_external_local_origin_errors,
        interval: scope.positive_duration(&path.field("interval"), &o.interval),
        base_ejection_time: scope.positive_duration(&path.field("baseEjectionTime"), &o.base_ejection_time),
        http_error_codes: error_codes(scope, &path.field("outlierDetectionHttpErrorCodes"), &o.outlier_detection_http_error_codes),
    }
}

fn error_codes(scope: &mut Scope<'_>, path: &Path<'_>, codes: &[Num<u16>]) -> Vec<u16> {
    for (i, code) in codes.iter().enumerate().filter(|(_, c)| !(100..=599).contains(&c.0)) {
        scope.error(&path.index(i), format!("{} is not an HTTP status", code.0));
    }
    codes.iter().map(|c| c.0).collect()
}

fn tunnel(scope: &mut Scope<'_>, path: &Path<'_>, t: &api::TunnelSettings) -> Tunnel {
    if !matches!(t.protocol.as_str(), "" | "CONNECT" | "POST") {
        scope.error(&path.field("protocol"), "must be CONNECT or POST");
    }
    let port = u16::try_from(t.target_port.0).ok().map(Num);
    let target_port = scope.port(&path.field("targetPort"), port);
    if t.target_host.is_empty() {
        scope.error(&path.field("targetHost"), "must not be empty");
    }
    Tunnel { post: t.protocol == "POST", target_host: t.target_host.as_str().into(), target_port }
}

fn retry_budget(scope: &mut Scope<'_>, path: &Path<'_>, b: &api::RetryBudget) -> RetryBudget {
    if b.percent.is_some_and(|p| !(0.0..=100.0).contains(&p.0)) {
        scope.error(&path.field("percent"), "must be between 0 and 100");
    }
    RetryBudget {
        percent: b.percent.map(|n| Permyriad::new(n.0)),
        min_retry_concurrency: b.min_retry_concurrency.map(|n| n.0).filter(|n| *n > 0),
        interval: scope.duration(&path.field("budgetInterval"), &b.budget_interval).filter(|d| !d.is_zero()),
    }
}
