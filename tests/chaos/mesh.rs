//! A mesh that never rests: endpoints, rules and services change at a steady rate, whether the API server is there or not.
//!
//! What a refused write left behind does not matter: in the end the API server's word counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pilotfish_testkit::kube::Writer;
use pilotfish_testkit::{KubeCluster, Random};
use pilotfish_tests::{NAMESPACE, istio};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

const SERVICES: usize = 100;
/// How many writes may be under way; a server that is slow is not buried.
const WRITES: usize = 16;

/// The cluster of a service's first port.
pub(crate) fn cluster(service: &str) -> String {
    format!("outbound|80||{service}.{NAMESPACE}.svc.cluster.local")
}

fn service(name: &str, number: usize, second_port: bool) -> Value {
    let mut ports = vec![json!({"name": "http", "port": 80, "protocol": "TCP"})];
    if second_port {
        ports.push(json!({"name": "http-more", "port": 81, "protocol": "TCP"}));
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"clusterIP": format!("10.99.{}.{}", number / 250, number % 250 + 1), "ports": ports}})
}

/// A slice of so many endpoints, in a network of its own.
pub(crate) fn slice(service: &str, endpoints: usize, network: usize) -> Value {
    let endpoints: Vec<Value> =
        (1..=endpoints).map(|i| json!({"addresses": [format!("10.1.{}.{i}", network % 256)], "conditions": {"ready": true}})).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
        "metadata": {"name": service, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "http", "port": 8080}]})
}

fn rule(service: &str, n: u64) -> Value {
    let route = json!({"route": [{"destination": {"host": service}}], "headers": {"response": {"set": {"x-n": n.to_string()}}}});
    istio("networking", "VirtualService", service, json!({"hosts": [service], "http": [route]}))
}

/// Writes the mesh as it is at first.
pub(crate) async fn fill(kube: &KubeCluster, writer: &Writer) {
    kube.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})]).await;
    for (i, name) in (0..SERVICES).map(|i| format!("svc-{i}")).chain(["probe".to_owned()]).enumerate() {
        writer.apply(&service(&name, i, false)).await.unwrap();
        writer.apply(&slice(&name, 3, i)).await.unwrap();
        if i % 4 == 0 {
            writer.apply(&rule(&name, 0)).await.unwrap();
        }
    }
}

/// Makes one change after the other.
pub(crate) struct MeshWriter {
    writer: Writer,
    random: Random,
    n: u64,
}

enum Change {
    Apply(Value),
    Delete(Value),
}

impl MeshWriter {
    pub(crate) fn new(writer: Writer) -> Self {
        MeshWriter { writer, random: Random(7), n: 0 }
    }

    /// Mostly endpoints, as in life; a service keeps at least one endpoint as long as it lives.
    fn next(&mut self) -> Change {
        self.n += 1;
        let i = self.random.below(SERVICES);
        let name = format!("svc-{i}");
        match self.random.below(20) {
            0..12 => {
                let endpoints = self.random.below(8) + 1;
                Change::Apply(slice(&name, endpoints, self.random.below(256)))
            }
            12..16 => Change::Apply(rule(&name, self.n)),
            16..18 => Change::Apply(service(&name, i, self.n.is_multiple_of(2))),
            18 => Change::Apply(service(&format!("extra-{}", i % 10), 200 + i % 10, false)),
            _ => Change::Delete(service(&format!("extra-{}", i % 10), 200 + i % 10, false)),
        }
    }
}

/// Changes under way.
pub(crate) struct Changes {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    tried: AtomicU64,
    accepted: AtomicU64,
}

impl Changes {
    pub(crate) fn start(mut mesh: MeshWriter, rate: u32) -> Changes {
        let shared = Arc::new(Shared::default());
        let (counts, writes) = (shared.clone(), Arc::new(Semaphore::new(WRITES)));
        let task = tokio::spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) / rate);
            // What could not be written in time is written as soon as it can be.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            while !counts.stop.load(Ordering::Relaxed) {
                ticks.tick().await;
                let permit = writes.clone().acquire_owned().await.unwrap();
                let (change, writer, counts) = (mesh.next(), mesh.writer.clone(), counts.clone());
                tokio::spawn(async move {
                    let written = match &change {
                        Change::Apply(object) => writer.apply(object).await,
                        Change::Delete(object) => writer.delete(object).await,
                    };
                    counts.tried.fetch_add(1, Ordering::Relaxed);
                    counts.accepted.fetch_add(u64::from(written.is_ok()), Ordering::Relaxed);
                    drop(permit);
                });
            }
            // All that is under way.
            drop(writes.acquire_many(u32::try_from(WRITES).unwrap()).await);
        });
        Changes { shared, task }
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Ends them; how many were tried and how many accepted.
    pub(crate) async fn stop(self) -> (u64, u64) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        (self.shared.tried.load(Ordering::Relaxed), self.shared.accepted.load(Ordering::Relaxed))
    }
}
