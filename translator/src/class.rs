//! [`ProxyClass`]: all that a proxy's output depends on. Proxies of one class share every byte.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use pilotfish_model::endpoint::Locality;
use pilotfish_model::hash::ContentHash;
use pilotfish_model::mesh::ServiceTarget;
use pilotfish_model::name::{Labels, Str};
use pilotfish_model::proxy::{Flavour, Interception, ProxyType, ProxyVersion};
use pilotfish_model::{Mesh, Proxy, ProxyConfig};

/// A class, compared by the hash of its facts.
#[derive(Clone)]
pub struct ProxyClass {
    hash: ContentHash,
    facts: Arc<ClassFacts>,
}

/// The facts. Nothing that tells two replicas of one Deployment apart may be in here unless the output shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClassFacts {
    /// What it is for.
    pub kind: ProxyType,
    /// Which dialect it speaks.
    pub flavour: Flavour,
    /// Its version.
    pub version: ProxyVersion,
    /// Extensions that it says it has; empty if it does not say.
    pub extensions: BTreeSet<Str>,
    /// Namespace whose configuration applies.
    pub namespace: Str,
    /// Suffix of short host names.
    pub dns_domain: Str,
    /// Labels of its workload.
    pub labels: Labels,
    /// Has an IPv4 address.
    pub ipv4: bool,
    /// Has an IPv6 address.
    pub ipv6: bool,
    /// Its first address is IPv6.
    pub ipv6_first: bool,
    /// How traffic gets in.
    pub interception: Interception,
    /// Network it is on.
    pub network: Str,
    /// Cluster it is in.
    pub cluster_id: Str,
    /// Where it runs.
    pub locality: Locality,
    /// Its node, where some service keeps traffic on the node; else empty.
    pub node: Str,
    /// Service ports that its workload serves.
    pub targets: Vec<ServiceTarget>,
    /// Its own addresses, where output shows them: it is an endpoint of a headless service, or a Sidecar's ingress names
    /// the workload's address; else empty.
    pub own_ips: Vec<IpAddr>,
    /// Its ProxyConfig: its own, else the mesh's default.
    pub proxy_config: ProxyConfig,
    /// Mesh id for telemetry.
    pub mesh_id: Str,
    /// SPIFFE service account, for what names the proxy itself.
    pub service_account: Str,
    /// Owner's name, for telemetry.
    pub workload_name: Str,
    /// `node.cluster`.
    pub service_cluster: Str,
    /// Single settings from metadata.
    pub settings: ProxySettings,
}

/// Single settings that a proxy's metadata carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct ProxySettings {
    pub http_proxy_port: Option<u16>,
    pub idle_timeout: Option<std::time::Duration>,
    pub http10: bool,
    pub self_discovery: bool,
    pub dns_capture: bool,
    pub dns_auto_allocate: bool,
    pub unprivileged_pod: bool,
    pub inbound_exact_balance: bool,
    pub outbound_exact_balance: bool,
    pub metadata_discovery: bool,
    pub requested_network_view: Vec<String>,
    /// Certificate files of the proxy that replace the agent's: chain, key, roots.
    pub server_certificate: Option<CertificatePaths>,
    /// The same for connections that it opens.
    pub client_certificate: Option<CertificatePaths>,
    /// Reads files that rules name by itself. A node that an agent describes (`PROXY_CONFIG`) has them behind that agent.
    pub reads_files: bool,
    /// Ports that the agent keeps for itself (status, Prometheus).
    pub reserved_ports: BTreeSet<u16>,
}

/// Paths on the proxy's file system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct CertificatePaths {
    pub chain: Str,
    pub key: Str,
    pub roots: Str,
}

impl ProxyClass {
    /// Hashes the facts once.
    pub fn new(facts: ClassFacts) -> Self {
        ProxyClass { hash: ContentHash::of(&facts), facts: Arc::new(facts) }
    }

    /// The facts.
    pub fn facts(&self) -> &ClassFacts {
        &self.facts
    }
}

impl PartialEq for ProxyClass {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for ProxyClass {}

impl Hash for ProxyClass {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl PartialOrd for ProxyClass {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ProxyClass {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.hash.cmp(&other.hash)
    }
}

impl fmt::Debug for ProxyClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}/{}", self.facts.namespace, self.facts.kind, &self.hash.to_string()[..8])
    }
}

impl ClassFacts {
    /// Resolves a proxy against the mesh.
    pub fn of(mesh: &Mesh, proxy: &Proxy) -> Self {
        let m = &proxy.metadata;
        let pod_name = m.name.as_deref().or_else(|| proxy.name.split('.').next());
        let instance = mesh.workload_of(&proxy.ips, &proxy.namespace, pod_name);
        let workload = instance.map(|i| &i.workload);
        // Where the registry knows the workload its labels are the truth; what the node says stands in for unknown ones.
        let labels = workload.map_or_else(|| proxy.labels.clone(), |w| w.labels.clone());
        let locality = workload.map(|w| w.locality.clone()).filter(|l| !l.is_empty()).unwrap_or_else(|| locality_of(&labels, proxy));
        let targets = instance.map(|i| i.targets.clone()).unwrap_or_default();
        let settings = ProxySettings::of(proxy);
        let text = |t: &Option<Str>| t.clone().unwrap_or_default();
        let own_ips = if Self::shows_own_ip(mesh, proxy, &targets) { proxy.ips.clone() } else { Vec::new() };
        ClassFacts {
            kind: proxy.kind,
            flavour: proxy.flavour,
            version: proxy.version,
            extensions: proxy.extensions.clone(),
            namespace: proxy.namespace.clone(),
            dns_domain: proxy.dns_domain.clone(),
            ipv4: proxy.ips.is_empty() || proxy.ips.iter().any(IpAddr::is_ipv4),
            ipv6: proxy.ips.iter().any(IpAddr::is_ipv6),
            ipv6_first: proxy.ips.first().is_some_and(IpAddr::is_ipv6),
            interception: proxy.interception,
            network: m.network.clone().or_else(|| workload.map(|w| w.network.clone())).unwrap_or_default(),
            cluster_id: proxy.cluster_id().into(),
            locality,
            node: if mesh.services.values().any(|s| s.node_local) { text(&m.node_name) } else { Str::default() },
            targets,
            own_ips,
            proxy_config: m.proxy_config.clone().unwrap_or_else(|| mesh.config.default_config.clone()),
            mesh_id: m.mesh_id.clone().unwrap_or_else(|| mesh.config.trust_domain.clone()),
            service_account: text(&m.service_account),
            workload_name: text(&m.workload_name),
            service_cluster: proxy.cluster.clone(),
            settings,
            labels,
        }
    }

    fn shows_own_ip(mesh: &Mesh, proxy: &Proxy, targets: &[ServiceTarget]) -> bool {
        let headless = targets.iter().any(|t| mesh.services.get(&t.service).is_some_and(|s| s.addresses.is_empty()));
        // A Sidecar's ingress listens on the workload's address where it does not say which.
        let ingress = || mesh.sidecars.values().any(|s| !s.ingress.is_empty());
        // A gRPC server asks for listeners by its own address.
        proxy.flavour == Flavour::Grpc || proxy.interception == Interception::None || headless || ingress()
    }

    /// True for Istio's own Envoy.
    pub fn is_istio(&self) -> bool {
        self.flavour == Flavour::Istio
    }

    /// True if the client has an extension, or does not say what it has.
    pub fn has_extension(&self, name: &str) -> bool {
        self.extensions.is_empty() || self.extensions.contains(name)
    }

    /// A sidecar, as opposed to a gateway.
    pub fn is_sidecar(&self) -> bool {
        self.kind == ProxyType::Sidecar
    }

    /// A gateway.
    pub fn is_router(&self) -> bool {
        self.kind == ProxyType::Router
    }

    /// The address that stands for all: of IPv4 unless the proxy has none.
    pub fn wildcard_ip(&self) -> &'static str {
        if self.ipv4 { "0.0.0.0" } else { "::" }
    }

    /// The loopback address.
    pub fn localhost_ip(&self) -> &'static str {
        if self.ipv4 { "127.0.0.1" } else { "::1" }
    }
}

fn locality_of(labels: &Labels, proxy: &Proxy) -> Locality {
    let label = labels.get("topology.istio.io/locality").or_else(|| labels.get("istio-locality"));
    match label {
        Some(l) => Locality::parse(&if l.contains('/') { l.to_string() } else { l.replace('.', "/") }),
        None => proxy.locality.clone(),
    }
}

impl ProxySettings {
    fn of(proxy: &Proxy) -> Self {
        let m = &proxy.metadata;
        let paths = |chain: &Option<Str>, key: &Option<Str>, roots: &Option<Str>| match (chain, key, roots) {
            (None, None, None) => None,
            _ => Some(CertificatePaths {
                chain: chain.clone().unwrap_or_default(),
                key: key.clone().unwrap_or_default(),
                roots: roots.clone().unwrap_or_default(),
            }),
        };
        let ports = [&m.envoy_status_port, &m.envoy_prometheus_port];
        ProxySettings {
            http_proxy_port: m.http_proxy_port.as_ref().and_then(|t| t.number()),
            idle_timeout: m.idle_timeout.map(Into::into),
            http10: m.http10.as_ref().is_some_and(|t| t.0 == "1"),
            self_discovery: m.enable_self_discovery,
            dns_capture: m.dns_capture,
            dns_auto_allocate: m.dns_auto_allocate,
            unprivileged_pod: m.unprivileged_pod,
            inbound_exact_balance: m.inbound_listener_exact_balance,
            outbound_exact_balance: m.outbound_listener_exact_balance,
            metadata_discovery: m.metadata_discovery,
            requested_network_view: m.requested_network_view.clone(),
            server_certificate: paths(&m.tls_server_cert_chain, &m.tls_server_key, &m.tls_server_root_cert),
            client_certificate: paths(&m.tls_client_cert_chain, &m.tls_client_key, &m.tls_client_root_cert),
            reads_files: m.proxy_config.is_none(),
            reserved_ports: ports.into_iter().flatten().filter_map(|t| t.number()).collect(),
        }
    }
}
