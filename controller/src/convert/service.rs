//! Kubernetes Services.

use std::collections::BTreeSet;

use pilotfish_crds::core::service as api;
use pilotfish_model::name::{Host, Labels, Str, Visibility};
use pilotfish_model::service::{Address, Registry, Resolution, Service, ServicePort, TrafficDistribution};

use super::fields::{Path, Scope};
use super::protocol;

/// Where the Pods behind a Service port listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name of a container port.
    Name(Str),
}

/// A service and what the index needs to find its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceFact {
    /// The service; its visibility is the default where [`ServiceFact::visibility`] is `None`.
    pub service: Service,
    /// Who sees it, if the object says.
    pub visibility: Option<Visibility>,
    /// Preference for near endpoints, if the object says.
    pub traffic_distribution: Option<TrafficDistribution>,
    /// Target of each port, in the order of the ports.
    pub targets: Vec<TargetPort>,
    /// Service accounts of its namespace whose names servers may present.
    pub accounts: Vec<Str>,
}

const EXPORT_TO: &str = "networking.istio.io/exportTo";
pub(super) const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";

pub(super) fn convert(scope: &mut Scope<'_>, s: &api::Service) -> ServiceFact {
    let (meta, spec, root) = (scope.meta(), &s.spec, Path::SPEC);
    let host = Host::new(&format!("{}.{}.svc.{}", meta.name, meta.namespace, scope.context.domain));
    let headless = spec.cluster_ip == "None";
    let is_alias = spec.kind == "ExternalName";
    if is_alias && spec.external_name.is_empty() {
        scope.error(&root.field("externalName"), "is missing");
    }
    let mut ports = Vec::with_capacity(spec.ports.len());
    let mut targets = Vec::with_capacity(spec.ports.len());
    for (i, p) in spec.ports.iter().enumerate() {
        let number = scope.port(&root.field("ports").index(i).field("port"), Some(p.port));
        ports.push(ServicePort {
            name: scope.share(&p.name),
            port: number,
            protocol: protocol::of_service_port(&p.protocol, p.app_protocol.as_deref(), &p.name, number),
            target_port: None,
        });
        targets.push(match &p.target_port {
            None | Some(api::TargetPort::Number(0)) => TargetPort::Number(number),
            Some(api::TargetPort::Number(n)) => TargetPort::Number(*n),
            Some(api::TargetPort::Name(text)) => match text.parse() {
                Ok(n) => TargetPort::Number(n),
                Err(_) => TargetPort::Name(text.as_str().into()),
            },
        });
    }
    let ips = if spec.cluster_ips.is_empty() { std::slice::from_ref(&spec.cluster_ip) } else { &spec.cluster_ips };
    let addresses = ips.iter().filter(|_| !is_alias && !headless).filter_map(|ip| ip.parse().ok().map(Address::Ip)).collect();
    let export_to: Vec<String> = scope
        .annotation(EXPORT_TO)
        .map(|t| t.split(',').map(|e| e.trim().to_owned()).filter(|e| !e.is_empty()).collect())
        .unwrap_or_default();
    let annotations = Path::root("metadata");
    let visibility = scope.visibility(&annotations.field("annotations").key(EXPORT_TO), &export_to);
    let ingress = s.status.load_balancer.ingress.iter().map(|i| if i.ip.is_empty() { &i.hostname } else { &i.ip });
    let service = Service {
        host,
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        registry: Registry::Kubernetes,
        source: scope.id().clone(),
        created: meta.created,
        labels: meta.labels.clone(),
        selector: if is_alias { Default::default() } else { shared_labels(scope, &spec.selector) },
        visibility: Visibility::Public,
        addresses,
        auto_addresses: Vec::new(),
        ports,
        resolution: match () {
            () if is_alias => Resolution::Alias,
            () if headless => Resolution::Passthrough,
            () => Resolution::Static,
        },
        headless,
        mesh_external: false,
        service_accounts: canonical_accounts(scope),
        external_name: is_alias.then(|| Host::new(&spec.external_name)),
        k8s_type: scope.share(if spec.kind.is_empty() { "ClusterIP" } else { &spec.kind }),
        external_addresses: ingress.chain(&spec.external_ips).filter(|a| !a.is_empty()).map(|a| a.as_str().into()).collect(),
        node_local: spec.internal_traffic_policy == "Local",
        publish_not_ready: spec.publish_not_ready_addresses,
        persistent_session: false,
        traffic_distribution: TrafficDistribution::Any,
        races_addresses: false,
        twins: Vec::new(),
    };
    let said = scope.annotation(TRAFFIC_DISTRIBUTION).unwrap_or(&spec.traffic_distribution);
    ServiceFact {
        accounts: list(scope, "alpha.istio.io/kubernetes-serviceaccounts").map(Str::from).collect(),
        service,
        visibility,
        traffic_distribution: distribution(said),
        targets,
    }
}

pub(super) fn distribution(text: &str) -> Option<TrafficDistribution> {
    match text {
        "PreferClose" | "PreferSameZone" => Some(TrafficDistribution::PreferSameZone),
        "PreferSameNode" => Some(TrafficDistribution::PreferSameNode),
        "Any" => Some(TrafficDistribution::Any),
        _ => None,
    }
}

fn shared_labels(scope: &Scope<'_>, map: &std::collections::BTreeMap<String, String>) -> Labels {
    map.iter().map(|(k, v)| (scope.share(k), scope.share(v))).collect()
}

/// The entries of an annotation that is a list.
fn list<'a>(scope: &Scope<'a>, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    scope.annotation(name).into_iter().flat_map(|t| t.split(',')).map(str::trim).filter(|t| !t.is_empty())
}

fn canonical_accounts(scope: &Scope<'_>) -> BTreeSet<Str> {
    let one = |a: &str| match a.strip_prefix("spiffe://") {
        Some(_) => Str::from(a),
        None => format!("spiffe://{a}").into(),
    };
    list(scope, "alpha.istio.io/canonical-serviceaccounts").map(one).collect()
}
