//! [`Registries`]: the clusters of a mesh, as one.
//!
//! ```text
//! primary  ─> index ─> mesh ─┐
//! remote a ─> index ─> mesh ─┼─> services of a host are one; its endpoints are those of all
//! remote b ─> index ─> mesh ─┘
//! ```
//!
//! The primary has everything, rules above all. Of a remote cluster only services, endpoints and workloads count, once all of
//! them were listed. A cluster that cannot be reached says nothing: what it said stays, until it is taken out of the mesh.
//!
//! Each index only knows itself, so a change costs what it costs in a mesh of one cluster, and the merge of the services and
//! addresses that it names. With the primary alone there is no merge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use pilotfish_model::endpoint::Endpoint;
use pilotfish_model::mesh::{Mesh, ServiceKey, WorkloadInstance};
use pilotfish_model::name::Str;
use pilotfish_model::service::Registry;
use pilotfish_model::{ChangeSet, Kind, ObjectId, Service};

use crate::index::{Index, Input, Settings, Snapshot, endpoint_change, place};

/// What counts of remote clusters.
const REMOTE: &[Kind] = &[Kind::Namespace, Kind::Node, Kind::Service, Kind::EndpointSlice, Kind::Pod];

/// See the module's documentation.
pub struct Registries {
    /// The cluster whose rules hold.
    pub primary: Index,
    remotes: BTreeMap<Str, Remote>,
    /// What was published last.
    mesh: Arc<Mesh>,
    /// A remote cluster came or went: everything is merged anew.
    anew: bool,
}

struct Remote {
    index: Index,
    /// All of it has been listed.
    whole: bool,
    mesh: Arc<Mesh>,
}

impl Registries {
    /// Of one cluster.
    pub fn new(primary: Index) -> Self {
        Registries { primary, remotes: BTreeMap::new(), mesh: Arc::default(), anew: false }
    }

    /// Adds a cluster. It contributes nothing before [`Registries::set_whole`].
    pub fn add(&mut self, cluster_id: Str) {
        let settings = self.primary.settings();
        let (domain, mesh_config) = (settings.domain.clone(), settings.mesh_config.clone());
        let index = Index::new(Settings { domain, mesh_config, cluster_id: cluster_id.clone(), ..Settings::default() });
        self.remotes.entry(cluster_id).or_insert(Remote { index, whole: false, mesh: Arc::default() });
    }

    /// Takes a cluster out of the mesh, with all that it has.
    pub fn remove(&mut self, cluster_id: &str) {
        self.anew |= self.remotes.remove(cluster_id).is_some_and(|r| r.whole);
    }

    /// All of a cluster has been listed.
    pub fn set_whole(&mut self, cluster_id: &str) {
        if let Some(remote) = self.remotes.get_mut(cluster_id).filter(|r| !r.whole) {
            remote.whole = true;
            self.anew = true;
        }
    }

    /// A remote cluster has an object.
    pub fn put(&mut self, cluster_id: &str, input: Input) {
        if let Some(remote) = self.remotes.get_mut(cluster_id).filter(|_| REMOTE.contains(&input.id.kind)) {
            remote.index.put(input);
        }
    }

    /// A remote cluster has an object no more.
    pub fn delete(&mut self, cluster_id: &str, id: &ObjectId) {
        if let Some(remote) = self.remotes.get_mut(cluster_id) {
            remote.index.delete(id);
        }
    }

    /// These are all that a remote cluster has of a kind.
    pub fn reset(&mut self, cluster_id: &str, kind: Kind, inputs: Vec<Input>) {
        if let Some(remote) = self.remotes.get_mut(cluster_id).filter(|_| REMOTE.contains(&kind)) {
            remote.index.reset(kind, inputs, |_| false);
        }
    }

    /// How much is marked to be recomputed.
    pub fn pending(&self) -> usize {
        self.primary.pending() + self.remotes.values().map(|r| r.index.pending()).sum::<usize>()
    }

    /// As [`Index::snapshot`].
    pub fn snapshot(&mut self) -> Snapshot {
        let snapshot = self.primary.snapshot();
        if self.remotes.is_empty() && !self.anew { snapshot } else { Snapshot { mesh: self.mesh.clone(), ..snapshot } }
    }

    /// As [`Index::publish`].
    pub fn publish(&mut self) -> Option<(Arc<Mesh>, ChangeSet)> {
        let published = self.primary.publish();
        if self.remotes.is_empty() && !self.anew {
            self.mesh = published.as_ref().map_or_else(|| self.mesh.clone(), |(mesh, _)| mesh.clone());
            return published;
        }
        let (primary, mut changes) = match published {
            Some((mesh, changes)) => (mesh, changes),
            None => (self.primary.snapshot().mesh, ChangeSet::default()),
        };
        let config = &self.primary.settings().mesh_config;
        for remote in self.remotes.values_mut() {
            remote.index.set_mesh_config(config.clone());
            if let Some((mesh, new)) = remote.index.publish() {
                remote.mesh = mesh;
                if remote.whole {
                    changes.merge(new);
                }
            }
        }
        let anew = std::mem::take(&mut self.anew) || changes.everything;
        if changes.is_empty() && !anew {
            return None;
        }
        let mesh = self.merge(&primary, &mut changes, anew);
        self.mesh = Arc::new(mesh);
        (!changes.is_empty()).then(|| (self.mesh.clone(), changes))
    }

    /// Merges what changes name, or everything, into what was published last, and notes what that changes.
    fn merge(&self, primary: &Arc<Mesh>, changes: &mut ChangeSet, anew: bool) -> Mesh {
        let old = &*self.mesh;
        let meshes: Vec<&Mesh> = std::iter::once(&**primary).chain(self.remotes.values().filter(|r| r.whole).map(|r| &*r.mesh)).collect();
        let mut mesh = Mesh {
            services: old.services.clone(),
            endpoints: old.endpoints.clone(),
            workloads: old.workloads.clone(),
            ..Mesh::clone(primary)
        };
        let (mut keys, mut ips): (BTreeSet<ServiceKey>, BTreeSet<IpAddr>) =
            (changes.services.iter().chain(changes.endpoints.keys()).cloned().collect(), changes.workloads.clone());
        if anew {
            let all = || meshes.iter().copied().chain([old]);
            keys = all().flat_map(|m| m.services.keys().chain(m.endpoints.keys())).cloned().collect();
            ips = all().flat_map(|m| m.workloads.keys()).copied().collect();
        }
        changes.endpoints.clear();
        for key in keys {
            if set(&mut mesh.services, &key, service(&meshes, &key)) {
                changes.services.insert(key.clone());
            }
            let before = old.endpoints.get(&key).map_or(&[][..], |e| e.as_slice());
            let after = endpoints(&meshes, &key);
            let after_list = after.as_ref().map_or(&[][..], |e| e.as_slice());
            if let Some(change) = endpoint_change(before, after_list) {
                changes.endpoints.insert(key.clone(), change);
                set(&mut mesh.endpoints, &key, after);
            }
        }
        for ip in ips {
            if set(&mut mesh.workloads, &ip, workloads(&meshes, &ip)) {
                changes.workloads.insert(ip);
            }
        }
        // Names of nodes and namespaces mean the same everywhere; where they differ, the primary's hold.
        for remote in meshes.iter().skip(1) {
            mesh.nodes = mesh.nodes.union(remote.nodes.clone());
            mesh.namespaces = mesh.namespaces.union(remote.namespaces.clone());
            mesh.usage.node_local += remote.usage.node_local;
        }
        mesh
    }
}

/// The service of a host: that of the first cluster that has one, with the addresses and identities of all. What ServiceEntries
/// say stands beside it.
fn service(meshes: &[&Mesh], key: &ServiceKey) -> Option<Arc<Service>> {
    let found: Vec<&Arc<Service>> = meshes.iter().filter_map(|m| m.services.get(key)).collect();
    let (kubernetes, entries): (Vec<_>, Vec<_>) = found.into_iter().partition(|s| s.registry == Registry::Kubernetes);
    let Some((first, rest)) = kubernetes.split_first() else { return entries.first().map(|s| Arc::clone(s)) };
    if rest.is_empty() && entries.is_empty() {
        return Some(Arc::clone(first));
    }
    let mut merged = Service::clone(first);
    for other in rest {
        let new = |a: &&_| !merged.addresses.contains(a);
        let addresses: Vec<_> = other.addresses.iter().filter(new).cloned().collect();
        merged.addresses.extend(addresses);
        merged.service_accounts.extend(other.service_accounts.iter().cloned());
        merged.twins.extend(other.twins.iter().cloned());
    }
    for entry in entries {
        merged.twins.push(Arc::clone(entry));
        merged.twins.extend(entry.twins.iter().cloned());
    }
    Some(Arc::new(merged))
}

/// The endpoints of all clusters that have the service, in order.
fn endpoints(meshes: &[&Mesh], key: &ServiceKey) -> Option<Arc<Vec<Endpoint>>> {
    let mut lists = meshes.iter().filter_map(|m| m.endpoints.get(key));
    let first = lists.next()?.clone();
    let rest: Vec<_> = lists.collect();
    if rest.is_empty() {
        return Some(first);
    }
    let mut all = Vec::clone(&first);
    all.extend(rest.into_iter().flat_map(|list| list.iter().cloned()));
    all.sort_by(|a, b| place(a).cmp(&place(b)));
    Some(Arc::new(all))
}

fn workloads(meshes: &[&Mesh], ip: &IpAddr) -> Option<Arc<Vec<Arc<WorkloadInstance>>>> {
    let mut lists = meshes.iter().filter_map(|m| m.workloads.get(ip));
    let first = lists.next()?.clone();
    let rest: Vec<_> = lists.flat_map(|list| list.iter().cloned()).collect();
    Some(if rest.is_empty() { first } else { Arc::new(first.iter().cloned().chain(rest).collect()) })
}

/// Puts or removes a value; whether anything differs.
fn set<K: Ord + Clone, V: PartialEq + Clone>(map: &mut OrdMap<K, V>, key: &K, new: Option<V>) -> bool {
    if map.get(key) == new.as_ref() {
        return false;
    }
    match new {
        Some(new) => drop(map.insert(key.clone(), new)),
        None => drop(map.remove(key)),
    }
    true
}

#[cfg(test)]
#[path = "registries/tests.rs"]
mod tests;
