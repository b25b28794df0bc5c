//! [`SWITCHES`]: the reference's environment variables that change what proxies get, as [`Features`].

use std::time::Duration;

use super::{Compliance, Features, RemoteJwks, UnreadyEndpoints};
use crate::time::{Span, parse_duration};

/// A variable, and what a value of it does.
pub struct Switch {
    /// Its name.
    pub name: &'static str,
    set: fn(&mut Features, &str) -> Result<(), BadValue>,
}

/// A value that says nothing: the default holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is no {kind}")]
pub struct BadValue {
    value: String,
    kind: &'static str,
}

impl BadValue {
    fn new(value: &str, kind: &'static str) -> Self {
        BadValue { value: value.to_owned(), kind }
    }
}

macro_rules! switch {
    ($name:literal, $f:ident, $text:ident, $set:expr) => {
        Switch {
            name: $name,
            set: |$f, $text| {
                $set;
                Ok(())
            },
        }
    };
}

/// All there are.
pub static SWITCHES: &[Switch] = &[
    switch!("PILOT_ENABLE_QUIC_LISTENERS", f, t, f.http3 = boolean(t)?),
    switch!("ENABLE_TLS_ON_SIDECAR_INGRESS", f, t, f.sidecar_ingress_tls = boolean(t)?),
    switch!("PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS", f, t, f.several_providers = boolean(t)?),
    switch!("PILOT_JWT_ENABLE_REMOTE_JWKS", f, t, f.remote_jwks = t.parse::<RemoteJwks>().map_err(|_| BadValue::new(t, "mode"))?),
    switch!("PILOT_HTTP10", f, t, f.http10 = boolean(t)?),
    switch!("PILOT_ENABLE_ALPN_FILTER", f, t, f.alpn_override = boolean(t)?),
    switch!("PILOT_ENABLE_METADATA_EXCHANGE", f, t, f.peer_exchange = boolean(t)?),
    switch!("PILOT_DISABLE_MX_ALPN", f, t, f.peer_exchange_alpn = !boolean(t)?),
    switch!("PILOT_MX_ADDITIONAL_LABELS", f, t, f.peer_exchange_labels = list(t)),
    switch!("PILOT_ENABLE_TELEMETRY_LABEL", f, t, f.telemetry_label = boolean(t)?),
    switch!("PILOT_ENDPOINT_TELEMETRY_LABEL", f, t, f.endpoint_telemetry_label = boolean(t)?),
    switch!("PILOT_ENABLE_MONGO_FILTER", f, t, f.mongo = boolean(t)?),
    switch!("PILOT_ENABLE_REDIS_FILTER", f, t, f.redis = boolean(t)?),
    switch!("PILOT_ENABLE_MYSQL_FILTER", f, t, f.mysql = boolean(t)?),
    switch!("PILOT_SIDECAR_USE_REMOTE_ADDRESS", f, t, f.sidecar_remote_address = boolean(t)?),
    switch!("PILOT_ENABLE_PERSISTENT_SESSION_FILTER", f, t, f.persistent_sessions = boolean(t)?),
    switch!("PILOT_PERSISTENT_SESSION_LABEL", f, t, f.session_cookie_label = t.into()),
    switch!("PILOT_PERSISTENT_SESSION_HEADER_LABEL", f, t, f.session_header_label = t.into()),
    switch!("PILOT_DRAINING_LABEL", f, t, f.draining_label = t.into()),
    switch!("PILOT_ENABLE_ABSOLUTE_FQDN_VHOST_DOMAIN", f, t, f.absolute_domains = boolean(t)?),
    switch!("PILOT_ENABLE_ROUTE_COLLAPSE_OPTIMIZATION", f, t, f.collapsed_hosts = boolean(t)?),
    switch!("ENABLE_100_CONTINUE_HEADERS", f, t, f.continue_from_server = boolean(t)?),
    switch!("ENABLE_LOCALITY_WEIGHTED_LB_CONFIG", f, t, f.locality_weights = boolean(t)?),
    switch!("PILOT_ALLOW_SIDECAR_SERVICE_INBOUND_LISTENER_MERGE", f, t, f.ingress_beside_services = boolean(t)?),
    switch!("MAX_CONNECTIONS_PER_SOCKET_EVENT_LOOP", f, t, f.accepts_at_a_time = Some(number(t)?).filter(|n| *n > 0)),
    switch!("PILOT_GATEWAY_TRANSPORT_SOCKET_CONNECT_TIMEOUT", f, t, f.gateway_handshake = span(t)?),
    switch!("PILOT_DNS_CARES_UDP_MAX_QUERIES", f, t, f.dns_queries_per_socket = number(t)?),
    switch!("PILOT_DNS_JITTER_DURATION", f, t, f.dns_jitter = span(t)?),
    switch!("PILOT_ALLOW_ANY_DYNAMIC_DNS_MAX_HOSTS", f, t, f.dynamic_dns_hosts = positive(t)?),
    switch!("DISABLE_SHADOW_HOST_SUFFIX", f, t, f.shadow_suffix = !boolean(t)?),
    switch!("DISABLE_TRACK_REMAINING_CB_METRICS", f, t, f.remaining_limits = !boolean(t)?),
    switch!("PREFER_DESTINATIONRULE_TLS_FOR_EXTERNAL_SERVICES", f, t, f.rule_tls_outside = boolean(t)?),
    switch!("LABEL_CANONICAL_SERVICES_FOR_MESH_EXTERNAL_SERVICE_ENTRIES", f, t, f.canonical_outside = boolean(t)?),
    switch!("PILOT_TRACE_SAMPLING", f, t, f.trace_sampling = percent(t)?),
    switch!("PILOT_SCOPE_GATEWAY_TO_NAMESPACE", f, t, f.gateways_of_namespace = boolean(t)?),
    switch!("PILOT_FILTER_GATEWAY_CLUSTER_CONFIG", f, t, f.gateways_know_what_they_reach = boolean(t)?),
    switch!("PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES", f, t, f.headless_balancing = boolean(t)?),
    switch!("PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES", f, t, f.services_select_entries = boolean(t)?),
    switch!("PILOT_ENABLE_SERVICEENTRY_SELECT_PODS", f, t, f.entries_select_pods = boolean(t)?),
    switch!("PILOT_ENABLE_IP_AUTOALLOCATE", f, t, f.allocated_addresses = boolean(t)?),
    switch!("ISTIO_DUAL_STACK", f, t, f.dual_stack = boolean(t)?),
    switch!("ISTIO_ENABLE_IPV4_OUTBOUND_LISTENER_FOR_IPV6_CLUSTERS", f, t, f.ipv4_beside_ipv6 = boolean(t)?),
    switch!("PILOT_SKIP_VALIDATE_TRUST_DOMAIN", f, t, f.any_trust_domain = boolean(t)?),
    switch!("COMPLIANCE_POLICY", f, t, f.compliance = compliance(t)?),
    // After each other: that they are always sent outweighs that they are not where it may hurt.
    switch!(
        "PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS",
        f,
        t,
        f.unready_endpoints = if boolean(t)? { UnreadyEndpoints::UnlessCounted } else { UnreadyEndpoints::Never }
    ),
    switch!(
        "PILOT_SEND_UNHEALTHY_ENDPOINTS",
        f,
        t,
        if boolean(t)? {
            f.unready_endpoints = UnreadyEndpoints::Always;
        }
    ),
];

impl Features {
    /// As these variables say; `of` gives the value of one. What makes no sense is handed back by name, and means nothing.
    pub fn of(of: impl Fn(&str) -> Option<String>) -> (Features, Vec<(&'static str, BadValue)>) {
        let mut features = Features::default();
        let mut bad = Vec::new();
        for switch in SWITCHES {
            // A variable that is there and empty is what a template leaves of a value that nobody gave.
            let Some(text) = of(switch.name).filter(|t| !t.is_empty() || switch.name.ends_with("_LABEL")) else { continue };
            if let Err(e) = (switch.set)(&mut features, &text) {
                bad.push((switch.name, e));
            }
        }
        (features, bad)
    }
}

fn boolean(text: &str) -> Result<bool, BadValue> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(BadValue::new(text, "truth value")),
    }
}

fn number(text: &str) -> Result<u32, BadValue> {
    text.parse().map_err(|_| BadValue::new(text, "number"))
}

fn positive(text: &str) -> Result<u32, BadValue> {
    number(text).ok().filter(|n| *n > 0).ok_or_else(|| BadValue::new(text, "number above 0"))
}

fn span(text: &str) -> Result<Span, BadValue> {
    // Envoy takes no time-out that cannot be told from none.
    let whole = |d: &Duration| *d >= Duration::from_millis(1);
    parse_duration(text).ok().filter(whole).map(Span).ok_or_else(|| BadValue::new(text, "duration"))
}

/// In 1/100.
fn percent(text: &str) -> Result<u16, BadValue> {
    let share = text.parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p));
    // Cannot be cut off: at most 10,000.
    share.map(|p| (p * 100.0).round() as u16).ok_or_else(|| BadValue::new(text, "percentage"))
}

/// Sorted, each once.
fn list(text: &str) -> Vec<crate::name::Str> {
    let names: std::collections::BTreeSet<&str> = text.split(',').map(str::trim).filter(|n| !n.is_empty()).collect();
    names.into_iter().map(Into::into).collect()
}

fn compliance(text: &str) -> Result<Compliance, BadValue> {
    match text {
        "fips-140-2" => Ok(Compliance::Fips140V2),
        "fips-140-3" => Ok(Compliance::Fips140V3),
        "pqc" => Ok(Compliance::PostQuantum),
        _ => Err(BadValue::new(text, "policy of fips-140-2, fips-140-3 and pqc")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> (Features, Vec<&'static str>) {
        let value = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let (features, bad) = Features::of(value);
        (features, bad.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn nothing_said_is_the_default_and_so_are_empty_texts() {
        assert_eq!(of(&[]), (Features::default(), vec![]));
        let empty: Vec<(&str, &str)> = SWITCHES.iter().map(|s| s.name).filter(|n| !n.ends_with("_LABEL")).map(|n| (n, "")).collect();
        assert_eq!(of(&empty), (Features::default(), vec![]));
    }

    #[test]
    fn what_makes_no_sense_is_named_and_means_nothing() {
        let pairs = [
            ("PILOT_HTTP10", "yes"),
            ("PILOT_TRACE_SAMPLING", "101"),
            ("PILOT_DNS_JITTER_DURATION", "soon"),
            ("COMPLIANCE_POLICY", "fips"),
            ("PILOT_ALLOW_ANY_DYNAMIC_DNS_MAX_HOSTS", "0"),
        ];
        let (features, mut bad) = of(&pairs);
        bad.sort_unstable();
        let mut names = pairs.map(|(name, _)| name);
        names.sort_unstable();
        assert_eq!((features, bad), (Features::default(), names.to_vec()));
    }

    #[test]
    fn a_name_stands_for_one_thing() {
        let mut names: Vec<_> = SWITCHES.iter().map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SWITCHES.len());
    }

    #[test]
    fn every_switch_changes_something() {
        // None of these is a default.
        let values = ["1", "0", "other", "7s", "33", "pqc", "envoy"];
        for switch in SWITCHES {
            let changed = values.iter().any(|v| of(&[(switch.name, v)]).0 != Features::default());
            assert!(changed, "{}", switch.name);
        }
    }

    #[test]
    fn unready_endpoints_go_by_two_switches() {
        let auto = |value| ("PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS", value);
        let send = |value| ("PILOT_SEND_UNHEALTHY_ENDPOINTS", value);
        for (pairs, expected) in [
            (vec![auto("false")], UnreadyEndpoints::Never),
            (vec![auto("false"), send("true")], UnreadyEndpoints::Always),
            (vec![send("false")], UnreadyEndpoints::UnlessCounted),
        ] {
            assert_eq!(of(&pairs).0.unready_endpoints, expected, "{pairs:?}");
        }
    }
}
