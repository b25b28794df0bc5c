//! From meshes to pushes: three tasks between the controller and the ADS server.
//!
//! ```text
//!  Update ─ intake ─┬─ publish: the newest world, at once
//!                   ├─ endpoints ─> micro-batch: lost | new ─────────────> push_endpoints     (fast lane)
//!                   └─ the rest ──> debounce: namespace x kind | mesh ───> push               (configuration)
//! ```

mod split;
mod translate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pilotfish_controller::run::Update;
use pilotfish_model::{ChangeSet, Diagnostic, EndpointChange, Mesh};
use pilotfish_push::{Merge, Timing, debounce};
use pilotfish_translator::World;
use pilotfish_xds_server::{PushReport, Server};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

pub use split::Origin;
pub use translate::MeshTranslator;

use crate::metrics::PushMetrics;

/// Lost endpoints wait for each other only as long as a write to many slices takes to arrive.
const LOST: Timing = Timing { quiet: Duration::from_millis(1), ceiling: Duration::from_millis(3) };
/// New endpoints: a roll-out brings many, and each push of them costs every proxy that sees them.
const NEW: Timing = Timing { quiet: Duration::from_millis(3), ceiling: Duration::from_millis(10) };

/// A change set behind the seams of the stages, which do not know it.
#[derive(Clone, Debug, Default)]
pub struct Change(pub ChangeSet);

impl Merge for Change {
    fn merge(&mut self, later: Change) {
        self.0.merge(later.0);
    }
}

/// How many changes of configuration were not pushed yet.
#[derive(Clone, Debug, Default)]
pub struct Backlog(Arc<AtomicUsize>);

impl Backlog {
    /// True if all were pushed.
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

/// Takes so many off the backlog when dropped, however a push ends.
struct Pushed(Backlog, usize);

impl Drop for Pushed {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::AcqRel);
    }
}

/// The ends of the two debounces that [`intake`] feeds.
pub struct Windows {
    /// Everything but endpoints, by where it comes from.
    pub config: debounce::Sender<Origin, Change>,
    /// How long it waits.
    pub timing: Timing,
    /// Endpoints.
    pub endpoints: debounce::Sender<EndpointChange, Change>,
    /// What waits, the same as [`config`]'s.
    pub backlog: Backlog,
}

/// Takes in what the controller publishes, until it ends or the drain. Never waits for a push.
pub async fn intake(
    server: Server<MeshTranslator>,
    initial: Arc<World>,
    mut updates: mpsc::Receiver<Update>,
    windows: Windows,
    metrics: PushMetrics,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    metrics.mesh(&initial.mesh);
    let mut world = initial;
    loop {
        let update = tokio::select! {
            () = drain.cancelled() => return Ok(()),
            update = updates.recv() => update,
        };
        let Some(Update { mesh, mut changes, since }) = update else {
            // A drain ends the controller too, and its end may be seen first.
            return if drain.is_cancelled() { Ok(()) } else { Err(anyhow::anyhow!("the controller is gone")) };
        };
        metrics.update(&changes);
        metrics.mesh(&mesh);
        let next = world.next(mesh, &changes);
        changes.classes |= !next.same_keys(&world);
        report_patches(&next, &world);
        world = Arc::new(next);
        // What is made from now on is made of this, whichever change asks for it.
        server.publish(world.clone());
        let root = &world.mesh.config.root_namespace;
        let (rest, endpoints) = split::endpoints(changes);
        for (kind, changed) in endpoints {
            let timing = if kind == EndpointChange::Removed { LOST } else { NEW };
            windows.endpoints.send(kind, Change(changed), timing, since);
        }
        for (origin, change) in split::by_origin(rest, root) {
            windows.backlog.0.fetch_add(1, Ordering::AcqRel);
            windows.config.send(origin, Change(change), windows.timing, since);
        }
    }
}

/// Says which patches are wrong that were not before.
fn report_patches(world: &World, before: &World) {
    if world.same_patches(before) {
        return;
    }
    let known: BTreeSet<&Diagnostic> = before.patch_diagnostics().collect();
    for finding in world.patch_diagnostics().filter(|d| !known.contains(d)) {
        tracing::warn!(object = %finding.object, field = %finding.field, "{}", finding.message);
    }
}

/// The fast lane: pushes endpoints until the drain.
pub async fn endpoints(
    server: Server<MeshTranslator>,
    mut batches: debounce::Receiver<EndpointChange, Change>,
    metrics: PushMetrics,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let batch = tokio::select! {
            () = drain.cancelled() => return Ok(()),
            batch = batches.next() => batch,
        };
        let Some((kind, batch)) = batch else { return intake_ended(&drain).await };
        metrics.push(&batch.change.0, batch.since.elapsed());
        let services = batch.change.0.endpoints.len();
        let report = server.push_endpoints(batch.change, batch.since).await;
        batches.spent(&kind, report.cost);
        debug!(events = batch.count, services, ?kind, ?report, "pushed endpoints");
    }
}

/// Pushes everything else until the drain.
pub async fn config(
    server: Server<MeshTranslator>,
    mut batches: debounce::Receiver<Origin, Change>,
    backlog: Backlog,
    metrics: PushMetrics,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let mut under_way: JoinSet<(Origin, PushReport)> = JoinSet::new();
    loop {
        let batch = tokio::select! {
            () = drain.cancelled() => return Ok(()),
            Some(ended) = under_way.join_next() => {
                // A push that panicked says nothing about what the next one will cost.
                if let Ok((origin, report)) = ended {
                    debug!(%origin, ?report, "pushed");
                    batches.spent(&origin, report.cost);
                }
                continue;
            }
            batch = batches.next() => batch,
        };
        let Some((origin, batch)) = batch else { return intake_ended(&drain).await };
        let change = batch.change;
        metrics.push(&change.0, batch.since.elapsed());
        info!(%origin, events = batch.count, objects = change.0.objects.len(), services = change.0.services.len(), "push");
        let push = server.push(change, batch.since);
        let pushed = Pushed(backlog.clone(), batch.count);
        under_way.spawn(async move {
            let report = push.await;
            drop(pushed);
            (origin, report)
        });
    }
}

/// The supervisor sees that the intake ended; what was sent stays served until the drain.
async fn intake_ended(drain: &CancellationToken) -> anyhow::Result<()> {
    drain.cancelled().await;
    Ok(())
}

/// The first world.
pub fn first(mesh: Arc<Mesh>) -> Arc<World> {
    Arc::new(World::new(mesh))
}

type ByOrigin = BTreeMap<Origin, ChangeSet>;
