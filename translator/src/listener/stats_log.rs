//! Istio's metrics of clients without Istio's filter: an access logger of stock Envoy counts instead of writing.
//!
//! What a workload is, its node says; what a server is, its cluster and endpoint say. So nothing in here is of one workload, and
//! connection managers stay shared. What only the peers of Istio's own proxies tell each other is not known.

use std::fmt::Write;

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::accesslog::v3::AccessLog;
use pilotfish_envoy::pb::envoy::extensions::access_loggers::stats::v3::Config;
use pilotfish_envoy::pb::envoy::extensions::access_loggers::stats::v3::config::{Counter, Histogram, Stat, Tag, histogram::Unit};
use pilotfish_model::name::{CANONICAL_NAME, CANONICAL_REVISION};

use super::access_log::access_log;
use super::settings::{Settings, Side};
use super::stats::{Change, Stats};
use crate::extensions::ACCESS_LOG_STATS;

/// What a metric's name begins with. The field for it has a successor, which older clients do not know.
const PREFIX: &str = "istio";
const UNKNOWN: &str = "unknown";

/// What is counted of a request or a connection, by the API's name of the metric.
enum Value {
    One,
    Sum(&'static str),
    Share(&'static str, Unit),
}

const OF_REQUESTS: [(&str, &str, Value); 4] = [
    ("REQUEST_COUNT", "requests_total", Value::One),
    ("REQUEST_DURATION", "request_duration_milliseconds", Value::Share("%DURATION%", Unit::Milliseconds)),
    ("REQUEST_SIZE", "request_bytes", Value::Share("%BYTES_RECEIVED%", Unit::Bytes)),
    ("RESPONSE_SIZE", "response_bytes", Value::Share("%BYTES_SENT%", Unit::Bytes)),
];

/// A log is written when a connection ends, so that nothing can be counted when it begins.
const OF_CONNECTIONS: [(&str, &str, Value); 3] = [
    ("TCP_CLOSED_CONNECTIONS", "tcp_connections_closed_total", Value::One),
    ("TCP_SENT_BYTES", "tcp_sent_bytes_total", Value::Sum("%BYTES_SENT%")),
    ("TCP_RECEIVED_BYTES", "tcp_received_bytes_total", Value::Sum("%BYTES_RECEIVED%")),
];

/// Of requests.
pub(super) fn requests(settings: &Settings, side: Side) -> impl Iterator<Item = AccessLog> {
    logs(settings, side, &OF_REQUESTS, true)
}

/// Of connections that are not read as HTTP.
pub(super) fn connections(settings: &Settings, side: Side) -> impl Iterator<Item = AccessLog> {
    logs(settings, side, &OF_CONNECTIONS, false)
}

/// Whether a client counts in this way.
pub(super) fn counts(settings: &Settings) -> bool {
    !settings.istio && settings.has(ACCESS_LOG_STATS)
}

fn logs(
    settings: &Settings,
    side: Side,
    metrics: &'static [(&'static str, &'static str, Value)],
    http: bool,
) -> impl Iterator<Item = AccessLog> {
    let stats = if counts(settings) { settings.observed(side).stats.as_slice() } else { &[] };
    let configs = stats.iter().map(move |stats| config(stats, side, metrics, http));
    let configs: Vec<Config> = configs.filter(|c| !c.counters.is_empty() || !c.histograms.is_empty()).collect();
    configs.into_iter().map(|config| access_log(ACCESS_LOG_STATS, any(&config)))
}

fn config(stats: &Stats, side: Side, metrics: &[(&str, &str, Value)], http: bool) -> Config {
    #[allow(deprecated)]
    let mut config = Config { stat_prefix: PREFIX.to_owned(), ..Default::default() };
    let usual = tags(side, http);
    for (api_name, name, value) in metrics {
        let change = stats.changes.get(*api_name);
        if change.is_some_and(|c| c.dropped) {
            continue;
        }
        let stat = Some(Stat { name: (*name).to_owned(), tags: changed(&usual, change) });
        match value {
            Value::One => config.counters.push(Counter { stat, value_fixed: Some(1), ..Default::default() }),
            Value::Sum(format) => config.counters.push(Counter { stat, value_format: (*format).to_owned(), ..Default::default() }),
            Value::Share(format, unit) => {
                config.histograms.push(Histogram { stat, unit: *unit as i32, value_format: (*format).to_owned() });
            }
        }
    }
    config
}

/// With what a Telemetry says of them. A removed tag is left out, another one is an expression.
fn changed(usual: &[(&'static str, String)], change: Option<&Change>) -> Vec<Tag> {
    let none = Default::default();
    let own = change.map_or(&none, |c| &c.tags);
    let kept = usual.iter().filter(|(name, _)| !own.contains_key(*name)).map(|(name, format)| ((*name).to_owned(), format.clone()));
    let said = own.iter().filter_map(|(name, value)| Some((name.to_string(), expression(value.as_deref()?)?)));
    kept.chain(said).map(|(name, value_format)| Tag { name, value_format, ..Default::default() }).collect()
}

/// `None` for what Envoy would refuse, and the listener with it.
pub(crate) fn expression(text: &str) -> Option<String> {
    // It reads up to the first sign that ends a command.
    (pilotfish_model::cel::check(text).is_ok() && !text.contains('%') && !text.contains('\n')).then(|| format!("%CEL({text})%"))
}

/// The names that Istio's filter gives, as far as somebody knows the value.
fn tags(side: Side, http: bool) -> Vec<(&'static str, String)> {
    let server = side == Side::Inbound;
    let text = str::to_owned;
    let (own, peer) = if server { ("destination", "source") } else { ("source", "destination") };
    let mut tags = vec![("reporter", text(own))];
    let mut add = |of: &str, field: &str, value: String| {
        if let Some(name) = NAMES.iter().find(|n| n.strip_prefix(of).is_some_and(|rest| rest.strip_prefix('_') == Some(field))) {
            tags.push((name, value));
        }
    };
    let app = label(&["app", "service.istio.io/canonical-name", "app.kubernetes.io/name"], None);
    let workload = meta("WORKLOAD_NAME", "xds.node.cluster");
    let canonical = label(&CANONICAL_NAME, Some(&workload));
    let version = |usual| label(&CANONICAL_REVISION, Some(usual));
    let cel = |expression: String| format!("%CEL({expression})%");
    add(own, "workload", cel(workload));
    add(own, "workload_namespace", cel(meta("NAMESPACE", "\"unknown\"")));
    add(own, "app", cel(app));
    add(own, "version", cel(version("\"unknown\"")));
    add(own, "canonical_service", cel(canonical));
    add(own, "canonical_revision", cel(version("\"latest\"")));
    add(own, "cluster", cel(meta("CLUSTER_ID", "\"unknown\"")));
    add(own, "principal", text(if server { "%DOWNSTREAM_LOCAL_URI_SAN%" } else { "%UPSTREAM_LOCAL_URI_SAN%" }));
    add(peer, "principal", text(if server { "%DOWNSTREAM_PEER_URI_SAN%" } else { "%UPSTREAM_PEER_URI_SAN%" }));
    tags.extend([
        ("destination_service", cel(service("host"))),
        ("destination_service_name", cel(service("name"))),
        ("destination_service_namespace", cel(service("namespace"))),
    ]);
    if !server {
        // `workload;namespace;canonical service;revision;cluster`.
        tags.push(("destination_workload", text("%UPSTREAM_METADATA(istio:workload)%")));
    }
    if http {
        let grpc = "\"content-type\" in request.headers && request.headers[\"content-type\"].startsWith(\"application/grpc\")";
        tags.extend([
            ("request_protocol", cel(format!("{grpc} ? \"grpc\" : \"http\""))),
            ("response_code", text("%RESPONSE_CODE%")),
            ("grpc_response_status", text("%GRPC_STATUS_NUMBER%")),
        ]);
    } else {
        tags.push(("request_protocol", text("tcp")));
    }
    let policy = if server { cel("connection.mtls ? \"mutual_tls\" : \"none\"".to_owned()) } else { text(UNKNOWN) };
    tags.extend([("response_flags", text("%RESPONSE_FLAGS%")), ("connection_security_policy", policy)]);
    tags
}

/// Names of what is said of a source or a destination.
const NAMES: [&str; 16] = [
    "source_workload",
    "source_workload_namespace",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
    "source_cluster",
    "source_principal",
    "destination_workload",
    "destination_workload_namespace",
    "destination_app",
    "destination_version",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
    "destination_principal",
];

/// A text of the node's metadata.
fn meta(key: &str, otherwise: &str) -> String {
    format!("\"{key}\" in xds.node.metadata ? xds.node.metadata[\"{key}\"] : {otherwise}")
}

/// The first of these labels that the workload has.
fn label(keys: &[&str], otherwise: Option<&str>) -> String {
    let labels = "xds.node.metadata[\"LABELS\"]";
    let mut chosen = String::new();
    for key in keys {
        // A String can always be written to.
        let _ = write!(chosen, "\"LABELS\" in xds.node.metadata && \"{key}\" in {labels} ? {labels}[\"{key}\"] : ");
    }
    let otherwise = otherwise.map_or_else(|| format!("\"{UNKNOWN}\""), |o| format!("({o})"));
    chosen + &otherwise
}

/// What the cluster says of its service.
fn service(field: &str) -> String {
    let metadata = "xds.cluster_metadata.filter_metadata";
    let said = format!("{metadata}[\"istio\"][\"services\"][0][\"{field}\"]");
    format!("\"istio\" in {metadata} && \"services\" in {metadata}[\"istio\"] ? {said} : \"{UNKNOWN}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::settings::tests::plain;

    #[test]
    fn own_expressions_are_such() {
        for side in [Side::Inbound, Side::Outbound, Side::Gateway] {
            for (name, format) in tags(side, true).into_iter().chain(tags(side, false)) {
                if let Some(text) = format.strip_prefix("%CEL(").and_then(|f| f.strip_suffix(")%")) {
                    assert_eq!(expression(text), Some(format.clone()), "{name}");
                }
            }
        }
    }

    #[test]
    fn a_metric_may_be_dropped_and_have_other_tags() {
        let mut settings = plain();
        let change = |dropped, tags: &[(&str, Option<&str>)]| Change {
            dropped,
            tags: tags.iter().map(|(k, v)| ((*k).into(), v.map(Into::into))).collect(),
        };
        let tags = [
            ("mine", Some("request.host")),
            ("bad", Some("request.(")),
            ("worse", Some("'%'")),
            ("source_app", None),
            ("response_flags", Some("'x'")),
        ];
        let changes = [("REQUEST_SIZE", change(true, &[])), ("REQUEST_COUNT", change(false, &tags))];
        let stats = Stats { changes: changes.into_iter().map(|(k, v)| (k.into(), v)).collect(), reporting_interval: None };
        settings.telemetry.client.stats = vec![stats.clone()];
        let made = config(&stats, Side::Outbound, &OF_REQUESTS, true);
        let names: Vec<_> = made.counters.iter().map(|c| &c.stat).chain(made.histograms.iter().map(|h| &h.stat)).flatten().collect();
        assert_eq!(
            names.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
            ["requests_total", "request_duration_milliseconds", "response_bytes"]
        );
        let of = |tag: &str| names[0].tags.iter().filter(|t| t.name == tag).map(|t| t.value_format.as_str()).collect::<Vec<_>>();
        assert_eq!([of("mine"), of("response_flags"), of("reporter")], [["%CEL(request.host)%"], ["%CEL('x')%"], ["source"]]);
        let none: [&str; 0] = [];
        assert_eq!([of("bad"), of("worse"), of("source_app")], [none; 3]);
        assert_eq!((requests(&settings, Side::Outbound).count(), requests(&settings, Side::Inbound).count()), (1, 0));
        settings.istio = true;
        assert_eq!(requests(&settings, Side::Outbound).count(), 0);
        settings.istio = false;
        settings.extensions = [crate::extensions::HTTP_ROUTER.into()].into();
        assert_eq!(connections(&settings, Side::Outbound).count(), 0);
    }
}
