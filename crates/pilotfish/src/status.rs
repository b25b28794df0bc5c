//! Status of users' objects and leadership: glue between what proxies say (the ADS server) and who writes it (the controller).
//!
//! Only a cluster has somebody to tell: meshes out of files have their findings in the log and in `/debug/diagnosticz`.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pilotfish_controller::addresses::Pools;
use pilotfish_controller::api::KubeApi;
use pilotfish_controller::lease::{self, Leadership, Lease, Timing};
use pilotfish_controller::status::{Applied, Counts, Options, Reports, Task, WRITTEN};
use pilotfish_controller::{Cluster, State};
use pilotfish_model::{Kind, ObjectId};
use pilotfish_xds_server::debug::{Debug, Tally};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::cli::StatusArgs;
use crate::findings::Findings;
use crate::metrics::Count;
use crate::pipeline::{Backlog, MeshTranslator};
use crate::supervise::Supervisor;

/// One Lease for everything that only one replica may do.
pub const LEASE: &str = "pilotfish-leader";

/// Proxies have come back by then, after a restart of their control plane.
const WARM: Duration = Duration::from_secs(30);
/// How often proxies' words are counted at most: while an object waits for them ...
const PERIOD: Duration = Duration::from_secs(1);
/// ... and while only numbers may have changed.
const SLOW: Duration = Duration::from_secs(10);
/// How often they are counted at least while something may have changed unseen.
const AGAIN: Duration = Duration::from_secs(20);
/// Counting takes this part of the time at most.
const SHARE: u32 = 20;

/// What is there to be started.
pub struct Status {
    task: Task<KubeApi>,
    lease: Option<Lease>,
    election: Option<Election>,
    leadership: Leadership,
    reports: watch::Sender<Option<Arc<Reports>>>,
    state: watch::Receiver<State>,
    conditions: bool,
    counts: watch::Receiver<Counts>,
}

type Election = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

impl Status {
    /// Prepares everything; nothing is asked before [`Status::start`].
    pub async fn new(
        cluster: &Cluster,
        args: &StatusArgs,
        namespace: &str,
        state: watch::Receiver<State>,
        findings: watch::Receiver<Findings>,
        drain: &CancellationToken,
    ) -> anyhow::Result<Status> {
        let pools = Pools::parse(&args.ipv4_prefix, &args.ipv6_prefix).context("addresses of ServiceEntries")?;
        let timing = Timing { duration: args.lease_duration };
        let api = KubeApi::new(cluster, timing.patience()).await?;
        let identity = format!("{}_{:016x}", args.pod_name, RandomState::new().hash_one(std::process::id()));
        let lease = Lease { namespace: namespace.to_owned(), name: LEASE.into(), identity, timing };
        let (leadership, election, lease) = if args.leader_election {
            let (leadership, election) = lease::run(api.clone(), lease.clone(), drain.clone().cancelled_owned());
            (leadership, Some(Box::pin(election) as Election), Some(lease))
        } else {
            (Leadership::always(), None, None)
        };
        let options = Options { conditions: args.status, addresses: args.ip_autoallocate.then_some(pools), ..Options::default() };
        let (reports, reported) = watch::channel(None);
        let (task, counts) = Task::new(api, options, state.clone(), reported, findings, leadership.clone());
        Ok(Status { task, lease, election, leadership, reports, state, conditions: args.status, counts })
    }

    /// Whether this replica does what only one may do.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// What it did, for metrics.
    pub fn counts(&self) -> impl Fn() -> Vec<Count> + Send + Sync + use<> {
        let (leadership, counts) = (self.leadership.clone(), self.counts.clone());
        move || {
            let Counts { written, suppressed, failed, waiting, awaiting: _ } = *counts.borrow();
            let leads = leadership.holds(Instant::now()).is_some();
            vec![
                Count::gauge("pilotfish_leader", "1 if this replica does what only one may do", f64::from(u8::from(leads))),
                Count::counter("pilotfish_status_writes", "Statuses that were written", written),
                Count::counter("pilotfish_status_suppressed", "News of objects whose status was right already", suppressed),
                Count::counter("pilotfish_status_failures", "Writes of statuses that failed", failed),
                Count::gauge("pilotfish_status_waiting", "Objects whose status is to be written", waiting as f64),
            ]
        }
    }

    /// Starts its tasks.
    pub fn start(self, supervisor: &mut Supervisor, debug: Debug<MeshTranslator>, backlog: Backlog) {
        let drain = supervisor.drain_token();
        let Status { task, lease, election, leadership, reports, state, conditions, counts } = self;
        if let (Some(election), Some(lease)) = (election, lease) {
            tracing::debug!(lease = lease.name, identity = lease.identity, "election");
            let drain = drain.clone();
            supervisor.spawn("leader election", async move {
                election.await;
                if drain.is_cancelled() { Ok(()) } else { Err(anyhow::anyhow!("the election ended")) }
            });
        }
        let draining = drain.clone();
        supervisor.spawn("status", async move {
            tokio::select! {
                () = draining.cancelled() => Ok(()),
                // It ends when the controller does, which says why.
                ended = task.run() => {
                    ended.context("a status write panicked")?;
                    draining.cancelled().await;
                    Ok(())
                }
            }
        });
        if conditions {
            supervisor.spawn("reports", async move {
                tokio::select! {
                    () = drain.cancelled() => Ok(()),
                    ended = report(debug, state, leadership, backlog, counts, reports) => ended,
                }
            });
        }
    }
}

/// Counts what proxies say, while this replica leads and something happens.
async fn report(
    debug: Debug<MeshTranslator>,
    state: watch::Receiver<State>,
    leadership: Leadership,
    backlog: Backlog,
    counts: watch::Receiver<Counts>,
    out: watch::Sender<Option<Arc<Reports>>>,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut pause = PERIOD;
    // What was so at the last count, and when it became so.
    let mut last = None;
    let mut since = started;
    let mut counted = started;
    loop {
        sleep(pause).await;
        let taken = Instant::now();
        let warm = taken >= started + WARM;
        let term = leadership.holds(taken);
        let now = Some((debug.activity(), state.borrow().snapshot.revision, term));
        if now != last {
            (last, since) = (now, taken);
        }
        let is_due = counts.borrow().awaiting > 0 || taken >= counted + SLOW;
        if term.is_none() || !is_due || taken > since.max(started + WARM) + AGAIN {
            continue;
        }
        counted = taken;
        let unpushed = !backlog.is_empty();
        let counting = debug.clone();
        let tally = tokio::task::spawn_blocking(move || counting.tally(is_written)).await.context("counting proxies' words panicked")?;
        pause = PERIOD.max(taken.elapsed() * SHARE);
        out.send_replace(Some(Arc::new(reports(tally, taken, unpushed, warm))));
    }
}

fn reports(tally: Tally, taken: Instant, unpushed: bool, warm: bool) -> Reports {
    let object = |(source, report): (Arc<str>, pilotfish_xds_server::debug::Report)| {
        let applied = Applied { proxies: report.proxies, applied: report.applied, rejected: report.rejected, words: report.words };
        Some((object_id(&source)?, applied))
    };
    let objects: BTreeMap<ObjectId, Applied> = tally.objects.into_iter().filter_map(object).collect();
    Reports { taken, settled: tally.settled && !unpushed, warm, objects }
}

/// From `Kind/namespace/name`.
fn object_id(source: &str) -> Option<ObjectId> {
    let (kind, rest) = source.split_once('/')?;
    let (namespace, name) = rest.split_once('/')?;
    let kind = Kind::ALL.iter().find(|k| k.as_str() == kind)?;
    Some(ObjectId::new(*kind, namespace, name))
}

fn is_written(source: &str) -> bool {
    source.split_once('/').is_some_and(|(kind, _)| WRITTEN.iter().any(|k| k.as_str() == kind))
}
