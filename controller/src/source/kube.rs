//! `KubeSource`: objects from a Kubernetes API.
//!
//! ```text
//! API server ─> watch (a task per kind) ─> frame ─> decode ─> driver ─> Batch ─> whoever owns the index
//! ```
//!
//! A task only moves bytes: what to ask and what an answer means is the `driver`'s business. Objects are understood in
//! the task of their kind, so that the index only joins. Of what the API server sends, nothing is kept but that.
//!
//! A kind is followed as a whole, except for Secrets and ConfigMaps: of those, only what is referred to by name, each name
//! with a watch of its own that ends with the last reference. Nobody else's keys ever come here.

mod audit;
mod auditor;
mod connection;
mod decode;
mod driver;
#[cfg(test)]
pub(crate) mod fake;
mod frame;
pub mod health;
pub(crate) mod path;
mod proto;
mod watch;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pilotfish_model::name::Str;
use pilotfish_model::{Kind, ObjectId};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;

pub(crate) use self::connection::Connection;
use self::health::Health;
pub(crate) use self::path::Target;
pub(crate) use self::watch::chain;
use crate::convert::Context;
use crate::index::Input;

/// How to find the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// As the current context of a kubeconfig file says.
    Kubeconfig(PathBuf),
    /// As a Pod of the cluster is told.
    InCluster,
}

impl Cluster {
    /// The cluster that this process runs in, if it does.
    pub fn around() -> Option<Cluster> {
        let token = std::path::Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token");
        (std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && token.exists()).then_some(Cluster::InCluster)
    }
}

/// Why no API server can be asked at all. Fatal: one that merely does not answer is asked again.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The kubeconfig is missing or wrong.
    #[error("--kubeconfig {}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
    /// What a Pod is told is missing or wrong.
    #[error("the cluster around this process: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    /// The settings do not make a client.
    #[error("no client of the API server: {0}")]
    Client(#[from] Box<kube::Error>),
}

/// Something that happened, in the order of its kind.
#[derive(Debug)]
pub(crate) enum Change {
    /// These are all objects of a kind, or of a part of it.
    Reset(Target, Vec<Input>),
    /// An object is there.
    Put(Input),
    /// An object is gone.
    Delete(ObjectId),
}

/// What arrived together.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Who says so.
    watch: WatchId,
    /// When.
    pub(crate) received: Instant,
    /// What, in order.
    pub(crate) changes: Vec<Change>,
}

impl Batch {
    /// Whether it replaces all of a kind.
    pub(crate) fn resets(&self) -> bool {
        self.changes.iter().any(|c| matches!(c, Change::Reset(..)))
    }
}

/// The kinds that are followed as a whole. Those that are not installed count as empty.
pub(crate) fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|k| path::is_protobuf(*k) || k.group().ends_with(".istio.io"))
}

/// A watch, among all that there ever were.
type WatchId = u64;

/// See the module's documentation. Dropping it ends its tasks.
pub(crate) struct KubeSource {
    connection: Connection,
    context: Context,
    audit: Duration,
    health: Arc<Health>,
    tasks: JoinSet<()>,
    out: mpsc::Sender<Batch>,
    batches: mpsc::Receiver<Batch>,
    unlisted: BTreeSet<Target>,
    started: WatchId,
    /// Of watches that were ended, something may still be on its way.
    live: BTreeSet<WatchId>,
    /// The watches of Secrets, by name.
    secrets: BTreeMap<Str, (WatchId, AbortHandle)>,
}

/// How many batches may wait to be taken in; a full queue holds the watches back, and the API server waits.
const QUEUE: usize = 256;

impl KubeSource {
    /// Starts to follow all kinds. Whether the API server answers shows later, in `health`. Every so often each kind is audited.
    pub(crate) async fn start(
        cluster: &Cluster,
        context: &Context,
        audit: Duration,
        health: Arc<Health>,
    ) -> Result<KubeSource, ClusterError> {
        let connection = Connection::new(cluster).await?;
        let (out, batches) = mpsc::channel(QUEUE);
        let mut source = KubeSource {
            connection,
            context: context.clone(),
            audit,
            health: health.clone(),
            tasks: JoinSet::new(),
            out,
            batches,
            unlisted: BTreeSet::new(),
            started: 0,
            live: BTreeSet::new(),
            secrets: BTreeMap::new(),
        };
        kinds().map(Target::all).chain(context.config_maps.iter().map(Target::one)).for_each(|target| drop(source.watch(target)));
        source.tasks.spawn(async move { health.watch_over().await });
        Ok(source)
    }

    fn watch(&mut self, target: Target) -> (WatchId, AbortHandle) {
        self.started += 1;
        let (connection, context, out) = (self.connection.clone(), self.context.clone(), self.out.clone());
        let watch = watch::Watch::new(self.started, connection, target.clone(), context, self.audit, &self.health, out);
        self.unlisted.insert(target);
        self.live.insert(self.started);
        (self.started, self.tasks.spawn(watch.run()))
    }

    /// Follows the Secrets of these names, in whatever namespace, and no others. What is known of others is to be forgotten:
    /// that is what is returned.
    pub(crate) fn follow_secrets(&mut self, names: &BTreeSet<Str>) -> Vec<Change> {
        let gone: Vec<Str> = self.secrets.keys().filter(|n| !names.contains(*n)).cloned().collect();
        for name in &gone {
            if let Some((id, task)) = self.secrets.remove(name) {
                task.abort();
                self.live.remove(&id);
            }
        }
        for name in names {
            if !self.secrets.contains_key(name) {
                let watch = self.watch(Target::named(Kind::Secret, name.clone()));
                self.secrets.insert(name.clone(), watch);
            }
        }
        let forget = |name: Str| {
            let target = Target::named(Kind::Secret, name);
            self.unlisted.remove(&target);
            Change::Reset(target, Vec::new())
        };
        gone.into_iter().map(forget).collect()
    }

    /// What arrives next. An error is a defect: no task ends by itself while this lives. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Batch, Option<JoinError>> {
        loop {
            tokio::select! {
                biased;
                batch = self.batches.recv() => {
                    if let Some(batch) = self.noted(batch.ok_or(None)?) {
                        return Ok(batch);
                    }
                }
                Some(ended) = self.tasks.join_next() => match ended {
                    Err(e) if e.is_cancelled() => {}
                    ended => return Err(ended.err()),
                },
            };
        }
    }

    /// What has arrived already.
    pub(crate) fn next_now(&mut self) -> Option<Batch> {
        loop {
            let batch = self.batches.try_recv().ok()?;
            if let Some(batch) = self.noted(batch) {
                return Some(batch);
            }
        }
    }

    /// What no whole list has come of yet.
    pub(crate) fn unlisted(&self) -> impl Iterator<Item = &Target> {
        self.unlisted.iter()
    }

    /// `None`: nobody is interested any more.
    fn noted(&mut self, batch: Batch) -> Option<Batch> {
        if !self.live.contains(&batch.watch) {
            return None;
        }
        if !self.unlisted.is_empty() {
            for change in &batch.changes {
                if let Change::Reset(target, _) = change {
                    self.unlisted.remove(target);
                }
            }
        }
        Some(batch)
    }
}

/// A client of the API server; it does not connect before it is used.
pub(crate) async fn client(cluster: &Cluster) -> Result<Client, ClusterError> {
    let mut config = match cluster {
        Cluster::InCluster => Config::incluster()?,
        Cluster::Kubeconfig(path) => {
            let wrong = |source| ClusterError::Kubeconfig { path: path.clone(), source: Box::new(source) };
            let file = Kubeconfig::read_from(path).map_err(wrong)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(wrong)?
        }
    };
    config.connect_timeout = Some(Duration::from_secs(10));
    // The driver decides when to ask again, and a watch has its own measure of silence.
    config.default_retry = false;
    config.read_timeout = None;
    Client::try_from(config).map_err(|e| ClusterError::Client(Box::new(e)))
}

#[cfg(test)]
#[path = "kube/kubeconfig_tests.rs"]
mod kubeconfig_tests;
