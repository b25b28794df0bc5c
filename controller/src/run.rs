//! [`Controller`]: the task that moves events from files through the index to whoever wants meshes.
//!
//! [`Controller::start`] reads everything before it returns, so a [`Handle`] never shows half a mesh. The returned
//! controller is to be spawned by the caller, who watches how it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_model::diagnostic::Severity;
use pilotfish_model::{ChangeSet, Mesh, MeshConfig};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::index::{Index, Settings, Snapshot};
use crate::source::file::Scan;
use crate::source::watch::Watch;
use crate::source::{FileSource, Problem, SourceError, SourceEvent};

/// What a controller is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Files and folders, in order of precedence.
    pub config_dirs: Vec<PathBuf>,
    /// What holds for the whole mesh.
    pub settings: Settings,
    /// After a notification, how long nothing may happen before files are read.
    pub quiet: Duration,
    /// How long a constant stream of notifications may put that off.
    pub max_delay: Duration,
    /// How often files are looked at without a notification: some file systems send none.
    pub poll: Duration,
}

impl Options {
    /// With the default times.
    pub fn new(config_dirs: Vec<PathBuf>, settings: Settings) -> Self {
        Options { config_dirs, settings, quiet: Duration::from_millis(50), max_delay: Duration::from_secs(1), poll: Duration::from_secs(5) }
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
    /// The mesh after everything was read once.
    pub initial: Arc<Mesh>,
    /// Every later mesh, in order; none is left out.
    pub updates: mpsc::Receiver<Update>,
    /// The newest state, for listings.
    pub state: watch::Receiver<State>,
    /// New settings of the mesh.
    pub mesh_config: mpsc::Sender<Arc<MeshConfig>>,
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
    /// A defect: the reading thread panicked.
    #[error("reading configuration failed: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

/// See the module's documentation.
pub struct Controller {
    options: Options,
    core: Core,
    updates: mpsc::Sender<Update>,
    state: watch::Sender<State>,
    mesh_config: mpsc::Receiver<Arc<MeshConfig>>,
}

/// The synchronous part, moved to a blocking thread and back.
struct Core {
    source: FileSource,
    index: Index,
    said: State,
}

impl Controller {
    /// Reads everything once. Blocks while it does.
    pub fn start(options: Options) -> Result<(Controller, Handle), SourceError> {
        let source = FileSource::new(options.config_dirs.clone())?;
        let mut core = Core { source, index: Index::new(options.settings.clone()), said: State::default() };
        let update = core.scan(Scan::Full);
        let initial = update.map_or_else(|| core.index.snapshot().mesh, |update| update.0);
        let (updates, updates_out) = mpsc::channel(64);
        let (state, state_out) = watch::channel(core.state());
        let (mesh_config_in, mesh_config) = mpsc::channel(4);
        let controller = Controller { options, core, updates, state, mesh_config };
        Ok((controller, Handle { initial, updates: updates_out, state: state_out, mesh_config: mesh_config_in }))
    }

    /// Watches until the [`Handle`]'s receivers are dropped.
    pub async fn run(self) -> Result<(), RunError> {
        let Controller { options, mut core, updates, state, mut mesh_config } = self;
        let mut watch = Watch::new(core.source.roots());
        // Whatever happened between the first reading and the start of the watch is found now.
        let mut next = Wake::Scan(Scan::Full);
        let mut since = Instant::now();
        loop {
            let update;
            (core, update) = tokio::task::spawn_blocking(move || {
                let update = core.wake(next);
                (core, update)
            })
            .await?;
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
                () = watch.changed() => {
                    since = Instant::now();
                    let deadline = Instant::now() + options.max_delay;
                    settle(&mut watch, options.quiet, deadline).await;
                    Wake::Scan(Scan::Full)
                }
                Some(config) = mesh_config.recv() => {
                    since = Instant::now();
                    Wake::MeshConfig(config)
                }
                () = poll => {
                    since = Instant::now();
                    Wake::Scan(Scan::Quick)
                }
            };
        }
    }
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
    MeshConfig(Arc<MeshConfig>),
}

impl Core {
    fn wake(&mut self, wake: Wake) -> Option<(Arc<Mesh>, ChangeSet)> {
        match wake {
            Wake::Scan(scan) => self.scan(scan),
            Wake::MeshConfig(config) => {
                self.index.set_mesh_config(config);
                self.index.publish()
            }
        }
    }

    fn scan(&mut self, scan: Scan) -> Option<(Arc<Mesh>, ChangeSet)> {
        for event in self.source.scan(scan) {
            match event {
                SourceEvent::Apply(object, place) => {
                    let id = object.id.clone();
                    self.index.apply(object);
                    for d in self.index.diagnostics_of(&id) {
                        match d.severity {
                            Severity::Error => tracing::error!(%place, "{d}"),
                            Severity::Warning => tracing::warn!(%place, "{d}"),
                        }
                    }
                }
                SourceEvent::Delete(id) => self.index.delete(&id),
            }
        }
        self.say_problems();
        self.index.publish()
    }

    /// Logs what was not wrong before.
    fn say_problems(&mut self) {
        let now = self.source.problems();
        let before: std::collections::BTreeSet<&Problem> = self.said.problems.iter().collect();
        for p in now.iter().filter(|p| !before.contains(p)) {
            match p.severity {
                Severity::Error => tracing::error!("{p}"),
                Severity::Warning => tracing::warn!("{p}"),
            }
        }
        if *self.said.problems != now {
            self.said.problems = Arc::new(now.to_vec());
        }
    }

    fn state(&mut self) -> State {
        State { snapshot: self.index.snapshot(), problems: self.said.problems.clone(), ignored: self.source.ignored() }
    }
}

#[cfg(test)]
#[path = "run/tests.rs"]
mod tests;
