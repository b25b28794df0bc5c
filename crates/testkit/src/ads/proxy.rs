//! A client that does what Envoy does: [`Proxy`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pilotfish_envoy::TypeUrl;
use pilotfish_envoy::pb::envoy::config::core::v3::Node;
use pilotfish_envoy::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;

use super::Delta;

/// The types that it asks for.
pub const TYPES: [TypeUrl; 4] = [TypeUrl::Cluster, TypeUrl::Endpoint, TypeUrl::Listener, TypeUrl::Route];

/// How long nothing may come for it to be quiet.
const MOMENT: Duration = Duration::from_millis(30);

/// Versions by type and name.
pub type Held = BTreeMap<TypeUrl, BTreeMap<String, String>>;

/// A client that does what Envoy does: asks for the endpoints of its clusters, takes everything, remembers versions.
pub struct Proxy {
    /// Its stream.
    pub client: Delta,
    /// Versions of what it holds.
    pub held: Held,
}

impl Proxy {
    /// Connects with what is held from an earlier stream, and asks for everything, of routes for these.
    pub async fn connect(url: &str, node: Node, routes: &[&str], held: Held) -> Self {
        let mut client = Delta::connect(url, node).await;
        for type_url in TYPES {
            let known = held.get(&type_url).cloned().unwrap_or_default();
            let names: Vec<&str> = match type_url {
                TypeUrl::Route => routes.to_vec(),
                TypeUrl::Endpoint => held.get(&TypeUrl::Cluster).into_iter().flatten().map(|(n, _)| n.as_str()).collect(),
                _ => vec!["*"],
            };
            if !names.is_empty() {
                client.subscribe_with(type_url, &names, &[], &known).await;
            }
        }
        Proxy { client, held }
    }

    /// Takes a response.
    pub async fn take(&mut self, response: DeltaDiscoveryResponse) {
        let type_url = TypeUrl::parse(&response.type_url).unwrap();
        let held = self.held.entry(type_url).or_default();
        let before: BTreeSet<String> = held.keys().cloned().collect();
        for name in &response.removed_resources {
            held.remove(name);
        }
        held.extend(response.resources.iter().map(|r| (r.name.clone(), r.version.clone())));
        if type_url == TypeUrl::Endpoint {
            // They may have been under way while their cluster went; nobody asks for them any more.
            let clusters = self.held.get(&TypeUrl::Cluster).cloned().unwrap_or_default();
            self.held.entry(type_url).or_default().retain(|name, _| clusters.contains_key(name));
        }
        let held = self.held.entry(type_url).or_default();
        let after: BTreeSet<String> = held.keys().cloned().collect();
        self.client.ack(&response).await;
        if type_url == TypeUrl::Cluster {
            let new: Vec<&str> = after.difference(&before).map(String::as_str).collect();
            let gone: Vec<&str> = before.difference(&after).map(String::as_str).collect();
            if !(new.is_empty() && gone.is_empty()) {
                self.client.subscribe_with(TypeUrl::Endpoint, &new, &gone, &BTreeMap::new()).await;
            }
            for name in gone {
                self.held.entry(TypeUrl::Endpoint).or_default().remove(name);
            }
        }
    }

    /// What has arrived, or arrives within a moment.
    pub async fn try_next(&mut self) -> Option<DeltaDiscoveryResponse> {
        tokio::time::timeout(MOMENT, self.client.next()).await.ok()
    }

    /// Takes what comes until nothing does.
    pub async fn until_quiet(&mut self) {
        while let Some(response) = self.try_next().await {
            self.take(response).await;
        }
    }

    /// Takes what comes until it holds what it should; panics if that does not come.
    pub async fn converge(&mut self, expected: &Held, what: &str) {
        while !same(&self.held, expected) {
            let Ok(response) = tokio::time::timeout(Duration::from_secs(10), self.client.next()).await else {
                panic!("{what}: holds {:?}, should hold {expected:?}", self.held);
            };
            self.take(response).await;
        }
        self.until_quiet().await;
        assert!(same(&self.held, expected), "{what}: moved on to {:?}, should hold {expected:?}", self.held);
    }
}

fn same(held: &Held, expected: &Held) -> bool {
    TYPES.iter().all(|t| held.get(t).into_iter().flatten().eq(expected.get(t).into_iter().flatten()))
}
