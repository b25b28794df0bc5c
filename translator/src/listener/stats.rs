//! Istio's metrics: which are kept, with which labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pilotfish_envoy::pb::stats::{MetricConfig, PluginConfig};
use pilotfish_model::mesh_config::ProviderKind;
use pilotfish_model::name::Str;
use pilotfish_model::telemetry::{Metric, MetricOverride, Metrics, StandardMetric, WorkloadMode};
use pilotfish_model::{MeshConfig, Telemetry};

use super::pack::duration;
use super::settings::Side;

/// What one statistics filter depends on beside its side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stats {
    /// By the API's name of the metric.
    pub changes: BTreeMap<Str, Change>,
    /// How often metrics of open connections are updated.
    pub reporting_interval: Option<Duration>,
}

/// What is different about a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Change {
    /// It is not kept.
    pub dropped: bool,
    /// Labels to add or change, or (`None`) to remove.
    pub tags: BTreeMap<Str, Option<Str>>,
}

/// The metrics of a provider, in both directions.
#[derive(Clone, Debug, Default)]
pub(super) struct ProviderStats {
    client: Direction,
    server: Direction,
    reporting_interval: Option<Duration>,
}

#[derive(Clone, Debug, Default)]
struct Direction {
    off: bool,
    changes: BTreeMap<Str, Change>,
}

impl ProviderStats {
    /// Of one direction; `None` where nothing is counted.
    pub(super) fn of(&self, server: bool) -> Option<Stats> {
        let direction = if server { &self.server } else { &self.client };
        let stats = || Stats { changes: direction.changes.clone(), reporting_interval: self.reporting_interval };
        (!direction.off).then(stats)
    }

    fn change(&mut self, o: &MetricOverride) {
        let all = o.metric == Metric::All;
        let directions = [(o.mode != WorkloadMode::Server, &mut self.client), (o.mode != WorkloadMode::Client, &mut self.server)];
        for (_, direction) in directions.into_iter().filter(|(meant, _)| *meant) {
            // Without any metric there is no filter, until something is said of one again.
            direction.off = all && o.disabled == Some(true);
            if direction.off {
                continue;
            }
            for name in names(&o.metric) {
                let change = direction.changes.entry(name).or_default();
                change.dropped = o.disabled.unwrap_or(change.dropped);
                change.tags.extend(o.tags.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
        }
    }
}

fn names(metric: &Metric) -> Vec<Str> {
    match metric {
        Metric::All => StandardMetric::ALL.iter().map(|m| m.api_name().into()).collect(),
        Metric::Standard(m) => vec![m.api_name().into()],
        Metric::Custom(name) => vec![name.clone()],
    }
}

/// Of each Prometheus provider in force, by name. The last list of providers decides which are; settings that are older than
/// it hold if they were for one of them.
pub(super) fn merged(config: &MeshConfig, applicable: &[Arc<Telemetry>]) -> Vec<ProviderStats> {
    let defaults = &config.default_providers.metrics;
    let entries: Vec<&Metrics> = applicable.iter().flat_map(|t| &t.metrics).collect();
    let in_force: BTreeSet<&Str> = entries.iter().rev().map(|m| &m.providers).find(|p| !p.is_empty()).unwrap_or(defaults).iter().collect();
    let mut found: BTreeMap<&Str, ProviderStats> = BTreeMap::new();
    if entries.is_empty() {
        found.extend(in_force.iter().map(|name| (*name, ProviderStats::default())));
    }
    let mut meant = defaults;
    for entry in entries {
        meant = if entry.providers.is_empty() { meant } else { &entry.providers };
        for name in meant.iter().filter(|name| in_force.contains(name)) {
            let stats = found.entry(name).or_default();
            stats.reporting_interval = entry.reporting_interval.or(stats.reporting_interval);
            entry.overrides.iter().for_each(|o| stats.change(o));
        }
    }
    let counts = |name: &str| config.provider(name).is_some_and(|p| matches!(p.kind, ProviderKind::Prometheus(_)));
    found.into_iter().filter(|(name, _)| counts(name)).map(|(_, stats)| stats).collect()
}

/// The filter's settings. A Host header of the outside must not end up in metric labels.
pub(super) fn config(input: &Stats, side: Side) -> PluginConfig {
    let metric = |(name, change): (&Str, &Change)| MetricConfig {
        name: metric_name(name).to_owned(),
        drop: change.dropped,
        dimensions: change.tags.iter().filter_map(|(k, v)| Some((k.to_string(), v.as_ref()?.to_string()))).collect(),
        tags_to_remove: change.tags.iter().filter(|(_, v)| v.is_none()).map(|(k, _)| k.to_string()).collect(),
        ..Default::default()
    };
    PluginConfig {
        disable_host_header_fallback: side != Side::Outbound,
        tcp_reporting_duration: input.reporting_interval.map(duration),
        metrics: input.changes.iter().map(metric).collect(),
        ..Default::default()
    }
}

/// What the filter calls a metric.
fn metric_name(api_name: &str) -> &str {
    match api_name {
        "REQUEST_COUNT" => "requests_total",
        "REQUEST_DURATION" => "request_duration_milliseconds",
        "REQUEST_SIZE" => "request_bytes",
        "RESPONSE_SIZE" => "response_bytes",
        "TCP_OPENED_CONNECTIONS" => "tcp_connections_opened_total",
        "TCP_CLOSED_CONNECTIONS" => "tcp_connections_closed_total",
        "TCP_SENT_BYTES" => "tcp_sent_bytes_total",
        "TCP_RECEIVED_BYTES" => "tcp_received_bytes_total",
        "GRPC_REQUEST_MESSAGES" => "request_messages_total",
        "GRPC_RESPONSE_MESSAGES" => "response_messages_total",
        own => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh_config(defaults: &[&str]) -> MeshConfig {
        let mut config = MeshConfig::default();
        config.default_providers.metrics = defaults.iter().map(|n| Str::from(*n)).collect();
        config
    }

    fn telemetry(providers: &[&str], overrides: Vec<MetricOverride>) -> Arc<Telemetry> {
        let providers = providers.iter().map(|n| Str::from(*n)).collect();
        Arc::new(Telemetry { metrics: vec![Metrics { providers, overrides, reporting_interval: None }], ..Telemetry::default() })
    }

    fn off(metric: Metric, mode: WorkloadMode) -> MetricOverride {
        MetricOverride { metric, mode, disabled: Some(true), tags: BTreeMap::new() }
    }

    fn count(metric: &str) -> MetricOverride {
        MetricOverride { metric: Metric::Custom(metric.into()), ..MetricOverride::default() }
    }

    /// Which directions are counted, and how many changes they have.
    fn outcome(config: &MeshConfig, levels: &[Arc<Telemetry>]) -> Vec<[Option<usize>; 2]> {
        let of = |s: &ProviderStats, server| s.of(server).map(|s| s.changes.len());
        merged(config, levels).iter().map(|s| [of(s, false), of(s, true)]).collect()
    }

    #[test]
    fn what_is_switched_off_stays_off_until_something_is_said_of_it() {
        let config = mesh_config(&["prometheus"]);
        let request_size = || Metric::Standard(StandardMetric::RequestSize);
        let none = telemetry(&[], vec![off(Metric::All, WorkloadMode::Undefined)]);
        let no_server = telemetry(&["prometheus"], vec![off(Metric::All, WorkloadMode::Server)]);
        let no_size = telemetry(&[], vec![off(request_size(), WorkloadMode::Client)]);
        let other = telemetry(&["else"], vec![]);
        assert_eq!(outcome(&config, &[]), [[Some(0), Some(0)]]);
        assert_eq!(outcome(&mesh_config(&[]), &[]), [[None; 2]; 0]);
        assert_eq!(outcome(&mesh_config(&[]), std::slice::from_ref(&no_size)), [[None; 2]; 0]);
        assert_eq!(outcome(&config, std::slice::from_ref(&none)), [[None, None]]);
        assert_eq!(outcome(&config, &[none.clone(), no_size.clone()]), [[Some(1), None]]);
        assert_eq!(outcome(&config, &[none, telemetry(&[], vec![count("mine")])]), [[Some(1), Some(1)]]);
        assert_eq!(outcome(&mesh_config(&[]), std::slice::from_ref(&no_server)), [[Some(0), None]]);
        assert_eq!(outcome(&config, &[no_server, other]), [[None; 2]; 0]);
    }
}
