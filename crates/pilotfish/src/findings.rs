//! What of users' objects has no effect, kept up to date beside the pushes: for statuses and `/debug/diagnosticz`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pilotfish_controller::State;
use pilotfish_model::{Diagnostic, ObjectId};
use pilotfish_translator::World;
use pilotfish_translator::diagnose::{Workloads, findings};
use pilotfish_xds_server::debug::Debug;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::pipeline::MeshTranslator;

/// By object.
pub type Findings = Arc<BTreeMap<ObjectId, Vec<Diagnostic>>>;

/// Edits come together for so long, and proxies come back in it after a restart.
const PERIOD: Duration = Duration::from_secs(5);
/// Looking takes this part of the time at most.
const SHARE: u32 = 50;

/// Looks again whenever the mesh or the set of workloads is another one.
pub async fn watch(
    debug: Debug<MeshTranslator>,
    state: watch::Receiver<State>,
    out: watch::Sender<Findings>,
    drain: CancellationToken,
) -> anyhow::Result<()> {
    let (mut pause, mut last) = (PERIOD, None);
    loop {
        tokio::select! {
            () = drain.cancelled() => return Ok(()),
            () = sleep(pause) => {}
        }
        let started = Instant::now();
        let (debug, objects, before) = (debug.clone(), state.borrow().snapshot.objects.clone(), last.take());
        let look = move || {
            let world = debug.world()?;
            let mut workloads = Workloads::of(&world.mesh);
            debug.proxies().iter().for_each(|(_, proxy)| workloads.add(&proxy.namespace, &proxy.metadata.labels));
            let is_same = |(old, known, _): &Looked| old.says_the_same(&world) && *known == workloads;
            match before.filter(is_same) {
                Some(same) => Some((same, false)),
                None => {
                    let found = findings(&world, &workloads, objects.keys());
                    Some(((world, workloads, Arc::new(found)), true))
                }
            }
        };
        let looked = tokio::task::spawn_blocking(look).await.context("looking for objects without effect panicked")?;
        last = looked.map(|(looked, is_new)| {
            if is_new {
                out.send_if_modified(|known| {
                    let differs = *known != looked.2;
                    *known = looked.2.clone();
                    differs
                });
            }
            looked
        });
        pause = PERIOD.max(started.elapsed() * SHARE);
    }
}

/// What was looked at last, and what came out.
type Looked = (Arc<World>, Workloads, Findings);
