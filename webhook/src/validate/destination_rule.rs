//! DestinationRules, and the connection pools that Sidecars have as well.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cursor::{At, Findings};
use super::{names, tls};

pub(crate) fn destination_rule(f: &mut Findings, spec: &At<'_>, namespace: &str) {
    let host = spec.str("host");
    if !names::ip(host) {
        f.check(&spec.get("host"), names::wildcard_domain(host));
    }
    policy(f, &spec.get("trafficPolicy"));
    let mut seen = BTreeSet::new();
    for subset in spec.items("subsets") {
        let name = subset.str("name");
        f.require(!name.is_empty(), &subset.get("name"), "subset name cannot be empty");
        f.require(name.is_empty() || names::label(name), &subset.get("name"), format!("subset name is invalid: {name:?}"));
        f.require(seen.insert(name), &subset.get("name"), format!("duplicate subset names: {name}"));
        names::label_map(f, &subset, "labels");
        policy(f, &subset.get("trafficPolicy"));
    }
    let selector = spec.get("workloadSelector");
    super::workload_selector(f, &selector, "matchLabels");
    let entries = spec.items("exportTo").len();
    f.require(
        !selector.exists() || entries <= 1,
        &spec.get("exportTo"),
        "destination rule with workload selector cannot have multiple entries in exportTo",
    );
    names::export_to(f, spec, namespace, false, false);
}

const FIELDS: &[&str] =
    &["loadBalancer", "connectionPool", "outlierDetection", "tls", "portLevelSettings", "tunnel", "proxyProtocol", "retryBudget"];

fn policy(f: &mut Findings, policy: &At<'_>) {
    if !policy.exists() {
        return;
    }
    f.require(FIELDS.iter().any(|k| policy.has(k)), policy, "traffic policy must have at least one field");
    parts(f, policy);
    let mut ports = BTreeSet::new();
    for level in policy.items("portLevelSettings") {
        let number = level.get("port").get("number").number();
        f.require(number.is_some_and(|n| n > 0.0), &level.get("port"), "portTrafficPolicy must have valid port");
        f.require(ports.insert(number.unwrap_or_default() as u32), &level.get("port"), "duplicate port");
        parts(f, &level);
    }
    let tunnel = policy.get("tunnel");
    if tunnel.exists() {
        f.check(
            &tunnel.get("targetHost"),
            if names::ip(tunnel.str("targetHost")) { Ok(()) } else { names::fqdn(tunnel.str("targetHost")) },
        );
        names::port(f, &tunnel.get("targetPort"));
        let protocol = tunnel.str("protocol");
        f.require(matches!(protocol, "" | "CONNECT" | "POST"), &tunnel.get("protocol"), "tunnel protocol must be CONNECT or POST");
    }
    let budget = policy.get("retryBudget");
    f.within(&budget.get("percent"), 0.0, 100.0);
}

fn parts(f: &mut Findings, policy: &At<'_>) {
    outlier_detection(f, &policy.get("outlierDetection"));
    let pool = policy.get("connectionPool");
    if pool.exists() {
        connection_pool(f, &pool);
    }
    load_balancer(f, &policy.get("loadBalancer"), policy.has("outlierDetection"));
    tls::client(f, &policy.get("tls"));
}

fn outlier_detection(f: &mut Findings, o: &At<'_>) {
    if !o.exists() {
        return;
    }
    let errors = o.get("consecutiveErrors");
    if errors.exists() {
        f.warning(
            &errors,
            "outlier detection consecutive errors is deprecated, use consecutiveGatewayErrors or consecutive5xxErrors instead",
        );
    }
    if o.has("consecutiveLocalOriginFailures") {
        let split = o.flag("splitExternalLocalOriginErrors");
        f.require(split, &o.get("consecutiveLocalOriginFailures"), "is specified, but splitExternalLocalOriginErrors is false");
    }
    f.duration(&o.get("interval"));
    f.duration(&o.get("baseEjectionTime"));
    f.within(&o.get("maxEjectionPercent"), 0.0, 100.0);
    f.within(&o.get("minHealthPercent"), 0.0, 100.0);
}

pub(crate) fn connection_pool(f: &mut Findings, pool: &At<'_>) {
    let (http, tcp) = (pool.get("http"), pool.get("tcp"));
    f.require(http.exists() || tcp.exists(), pool, "connection pool must have at least one field");
    let not_negative = |f: &mut Findings, at: At<'_>| {
        f.require(at.number().is_none_or(|n| n >= 0.0), &at, "must be non-negative");
    };
    for key in ["http1MaxPendingRequests", "http2MaxRequests", "maxRequestsPerConnection", "maxRetries", "maxConcurrentStreams"] {
        not_negative(f, http.get(key));
    }
    f.duration_from(&http.get("idleTimeout"), Duration::ZERO);
    let keep_alive = http.get("http2KeepAlive");
    if keep_alive.exists() {
        for key in ["interval", "timeout"] {
            f.require(keep_alive.has(key), &keep_alive.get(key), format!("http2 keepalive {key} is required"));
            f.duration(&keep_alive.get(key));
        }
    }
    if http.flag("useClientProtocol") && http.str("h2UpgradePolicy") == "UPGRADE" {
        f.error(&http, "use client protocol must not be true when H2UpgradePolicy is UPGRADE");
    }
    not_negative(f, tcp.get("maxConnections"));
    f.duration(&tcp.get("connectTimeout"));
    f.duration(&tcp.get("maxConnectionDuration"));
    f.duration_from(&tcp.get("idleTimeout"), Duration::ZERO);
}

fn load_balancer(f: &mut Findings, lb: &At<'_>, outlier_detection: bool) {
    if !lb.exists() {
        return;
    }
    f.require(!(lb.has("simple") && lb.has("consistentHash")), lb, "only one of simple and consistentHash can be set");
    let hash = lb.get("consistentHash");
    if hash.exists() {
        let old = hash.get("minimumRingSize");
        if old.is_set() {
            f.warning(&old, "is deprecated, use ringHash instead");
        }
        let cookie = hash.get("httpCookie");
        if cookie.exists() {
            f.require(!cookie.str("name").is_empty(), &cookie.get("name"), "name required for HttpCookie");
            let mut seen = BTreeSet::new();
            for attribute in cookie.items("attributes") {
                let name = attribute.str("name");
                f.require(!name.is_empty(), &attribute, "cookie attribute must have a name");
                f.require(seen.insert(name), &attribute, format!("duplicate cookie attribute name: {name}"));
            }
        }
        let size = hash.get("maglev").get("tableSize");
        if let Some(n) = size.number().filter(|n| *n > 0.0) {
            f.require(n < 5_000_011.0 && is_prime(n as u64), &size, "tableSize must be a prime number for maglev, below 5000011");
        }
    }
    let warmup = lb.get("warmup");
    if warmup.exists() {
        f.require(warmup.has("duration"), &warmup.get("duration"), "duration is required");
        f.duration(&warmup.get("duration"));
        f.within(&warmup.get("minimumPercent"), 0.0, 100.0);
        f.require(
            warmup.get("aggression").number().is_none_or(|n| n > 0.0),
            &warmup.get("aggression"),
            "aggression should be greater than 0",
        );
        let simple = lb.str("simple");
        f.require(
            matches!(simple, "" | "ROUND_ROBIN" | "LEAST_REQUEST" | "UNSPECIFIED" | "LEAST_CONN"),
            &warmup,
            "is only for ROUND_ROBIN and LEAST_REQUEST",
        );
    }
    f.require(
        !(lb.has("warmupDurationSecs") && lb.has("warmup")),
        &lb.get("warmup"),
        "only one of warmupDurationSecs or warmup can be set",
    );
    f.duration(&lb.get("warmupDurationSecs"));
    locality(f, &lb.get("localityLbSetting"), outlier_detection);
}

fn is_prime(n: u64) -> bool {
    n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

fn locality(f: &mut Findings, l: &At<'_>, outlier_detection: bool) {
    if !l.exists() {
        return;
    }
    let (distribute, failover) = (l.items("distribute"), l.items("failover"));
    f.require(distribute.is_empty() || failover.is_empty(), l, "can not simultaneously specify 'distribute' and 'failover'");
    f.require(
        distribute.is_empty() || !l.get("failoverPriority").is_set(),
        l,
        "can not simultaneously specify 'distribute' and 'failoverPriority'",
    );
    let mut froms: Vec<&str> = Vec::new();
    for d in &distribute {
        let from = d.str("from");
        f.check(&d.get("from"), locality_name(from));
        f.require(!froms.contains(&from), &d.get("from"), format!("locality {from} appears twice"));
        froms.push(from);
        let mut total = 0.0;
        for (name, weight) in d.fields("to") {
            f.check(&weight, locality_name(name));
            let n = weight.number().unwrap_or_default();
            f.require((1.0..=100.0).contains(&n), &weight, "locality weight must be in range [1, 100]");
            total += n;
        }
        f.require(total == 100.0, &d.get("to"), format!("total locality weight {total} != 100"));
    }
    for rule in &failover {
        let (from, to) = (rule.str("from"), rule.str("to"));
        f.require(from != to, rule, "locality lb failover settings must specify different regions");
        for key in ["from", "to"] {
            let text = rule.str(key);
            f.require(!text.contains('*'), &rule.get(key), "locality lb failover region should not contain '*' wildcard");
            f.require(!text.contains('/'), &rule.get(key), "locality lb failover only specify region");
        }
    }
    if !failover.is_empty() && l.texts("failoverPriority").iter().any(|p| p.split('=').next() == Some("topology.kubernetes.io/region")) {
        f.error(l, "can not simultaneously set 'failover' and topology label 'topology.kubernetes.io/region' in 'failover_priority'");
    }
    if (!failover.is_empty() || l.get("failoverPriority").is_set()) && !outlier_detection {
        f.warning(l, "outlier detection policy must be provided for failover");
    }
}

/// `region/zone/subzone`, where the last part may be a wildcard.
fn locality_name(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split('/').collect();
    if text.is_empty() || parts.len() > 3 {
        return Err(format!("locality {text:?} is not region/zone/subzone"));
    }
    for (i, part) in parts.iter().enumerate() {
        if part.is_empty() {
            return Err(format!("locality {text} must not contain empty parts"));
        }
        if *part == "*" && i + 1 < parts.len() {
            return Err(format!("locality {text} wildcard '*' must be the last part"));
        }
        if part.contains('*') && *part != "*" {
            return Err(format!("locality {text} wildcard '*' must stand alone"));
        }
    }
    Ok(())
}
