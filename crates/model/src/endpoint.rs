//! Endpoints: where a service's requests can be served.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{Labels, Str};
use crate::service::ServicePort;

/// Region, zone and sub-zone; empty where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Locality {
    /// Region.
    pub region: Str,
    /// Zone within the region.
    pub zone: Str,
    /// Sub-zone within the zone.
    pub sub_zone: Str,
}

impl Locality {
    /// From `region/zone/sub-zone`; missing parts are empty.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(Str::from);
        let mut next = || parts.next().unwrap_or_default();
        Locality { region: next(), zone: next(), sub_zone: next() }
    }

    /// True if nothing is known.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.sub_zone.is_empty()
    }

    /// `region/zone/sub-zone`, without empty parts at the end.
    pub fn label(&self) -> String {
        format!("{}/{}/{}", self.region, self.zone, self.sub_zone).trim_end_matches('/').to_owned()
    }
}

/// Label by which a workload says that it goes: it gets nothing but requests of sessions that it has.
pub const DRAINING_LABEL: &str = "istio.io/draining";

/// Whether an endpoint takes requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Not ready.
    Unhealthy,
    /// Terminating, still serving its sessions.
    Draining,
    /// Nobody watches it (WorkloadEntries, endpoints of ServiceEntries): it takes requests.
    Unknown,
}

/// How an endpoint is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddress {
    /// By address.
    Ip(IpAddr),
    /// By a name that the proxy resolves (DNS services).
    Dns(Str),
    /// By a Unix domain socket path.
    Unix(Str),
}

impl std::fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EndpointAddress::Ip(ip) => ip.fmt(f),
            EndpointAddress::Dns(s) | EndpointAddress::Unix(s) => f.write_str(s),
        }
    }
}

/// What endpoints of one workload have in common; shared between the ports and services that it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Labels, with those that the registry adds.
    pub labels: Labels,
    /// Namespace of the Pod or WorkloadEntry.
    pub namespace: Str,
    /// Name of the Pod or WorkloadEntry.
    pub name: Str,
    /// It is that of a WorkloadEntry.
    pub is_entry: bool,
    /// Name of the controller (Deployment, ...) behind it.
    pub workload_name: Str,
    /// SPIFFE name of its identity, empty if unknown.
    pub service_account: Str,
    /// Where it runs.
    pub locality: Locality,
    /// Network it is on, empty for the default one.
    pub network: Str,
    /// Cluster it came from.
    pub cluster_id: Str,
    /// Kubernetes node, empty if none.
    pub node: Str,
    /// Accepts mutual TLS from the mesh (`security.istio.io/tlsMode: istio`).
    pub mtls: bool,
    /// `spec.hostname` of a Pod: it has its own name under a headless service.
    pub hostname: Str,
    /// `spec.subdomain` of a Pod.
    pub subdomain: Str,
}

/// One endpoint of one service port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where.
    pub address: EndpointAddress,
    /// Further addresses of the same endpoint (dual stack).
    pub additional_addresses: Box<[IpAddr]>,
    /// Port it listens on.
    pub port: u16,
    /// Name of the service port that it belongs to.
    pub service_port: Str,
    /// Number of that port; 0: the name alone says it (Kubernetes).
    pub service_port_number: u16,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// Whether it takes requests.
    pub health: Health,
    /// What it is.
    pub workload: Arc<Workload>,
}

impl Endpoint {
    /// Whether it answers for a port, where endpoints are part of more than an assignment: ServiceEntries say it by number. Of
    /// assignments the name decides in any case.
    pub fn answers_for(&self, port: &ServicePort) -> bool {
        if self.service_port_number == 0 { self.service_port == port.name } else { self.service_port_number == port.port }
    }
}
