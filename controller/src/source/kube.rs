//! `KubeSource`: objects from a Kubernetes API.
//!
//! ```text
//! API server ─> watch (a task per kind) ─> frame ─> decode ─> driver ─> Batch ─> whoever owns the index
//! ```
//!
//! A task only moves bytes: what to ask and what an answer means is the `driver`'s business. Objects are understood in
//! the task of their kind, so that the index only joins. Of what the API server sends, nothing is kept but that.
//!
//! Secrets are not read yet: only those that are referred to will be.

mod decode;
mod driver;
#[cfg(test)]
pub(crate) mod fake;
mod frame;
pub(crate) mod path;
mod proto;
mod watch;
mod wire;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pilotfish_model::{Kind, ObjectId};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

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
    /// These are all objects of a kind.
    Reset(Kind, Vec<Input>),
    /// An object is there.
    Put(Input),
    /// An object is gone.
    Delete(ObjectId),
}

/// What arrived together.
#[derive(Debug)]
pub(crate) struct Batch {
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

/// The kinds that are followed. Those that are not installed count as empty.
pub(crate) fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|k| path::is_core(*k) || k.group().ends_with(".istio.io"))
}

/// See the module's documentation. Dropping it ends its tasks.
pub(crate) struct KubeSource {
    tasks: JoinSet<()>,
    batches: mpsc::Receiver<Batch>,
    unlisted: BTreeSet<Kind>,
}

/// How many batches may wait to be taken in; a full queue holds the watches back, and the API server waits.
const QUEUE: usize = 256;

impl KubeSource {
    /// Starts to follow all kinds. Whether the API server answers shows later.
    pub(crate) async fn start(cluster: &Cluster, context: &Context) -> Result<KubeSource, ClusterError> {
        let client = client(cluster).await?;
        let (out, batches) = mpsc::channel(QUEUE);
        let mut tasks = JoinSet::new();
        for kind in kinds() {
            tasks.spawn(watch::Watch::new(client.clone(), kind, context.clone(), out.clone()).run());
        }
        Ok(KubeSource { tasks, batches, unlisted: kinds().collect() })
    }

    /// What arrives next. An error is a defect: no task ends while this lives. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Batch, Option<JoinError>> {
        let batch = tokio::select! {
            biased;
            batch = self.batches.recv() => batch.ok_or(None)?,
            ended = self.tasks.join_next() => return Err(ended.and_then(Result::err)),
        };
        Ok(self.noted(batch))
    }

    /// What has arrived already.
    pub(crate) fn next_now(&mut self) -> Option<Batch> {
        self.batches.try_recv().ok().map(|batch| self.noted(batch))
    }

    /// Kinds of which no whole list has come yet.
    pub(crate) fn unlisted(&self) -> impl Iterator<Item = Kind> {
        self.unlisted.iter().copied()
    }

    fn noted(&mut self, batch: Batch) -> Batch {
        if !self.unlisted.is_empty() {
            for change in &batch.changes {
                if let Change::Reset(kind, _) = change {
                    self.unlisted.remove(kind);
                }
            }
        }
        batch
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
