//! [`Mesh`]: everything that is, immutable and shared.
//!
//! A writer clones it (cheap: the maps share their nodes), changes a few entries at O(log n) each and publishes the
//! result behind an `Arc`. Readers never lock and never see half a change.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;

use crate::authorization_policy::AuthorizationPolicy;
use crate::destination_rule::DestinationRule;
use crate::endpoint::{Endpoint, Locality, Workload};
use crate::envoy_filter::EnvoyFilter;
use crate::extension::Extension;
use crate::gateway::Gateway;
use crate::mesh_config::MeshConfig;
use crate::name::{Host, Labels, ObjectId, Str};
use crate::peer_authentication::PeerAuthentication;
use crate::request_authentication::{JwksSource, RequestAuthentication};
use crate::secret::Secret;
use crate::service::Service;
use crate::sidecar::Sidecar;
use crate::telemetry::Telemetry;
use crate::virtual_service::VirtualService;

/// A service's key: namespace, then host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// Namespace of the object behind it.
    pub namespace: Str,
    /// Its host.
    pub host: Host,
}

impl ServiceKey {
    /// The key of a service.
    pub fn of(service: &Service) -> Self {
        ServiceKey { namespace: service.namespace.clone(), host: service.host.clone() }
    }
}

/// An object's key within its kind: namespace, then name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: Str,
    /// Name.
    pub name: Str,
}

impl ObjectKey {
    /// The key of an object.
    pub fn of(id: &ObjectId) -> Self {
        ObjectKey { namespace: id.namespace.clone(), name: id.name.clone() }
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NamespaceInfo {
    /// Its labels.
    pub labels: Labels,
}

/// A workload that a proxy may stand beside, and the service ports that it serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadInstance {
    /// What it is.
    pub workload: Arc<Workload>,
    /// Its addresses, the main one first.
    pub ips: Vec<IpAddr>,
    /// What it serves, in the order of service age, name, namespace, then port.
    pub targets: Vec<ServiceTarget>,
}

/// One service port that a workload serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceTarget {
    /// The service.
    pub service: ServiceKey,
    /// Its port.
    pub port: u16,
    /// Where the workload listens for it.
    pub target_port: u16,
}

/// A region or zone of a Kubernetes node, by name.
pub type NodeLocality = Locality;

/// What objects ask for anywhere in the mesh, counted, so that nobody has to search for it. Kept by the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Services that keep traffic on the node.
    pub node_local: usize,
    /// Sidecars with ingress listeners.
    pub sidecar_ingress: usize,
    /// Keys of workload labels that client-side selectors look at (of Sidecars, of DestinationRules, `sourceLabels` of
    /// VirtualServices), with the number of objects that do.
    pub selector_keys: OrdMap<Str, usize>,
}

/// The mesh at one moment.
#[derive(Clone, Default)]
pub struct Mesh {
    /// Settings.
    pub config: Arc<MeshConfig>,
    /// DNS suffix of the cluster, such as `cluster.local`.
    pub domain: Str,
    /// Namespaces that carry labels or exist without anything.
    pub namespaces: OrdMap<Str, Arc<NamespaceInfo>>,
    /// Services.
    pub services: OrdMap<ServiceKey, Arc<Service>>,
    /// Endpoints of services with known or DNS endpoints, ordered by address. A service without entry has none.
    pub endpoints: OrdMap<ServiceKey, Arc<Vec<Endpoint>>>,
    /// Workloads by each of their addresses (several in one cluster only for host-network Pods; all are kept).
    pub workloads: OrdMap<IpAddr, Arc<Vec<Arc<WorkloadInstance>>>>,
    /// Kubernetes nodes.
    pub nodes: OrdMap<Str, Arc<NodeLocality>>,
    /// VirtualServices.
    pub virtual_services: OrdMap<ObjectKey, Arc<VirtualService>>,
    /// DestinationRules.
    pub destination_rules: OrdMap<ObjectKey, Arc<DestinationRule>>,
    /// Gateways.
    pub gateways: OrdMap<ObjectKey, Arc<Gateway>>,
    /// Sidecars.
    pub sidecars: OrdMap<ObjectKey, Arc<Sidecar>>,
    /// PeerAuthentications.
    pub peer_authentications: OrdMap<ObjectKey, Arc<PeerAuthentication>>,
    /// RequestAuthentications.
    pub request_authentications: OrdMap<ObjectKey, Arc<RequestAuthentication>>,
    /// Keys that were fetched for them, as JSON. A source without entry has not been reached yet.
    pub jwks: OrdMap<JwksSource, Str>,
    /// AuthorizationPolicies.
    pub authorization_policies: OrdMap<ObjectKey, Arc<AuthorizationPolicy>>,
    /// Telemetry objects.
    pub telemetries: OrdMap<ObjectKey, Arc<Telemetry>>,
    /// EnvoyFilters.
    pub envoy_filters: OrdMap<ObjectKey, Arc<EnvoyFilter>>,
    /// WasmPlugins.
    pub wasm_plugins: OrdMap<ObjectKey, Arc<Extension>>,
    /// TrafficExtensions.
    pub traffic_extensions: OrdMap<ObjectKey, Arc<Extension>>,
    /// TLS Secrets that objects refer to.
    pub secrets: OrdMap<ObjectKey, Arc<Secret>>,
    /// What of all this is made use of.
    pub usage: Usage,
}

impl Mesh {
    /// Objects of one namespace out of a map by [`ObjectKey`], in the order of names.
    pub fn in_namespace<'a, T>(map: &'a OrdMap<ObjectKey, Arc<T>>, namespace: &'a str) -> impl Iterator<Item = &'a Arc<T>> {
        let first = ObjectKey { namespace: namespace.into(), name: "".into() };
        map.range(first..).take_while(move |(k, _)| &*k.namespace == namespace).map(|(_, v)| v)
    }

    /// Services of one namespace, in the order of hosts.
    pub fn services_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Service>> {
        let first = ServiceKey { namespace: namespace.into(), host: Host::new("") };
        self.services.range(first..).take_while(move |(k, _)| &*k.namespace == namespace).map(|(_, v)| v)
    }

    /// The endpoints of a service.
    pub fn endpoints_of(&self, service: &Service) -> &[Endpoint] {
        self.endpoints.get(&ServiceKey::of(service)).map_or(&[], |e| e.as_slice())
    }

    /// The workload that has one of these addresses; of several, the one in `namespace` with that name if given.
    pub fn workload_of(&self, ips: &[IpAddr], namespace: &str, name: Option<&str>) -> Option<&Arc<WorkloadInstance>> {
        let candidates = || ips.iter().filter_map(|ip| self.workloads.get(ip)).flat_map(|w| w.iter());
        let here = || candidates().filter(|w| &*w.workload.namespace == namespace);
        here().find(|w| name.is_none_or(|n| &*w.workload.name == n)).or_else(|| here().next())
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh")
            .field("services", &self.services.len())
            .field("virtual_services", &self.virtual_services.len())
            .field("destination_rules", &self.destination_rules.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_ranges() {
        let rule = |ns: &str, name: &str| (ObjectKey { namespace: ns.into(), name: name.into() }, Arc::new(format!("{ns}/{name}")));
        let map: OrdMap<ObjectKey, Arc<String>> = [rule("a", "z"), rule("ab", "a"), rule("b", "1"), rule("b", "2")].into_iter().collect();
        assert_eq!(Mesh::in_namespace(&map, "b").map(|v| v.as_str()).collect::<Vec<_>>(), ["b/1", "b/2"]);
        assert_eq!(Mesh::in_namespace(&map, "a").count(), 1);
    }
}
