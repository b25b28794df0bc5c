//! What a proxy's output depends on, in three circles: [`UnitFacts`] decide about clusters and endpoints of a service,
//! [`ScopeFacts`] about all outbound (and gateway) resources, [`OwnFacts`] about what only this class gets.
//!
//! A generator is given the smallest circle that it needs, so that what it makes can be shared by all who agree in that.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Deref;

use pilotfish_model::endpoint::Locality;
use pilotfish_model::mesh::ServiceTarget;
use pilotfish_model::name::{Labels, Str};
use pilotfish_model::proxy::{Flavour, Interception, ProxyType, ProxyVersion};
use pilotfish_model::proxy_config::ConnectionSettings;
use pilotfish_model::{Features, Mesh, Proxy, ProxyConfig, Resolution};

use crate::world::World;

/// All that the clusters and assignments of a service depend on beside the service and its rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UnitFacts {
    /// What it is for.
    pub kind: ProxyType,
    /// Which dialect it speaks.
    pub flavour: Flavour,
    /// Extensions that it says it has; empty if it does not say.
    pub extensions: BTreeSet<Str>,
    /// Has an IPv4 address.
    pub ipv4: bool,
    /// Has an IPv6 address.
    pub ipv6: bool,
    /// It has both, and both are in use.
    pub dual_stack: bool,
    /// Network it is on.
    pub network: Str,
    /// Cluster it is in.
    pub cluster_id: Str,
    /// Where it runs.
    pub locality: Locality,
    /// Its node, where some service keeps traffic on the node; else empty.
    pub node: Str,
    /// Labels of its workload that preferences among endpoints may look at.
    pub topology: Labels,
    /// Its ProxyConfig: its own, else the mesh's default; only parts that output shows.
    pub proxy_config: ProxyConfig,
    /// Single settings from metadata.
    pub settings: ProxySettings,
}

/// All that outbound resources depend on beside the mesh. Routers and gRPC clients have nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScopeFacts {
    /// The inner circle.
    pub unit: UnitFacts,
    /// Its version.
    pub version: ProxyVersion,
    /// Namespace whose configuration applies.
    pub namespace: Str,
    /// Suffix of short host names.
    pub dns_domain: Str,
    /// Labels of its workload that some selector of the mesh looks at; of routers and gRPC clients all.
    pub labels: Labels,
    /// Texts of its metadata that some EnvoyFilter looks at, by key.
    pub texts: Labels,
    /// How traffic gets in.
    pub interception: Interception,
    /// Its own address, if it is an endpoint of a service whose clients choose among addresses.
    pub own_ip: Option<IpAddr>,
    /// The outer circle, of routers and gRPC clients, whose resources depend on it throughout.
    pub own: Option<OwnFacts>,
}

/// What only resources of one class depend on: what it serves, and what it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnFacts {
    /// Labels of its workload.
    pub labels: Labels,
    /// Service ports that its workload serves.
    pub targets: Vec<ServiceTarget>,
    /// Its own addresses, where output shows them; else empty.
    pub own_ips: Vec<IpAddr>,
    /// Mesh id for telemetry.
    pub mesh_id: Str,
    /// `node.cluster`.
    pub service_cluster: Str,
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
    /// What it is told of addresses includes those that were allocated to ServiceEntries without one.
    pub allocated: bool,
    pub unprivileged_pod: bool,
    pub inbound_exact_balance: bool,
    pub outbound_exact_balance: bool,
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

impl Deref for ScopeFacts {
    type Target = UnitFacts;

    fn deref(&self) -> &UnitFacts {
        &self.unit
    }
}

/// Resolves a proxy against the mesh. Looks nothing up that grows with the mesh.
pub(crate) fn of(world: &World, proxy: &Proxy) -> (ScopeFacts, OwnFacts) {
    let mesh = &*world.mesh;
    let m = &proxy.metadata;
    let pod_name = m.name.as_deref().or_else(|| proxy.name.split('.').next());
    let instance = mesh.workload_of(&proxy.ips, &proxy.namespace, pod_name);
    let workload = instance.map(|i| &i.workload);
    // Where the registry knows the workload its labels are the truth; what the node says stands in for unknown ones.
    let labels = workload.map_or(&proxy.labels, |w| &w.labels);
    let locality = workload.map(|w| w.locality.clone()).filter(|l| !l.is_empty()).unwrap_or_else(|| locality_of(labels, proxy));
    let targets = instance.map(|i| i.targets.clone()).unwrap_or_default();
    let whole = proxy.kind != ProxyType::Sidecar || proxy.flavour == Flavour::Grpc;
    let chosen = |t: &ServiceTarget| {
        let chosen = |s: &pilotfish_model::Service| s.addresses.is_empty() && s.resolution == Resolution::Passthrough;
        mesh.services.get(&t.service).is_some_and(|s| s.all().any(chosen))
    };
    let own_ip = proxy.ips.first().copied().filter(|_| targets.iter().any(chosen));
    let own = OwnFacts {
        own_ips: if shows_own_ip(mesh, proxy) { proxy.ips.clone() } else { Vec::new() },
        mesh_id: m.mesh_id.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| match proxy.flavour {
            // As the reference calls it, where an agent does not know.
            Flavour::Istio => "unknown".into(),
            _ => mesh.config.trust_domain.clone(),
        }),
        service_cluster: proxy.cluster.clone(),
        labels: labels.clone(),
        targets,
    };
    let only = |wanted: &dyn Fn(&Str) -> bool| labels.iter().filter(|(k, _)| wanted(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let ipv4 = proxy.ips.is_empty() || proxy.ips.iter().any(IpAddr::is_ipv4);
    let ipv6 = proxy.ips.iter().any(IpAddr::is_ipv6);
    let config = m.proxy_config.as_ref().unwrap_or(&mesh.config.default_config);
    let unit = UnitFacts {
        kind: proxy.kind,
        flavour: proxy.flavour,
        extensions: proxy.extensions.clone(),
        ipv4,
        ipv6,
        dual_stack: ipv4 && ipv6 && mesh.config.features.dual_stack,
        network: m.network.clone().or_else(|| workload.map(|w| w.network.clone())).unwrap_or_default(),
        cluster_id: proxy.cluster_id().into(),
        locality,
        node: if mesh.usage.node_local > 0 { m.node_name.clone().unwrap_or_default() } else { Str::default() },
        topology: only(&|key| world.keys.is_topology(key)),
        proxy_config: ProxyConfig {
            tracing: config.tracing.clone(),
            gateway_topology: config.gateway_topology.clone(),
            proxy_headers: config.proxy_headers.clone(),
            connection_settings: connections(config, &mesh.config.default_config, proxy.kind),
            ..ProxyConfig::default()
        },
        settings: ProxySettings::of(proxy, &mesh.config.features),
    };
    let scope = ScopeFacts {
        unit,
        version: proxy.version,
        namespace: proxy.namespace.clone(),
        dns_domain: proxy.dns_domain.clone(),
        labels: if whole { labels.clone() } else { only(&|key| world.keys.is_selector(key)) },
        texts: world.patches.keys().iter().filter_map(|key| Some((key.clone(), m.text(key)?.as_ref().into()))).collect(),
        interception: proxy.interception,
        own_ip,
        own: whole.then(|| own.clone()),
    };
    (scope, own)
}

/// What holds for its connections: its own settings, else the mesh's.
fn connections(own: &ProxyConfig, mesh: &ProxyConfig, kind: ProxyType) -> Option<ConnectionSettings> {
    let said = own.connection_settings.as_ref().or(mesh.connection_settings.as_ref())?;
    Some(said.clone().with_profile(kind == ProxyType::Router))
}

fn shows_own_ip(mesh: &Mesh, proxy: &Proxy) -> bool {
    // A Sidecar's ingress listens on the workload's address where it does not say which.
    let opens = |namespace: &str| Mesh::in_namespace(&mesh.sidecars, namespace).any(|s| !s.ingress.is_empty());
    let ingress = || mesh.usage.sidecar_ingress > 0 && (opens(&proxy.namespace) || opens(&mesh.config.root_namespace));
    // A gRPC server asks for listeners by its own address.
    proxy.flavour == Flavour::Grpc || proxy.interception == Interception::None || ingress()
}

fn locality_of(labels: &Labels, proxy: &Proxy) -> Locality {
    let label = labels.get("topology.istio.io/locality").or_else(|| labels.get("istio-locality"));
    match label {
        Some(l) => Locality::parse(&if l.contains('/') { l.to_string() } else { l.replace('.', "/") }),
        None => proxy.locality.clone(),
    }
}

impl UnitFacts {
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

impl ScopeFacts {
    /// Service ports that the workload serves, as far as the scope may know.
    pub fn targets(&self) -> &[ServiceTarget] {
        self.own.as_ref().map_or(&[], |own| &own.targets)
    }

    /// The same of a client that runs anywhere: without what only the choice among endpoints (`crate::endpoint`) looks at.
    pub(crate) fn anywhere(&self) -> ScopeFacts {
        let mut facts = self.clone();
        (facts.unit.locality, facts.unit.node, facts.unit.topology) = Default::default();
        facts
    }
}

impl ProxySettings {
    fn of(proxy: &Proxy, features: &Features) -> Self {
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
            allocated: m.dns_capture && (m.dns_auto_allocate || features.allocated_addresses),
            unprivileged_pod: m.unprivileged_pod,
            inbound_exact_balance: m.inbound_listener_exact_balance,
            outbound_exact_balance: m.outbound_listener_exact_balance,
            server_certificate: paths(&m.tls_server_cert_chain, &m.tls_server_key, &m.tls_server_root_cert),
            client_certificate: paths(&m.tls_client_cert_chain, &m.tls_client_key, &m.tls_client_root_cert),
            reads_files: m.proxy_config.is_none(),
            reserved_ports: ports.into_iter().flatten().filter_map(|t| t.number()).collect(),
        }
    }
}
