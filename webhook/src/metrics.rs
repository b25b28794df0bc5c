//! What the webhooks count, under the names that dashboards know.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::admission::GroupVersionKind;

/// Counters of both webhooks. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) requests: Counter,
    pub(crate) successes: Counter,
    pub(crate) failures: Counter,
    pub(crate) skips: Counter,
    pub(crate) seconds: Histogram,
    passed: Family<Kind, Counter>,
    failed: Family<Failed, Counter>,
    http_errors: Family<Status, Counter>,
    /// Patches of the validating configuration.
    pub config_updates: Counter,
    config_errors: Family<Reason, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    group: String,
    version: String,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    group: String,
    version: String,
    resource: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            requests: Counter::default(),
            successes: Counter::default(),
            failures: Counter::default(),
            skips: Counter::default(),
            seconds: Histogram::new([0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0]),
            passed: Family::default(),
            failed: Family::default(),
            http_errors: Family::default(),
            config_updates: Counter::default(),
            config_errors: Family::default(),
        }
    }
}

impl Metrics {
    /// Puts them on a page.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("sidecar_injection_requests_total", "Requests for injection", self.requests.clone());
        registry.register("sidecar_injection_success_total", "Requests for injection that were answered", self.successes.clone());
        registry.register("sidecar_injection_failure_total", "Requests for injection that failed", self.failures.clone());
        registry.register("sidecar_injection_skip_total", "Pods that were left as they are", self.skips.clone());
        registry.register("sidecar_injection_time_seconds", "Seconds that one injection took", self.seconds.clone());
        registry.register("galley_validation_passed", "Objects that were accepted", self.passed.clone());
        registry.register("galley_validation_failed", "Objects that were refused", self.failed.clone());
        registry.register("galley_validation_http_error", "Requests that were no reviews", self.http_errors.clone());
        registry.register("galley_validation_config_updates", "Patches of the webhook configuration", self.config_updates.clone());
        registry.register("galley_validation_config_update_error", "Patches of it that failed", self.config_errors.clone());
    }

    pub(crate) fn passed(&self, kind: &GroupVersionKind) {
        let kind = kind.clone();
        self.passed.get_or_create(&Kind { group: kind.group, version: kind.version, resource: kind.kind }).inc();
    }

    pub(crate) fn failed(&self, kind: &GroupVersionKind, reason: &'static str) {
        // Kinds that nobody knows are not labels: whoever can reach the port could make as many as they like.
        let kind = if reason == "unknown_type" { GroupVersionKind::default() } else { kind.clone() };
        self.failed.get_or_create(&Failed { group: kind.group, version: kind.version, resource: kind.kind, reason }).inc();
    }

    pub(crate) fn http_error(&self, status: u16) {
        self.http_errors.get_or_create(&Status { status: status.to_string() }).inc();
    }

    /// A patch of the webhook configuration failed.
    pub fn config_error(&self, reason: &str) {
        self.config_errors.get_or_create(&Reason { reason: reason.to_owned() }).inc();
    }
}
