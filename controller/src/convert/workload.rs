//! WorkloadEntries, and inline endpoints of ServiceEntries, which have the same form.

use std::collections::BTreeMap;

use pilotfish_crds::networking::WorkloadEntrySpec;
use pilotfish_model::Locality;
use pilotfish_model::endpoint::EndpointAddress;
use pilotfish_model::name::{Labels, Str};

use super::fields::{Path, Scope};

/// A workload outside Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadFact {
    /// Its namespace.
    pub namespace: Str,
    /// Name of the WorkloadEntry, or of the ServiceEntry with the endpoint's position.
    pub name: Str,
    /// Where it is reached; `None`: only through a gateway of its network.
    pub address: Option<EndpointAddress>,
    /// Port by service port name.
    pub ports: BTreeMap<Str, u16>,
    /// Its labels as given.
    pub labels: Labels,
    /// Its service account; empty if not given.
    pub account: Str,
    /// Where it runs.
    pub locality: Locality,
    /// Network, empty if not given.
    pub network: Str,
    /// Weight, at least 1.
    pub weight: u32,
    /// Accepts mutual TLS.
    pub mtls: bool,
}

/// Label with which a workload says that it accepts mutual TLS.
pub(super) const TLS_MODE: &str = "security.istio.io/tlsMode";
/// Label that names a workload's network.
pub(super) const NETWORK: &str = "topology.istio.io/network";

pub(super) fn entry(scope: &mut Scope<'_>, spec: &WorkloadEntrySpec) -> WorkloadFact {
    let name = scope.id().name.clone();
    let labels = scope.object.meta.labels.clone();
    convert(scope, &Path::SPEC, spec, &name, &labels, false)
}

/// `extra` labels are those of the object itself, which win; `numeric` asks for an IP address.
pub(super) fn convert(
    scope: &mut Scope<'_>,
    path: &Path<'_>,
    spec: &WorkloadEntrySpec,
    name: &str,
    extra: &Labels,
    numeric: bool,
) -> WorkloadFact {
    let mut labels = super::fields::labels(&spec.labels);
    labels.extend(extra.clone());
    let address = match spec.address.as_str() {
        "" => None,
        text => Some(match (text.strip_prefix("unix://"), text.parse()) {
            (Some(socket), _) => EndpointAddress::Unix(socket.into()),
            (None, Ok(ip)) => EndpointAddress::Ip(ip),
            (None, Err(_)) => EndpointAddress::Dns(text.into()),
        }),
    };
    let address_path = path.field("address");
    match &address {
        None if spec.network.is_empty() => scope.error(&address_path, "is missing"),
        Some(EndpointAddress::Dns(host)) if numeric => {
            scope.error(&address_path, format!("{host:?} is not an IP address, which resolution STATIC needs"));
        }
        Some(EndpointAddress::Dns(host)) => scope.check_host(&address_path, host),
        Some(EndpointAddress::Unix(socket)) if !socket.starts_with('/') => {
            scope.error(&address_path, "a Unix socket needs an absolute path")
        }
        _ => {}
    }
    let network = match spec.network.as_str() {
        "" => labels.get(NETWORK).cloned().unwrap_or_default(),
        network => network.into(),
    };
    let locality = match (spec.locality.as_str(), locality_label(&labels)) {
        ("", Some(label)) => label,
        (text, _) => Locality::parse(text),
    };
    WorkloadFact {
        namespace: scope.id().namespace.clone(),
        name: name.into(),
        address,
        ports: spec.ports.iter().map(|(n, p)| (n.as_str().into(), p.0)).collect(),
        // Who has an identity of the mesh is taken to accept its TLS, unless the label says something else.
        mtls: labels.get(TLS_MODE).map_or(!spec.service_account.is_empty(), |m| &**m == "istio"),
        labels,
        account: spec.service_account.as_str().into(),
        locality,
        network,
        weight: spec.weight.0.max(1),
    }
}

/// The locality that a label overrides; dots stand for slashes, which labels may not have.
pub(super) fn locality_label(labels: &Labels) -> Option<Locality> {
    let text = labels.get("topology.istio.io/locality").or_else(|| labels.get("istio-locality")).filter(|t| !t.is_empty())?;
    Some(if text.contains('/') { Locality::parse(text) } else { Locality::parse(&text.replace('.', "/")) })
}
