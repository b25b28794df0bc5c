//! [`Controller`]: the task that moves events from files and a cluster through the index to whoever wants meshes.
//!
//! Nothing is published before files were read and every kind of the cluster was listed: a [`Handle`] never shows half a
//! mesh. The controller is to be spawned by the caller, who watches how it ends.

mod core;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_model::diagnostic::Severity;
use pilotfish_model::{ChangeSet, Kind, Mesh};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval_at, sleep, sleep_until, timeout_at};

use self::core::Core;
use crate::index::{Settings, Snapshot};
use crate::jwks::{self, KeysUpdate};
use crate::mesh_config::Layer;
use crate::source::file::Scan;
use crate::source::kube::health::Health;
use crate::source::kube::{Batch, KubeSource};
use crate::source::watch::Watch;
use crate::source::{Cluster, ClusterError, Problem, SourceError};

/// What a controller is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files and folders, in order of precedence. What they have hides what the cluster has.
    pub config_dirs: Vec<PathBuf>,
    /// The cluster to follow as well.
    pub cluster: Option<Cluster>,
    /// What holds for the whole mesh.
    pub settings: Settings,
    /// After a notification, how long nothing may happen before files are read.
    pub quiet: Duration,
    /// How long a constant stream of notifications may put that off.
    pub max_delay: Duration,
    /// How often files are looked at without a notification: some file systems send none.
    pub poll: Duration,
    /// How long events of the cluster that come one after the other may put off their mesh.
    pub gather: Duration,
    /// How often each kind is compared with what the API server has, in case a watch left something out. Zero: never.
    pub audit: Duration,
    /// How long the first mesh waits for keys of tokens, which are refused without.
    pub keys: Duration,
}

impl Options {
    /// With the default times, and files only.
    pub fn new(config_dirs: Vec<PathBuf>, settings: Settings) -> Self {
        Options {
            config_dirs,
            cluster: None,
            settings,
            quiet: Duration::from_millis(50),
            max_delay: Duration::from_secs(1),
            poll: Duration::from_secs(5),
            gather: Duration::from_millis(2),
            audit: Duration::from_secs(300),
            keys: Duration::from_secs(3),
        }
    }
}

/// A mesh and what is new in it.
#[derive(Clone, Debug)]
pub struct Update {
    /// The mesh.
    pub mesh: Arc<Mesh>,
    /// What changed since the update before.
    pub changes: ChangeSet,
    /// When the oldest event behind it came in: latencies count from here.
    pub since: Instant,
}

/// What the rest of the program holds.
pub struct Handle {
    /// The first whole mesh, once there is one.
    pub initial: oneshot::Receiver<Arc<Mesh>>,
    /// Every later mesh, in order; none is left out.
    pub updates: mpsc::Receiver<Update>,
    /// The newest state, for listings.
    pub state: watch::Receiver<State>,
    /// New settings of the mesh, out of a file.
    pub mesh_config: mpsc::Sender<Layer>,
    /// Keys of tokens that somebody fetched.
    pub keys: mpsc::Sender<KeysUpdate>,
    /// How far the watches of the cluster are; without one there are none.
    pub health: Arc<Health>,
}

/// For listings.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The index's.
    pub snapshot: Snapshot,
    /// What is wrong with files and documents.
    pub problems: Arc<Vec<Problem>>,
    /// Documents of kinds that are none of the mesh's business.
    pub ignored: usize,
}

impl State {
    /// True if anything at all is wrong, warnings aside.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
            || self.snapshot.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Why the controller ended. It ends without error only when its [`Handle`] is dropped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No API server can be asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A defect: a thread or task panicked.
    #[error("reading configuration failed: {0}")]
    Panicked(#[from] tokio::task::JoinError),
    /// A defect: a watch is gone.
    #[error("a watch of the cluster ended")]
    WatchEnded,
}

/// Reads files once; nothing follows them. Blocks while it does.
pub fn read_files(options: &Options) -> Result<(Arc<Mesh>, State), SourceError> {
    let mut core = Core::new(options)?;
    core.scan(Scan::Full);
    core.publish();
    let state = core.state();
    Ok((state.snapshot.mesh.clone(), state))
}

/// See the module's documentation.
pub struct Controller {
    options: Options,
    core: Core,
    initial: oneshot::Sender<Arc<Mesh>>,
    updates: mpsc::Sender<Update>,
    state: watch::Sender<State>,
    mesh_config: mpsc::Receiver<Layer>,
    keys: mpsc::Receiver<KeysUpdate>,
    health: Arc<Health>,
}

impl Controller {
    /// A controller that has not read anything yet. Fails if a path that was named is not there.
    pub fn new(options: Options) -> Result<(Controller, Handle), SourceError> {
        let core = Core::new(&options)?;
        let (initial, initial_out) = oneshot::channel();
        let (updates, updates_out) = mpsc::channel(64);
        let (state, state_out) = watch::channel(State::default());
        let (mesh_config_in, mesh_config) = mpsc::channel(4);
        let (keys_in, keys) = mpsc::channel(4);
        let health = Arc::new(Health::default());
        let handle = Handle {
            initial: initial_out,
            updates: updates_out,
            state: state_out,
            mesh_config: mesh_config_in,
            keys: keys_in,
            health: health.clone(),
        };
        Ok((Controller { options, core, initial, updates, state, mesh_config, keys, health }, handle))
    }

    /// Reads everything, then follows it until the [`Handle`]'s receivers are dropped.
    pub async fn run(self) -> Result<(), RunError> {
        let Controller { options, mut core, initial, updates, state, mut mesh_config, mut keys, health } = self;
        let mut files = Watch::new(core.roots());
        let mut cluster = match &options.cluster {
            Some(cluster) => Some(KubeSource::start(cluster, &core.context(), options.audit, health).await?),
            None => None,
        };
        core = blocking(core, |core| core.scan(Scan::Full)).await?;
        if let Some(cluster) = &mut cluster {
            let whole;
            (core, whole) = list(core, cluster, &updates).await?;
            if !whole {
                return Ok(());
            }
        }
        core = blocking(core, |core| drop(core.publish())).await?;
        let first = core.state();
        let mut mesh = first.snapshot.mesh.clone();
        state.send_replace(first);
        if !jwks::wanted(&mesh).is_empty() {
            settle_keys(&mut core, &mut keys, options.keys).await;
            core.publish();
            let first = core.state();
            mesh = first.snapshot.mesh.clone();
            state.send_replace(first);
        }
        // Nobody has to wait for it.
        let _ = initial.send(mesh);

        // Whatever happened to files between their first reading and the start of the watch is found now.
        let mut next = Wake::Scan(Scan::Full);
        let mut since = Instant::now();
        loop {
            core = match next {
                Wake::Batch(batch) if batch.changes.len() < MANY && !batch.resets() => {
                    // Micro-batches are done faster than another thread could be woken.
                    core.take(batch.changes);
                    while since.elapsed() < options.gather
                        && let Some(batch) = cluster.as_mut().and_then(KubeSource::next_now)
                    {
                        core.take(batch.changes);
                    }
                    core
                }
                Wake::Batch(batch) => blocking(core, |core| core.take(batch.changes)).await?,
                Wake::Scan(scan) => blocking(core, move |core| core.scan(scan)).await?,
                Wake::MeshFile(layer) => blocking(core, |core| core.set_mesh_file(layer)).await?,
                Wake::Keys(update) => {
                    core.set_keys(update);
                    core
                }
            };
            if let Some(cluster) = &mut cluster {
                core.follow_secrets(cluster);
            }
            let update = if core.is_large() {
                let update;
                (core, update) = tokio::task::spawn_blocking(move || {
                    let update = core.publish();
                    (core, update)
                })
                .await?;
                update
            } else {
                core.publish()
            };
            let new = core.state();
            state.send_if_modified(|old| {
                let differs = update.is_some() || old.problems != new.problems || old.snapshot.revision != new.snapshot.revision;
                *old = new;
                differs
            });
            if let Some((mesh, changes)) = update
                && updates.send(Update { mesh, changes, since }).await.is_err()
            {
                return Ok(());
            }
            let poll = sleep_until(Instant::now() + options.poll);
            next = tokio::select! {
                () = updates.closed() => return Ok(()),
                batch = batch(&mut cluster) => {
                    let batch = batch?;
                    since = batch.received;
                    Wake::Batch(batch)
                }
                Some(layer) = mesh_config.recv() => {
                    since = Instant::now();
                    Wake::MeshFile(layer)
                }
                Some(update) = keys.recv() => {
                    since = Instant::now();
                    Wake::Keys(update)
                }
                () = files.changed(), if !options.config_dirs.is_empty() => {
                    since = Instant::now();
                    settle(&mut files, options.quiet, since + options.max_delay).await;
                    Wake::Scan(Scan::Full)
                }
                () = poll, if !options.config_dirs.is_empty() => {
                    since = Instant::now();
                    Wake::Scan(Scan::Quick)
                }
            };
        }
    }
}

/// From this many events at once on, they are taken in on a thread that may take its time.
const MANY: usize = 64;
/// How often it is said what is waited for.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Takes in all that a cluster has; whether somebody still wants it.
async fn list(mut core: Core, cluster: &mut KubeSource, updates: &mpsc::Sender<Update>) -> Result<(Core, bool), RunError> {
    let started = Instant::now();
    let mut said = interval_at(started + SAY_AGAIN, SAY_AGAIN);
    loop {
        // Objects say which Secrets are needed, and that may change while these are waited for.
        if cluster.unlisted().all(|target| target.kind == Kind::Secret) {
            core.follow_secrets(cluster);
            if cluster.unlisted().next().is_none() {
                break;
            }
        }
        let batch = tokio::select! {
            () = updates.closed() => return Ok((core, false)),
            batch = cluster.next() => batch.map_err(ended)?,
            _ = said.tick() => {
                let kinds: Vec<_> = cluster.unlisted().map(ToString::to_string).collect();
                tracing::warn!(kinds = kinds.join(", "), "still waiting for lists of the API server");
                continue;
            }
        };
        core = blocking(core, |core| core.take(batch.changes)).await?;
    }
    tracing::info!(seconds = started.elapsed().as_secs_f64(), "listed the cluster");
    Ok((core, true))
}

/// Takes in keys of tokens until each was asked for once, or `limit`: who fetches them sees the first mesh before anybody is
/// served, so that no token is refused only because this process is young.
async fn settle_keys(core: &mut Core, keys: &mut mpsc::Receiver<KeysUpdate>, limit: Duration) {
    let deadline = Instant::now() + limit;
    while let Ok(Some(update)) = timeout_at(deadline, keys.recv()).await {
        let settled = update.settled;
        core.set_keys(update);
        if settled {
            break;
        }
    }
}

/// The next batch of a cluster, if there is one.
async fn batch(cluster: &mut Option<KubeSource>) -> Result<Batch, RunError> {
    match cluster {
        Some(cluster) => cluster.next().await.map_err(ended),
        None => std::future::pending().await,
    }
}

fn ended(panic: Option<tokio::task::JoinError>) -> RunError {
    panic.map_or(RunError::WatchEnded, RunError::Panicked)
}

async fn blocking(mut core: Core, work: impl FnOnce(&mut Core) + Send + 'static) -> Result<Core, RunError> {
    let core = tokio::task::spawn_blocking(move || {
        work(&mut core);
        core
    });
    Ok(core.await?)
}

/// Waits until nothing happened for `quiet`, at most until `deadline`: editors and copies write in several steps.
async fn settle(watch: &mut Watch, quiet: Duration, deadline: Instant) {
    while Instant::now() < deadline {
        let until = deadline.min(Instant::now() + quiet);
        if timeout_at(until, watch.changed()).await.is_err() {
            return;
        }
        // Notifications come in bursts; one look per few milliseconds is enough.
        sleep(Duration::from_millis(2)).await;
    }
}

enum Wake {
    Scan(Scan),
    Batch(Batch),
    MeshFile(Layer),
    Keys(KeysUpdate),
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod secret_tests;
#[cfg(test)]
mod settings_tests;
#[cfg(test)]
mod survival_tests;
#[cfg(test)]
mod tests;
