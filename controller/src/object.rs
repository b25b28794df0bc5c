//! [`Object`]: one decoded object of any kind, with the place it was read from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use pilotfish_crds::core::{EndpointSlice, ObjectMeta, Pod, Secret, Service};
use pilotfish_crds::extensions::{TrafficExtensionSpec, WasmPluginSpec};
use pilotfish_crds::networking::{
    DestinationRuleSpec, EnvoyFilterSpec, GatewaySpec, ProxyConfigSpec, ServiceEntrySpec, ServiceEntryStatus, SidecarSpec,
    VirtualServiceSpec, WorkloadEntrySpec, WorkloadGroupSpec,
};
use pilotfish_crds::security::{AuthorizationPolicySpec, PeerAuthenticationSpec, RequestAuthenticationSpec};
use pilotfish_crds::telemetry::TelemetrySpec;
use pilotfish_model::name::{Labels, Str};
use pilotfish_model::time::parse_timestamp;
use pilotfish_model::{Kind, Meta, ObjectId};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Key of a ConfigMap that holds settings of the mesh.
pub const MESH: &str = "mesh";
/// Key of a ConfigMap that holds networks of the mesh.
pub const MESH_NETWORKS: &str = "meshNetworks";

/// Where an object was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Document within the file, from 1.
    pub document: usize,
    /// Line of the file, from 1; that of the mistake where there is one.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} (document {})", self.file.display(), self.line, self.document)
    }
}

/// A decoded object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Which.
    pub id: ObjectId,
    /// Identity, age, labels and annotations.
    pub meta: Meta,
    /// Name of the controller that owns it, as `Kind` and name.
    pub owner: Option<(String, String)>,
    /// Its content.
    pub body: Body,
    /// The whole in Kubernetes form as JSON, kept for Istio's kinds.
    pub raw: Option<Str>,
}

/// The content of an object, by kind.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Body {
    Namespace,
    Node,
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    Pod(Box<Pod>),
    Secret(Box<Secret>),
    VirtualService(Box<VirtualServiceSpec>),
    DestinationRule(Box<DestinationRuleSpec>),
    Gateway(Box<GatewaySpec>),
    ServiceEntry(Box<ServiceEntrySpec>, Box<ServiceEntryStatus>),
    WorkloadEntry(Box<WorkloadEntrySpec>),
    Sidecar(Box<SidecarSpec>),
    PeerAuthentication(Box<PeerAuthenticationSpec>),
    RequestAuthentication(Box<RequestAuthenticationSpec>),
    AuthorizationPolicy(Box<AuthorizationPolicySpec>),
    Telemetry(Box<TelemetrySpec>),
    EnvoyFilter(Box<EnvoyFilterSpec>),
    WasmPlugin(Box<WasmPluginSpec>),
    TrafficExtension(Box<TrafficExtensionSpec>),
    /// Of its keys, those that may hold settings.
    ConfigMap(BTreeMap<String, String>),
    /// A kind that no resource depends on.
    Other(Value),
}

/// Why a document is not an object. The document is refused; its last good form stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// Path of the field, such as `spec.http[0].timeout`; empty if it is about the whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// What a document turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// An object of a kind that the mesh reads.
    Object(Box<Object>),
    /// A kind that will be read one day; it has no effect yet.
    NotYet {
        /// What it says it is.
        kind: String,
    },
    /// A kind that is none of the mesh's business.
    Foreign {
        /// What it says it is.
        kind: String,
    },
}

/// The kind behind `apiVersion` and `kind`, in any version that Istio ever served.
pub fn known_kind(api_version: &str, kind: &str) -> Option<Kind> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let known = Kind::ALL.iter().find(|k| k.as_str() == kind && k.group() == group && **k != Kind::MeshConfig)?;
    let versions: &[&str] = if group.ends_with(".istio.io") { &["v1", "v1beta1", "v1alpha3", "v1alpha1"] } else { &["v1", "v1beta1"] };
    versions.contains(&version).then_some(*known)
}

/// Groups whose kinds are accepted with a warning until they are translated.
const LATER: &[(&str, &str)] = &[("gateway.networking.k8s.io", ""), ("gateway.networking.x-k8s.io", ""), ("networking.k8s.io", "Ingress")];

/// Understands one document. Values of `null` count as absent, as they do for the API server.
pub fn decode(mut value: Value) -> Result<Decoded, DecodeError> {
    remove_nulls(&mut value);
    let Value::Object(mut map) = value else {
        return Err(error("", "a document must be an object with apiVersion, kind and metadata"));
    };
    let text = |key: &str| match map.get(key) {
        Some(Value::String(s)) if !s.is_empty() => Ok(s.clone()),
        Some(_) => Err(error(key, "must be a non-empty string")),
        None => Err(error(key, "is missing")),
    };
    let (api_version, kind_name) = (text("apiVersion")?, text("kind")?);
    let Some(kind) = known_kind(&api_version, &kind_name) else {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let full = format!("{api_version} {kind_name}");
        let later = LATER.iter().any(|(g, k)| *g == group && kind_name.starts_with(k));
        return match group {
            _ if later => Ok(Decoded::NotYet { kind: full }),
            // A misspelt kind of a group that is ours would otherwise vanish without a word.
            g if Kind::ALL.iter().any(|k| k.group() == g && g.ends_with(".istio.io")) => {
                Err(error("kind", format!("{full} is not a kind that Istio has")))
            }
            _ => Ok(Decoded::Foreign { kind: full }),
        };
    };
    let metadata: ObjectMeta = field(map.remove("metadata").unwrap_or_default(), "metadata")?;
    if metadata.name.is_empty() {
        return Err(error("metadata.name", "is missing"));
    }
    if !is_dns_name(&metadata.name, 253) {
        return Err(error("metadata.name", format!("{:?} is not a name: lower-case letters, digits, '-' and '.' only", metadata.name)));
    }
    let is_namespace = |ns: &str| is_dns_name(ns, 63) && !ns.contains('.');
    if !metadata.namespace.is_empty() && !is_namespace(&metadata.namespace) {
        return Err(error(
            "metadata.namespace",
            format!("{:?} is not a namespace: lower-case letters, digits and '-' only", metadata.namespace),
        ));
    }
    let namespace = match (kind.is_cluster_scoped(), metadata.namespace.as_str()) {
        (true, _) => "",
        (false, "") => "default",
        (false, ns) => ns,
    };
    let id = ObjectId::new(kind, namespace, metadata.name.as_str());
    let is_istio = kind.group().ends_with(".istio.io");
    if is_istio && let Some(unknown) = map.keys().find(|k| !["apiVersion", "kind", "spec", "status"].contains(&k.as_str())) {
        return Err(error(unknown.clone(), "unknown field, expected one of `apiVersion`, `kind`, `metadata`, `spec`, `status`"));
    }
    let created = metadata.creation_timestamp.as_deref().map(parse_timestamp);
    let Some(created) = created.unwrap_or(Some(Default::default())) else {
        return Err(error("metadata.creationTimestamp", "must be an RFC 3339 time"));
    };
    let meta = Meta {
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        created,
        labels: labels(&metadata.labels),
        annotations: labels(&metadata.annotations),
    };
    let owners = || metadata.owner_references.iter();
    let owner = owners().find(|o| o.controller).or_else(|| owners().next()).map(|o| (o.kind.clone(), o.name.clone()));
    let raw = is_istio.then(|| Str::from(raw_form(kind, &meta, metadata.creation_timestamp.as_deref(), &map).to_string()));
    let body = body(kind, map)?;
    Ok(Decoded::Object(Box::new(Object { id, meta, owner, body, raw })))
}

/// What Kubernetes accepts as names (RFC 1123 subdomains); other sources may not be laxer, because names become hosts.
fn is_dns_name(text: &str, max: usize) -> bool {
    let label = |l: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(l.chars().next()) && edge(l.chars().last()) && l.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    text.len() <= max && text.split('.').all(label)
}

fn body(kind: Kind, mut map: Map<String, Value>) -> Result<Body, DecodeError> {
    let mut spec = || map.remove("spec").unwrap_or_else(|| Value::Object(Map::new()));
    Ok(match kind {
        Kind::Namespace => Body::Namespace,
        Kind::Node => Body::Node,
        Kind::Service => Body::Service(whole(map)?),
        Kind::EndpointSlice => Body::EndpointSlice(whole(map)?),
        Kind::Pod => Body::Pod(whole(map)?),
        Kind::Secret => Body::Secret(whole(map)?),
        Kind::VirtualService => Body::VirtualService(field(spec(), "spec")?),
        Kind::DestinationRule => Body::DestinationRule(field(spec(), "spec")?),
        Kind::Gateway => Body::Gateway(field(spec(), "spec")?),
        Kind::ServiceEntry => {
            let spec = field(spec(), "spec")?;
            let status = map.remove("status").unwrap_or_else(|| Value::Object(Map::new()));
            Body::ServiceEntry(spec, field(status, "status")?)
        }
        Kind::WorkloadEntry => Body::WorkloadEntry(field(spec(), "spec")?),
        Kind::Sidecar => Body::Sidecar(field(spec(), "spec")?),
        Kind::PeerAuthentication => Body::PeerAuthentication(field(spec(), "spec")?),
        Kind::ConfigMap => {
            let mut data: BTreeMap<String, String> = field(map.remove("data").unwrap_or_else(|| Value::Object(Map::new())), "data")?;
            // Contents nobody reads are not kept.
            data.retain(|key, _| [MESH, MESH_NETWORKS].contains(&key.as_str()));
            Body::ConfigMap(data)
        }
        Kind::WorkloadGroup => shape_of::<WorkloadGroupSpec>(spec())?,
        Kind::EnvoyFilter => Body::EnvoyFilter(field(spec(), "spec")?),
        Kind::ProxyConfig => shape_of::<ProxyConfigSpec>(spec())?,
        Kind::RequestAuthentication => Body::RequestAuthentication(field(spec(), "spec")?),
        Kind::AuthorizationPolicy => Body::AuthorizationPolicy(field(spec(), "spec")?),
        Kind::Telemetry => Body::Telemetry(field(spec(), "spec")?),
        Kind::WasmPlugin => Body::WasmPlugin(field(spec(), "spec")?),
        Kind::TrafficExtension => Body::TrafficExtension(field(spec(), "spec")?),
        Kind::MeshConfig => shape_of::<Map<String, Value>>(spec())?,
    })
}

/// A kind that is not translated yet: mistakes are found all the same.
fn shape_of<T: DeserializeOwned>(spec: Value) -> Result<Body, DecodeError> {
    // Serde would take the fields of a struct as a list, too.
    if !spec.is_object() {
        return Err(error("spec", "must be an object"));
    }
    field::<T>(spec.clone(), "spec")?;
    Ok(Body::Other(spec))
}

fn whole<T: DeserializeOwned>(map: Map<String, Value>) -> Result<T, DecodeError> {
    field(Value::Object(map), "")
}

/// Decodes the value of a field; paths of errors start with its name.
fn field<T: DeserializeOwned>(value: Value, name: &str) -> Result<T, DecodeError> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let inner = match e.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        };
        let dot = if name.is_empty() || inner.is_empty() || inner.starts_with('[') { "" } else { "." };
        error(format!("{name}{dot}{inner}"), e.inner().to_string())
    })
}

fn error(field: impl Into<String>, message: impl Into<String>) -> DecodeError {
    DecodeError { field: field.into(), message: message.into() }
}

pub(crate) fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(remove_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

/// Labels in the model's form.
pub fn labels(map: &std::collections::BTreeMap<String, String>) -> Labels {
    map.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect()
}

/// The version in which listings show a kind.
pub fn served_version(kind: Kind) -> &'static str {
    match kind {
        Kind::EnvoyFilter => "v1alpha3",
        Kind::ProxyConfig => "v1beta1",
        Kind::WasmPlugin | Kind::TrafficExtension => "v1alpha1",
        _ => "v1",
    }
}

/// The Kubernetes form, as listings show it: of the metadata only what a user wrote.
fn raw_form(kind: Kind, meta: &Meta, created: Option<&str>, rest: &Map<String, Value>) -> Value {
    let mut metadata = serde_json::json!({"name": *meta.name, "namespace": *meta.namespace});
    if let Some(created) = created {
        metadata["creationTimestamp"] = created.into();
    }
    for (key, map) in [("labels", &meta.labels), ("annotations", &meta.annotations)] {
        if !map.is_empty() {
            metadata[key] = map.iter().map(|(k, v)| (k.to_string(), Value::from(&**v))).collect::<Map<_, _>>().into();
        }
    }
    let api_version = format!("{}/{}", kind.group(), served_version(kind));
    let mut raw = serde_json::json!({"kind": kind.as_str(), "apiVersion": api_version, "metadata": metadata});
    for key in ["spec", "status"] {
        if let Some(value) = rest.get(key) {
            raw[key] = value.clone();
        }
    }
    raw
}
