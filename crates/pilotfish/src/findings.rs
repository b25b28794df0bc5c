//! What of users' objects has no effect, kept up to date beside the pushes: for statuses and `/debug/diagnosticz`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pilotfish_controller::State;
use pilotfish_model::{Diagnostic, ObjectId};
use pilotfish_translator::diagnose::{Workloads, findings};
use pilotfish_translator::{World, patch_diagnostics};
use pilotfish_xds_server::debug::{Debug, Made};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::pipeline::MeshTranslator;

/// By object.
pub type Findings = Arc<BTreeMap<ObjectId, Vec<Diagnostic>>>;

/// What has been so for so long is at rest: edits come together, and proxies come back after a restart.
const PERIOD: Duration = Duration::from_secs(5);
/// Where there is never rest, what happened is looked at after so long. A look goes through the whole mesh: it must not be what
/// a busy server is busy with.
const LATEST: Duration = Duration::from_secs(60);

/// Looks again whenever the mesh or the set of workloads is another one.
pub async fn watch(
    debug: Debug<MeshTranslator>,
    state: watch::Receiver<State>,
    out: watch::Sender<Findings>,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let mut last = None;
    // What was so the last time, and what was looked at; that twice, because what is made late is seen then.
    let (mut seen, mut looked_at) = (None, (None, false));
    let mut waiting: Option<Instant> = None;
    loop {
        tokio::select! {
            () = drain.cancelled() => return Ok(()),
            () = sleep(PERIOD) => {}
        }
        let now = (debug.activity(), state.borrow().snapshot.revision);
        if looked_at == (Some(now), true) {
            continue;
        }
        let moves = seen.replace(now) != Some(now);
        let since = *waiting.get_or_insert_with(Instant::now);
        if moves && last.is_some() && since.elapsed() < LATEST {
            continue;
        }
        waiting = None;
        looked_at = (Some(now), looked_at.0 == Some(now));
        let (debug, objects, before) = (debug.clone(), state.borrow().snapshot.objects.clone(), last.take());
        let look = move || {
            let world = debug.world()?;
            let mut workloads = Workloads::of(&world.mesh);
            debug.proxies().iter().for_each(|(_, proxy)| workloads.add(&proxy.namespace, &proxy.metadata.labels));
            let is_same = |b: &Looked| b.world.says_the_same(&world) && b.workloads == workloads;
            let (base, is_new) = match before.as_ref().filter(|b| is_same(b)) {
                Some(same) => (same.base.clone(), false),
                None => (Arc::new(findings(&world, &workloads, objects.keys())), true),
            };
            let patches = patches(&world, &debug);
            let same = before.filter(|b| !is_new && b.patches == patches);
            let found = same.map_or_else(|| with(&base, &patches), |b| b.found);
            Some(Looked { world, workloads, base, patches, found })
        };
        let looked = tokio::task::spawn_blocking(look).await.context("looking for objects without effect panicked")?;
        if let Some(looked) = &looked {
            out.send_if_modified(|known| {
                let differs = !Arc::ptr_eq(known, &looked.found) && *known != looked.found;
                *known = looked.found.clone();
                differs
            });
        }
        last = looked;
    }
}

/// What was looked at last, and what came out.
struct Looked {
    world: Arc<World>,
    workloads: Workloads,
    /// What the mesh alone shows.
    base: Findings,
    /// What became of patches.
    patches: Vec<Diagnostic>,
    /// Both.
    found: Findings,
}

/// What became of patches at those who are connected. Nothing is gone through where there are none.
fn patches(world: &World, debug: &Debug<MeshTranslator>) -> Vec<Diagnostic> {
    if world.mesh.envoy_filters.is_empty() {
        return Vec::new();
    }
    let Made { views, owns } = debug.made();
    patch_diagnostics(views.iter().flat_map(|v| v.applied()).chain(owns.iter().flat_map(|o| o.applied())))
}

fn with(base: &Findings, patches: &[Diagnostic]) -> Findings {
    if patches.is_empty() {
        return base.clone();
    }
    let mut found = (**base).clone();
    for finding in patches {
        let of_object = found.entry(finding.object.clone()).or_default();
        // A value that cannot be read is said already.
        if !of_object.iter().any(|known| known.field.starts_with(&finding.field)) {
            of_object.push(finding.clone());
        }
    }
    Arc::new(found)
}
