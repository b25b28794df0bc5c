//! [`Connection`]: the client of an API server that all tasks share, made anew when the server does not know us any more.
//!
//! Tokens and certificates expire, and whoever renews them writes files. A token file is read again by the client itself;
//! a kubeconfig with what is in it or beside it (certificates, authorities) is read again here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use super::{Cluster, ClusterError, client};

/// How often files are read again at most.
const AGAIN: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Clone)]
pub(crate) struct Connection(Arc<Shared>);

struct Shared {
    cluster: Cluster,
    current: Mutex<Current>,
}

struct Current {
    client: Client,
    read: Instant,
}

impl Connection {
    /// Does not connect before it is used.
    pub(crate) async fn new(cluster: &Cluster) -> Result<Connection, ClusterError> {
        let current = Mutex::new(Current { client: client(cluster).await?, read: Instant::now() });
        Ok(Connection(Arc::new(Shared { cluster: cluster.clone(), current })))
    }

    /// The newest client.
    pub(crate) fn client(&self) -> Client {
        self.lock().client.clone()
    }

    /// Reads everything again after a refusal to know us, or where no connection comes about; not too often.
    pub(crate) async fn renew(&self) {
        {
            let mut current = self.lock();
            if current.read.elapsed() < AGAIN {
                return;
            }
            current.read = Instant::now();
        }
        match client(&self.0.cluster).await {
            Ok(client) => {
                tracing::debug!("credentials were read again");
                self.lock().client = client;
            }
            // Perhaps it is being written; the old ones may still do.
            Err(error) => tracing::warn!(%error, "credentials could not be read again"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
