//! From API types to the model, one object at a time.
//!
//! [`convert`] yields a [`Fact`], what the index joins, or the reasons why not, each naming the field. Nothing here looks at
//! another object: references stay names.

mod attachment;
mod authorization_policy;
mod destination_rule;
mod envoy_filter;
mod extension;
mod fields;
mod gateway;
mod key_pair;
mod kubernetes;
mod peer_authentication;
mod protocol;
mod request_authentication;
mod service;
mod service_entry;
mod settings;
mod sidecar;
mod telemetry;
mod tls;
mod virtual_service;
mod workload;

use std::sync::Arc;

use pilotfish_model::mesh::NamespaceInfo;
use pilotfish_model::name::Str;
use pilotfish_model::secret::Secret;
use pilotfish_model::{
    AuthorizationPolicy, ContentHash, DestinationRule, Diagnostic, EnvoyFilter, Extension, Gateway, Kind, ObjectId, PeerAuthentication,
    RequestAuthentication, Sidecar, Telemetry, VirtualService,
};

pub use self::kubernetes::{NodeFact, PodFact, PodTemplate, SliceEndpoint, SliceFact};
pub use self::service::{ServiceFact, TargetPort};
pub use self::service_entry::ServiceEntryFact;
pub use self::settings::SettingsFact;
pub use self::workload::WorkloadFact;
use crate::object::{Body, Object};
use crate::strings::Strings;

/// What conversion must know of the outside. Nothing that changes while the process runs: facts stay what they are, and
/// the objects behind them need not be kept.
#[derive(Clone, Debug)]
pub struct Context {
    /// DNS suffix of the cluster.
    pub domain: Str,
    /// Strings that many facts share.
    pub strings: Strings,
    /// The revision of this control plane. Empty: objects of all revisions are its own.
    pub revision: Str,
    /// ConfigMaps that hold settings of the mesh.
    pub config_maps: Arc<[ObjectId]>,
}

/// Label that gives an object to the control plane of one revision.
pub const REVISION: &str = "istio.io/rev";

impl Context {
    /// Whether an object with this revision as label is ours. Tags are not resolved, as in the reference.
    pub fn owns(&self, kind: Kind, revision: Option<&str>) -> bool {
        self.revision.is_empty() || !kind.group().ends_with(".istio.io") || revision.is_none_or(|r| *r == *self.revision)
    }
}

/// One object as the index joins it. Equal facts mean that nothing changed that matters.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Fact {
    /// With the preference for near endpoints that its annotation gives to its services.
    Namespace(Arc<NamespaceInfo>, Option<pilotfish_model::service::TrafficDistribution>),
    Node(Arc<NodeFact>),
    Service(Arc<ServiceFact>),
    EndpointSlice(Arc<SliceFact>),
    Pod(Arc<PodFact>),
    Secret(Arc<Secret>),
    VirtualService(Arc<VirtualService>),
    DestinationRule(Arc<DestinationRule>),
    Gateway(Arc<Gateway>),
    ServiceEntry(Arc<ServiceEntryFact>),
    WorkloadEntry(Arc<WorkloadFact>),
    Sidecar(Arc<Sidecar>),
    PeerAuthentication(Arc<PeerAuthentication>),
    RequestAuthentication(Arc<RequestAuthentication>),
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    Telemetry(Arc<Telemetry>),
    EnvoyFilter(Arc<EnvoyFilter>),
    WasmPlugin(Arc<Extension>),
    TrafficExtension(Arc<Extension>),
    /// A ConfigMap that the mesh's settings come from.
    Settings(Arc<SettingsFact>),
    /// Not translated yet; the hash tells whether it changed.
    Other(ContentHash),
}

/// A conversion's result. Without a fact the object's last good form stays.
#[derive(Debug)]
pub struct Converted {
    /// What it says, if it says anything valid.
    pub fact: Option<Fact>,
    /// Errors if there is no fact, else warnings; both, where an object with mistakes must refuse more instead of missing.
    pub diagnostics: Vec<Diagnostic>,
}

/// Understands one object.
pub fn convert(object: &Object, context: &Context) -> Converted {
    let mut scope = fields::Scope::new(object, context);
    let fact = match &object.body {
        Body::Namespace => kubernetes::namespace(&mut scope),
        Body::Node => kubernetes::node(&scope),
        Body::Service(b) => Fact::Service(Arc::new(service::convert(&mut scope, b))),
        Body::EndpointSlice(b) => Fact::EndpointSlice(Arc::new(kubernetes::slice(&mut scope, b))),
        Body::Pod(b) => Fact::Pod(Arc::new(kubernetes::pod(&scope, b))),
        Body::Secret(b) => Fact::Secret(Arc::new(kubernetes::secret(&mut scope, b))),
        Body::VirtualService(b) => Fact::VirtualService(Arc::new(virtual_service::convert(&mut scope, b))),
        Body::DestinationRule(b) => Fact::DestinationRule(Arc::new(destination_rule::convert(&mut scope, b))),
        Body::Gateway(b) => Fact::Gateway(Arc::new(gateway::convert(&mut scope, b))),
        Body::ServiceEntry(b, status) => Fact::ServiceEntry(Arc::new(service_entry::convert(&mut scope, b, status))),
        Body::WorkloadEntry(b) => Fact::WorkloadEntry(Arc::new(workload::entry(&mut scope, b))),
        Body::Sidecar(b) => Fact::Sidecar(Arc::new(sidecar::convert(&mut scope, b))),
        Body::PeerAuthentication(b) => Fact::PeerAuthentication(Arc::new(peer_authentication::convert(&mut scope, b))),
        Body::RequestAuthentication(b) => Fact::RequestAuthentication(Arc::new(request_authentication::convert(&mut scope, b))),
        Body::AuthorizationPolicy(b) => Fact::AuthorizationPolicy(Arc::new(authorization_policy::convert(&mut scope, b))),
        Body::Telemetry(b) => Fact::Telemetry(Arc::new(telemetry::convert(&mut scope, b))),
        Body::EnvoyFilter(b) => Fact::EnvoyFilter(Arc::new(envoy_filter::convert(&mut scope, b))),
        Body::WasmPlugin(b) => Fact::WasmPlugin(Arc::new(extension::wasm_plugin(&mut scope, b))),
        Body::TrafficExtension(b) => Fact::TrafficExtension(Arc::new(extension::traffic_extension(&mut scope, b))),
        Body::ConfigMap(data) if context.config_maps.contains(&object.id) => settings::convert(&mut scope, data),
        Body::ConfigMap(_) => Fact::Other(ContentHash::default()),
        Body::Other(value) => {
            if object.id.kind == Kind::ProxyConfig {
                scope.warning(&fields::Path::SPEC, "is read when Pods are created: it changes no proxy that runs, and no resource");
            }
            let text = format!("{value}\n{:?}\n{:?}", object.meta.labels, scope.meta().annotations);
            Fact::Other(ContentHash::of_bytes(text.as_bytes()))
        }
    };
    let fails_closed = scope.counts_with_errors;
    let diagnostics = scope.diagnostics;
    let broken = !fails_closed && diagnostics.iter().any(|d| d.severity == pilotfish_model::diagnostic::Severity::Error);
    Converted { fact: (!broken).then_some(fact), diagnostics }
}

#[cfg(test)]
mod telemetry_tests;
#[cfg(test)]
mod tests;
