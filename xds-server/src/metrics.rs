//! Metrics under the names that dashboards and alerts of the reference use: [`Metrics`], [`prometheus_text`].

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use pilotfish_envoy::TypeUrl;
use pilotfish_model::proxy::ProxyVersion;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: String,
}

type Count = Counter<u64, AtomicU64>;
type Level = Gauge<i64, AtomicI64>;

/// What the server counts. Clones count into the same metrics.
#[derive(Clone)]
pub struct Metrics {
    pushes: Family<TypeLabel, Count>,
    clients: Family<VersionLabel, Level>,
    rejects: Family<TypeLabel, Count>,
    expired_nonce: Family<TypeLabel, Count>,
    config_size: Family<TypeLabel, Histogram, fn() -> Histogram>,
    push_time: Family<TypeLabel, Histogram, fn() -> Histogram>,
    send_time: Histogram,
    recv_max: Level,
    /// Observes how long a push took until the client had confirmed everything, in seconds.
    pub(crate) convergence_time: Histogram,
    /// Observes how long a client waited for its turn in a push, in seconds.
    pub(crate) queue_time: Histogram,
    /// Observes how long scopes took to make, in seconds.
    pub(crate) job_time: Histogram,
    told: Family<TypeLabel, Histogram, fn() -> Histogram>,
    confirmed: Family<TypeLabel, Histogram, fn() -> Histogram>,
    /// Counts translations that failed.
    pub(crate) internal_errors: Count,
    /// Counts requests for types that are not served.
    pub(crate) unknown_types: Count,
    /// Counts requests that the access table refused.
    refused: Count,
}

/// Bounds of what should take milliseconds, in seconds.
const MOMENTS: [f64; 14] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0, 10.0, 30.0];

impl Default for Metrics {
    fn default() -> Self {
        const WAITS: [f64; 8] = [0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
        Metrics {
            pushes: Family::default(),
            clients: Family::default(),
            rejects: Family::default(),
            expired_nonce: Family::default(),
            config_size: Family::new_with_constructor(|| Histogram::new([1.0, 1e4, 1e6, 4e6, 1e7, 4e7])),
            push_time: Family::new_with_constructor(|| Histogram::new([0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0])),
            send_time: Histogram::new([0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0]),
            recv_max: Level::default(),
            convergence_time: Histogram::new(WAITS),
            queue_time: Histogram::new(WAITS),
            job_time: Histogram::new(MOMENTS),
            told: Family::new_with_constructor(|| Histogram::new(MOMENTS)),
            confirmed: Family::new_with_constructor(|| Histogram::new(MOMENTS)),
            internal_errors: Count::default(),
            unknown_types: Count::default(),
            refused: Count::default(),
        }
    }
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("pilot_xds_pushes", "Responses sent, by type", self.pushes.clone());
        registry.register("pilot_xds", "Connected clients, by their version", self.clients.clone());
        registry.register("pilot_total_xds_rejects", "Responses that clients refused, by type", self.rejects.clone());
        registry.register("pilot_xds_expired_nonce", "Requests that answer an outdated response", self.expired_nonce.clone());
        registry.register("pilot_xds_config_size_bytes", "Size of responses, by type", self.config_size.clone());
        registry.register("pilot_xds_push_time", "Seconds to make and send a response, by type", self.push_time.clone());
        registry.register("pilot_xds_send_time", "Seconds to send a response", self.send_time.clone());
        registry.register("pilot_xds_recv_max", "Largest request so far in bytes", self.recv_max.clone());
        registry.register(
            "pilot_proxy_convergence_time",
            "Seconds from a change until a client confirmed all of it",
            self.convergence_time.clone(),
        );
        registry.register("pilot_proxy_queue_time", "Seconds that a client waited for its turn in a push", self.queue_time.clone());
        registry.register("pilotfish_scope_time", "Seconds to make the resources of one scope", self.job_time.clone());
        registry.register("pilotfish_event_to_sent_time", "Seconds from an event until a client was sent it, by type", self.told.clone());
        registry.register(
            "pilotfish_event_to_ack_time",
            "Seconds from an event until a client confirmed it, by type",
            self.confirmed.clone(),
        );
        registry.register("pilot_total_xds_internal_errors", "Errors of the server itself", self.internal_errors.clone());
        registry.register("pilotfish_xds_unknown_types", "Requests for types that are not served", self.unknown_types.clone());
        registry.register("pilotfish_xds_refused", "Requests of callers that may not have what they ask for", self.refused.clone());
    }

    pub(crate) fn connected(&self, version: &ProxyVersion, change: i64) {
        let version = match *version {
            ProxyVersion::NEWEST => "unknown".to_owned(),
            ProxyVersion(major, minor, u16::MAX) => format!("{major}.{minor}"),
            ProxyVersion(major, minor, patch) => format!("{major}.{minor}.{patch}"),
        };
        self.clients.get_or_create(&VersionLabel { version }).inc_by(change);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.recv_max.inner().fetch_max(i64::try_from(bytes).unwrap_or(i64::MAX), std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, type_url: TypeUrl, bytes: usize, push: Duration, send: Duration) {
        let short = TypeLabel { r#type: type_url.short() };
        self.pushes.get_or_create(&short).inc();
        self.push_time.get_or_create(&short).observe(push.as_secs_f64());
        self.send_time.observe(send.as_secs_f64());
        self.config_size.get_or_create(&TypeLabel { r#type: type_url.as_str() }).observe(bytes as f64);
    }

    /// A client was sent something of a type, this long after the oldest event behind it.
    pub(crate) fn told(&self, type_url: TypeUrl, after: Duration) {
        self.told.get_or_create(&TypeLabel { r#type: type_url.short() }).observe(after.as_secs_f64());
    }

    /// A client has taken it.
    pub(crate) fn confirmed(&self, type_url: TypeUrl, after: Duration) {
        self.confirmed.get_or_create(&TypeLabel { r#type: type_url.short() }).observe(after.as_secs_f64());
    }

    /// Somebody asked for what it may not have.
    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn stale(&self, type_url: TypeUrl) {
        self.expired_nonce.get_or_create(&TypeLabel { r#type: type_url.short() }).inc();
    }

    pub(crate) fn rejected(&self, type_url: TypeUrl) {
        self.rejects.get_or_create(&TypeLabel { r#type: type_url.short() }).inc();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Content type of [`prometheus_text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A registry in Prometheus' text format 0.0.4. The library writes OpenMetrics, where every sample of a counter ends in
/// `_total`; here samples have the names under which they were registered.
pub fn prometheus_text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut open_metrics = String::new();
    prometheus_client::encoding::text::encode(&mut open_metrics, registry)?;
    let mut text = String::with_capacity(open_metrics.len());
    let mut counter: Option<&str> = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            counter = described.strip_suffix(" counter");
        }
        let renamed = counter.and_then(|name| Some((name, line.strip_prefix(name)?.strip_prefix("_total")?)));
        match renamed {
            Some((name, rest)) => text.extend([name, rest, "\n"]),
            None if line == "# EOF" => {}
            None => text.extend([line, "\n"]),
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn names_are_those_that_were_registered() {
        let mut registry = Registry::default();
        let (plain, total) = (Count::default(), Count::default());
        registry.register("pilot_xds_pushes", "A", plain.clone());
        registry.register("controller_sync_errors_total", "B", total.clone());
        plain.inc();
        total.inc_by(2);
        assert_eq!(
            prometheus_text(&registry).unwrap(),
            "# HELP pilot_xds_pushes A.\n# TYPE pilot_xds_pushes counter\npilot_xds_pushes 1\n\
             # HELP controller_sync_errors_total B.\n# TYPE controller_sync_errors_total counter\ncontroller_sync_errors_total 2\n"
        );
    }

    #[test]
    fn what_the_server_counts() {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        metrics.sent(TypeUrl::Cluster, 12_000, Duration::from_millis(20), Duration::from_millis(1));
        metrics.rejected(TypeUrl::Listener);
        metrics.connected(&ProxyVersion(1, 29, 1), 1);
        metrics.received(70);
        metrics.received(7);
        let text = prometheus_text(&registry).unwrap();
        for line in [
            "pilot_xds_pushes{type=\"cds\"} 1",
            "pilot_total_xds_rejects{type=\"lds\"} 1",
            "pilot_xds{version=\"1.29.1\"} 1",
            "pilot_xds_recv_max 70",
            "pilot_xds_config_size_bytes_count{type=\"type.googleapis.com/envoy.config.cluster.v3.Cluster\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }
}
