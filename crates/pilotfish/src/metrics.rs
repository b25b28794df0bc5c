//! Metrics of the whole process, as one Prometheus page.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_controller::State;
use pilotfish_controller::source::kube::health::{Health, KindHealth};
use pilotfish_model::{ChangeSet, Kind, Mesh};
use pilotfish_xds_server::metrics::{Metrics, prometheus_text};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::watch;

use crate::patches::Patches;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabel {
    component: &'static str,
    tag: &'static str,
}

/// All metrics.
#[derive(Clone)]
pub struct Registry {
    registry: Arc<prometheus_client::registry::Registry>,
    push: PushMetrics,
    suppressed: Gauge,
    diagnostics: Gauge,
    uptime: Gauge,
    started: Instant,
    state: watch::Receiver<State>,
}

/// What happens between an event and the start of its push.
#[derive(Clone)]
pub struct PushMetrics {
    inbound: Family<TypeLabel, Counter>,
    triggers: Family<TypeLabel, Counter>,
    debounce: Histogram,
    services: Gauge,
    virtual_services: Gauge,
}

impl Registry {
    /// Registers everything once. `health`, `work` and `patches` are asked with every look at the page.
    pub fn new(
        server: &Metrics,
        webhooks: &pilotfish_webhook::metrics::Metrics,
        state: watch::Receiver<State>,
        health: Arc<Health>,
        work: impl Fn() -> Vec<Count> + Send + Sync + 'static,
        patches: Option<Patches>,
    ) -> Self {
        let push = PushMetrics {
            inbound: Family::default(),
            triggers: Family::default(),
            debounce: Histogram::new([0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0]),
            services: Gauge::default(),
            virtual_services: Gauge::default(),
        };
        let (suppressed, diagnostics, uptime) = (Gauge::default(), Gauge::default(), Gauge::default());
        let mut r = prometheus_client::registry::Registry::default();
        server.register(&mut r);
        webhooks.register(&mut r);
        r.register("pilot_inbound_updates", "Updates that came in, by type", push.inbound.clone());
        r.register("pilot_push_triggers", "Pushes, by what caused them", push.triggers.clone());
        r.register("pilot_debounce_time", "Seconds from the first change of a batch to its push", push.debounce.clone());
        r.register("pilot_services", "Services", push.services.clone());
        r.register("pilot_virt_services", "VirtualServices", push.virtual_services.clone());
        r.register("pilotfish_suppressed_events", "Events that changed nothing that matters", suppressed.clone());
        r.register("pilotfish_diagnostics", "Findings about users' objects", diagnostics.clone());
        r.register("istiod_uptime_seconds", "Seconds since the start", uptime.clone());
        r.register_collector(Box::new(Collected(Box::new(work))));
        r.register_collector(Box::new(Watches(health)));
        if let Some(patches) = patches {
            r.register_collector(Box::new(patches));
        }
        let info = Family::<VersionLabel, Gauge>::default();
        info.get_or_create(&VersionLabel { version: crate::VERSION }).set(1);
        r.register("pilot_info", "Version of this build", info);
        let build = Family::<BuildLabel, Gauge>::default();
        build.get_or_create(&BuildLabel { component: "pilot", tag: crate::VERSION }).set(1);
        r.register("istio_build", "Version of this build", build);
        Registry { registry: Arc::new(r), push, suppressed, diagnostics, uptime, started: Instant::now(), state }
    }

    /// What the pipeline counts.
    pub fn push(&self) -> PushMetrics {
        self.push.clone()
    }

    /// The page. Sizes and ages are taken now.
    pub fn text(&self) -> String {
        let (suppressed, diagnostics) = {
            let state = self.state.borrow();
            (state.snapshot.stats.suppressed, state.snapshot.diagnostics.len() + state.problems.len())
        };
        self.suppressed.set(i64::try_from(suppressed).unwrap_or(i64::MAX));
        self.diagnostics.set(i64::try_from(diagnostics).unwrap_or(i64::MAX));
        self.uptime.set(i64::try_from(self.started.elapsed().as_secs()).unwrap_or(i64::MAX));
        // Formatting into a String fails only if a metric's own encoder does; an empty page shows it.
        prometheus_text(&self.registry).unwrap_or_default()
    }
}

/// A number that somebody else keeps.
#[derive(Clone, Debug)]
pub struct Count {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// It never falls.
    pub is_counter: bool,
    /// What it is now.
    pub value: f64,
    /// A label, and what the number is for each of its values, in place of one number.
    pub by: Option<(&'static str, Vec<(&'static str, u64)>)>,
}

impl Count {
    /// One that never falls.
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Self {
        Count { name, help, is_counter: true, value: value as f64, by: None }
    }

    /// One that never falls, for each value of a label.
    pub fn labelled(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> Self {
        Count { name, help, is_counter: true, value: 0.0, by: Some((label, values.into_iter().collect())) }
    }

    /// One that may fall.
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Count { name, help, is_counter: false, value, by: None }
    }
}

/// Numbers that are asked for when the page is looked at.
struct Collected(Box<dyn Fn() -> Vec<Count> + Send + Sync>);

impl std::fmt::Debug for Collected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Collected")
    }
}

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for Count { name, help, is_counter, value, by } in (self.0)() {
            if let Some((label, values)) = by {
                let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                for (at, value) in values {
                    ConstCounter::new(value).encode(family.encode_family(&[(label, at)])?)?;
                }
            } else if is_counter {
                let metric = ConstCounter::new(value);
                metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
            } else {
                let metric = ConstGauge::new(value);
                metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }
}

/// How far the watches of the API server are, by kind.
struct Watches(Arc<Health>);

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watches")
    }
}

/// Name, help, and the figure of one kind.
type Figure<T> = (&'static str, &'static str, fn(&KindHealth) -> T);

const COUNTED: [Figure<u64>; 3] = [
    ("pilotfish_kube_lists", "Whole lists that were taken in", |k| k.lists),
    ("pilotfish_kube_audits", "Comparisons with what the API server has", |k| k.audits),
    ("pilotfish_kube_healed_objects", "Objects that an audit found to be other than the watch had said", |k| k.healed),
];
const MEASURED: [Figure<f64>; 2] = [
    ("pilotfish_kube_staleness_seconds", "Seconds since the API server was last heard of", |k| k.staleness.as_secs_f64()),
    ("pilotfish_kube_listed", "Whether all of it was listed once", |k| f64::from(u8::from(k.listed))),
];

impl Collector for Watches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let report = self.0.report();
        if report.is_empty() {
            return Ok(());
        }
        for (name, help, value) in COUNTED {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for kind in &report {
                ConstCounter::new(value(kind)).encode(family.encode_family(&[("kind", kind.kind.as_str())])?)?;
            }
        }
        for (name, help, value) in MEASURED {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for kind in &report {
                ConstGauge::new(value(kind)).encode(family.encode_family(&[("kind", kind.kind.as_str())])?)?;
            }
        }
        Ok(())
    }
}

impl PushMetrics {
    /// An update came in from the controller.
    pub fn update(&self, changes: &ChangeSet) {
        let count = |name| self.inbound.get_or_create(&TypeLabel { r#type: name }).inc();
        if !changes.endpoints.is_empty() {
            count("eds");
        }
        if changes.objects.iter().any(|o| o.kind == Kind::Service) {
            count("svc");
        }
        if changes.everything || changes.objects.iter().any(|o| !is_registry(o.kind)) {
            count("config");
        }
    }

    /// A push begins whose oldest change waited that long.
    pub fn push(&self, changes: &ChangeSet, waited: Duration) {
        self.debounce.observe(waited.as_secs_f64());
        let count = |name| self.triggers.get_or_create(&TypeLabel { r#type: name }).inc();
        if changes.everything {
            count("global");
        }
        if !changes.endpoints.is_empty() {
            count("endpoint");
        }
        if changes.objects.iter().any(|o| o.kind == Kind::Service) {
            count("service");
        }
        if changes.objects.iter().any(|o| !is_registry(o.kind)) {
            count("config");
        }
    }

    /// A mesh is served from now on.
    pub fn mesh(&self, mesh: &Mesh) {
        self.services.set(i64::try_from(mesh.services.len()).unwrap_or(i64::MAX));
        self.virtual_services.set(i64::try_from(mesh.virtual_services.len()).unwrap_or(i64::MAX));
    }
}

fn is_registry(kind: Kind) -> bool {
    matches!(kind, Kind::Service | Kind::EndpointSlice | Kind::Pod | Kind::Node | Kind::Namespace)
}
