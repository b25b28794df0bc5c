//! Namespaces, Nodes, EndpointSlices, Pods and Secrets.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use pilotfish_crds::core::{EndpointSlice, Pod, Secret as ApiSecret};
use pilotfish_model::endpoint::Health;
use pilotfish_model::mesh::NamespaceInfo;
use pilotfish_model::name::{Labels, Str};
use pilotfish_model::secret::{Registry, Secret};
use pilotfish_model::{Kind, Locality, ObjectId};

use super::fields::{Path, Scope};
use super::service::{TRAFFIC_DISTRIBUTION, distribution};
use super::workload::{NETWORK, TLS_MODE, locality_label};
use super::{Fact, key_pair};

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeFact {
    /// Where it stands.
    pub locality: Locality,
}

/// A Pod that runs and has an address; one that does not has no [`PodFact::ips`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodFact {
    /// Its addresses, the main one first; none once it has finished.
    pub ips: Vec<IpAddr>,
    /// Its node.
    pub node: Str,
    /// `spec.hostname`.
    pub hostname: Str,
    /// Ready; ServiceEntries select only such Pods. True where the status does not say.
    pub ready: bool,
    /// What it has in common with its replicas.
    pub template: Arc<PodTemplate>,
}

/// What replicas have in common: one allocation for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodTemplate {
    /// Labels as given.
    pub labels: Labels,
    /// Service account.
    pub account: Str,
    /// Name of the controller behind it, its own if it has none.
    pub workload_name: Str,
    /// Locality that a label gives instead of the node's.
    pub locality: Option<Locality>,
    /// Network that a label gives.
    pub network: Option<Str>,
    /// Accepts mutual TLS.
    pub mtls: bool,
    /// There is a sign of a proxy in it.
    pub proxied: bool,
    /// `spec.subdomain`.
    pub subdomain: Str,
    /// Container ports that have a name.
    pub ports: Vec<(Str, u16)>,
}

/// Containers of these names are proxies.
const PROXIES: &[&str] = &["istio-proxy", "envoy"];
/// Injection says on each Pod what it did.
const INJECTED: &str = "sidecar.istio.io/status";

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SliceFact {
    /// Name of its Service; `None`: not for us.
    pub service: Option<Str>,
    /// Ports: name and number, ordered.
    pub ports: Vec<(Str, u16)>,
    /// Endpoints that are to be sent under some condition, ordered.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One address of a slice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SliceEndpoint {
    /// Address.
    pub ip: IpAddr,
    /// Health; [`Health::Draining`] counts only for Services with persistent sessions.
    pub health: Health,
    /// The Pod behind it.
    pub pod: Option<ObjectId>,
    /// `hostname` of the endpoint.
    pub hostname: Str,
    /// Node it runs on.
    pub node: Str,
}

pub(super) fn namespace(scope: &mut Scope<'_>) -> Fact {
    let distribution = scope.annotation(TRAFFIC_DISTRIBUTION).and_then(distribution);
    Fact::Namespace(Arc::new(NamespaceInfo { labels: scope.object.meta.labels.clone() }), distribution)
}

pub(super) fn node(scope: &Scope<'_>) -> Fact {
    let labels = &scope.object.meta.labels;
    let first = |names: &[&str]| names.iter().find_map(|n| labels.get(*n)).cloned().unwrap_or_default();
    Fact::Node(Arc::new(NodeFact {
        locality: Locality {
            region: first(&["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]),
            zone: first(&["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
            sub_zone: first(&["topology.istio.io/subzone"]),
        },
    }))
}

pub(super) fn slice(scope: &mut Scope<'_>, s: &EndpointSlice) -> SliceFact {
    let service = scope.object.meta.labels.get("kubernetes.io/service-name").cloned().filter(|_| s.address_type != "FQDN");
    let mut endpoints = Vec::with_capacity(s.endpoints.len());
    for (i, e) in s.endpoints.iter().enumerate().filter(|_| service.is_some()) {
        let c = e.conditions;
        let terminating = c.terminating.unwrap_or(false);
        let health = match c.ready {
            None | Some(true) => Health::Healthy,
            Some(false) if terminating && c.serving.unwrap_or(false) => Health::Draining,
            Some(false) if terminating => continue,
            Some(false) => Health::Unhealthy,
        };
        let pod = e.target_ref.as_ref().filter(|r| r.kind == "Pod").map(|r| {
            let namespace = if r.namespace.is_empty() { scope.namespace() } else { &r.namespace };
            ObjectId::new(Kind::Pod, scope.share(namespace), scope.share(&r.name))
        });
        for (j, text) in e.addresses.iter().enumerate() {
            match text.parse() {
                Ok(ip) => endpoints.push(SliceEndpoint {
                    ip,
                    health,
                    pod: pod.clone(),
                    hostname: scope.share(&e.hostname),
                    node: scope.share(&e.node_name),
                }),
                Err(_) => {
                    let root = Path::root("endpoints");
                    scope.error(&root.index(i).field("addresses").index(j), format!("{text:?} is not an IP address"));
                }
            }
        }
    }
    endpoints.sort();
    endpoints.dedup();
    let mut ports: Vec<_> = s.ports.iter().filter_map(|p| Some((scope.share(&p.name), p.port?.0))).collect();
    ports.sort();
    SliceFact { service, ports, endpoints }
}

pub(super) fn pod(scope: &Scope<'_>, p: &Pod) -> PodFact {
    let labels = &scope.object.meta.labels;
    let finished = matches!(p.status.phase.as_str(), "Succeeded" | "Failed");
    let texts = std::iter::once(&p.status.pod_ip).chain(p.status.pod_ips.iter().map(|i| &i.ip));
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in texts.filter(|_| !finished).filter_map(|t| t.parse().ok()) {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    let account = if p.spec.service_account_name.is_empty() { "default" } else { &p.spec.service_account_name };
    // Init containers that restart always are sidecars: their ports are open as well.
    let sidecars = p.spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
    let ports = p.spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
    let mtls = labels.get(TLS_MODE).is_some_and(|m| &**m == "istio");
    let containers = || p.spec.containers.iter().chain(&p.spec.init_containers);
    let template = PodTemplate {
        labels: labels.clone(),
        account: scope.share(account),
        workload_name: workload_name(scope),
        locality: locality_label(labels),
        network: labels.get(NETWORK).cloned(),
        mtls,
        proxied: mtls || scope.annotation(INJECTED).is_some() || containers().any(|c| PROXIES.contains(&c.name.as_str())),
        subdomain: scope.share(&p.spec.subdomain),
        ports: ports.filter(|p| !p.name.is_empty()).map(|p| (scope.share(&p.name), p.container_port.0)).collect(),
    };
    PodFact {
        ips,
        node: scope.share(&p.spec.node_name),
        hostname: scope.share(&p.spec.hostname),
        ready: p.status.conditions.iter().find(|c| c.kind == "Ready").is_none_or(|c| c.status == "True"),
        template: scope.context.strings.share_template(template),
    }
}

/// A ReplicaSet is named after its Deployment, with the Pod template's hash behind.
fn workload_name(scope: &Scope<'_>) -> Str {
    let labels = &scope.object.meta.labels;
    match &scope.object.owner {
        Some((kind, name)) if kind == "ReplicaSet" => {
            let hash = labels.get("pod-template-hash").map_or("", |h| &**h);
            let base = name.strip_suffix(hash).and_then(|n| n.strip_suffix('-')).filter(|_| !hash.is_empty());
            scope.share(base.unwrap_or(name))
        }
        Some((kind, name)) if kind == "ReplicationController" && labels.contains_key("deploymentconfig") => {
            labels.get("deploymentconfig").cloned().unwrap_or_else(|| scope.share(name))
        }
        Some((_, name)) => scope.share(name),
        None => scope.id().name.clone(),
    }
}

/// Type of a Secret with credentials for registries, and where in it they are.
const DOCKER_CONFIG_TYPE: &str = "kubernetes.io/dockerconfigjson";
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// Keys of either kind of TLS Secret, or credentials for registries.
pub(super) fn secret(scope: &mut Scope<'_>, s: &ApiSecret) -> Secret {
    let root = Path::root("data");
    let mut get = |names: &[&str]| -> Arc<[u8]> {
        for name in names {
            if let Some(text) = s.string_data.get(*name) {
                return text.as_bytes().into();
            }
            if let Some(text) = s.data.get(*name) {
                match base64::engine::general_purpose::STANDARD.decode(text.split_whitespace().collect::<String>()) {
                    Ok(bytes) => return bytes.into(),
                    Err(_) => scope.error(&root.key(name), "is not base64"),
                }
            }
        }
        Arc::from([])
    };
    let mut secret = Secret {
        certificate: get(&["tls.crt", "cert"]),
        private_key: get(&["tls.key", "key"]),
        ca_certificate: get(&["ca.crt", "cacert"]),
        crl: get(&["ca.crl", "crl"]),
        ocsp_staple: get(&["tls.ocsp-staple"]),
        mistake: None,
        registry: if s.kind == DOCKER_CONFIG_TYPE { registry(&get(&[DOCKER_CONFIG])) } else { Registry::default() },
    };
    if !secret.certificate.is_empty() && !secret.private_key.is_empty() {
        secret.mistake = key_pair::mistake(&secret.certificate, &secret.private_key);
    }
    if let Some(mistake) = secret.mistake {
        scope.warning(&root, format!("is not served: {mistake}"));
    }
    secret
}

/// It has to be an object of JSON, which agents read it as.
fn registry(config: &[u8]) -> Registry {
    if config.is_empty() {
        return Registry::None("it has no .dockerconfigjson");
    }
    let text = std::str::from_utf8(config).ok();
    match text.filter(|text| serde_json::from_str::<serde_json::Map<_, _>>(text).is_ok()) {
        Some(text) => Registry::Config(text.into()),
        None => Registry::None("its .dockerconfigjson is no JSON object"),
    }
}
