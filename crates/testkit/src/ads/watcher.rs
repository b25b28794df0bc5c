//! A proxy that runs by itself and remembers what must never happen: that endpoints of a cluster go while it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use pilotfish_envoy::TypeUrl;
use pilotfish_envoy::pb::envoy::config::core::v3::Node;
use pilotfish_envoy::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use pilotfish_envoy::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use prost::Message;

use super::{Held, Proxy};

/// See the module's documentation. Dropping it ends it.
pub struct Watcher {
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

/// What came so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Versions of all that is held.
    pub held: Held,
    /// How many endpoints each cluster has.
    pub endpoints: BTreeMap<String, usize>,
    /// Clusters that had endpoints, and then none; or that went altogether.
    pub emptied: BTreeSet<String>,
    /// How many responses came.
    pub responses: u64,
    /// Why nothing comes any more.
    pub ended: Option<String>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    /// Connects and takes all that comes, of routes these.
    pub async fn connect(url: &str, node: Node, routes: &[&str]) -> Watcher {
        let mut proxy = Proxy::connect(url, node, routes, Held::new()).await;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            loop {
                let response = match proxy.client.responses.message().await {
                    Ok(Some(response)) => response,
                    ended => {
                        lock(&shared).ended = Some(format!("{:?}", ended.map(drop)));
                        return;
                    }
                };
                lock(&shared).inspect(&response);
                proxy.take(response).await;
                lock(&shared).held = proxy.held.clone();
            }
        });
        Watcher { seen, task }
    }

    /// What it knows now.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// What it holds after nothing came for a moment.
    pub async fn quiet(&self, moment: Duration) -> Seen {
        let mut before = self.seen();
        loop {
            tokio::time::sleep(moment).await;
            let now = self.seen();
            if now.responses == before.responses {
                return now;
            }
            before = now;
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap()
}

fn endpoints_of(locality: &Bytes) -> usize {
    LocalityLbEndpoints::decode(&locality[..]).unwrap().lb_endpoints.len()
}

impl Seen {
    fn inspect(&mut self, response: &DeltaDiscoveryResponse) {
        self.responses += 1;
        match TypeUrl::parse(&response.type_url) {
            Some(TypeUrl::Endpoint) => {
                for resource in &response.resources {
                    let body = resource.resource.as_ref().map(|any| &any.value[..]).unwrap_or_default();
                    let assignment = ClusterLoadAssignment::decode(body).unwrap();
                    self.set(&resource.name, assignment.endpoints.iter().map(endpoints_of).sum());
                }
                response.removed_resources.iter().for_each(|name| self.set(name, 0));
            }
            Some(TypeUrl::Cluster) => response.removed_resources.iter().for_each(|name| self.set(name, 0)),
            _ => {}
        }
    }

    fn set(&mut self, cluster: &str, endpoints: usize) {
        let before = self.endpoints.insert(cluster.to_owned(), endpoints).unwrap_or_default();
        if before > 0 && endpoints == 0 {
            self.emptied.insert(cluster.to_owned());
        }
    }
}
