//! The stages between an index and a port, wired as the binary wires them.

use std::sync::Arc;
use std::time::Duration;

use pilotfish::metrics::Registry;
use pilotfish::pipeline::{self, Backlog, MeshTranslator, Windows};
use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::run::Update;
use pilotfish_controller::{Index, Settings};
use pilotfish_push::{Timing, debounce};
use pilotfish_testkit::ads::{Delta, node};
use pilotfish_testkit::until_soon;
use pilotfish_translator::Work as Made;
use pilotfish_xds_server::{Config, Server, Work as Served};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

/// Short: these tests wait for every single change.
const TIMING: Timing = Timing { quiet: Duration::from_millis(1), ceiling: Duration::from_millis(2) };

/// The pipeline of the binary, fed by hand.
pub(crate) struct Fixture {
    index: Index,
    updates: mpsc::Sender<Update>,
    pub(crate) server: Server<MeshTranslator>,
    translator: MeshTranslator,
    pub(crate) url: String,
    _drain: DropGuard,
}

impl Fixture {
    pub(crate) async fn start(objects: Vec<Value>) -> Self {
        let mut index = Index::new(Settings::default());
        add(&mut index, objects);
        let initial = index.publish().map_or_else(|| index.snapshot().mesh, |(mesh, _)| mesh);
        let translator = MeshTranslator::default();
        let server = Server::new(translator.clone(), Config::default());
        let (updates, received) = mpsc::channel(16);
        let drain = CancellationToken::new();
        let metrics =
            Registry::new(server.metrics(), &Default::default(), watch::channel(Default::default()).1, Default::default(), Vec::new, None)
                .push();
        let ((config, configs), (endpoints, endpoint_batches)) = (debounce::channel(), debounce::channel());
        let world = pipeline::first(initial);
        server.publish(world.clone());
        let backlog = Backlog::default();
        let windows = Windows { config, timing: TIMING, endpoints, backlog: backlog.clone() };
        tokio::spawn(pipeline::intake(server.clone(), world, received, windows, metrics.clone(), drain.clone()));
        tokio::spawn(pipeline::endpoints(server.clone(), endpoint_batches, metrics.clone(), drain.clone()));
        tokio::spawn(pipeline::config(server.clone(), configs, backlog, metrics, drain.clone()));
        let (workers, serving, listener) = (server.clone(), server.clone(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (working, accepting) = (drain.clone(), drain.clone());
        tokio::spawn(async move { workers.run(working).await });
        tokio::spawn(async move { serving.serve(listener, accepting).await });
        Fixture { index, updates, server, translator, url, _drain: drain.drop_guard() }
    }

    /// Applies objects as a source would; false if the index found nothing new in them.
    pub(crate) async fn apply(&mut self, objects: Vec<Value>) -> bool {
        add(&mut self.index, objects);
        let Some((mesh, changes)) = self.index.publish() else { return false };
        self.updates.send(Update { mesh, changes, since: tokio::time::Instant::now() }).await.unwrap();
        true
    }

    pub(crate) fn work(&self) -> (Served, Made) {
        (self.server.work(), self.translator.translator().work())
    }

    /// Waits until all streams have confirmed everything and nothing is being made.
    pub(crate) async fn settled(&self, responses: u64) {
        until_soon(&format!("{responses} responses"), async || {
            let (work, (waiting, _)) = (self.server.work(), self.server.queue());
            anyhow::ensure!(work.responses == responses && waiting == 0, "{work:?}, {waiting} waiting");
            Ok(())
        })
        .await;
    }

    pub(crate) async fn connect(&self, channel: &Channel, namespace: &str) -> Delta {
        let id = format!("sidecar~10.255.0.1~x.{namespace}~{namespace}.svc.cluster.local");
        Delta::on(channel.clone(), node(&id)).await
    }
}

fn add(index: &mut Index, objects: Vec<Value>) {
    for object in objects {
        match decode(object).unwrap() {
            Decoded::Object(object) => index.apply(Arc::new(*object)),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn istio(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}
