//! ServiceEntry: one service per host.

use pilotfish_crds::networking::service_entry as api;
use pilotfish_model::name::{Labels, Str, Visibility};
use pilotfish_model::service::{Address, Registry, Resolution, Service, ServicePort, TrafficDistribution};
use pilotfish_model::{Host, Protocol};

use super::fields::{Path, Scope, labels, strs};
use super::service::{TRAFFIC_DISTRIBUTION, distribution};
use super::workload::{self, WorkloadFact};

/// A ServiceEntry and what the index needs to find its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceEntryFact {
    /// One service per host, in order. Their visibility is the default where [`ServiceEntryFact::visibility`] is `None`.
    pub services: Vec<Service>,
    /// Who sees it, if the object says.
    pub visibility: Option<Visibility>,
    /// Preference for near endpoints, if the object says.
    pub traffic_distribution: Option<TrafficDistribution>,
    /// Inline endpoints.
    pub endpoints: Vec<WorkloadFact>,
    /// Selects WorkloadEntries and Pods of its namespace instead.
    pub selector: Option<Labels>,
}

/// Annotation that says which of a name's addresses are used.
const CONNECT_STRATEGY: &str = "istio.io/connect-strategy";

/// An address or a range; a range of one address is that address.
pub(super) fn address(text: &str) -> Option<Address> {
    if !text.contains('/') {
        return text.parse().ok().map(Address::Ip);
    }
    let net: ipnet::IpNet = text.parse().ok()?;
    Some(if net.prefix_len() == net.max_prefix_len() { Address::Ip(net.addr()) } else { Address::Net(net) })
}

pub(super) fn convert(scope: &mut Scope<'_>, spec: &api::ServiceEntrySpec, status: &api::ServiceEntryStatus) -> ServiceEntryFact {
    let (meta, root) = (scope.meta(), Path::SPEC);
    let resolution = match spec.resolution {
        api::Resolution::None => Resolution::Passthrough,
        api::Resolution::Static => Resolution::Static,
        api::Resolution::Dns => Resolution::Dns,
        api::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
        api::Resolution::DynamicDns => Resolution::DynamicDns,
    };
    if spec.hosts.is_empty() {
        scope.error(&root.field("hosts"), "must not be empty");
    }
    for (i, host) in spec.hosts.iter().enumerate() {
        let path = root.field("hosts");
        let path = path.index(i);
        scope.check_host(&path, host);
        if host == "*" {
            scope.error(&path, "the host * would claim all traffic");
        }
    }
    let selector = spec.workload_selector.as_ref().filter(|s| !s.labels.is_empty()).map(|s| labels(&s.labels));
    if selector.is_some() && !spec.endpoints.is_empty() {
        scope.error(&root.field("workloadSelector"), "excludes endpoints");
    }
    if spec.resolution == api::Resolution::None && !spec.endpoints.is_empty() {
        scope.error(&root.field("endpoints"), "have no meaning with resolution NONE");
    }
    if spec.resolution == api::Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
        scope.error(&root.field("endpoints"), "resolution DNS_ROUND_ROBIN takes one endpoint at most");
    }
    let external = spec.location == api::Location::MeshExternal;
    let ports = ports(scope, spec);
    let addresses = addresses(scope, spec);
    let mut endpoints = Vec::with_capacity(spec.endpoints.len());
    for (i, e) in spec.endpoints.iter().enumerate() {
        let path = root.field("endpoints");
        let name = format!("{}-{i}", meta.name);
        endpoints.push(workload::convert(scope, &path.index(i), e, &name, &Labels::new(), spec.resolution == api::Resolution::Static));
    }
    let races_addresses = scope.annotation(CONNECT_STRATEGY) == Some("RACE_FIRST_TCP_CONNECT");
    let allocated = |host: &Host| {
        let mine = status.addresses.iter().filter(move |a| a.host.is_empty() || Host::new(&a.host) == *host);
        mine.filter_map(|a| a.value.parse().ok()).collect()
    };
    let service = |name: &String| {
        let host = Host::new(name);
        Service {
            auto_addresses: if addresses.is_empty() { allocated(&host) } else { Vec::new() },
            namespace: meta.namespace.clone(),
            name: host.as_str().into(),
            host,
            registry: Registry::External,
            source: scope.id().clone(),
            created: meta.created,
            labels: meta.labels.clone(),
            selector: selector.clone().unwrap_or_default(),
            visibility: Visibility::Public,
            addresses: addresses.clone(),
            ports: ports.clone(),
            resolution,
            headless: false,
            mesh_external: external,
            service_accounts: strs(&spec.subject_alt_names).into_iter().collect(),
            external_name: None,
            k8s_type: Str::from(""),
            external_addresses: Vec::new(),
            node_local: false,
            publish_not_ready: false,
            persistent_session: false,
            traffic_distribution: TrafficDistribution::Any,
            races_addresses,
            twins: Vec::new(),
        }
    };
    let services = spec.hosts.iter().map(service).collect();
    ServiceEntryFact {
        services,
        visibility: scope.visibility(&root.field("exportTo"), &spec.export_to),
        traffic_distribution: scope.annotation(TRAFFIC_DISTRIBUTION).and_then(distribution),
        endpoints,
        selector,
    }
}

fn ports(scope: &mut Scope<'_>, spec: &api::ServiceEntrySpec) -> Vec<ServicePort> {
    let root = Path::SPEC;
    let path = root.field("ports");
    let mut ports: Vec<ServicePort> = Vec::with_capacity(spec.ports.len());
    for (i, p) in spec.ports.iter().enumerate() {
        let path = path.index(i);
        let number = scope.port(&path.field("number"), Some(p.number));
        if ports.iter().any(|o| o.port == number) {
            scope.error(&path.field("number"), format!("{number} occurs twice"));
        }
        if p.name.is_empty() {
            scope.error(&path.field("name"), "is missing");
        } else if ports.iter().any(|o| *o.name == *p.name) {
            scope.error(&path.field("name"), format!("{:?} occurs twice", p.name));
        }
        let protocol = match p.protocol.as_str() {
            "" => super::protocol::of_service_port("TCP", None, &p.name, number),
            said => Protocol::parse(said).unwrap_or_else(|| {
                scope.error(&path.field("protocol"), format!("{said:?} is not a protocol"));
                Protocol::Tcp
            }),
        };
        ports.push(ServicePort {
            name: p.name.as_str().into(),
            port: number,
            protocol,
            target_port: p.target_port.map(|n| n.0).filter(|n| *n > 0),
        });
    }
    ports
}

fn addresses(scope: &mut Scope<'_>, spec: &api::ServiceEntrySpec) -> Vec<Address> {
    let root = Path::SPEC;
    let path = root.field("addresses");
    let mut found = Vec::with_capacity(spec.addresses.len());
    for (i, text) in spec.addresses.iter().enumerate() {
        match address(text) {
            Some(a) => found.push(a),
            None => scope.error(&path.index(i), format!("{text:?} is neither an address nor a range")),
        }
    }
    found
}
