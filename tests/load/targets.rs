//! What must come out: the recorded figures of the reference under the same load, and what Pilotfish must reach and aims for.
//!
//! The reference (istiod) was measured once with the same load client and meshes on a machine with two cores. CPU and bytes
//! compare across machines of that kind; its latencies in saturated runs contain waiting for the CPU.

use crate::report::Report;

/// One figure. Smaller is better in all of them.
pub(crate) struct Target {
    pub(crate) run: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// What the reference has.
    pub(crate) reference: Option<f64>,
    /// What must be reached.
    pub(crate) must: Option<f64>,
    /// What would be good.
    pub(crate) aim: Option<f64>,
    /// How it follows from the report of the run.
    pub(crate) measure: fn(&Report) -> Option<f64>,
}

type Measure = fn(&Report) -> Option<f64>;

const fn target(run: &'static str, name: &'static str, unit: &'static str, figures: [f64; 3], measure: Measure) -> Target {
    let [reference, must, aim] = figures;
    Target { run, name, unit, reference: Some(reference), must: Some(must), aim: Some(aim), measure }
}

/// A figure that only has a reference.
const fn known(run: &'static str, name: &'static str, unit: &'static str, reference: f64, measure: Measure) -> Target {
    Target { run, name, unit, reference: Some(reference), must: None, aim: None, measure }
}

/// Something that must not happen, and of which the reference's record says nothing.
const fn never(run: &'static str, name: &'static str, measure: Measure) -> Target {
    Target { run, name, unit: "", reference: None, must: Some(0.0), aim: Some(0.0), measure }
}

const SYNC_CPU: &str = "first sync: server CPU per proxy";
const SYNC_CPU_OF: Measure = |r| r.step("connect")?.ms_per_proxy();
const SYNC_RSS: &str = "first sync: RSS growth per proxy";
const SYNC_RSS_OF: Measure = |r| r.step("connect")?.growth_mib("rss_after_mib");
const SYNC_PEAK: &str = "first sync: peak RSS growth per proxy";
const SYNC_PEAK_OF: Measure = |r| r.step("connect")?.growth_mib("rss_peak_mib");
const ENDPOINT_P50: &str = "endpoint churn 30/s: p50";
const ENDPOINT_P50_OF: Measure = |r| r.step("endpoint-churn")?.latency("endpoint", "p50_ms");
const ENDPOINT_P99: &str = "endpoint churn 30/s: p99";
const ENDPOINT_P99_OF: Measure = |r| r.step("endpoint-churn")?.latency("endpoint", "p99_ms");
const ENDPOINT_CPU: &str = "endpoint churn 30/s for 30 s: server CPU";
const ENDPOINT_CPU_OF: Measure = |r| r.step("endpoint-churn")?.cpu_s_of("endpoint");
const ROUTE_P50: &str = "route edit: p50";
const ROUTE_P50_OF: Measure = |r| r.step("config-churn")?.latency("config", "p50_ms");
const ROUTE_P99: &str = "route edit: p99";
const ROUTE_P99_OF: Measure = |r| r.step("config-churn")?.latency("config", "p99_ms");
const ROUTE_CPU: &str = "route edit: server CPU per route response";
const ROUTE_CPU_OF: Measure = |r| r.step("config-churn")?.ms_per_response("RDS");
const ROUTE_UNNEEDED: &str = "route edit: unneeded responses";
const ROUTE_UNNEEDED_OF: Measure = |r| r.unneeded(|step| step == "config-churn");
const UNNEEDED: &str = "unneeded responses, all other steps";
const UNNEEDED_OF: Measure = |r| r.unneeded(|step| step != "config-churn");
const LOST: &str = "changes that did not arrive";
const LOST_OF: Measure = |r| r.lost();
const SERVICE_P50: &str = "service add: p50";
const SERVICE_P50_OF: Measure = |r| r.step("service-add")?.latency("service", "p50_ms");
const VICTIM_P50: &str = "noisy neighbour: victim p50";
const VICTIM_P50_OF: Measure = |r| r.step("noisy")?.latency("victim-disturbed", "p50_ms");
const VICTIM_P99: &str = "noisy neighbour: victim p99";
const VICTIM_P99_OF: Measure = |r| r.step("noisy")?.latency("victim-disturbed", "p99_ms");
const BACK_BYTES: &str = "reconnect of all: bytes, of first sync";
const BACK_BYTES_OF: Measure = |r| r.reconnect_percent();
const BACK_CPU: &str = "reconnect of all: server CPU per proxy";
const BACK_CPU_OF: Measure = |r| r.step("reconnect")?.ms_per_proxy();
const BACK_TIME: &str = "reconnect of all: until all in sync";
const BACK_TIME_OF: Measure = |r| r.step("reconnect")?.all_synced_s();
const BACK_REFUSED: &str = "reconnect of all: refused streams";
const BACK_REFUSED_OF: Measure = |r| r.step("reconnect")?.number("/sync/stream_errors");
const IDLE: &str = "idle: server CPU per second";
const IDLE_OF: Measure = |r| r.idle_ms();
const ONE_ROUTE: &str = "one route edit, seen by one proxy: CPU";
const ONE_ROUTE_OF: Measure = |r| r.ms_per_event("config-churn", "config");
const ONE_ENDPOINT: &str = "one endpoint change, seen by one proxy: CPU";
const ONE_ENDPOINT_OF: Measure = |r| r.ms_per_event("endpoint-churn", "endpoint");
const ONE_SERVICE: &str = "one service add, seen by one proxy: CPU";
const ONE_SERVICE_OF: Measure = |r| r.ms_per_event("service-add", "service");
const READY_TIME: &str = "cold start: process start to ready";
const READY_TIME_OF: Measure = |r| r.number("ready_s");
const READY_CPU: &str = "cold start: CPU until ready";
const READY_CPU_OF: Measure = |r| r.number("ready_cpu_s");
const READY_RSS: &str = "cold start: RSS at ready";
const READY_RSS_OF: Measure = |r| r.number("ready_rss_mib");

/// All figures, in the order of the page. Where the reference was run twice, the better figure is taken.
pub(crate) const TARGETS: &[Target] = &[
    known("w1-200", SYNC_CPU, "ms", 155.0, SYNC_CPU_OF),
    known("w1-200", SYNC_PEAK, "MiB", 4.55, SYNC_PEAK_OF),
    known("w1-200", ENDPOINT_P50, "ms", 4241.0, ENDPOINT_P50_OF),
    known("w1-200", ENDPOINT_P99, "ms", 12099.0, ENDPOINT_P99_OF),
    known("w1-200", ENDPOINT_CPU, "s", 6.5, ENDPOINT_CPU_OF),
    known("w1-200", ROUTE_P50, "ms", 4514.0, ROUTE_P50_OF),
    known("w1-200", ROUTE_CPU, "ms", 46.0, ROUTE_CPU_OF),
    target("w1-200", ROUTE_UNNEEDED, "", [2168.0, 0.0, 0.0], ROUTE_UNNEEDED_OF),
    never("w1-200", UNNEEDED, UNNEEDED_OF),
    never("w1-200", LOST, LOST_OF),
    known("w1-200", SERVICE_P50, "ms", 2548.0, SERVICE_P50_OF),
    known("w1-200", VICTIM_P50, "ms", 6308.0, VICTIM_P50_OF),
    known("w1-200", BACK_BYTES, "%", 100.0, BACK_BYTES_OF),
    known("w1-200", BACK_TIME, "s", 13.0, BACK_TIME_OF),
    target("w1-500", SYNC_CPU, "ms", [156.0, 10.0, 4.0], SYNC_CPU_OF),
    target("w1-500", SYNC_PEAK, "MiB", [4.25, 0.2, 0.08], SYNC_PEAK_OF),
    target("w1-500", ENDPOINT_P50, "ms", [4402.0, 150.0, 50.0], ENDPOINT_P50_OF),
    target("w1-500", ENDPOINT_P99, "ms", [15507.0, 800.0, 300.0], ENDPOINT_P99_OF),
    known("w1-500", ENDPOINT_CPU, "s", 19.5, ENDPOINT_CPU_OF),
    target("w1-500", ROUTE_CPU, "ms", [46.0, 3.0, 1.5], ROUTE_CPU_OF),
    target("w1-500", ROUTE_P50, "ms", [10772.0, 1000.0, 500.0], ROUTE_P50_OF),
    target("w1-500", ROUTE_UNNEEDED, "", [2674.0, 0.0, 0.0], ROUTE_UNNEEDED_OF),
    never("w1-500", UNNEEDED, UNNEEDED_OF),
    never("w1-500", LOST, LOST_OF),
    known("w1-500", SERVICE_P50, "ms", 6622.0, SERVICE_P50_OF),
    known("w1-500", VICTIM_P50, "ms", 10860.0, VICTIM_P50_OF),
    known("w1-500", BACK_BYTES, "%", 100.0, BACK_BYTES_OF),
    known("w1-500", BACK_TIME, "s", 40.6, BACK_TIME_OF),
    known("w2-1000", SYNC_CPU, "ms", 8.0, SYNC_CPU_OF),
    known("w2-1000", SYNC_RSS, "MiB", 0.142, SYNC_RSS_OF),
    known("w2-1000", ENDPOINT_P50, "ms", 5122.0, ENDPOINT_P50_OF),
    known("w2-1000", ENDPOINT_P99, "ms", 10254.0, ENDPOINT_P99_OF),
    known("w2-1000", ROUTE_P50, "ms", 131.0, ROUTE_P50_OF),
    known("w2-1000", ROUTE_P99, "ms", 220.0, ROUTE_P99_OF),
    target("w2-1000", ROUTE_UNNEEDED, "", [600.0, 0.0, 0.0], ROUTE_UNNEEDED_OF),
    never("w2-1000", UNNEEDED, UNNEEDED_OF),
    never("w2-1000", LOST, LOST_OF),
    target("w2-1000", VICTIM_P50, "ms", [2298.0, 30.0, 10.0], VICTIM_P50_OF),
    target("w2-1000", VICTIM_P99, "ms", [8284.0, 150.0, 50.0], VICTIM_P99_OF),
    known("w2-1000", BACK_TIME, "s", 44.0, BACK_TIME_OF),
    target("w2-2000", SYNC_CPU, "ms", [8.6, 1.5, 0.7], SYNC_CPU_OF),
    target("w2-2000", SYNC_RSS, "MiB", [0.117, 0.07, 0.04], SYNC_RSS_OF),
    target("w2-2000", ENDPOINT_P50, "ms", [4246.0, 20.0, 5.0], ENDPOINT_P50_OF),
    target("w2-2000", ENDPOINT_P99, "ms", [11308.0, 100.0, 30.0], ENDPOINT_P99_OF),
    target("w2-2000", ENDPOINT_CPU, "s", [5.9, 5.9, 2.0], ENDPOINT_CPU_OF),
    target("w2-2000", ROUTE_P50, "ms", [158.0, 20.0, 8.0], ROUTE_P50_OF),
    target("w2-2000", ROUTE_P99, "ms", [791.0, 80.0, 30.0], ROUTE_P99_OF),
    target("w2-2000", ROUTE_UNNEEDED, "", [1200.0, 0.0, 0.0], ROUTE_UNNEEDED_OF),
    never("w2-2000", UNNEEDED, UNNEEDED_OF),
    never("w2-2000", LOST, LOST_OF),
    known("w2-2000", SERVICE_P50, "ms", 170.0, SERVICE_P50_OF),
    known("w2-2000", VICTIM_P50, "ms", 4171.0, VICTIM_P50_OF),
    known("w2-2000", VICTIM_P99, "ms", 10171.0, VICTIM_P99_OF),
    target("w2-2000", BACK_BYTES, "%", [100.0, 1.0, 0.3], BACK_BYTES_OF),
    target("w2-2000", BACK_CPU, "ms", [11.5, 1.5, 0.7], BACK_CPU_OF),
    target("w2-2000", BACK_TIME, "s", [83.4, 8.0, 3.0], BACK_TIME_OF),
    target("w2-2000", BACK_REFUSED, "", [20724.0, 0.0, 0.0], BACK_REFUSED_OF),
    target("w2-2000", IDLE, "ms", [20.0, 5.0, 2.0], IDLE_OF),
    target("w8-1000svc", ONE_ROUTE, "ms", [15.0, 3.0, 1.0], ONE_ROUTE_OF),
    known("w8-1000svc", ONE_ENDPOINT, "ms", 2.0, ONE_ENDPOINT_OF),
    known("w8-1000svc", ONE_SERVICE, "ms", 45.0, ONE_SERVICE_OF),
    never("w8-1000svc", LOST, LOST_OF),
    target("w8-5000svc", ONE_ROUTE, "ms", [55.0, 3.0, 1.0], ONE_ROUTE_OF),
    known("w8-5000svc", ONE_ENDPOINT, "ms", 4.0, ONE_ENDPOINT_OF),
    target("w8-5000svc", ONE_SERVICE, "ms", [160.0, 6.0, 2.0], ONE_SERVICE_OF),
    never("w8-5000svc", LOST, LOST_OF),
    known("w9-1000svc", READY_TIME, "s", 1.04, READY_TIME_OF),
    known("w9-1000svc", READY_CPU, "s", 0.96, READY_CPU_OF),
    known("w9-1000svc", READY_RSS, "MiB", 187.0, READY_RSS_OF),
    target("w9-5000svc", READY_TIME, "s", [3.3, 3.0, 1.5], READY_TIME_OF),
    known("w9-5000svc", READY_CPU, "s", 4.3, READY_CPU_OF),
    target("w9-5000svc", READY_RSS, "MiB", [486.0, 200.0, 120.0], READY_RSS_OF),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::runs::RUNS;

    #[test]
    fn every_run_has_targets_and_every_target_a_run() {
        let runs: BTreeSet<&str> = RUNS.iter().map(|run| run.name).collect();
        assert_eq!(TARGETS.iter().map(|target| target.run).collect::<BTreeSet<_>>(), runs);
        let names: BTreeSet<(&str, &str)> = TARGETS.iter().map(|target| (target.run, target.name)).collect();
        assert_eq!(names.len(), TARGETS.len(), "a figure stands twice");
    }

    #[test]
    fn aims_go_beyond_what_must_be() {
        let odd: Vec<&str> =
            TARGETS.iter().filter(|t| t.aim > t.must || (t.reference.is_some() && t.must > t.reference)).map(|t| t.name).collect();
        assert_eq!(odd, Vec::<&str>::new());
    }
}
