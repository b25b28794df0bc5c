//! From meshes to pushes: batches what the controller publishes and hands the newest mesh to the ADS server.

use std::sync::Arc;

use pilotfish_controller::run::Update;
use pilotfish_envoy::{Resource, Snapshot};
use pilotfish_model::proxy::Flavour;
use pilotfish_model::{ChangeSet, Mesh, Proxy};
use pilotfish_push::{Debounced, Merge, Sender};
use pilotfish_translator::ProxyClass;
use pilotfish_xds_server::{Server, Translate};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::metrics::PushMetrics;

/// The translator behind the server's seam.
pub struct MeshTranslator;

impl Translate for MeshTranslator {
    type World = Mesh;
    type Class = ProxyClass;

    fn root_namespace<'a>(&self, mesh: &'a Mesh) -> &'a str {
        &mesh.config.root_namespace
    }

    fn domain<'a>(&self, mesh: &'a Mesh) -> &'a str {
        &mesh.domain
    }

    fn is_checked(&self, class: &ProxyClass) -> bool {
        class.facts().flavour != Flavour::Grpc
    }

    fn classify(&self, mesh: &Mesh, proxy: &Proxy) -> ProxyClass {
        pilotfish_translator::classify(mesh, proxy)
    }

    fn translate(&self, mesh: &Mesh, class: &ProxyClass) -> Snapshot {
        pilotfish_translator::translate(mesh, class)
    }

    fn secrets(&self, mesh: &Mesh, proxy: &Proxy, names: &[Arc<str>]) -> Vec<Resource> {
        pilotfish_translator::secret::secrets(mesh, proxy, names)
    }
}

/// The newest mesh and everything that changed on the way to it.
pub struct Change {
    mesh: Arc<Mesh>,
    changes: ChangeSet,
}

impl Merge for Change {
    fn merge(&mut self, newer: Change) {
        self.mesh = newer.mesh;
        self.changes.merge(newer.changes);
    }
}

/// Takes in what the controller publishes, until it ends or the drain. Never waits for a push.
pub async fn intake(
    mut updates: mpsc::Receiver<Update>,
    window: Sender<Change>,
    metrics: PushMetrics,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = drain.cancelled() => return Ok(()),
            update = updates.recv() => {
                let Some(Update { mesh, changes, .. }) = update else {
                    // A drain ends the controller too, and its end may be seen first.
                    return if drain.is_cancelled() { Ok(()) } else { Err(anyhow::anyhow!("the controller is gone")) };
                };
                metrics.update(&changes);
                window.send(Change { mesh, changes });
            }
        }
    }
}

/// Pushes batches until the drain. `initial` goes out before anything else; `ready` is called when it has.
pub async fn push(
    server: Server<MeshTranslator>,
    initial: Arc<Mesh>,
    mut batches: Debounced<Change>,
    metrics: PushMetrics,
    ready: impl FnOnce(),
    drain: CancellationToken,
) -> anyhow::Result<()> {
    metrics.mesh(&initial);
    server.publish(initial).await;
    ready();
    loop {
        let batch = tokio::select! {
            () = drain.cancelled() => return Ok(()),
            batch = batches.next() => batch,
        };
        let Some(batch) = batch else {
            // The intake ended, which the supervisor sees; what was sent stays served until the drain.
            drain.cancelled().await;
            return Ok(());
        };
        let Change { mesh, changes } = batch.change;
        metrics.push(&changes, batch.since.elapsed());
        metrics.mesh(&mesh);
        let report = server.publish(mesh).await;
        info!(events = batch.count, objects = changes.objects.len(), endpoints = changes.endpoints.len(), ?report, "pushed");
    }
}
