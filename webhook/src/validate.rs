//! Validation: an object comes in, a verdict goes out. Pure.
//!
//! Enter at [`review`]. The shape is checked by the types that the CRDs are made of; what a schema cannot say, kind by kind, is
//! checked here on the JSON itself, so that every message can name its field.

mod cursor;
mod destination_rule;
mod extension;
mod gateway;
mod names;
mod security;
mod service_entry;
mod tls;
mod virtual_service;

use serde_json::Value;

use self::cursor::{At, Findings};

/// What is said about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can be stored; with warnings.
    Valid(Vec<String>),
    /// It must not be.
    Invalid {
        /// The label under which it is counted.
        reason: &'static str,
        /// For whoever applied it.
        message: String,
    },
}

/// By this annotation the control plane asks whether its webhook answers: such an object is always refused.
pub const PROBE: &str = "internal.istio.io/webhook-always-reject";

/// Kinds by group.
const KINDS: &[(&str, &[&str])] = &[
    (
        "networking.istio.io",
        &[
            "DestinationRule",
            "EnvoyFilter",
            "Gateway",
            "ProxyConfig",
            "ServiceEntry",
            "Sidecar",
            "VirtualService",
            "WorkloadEntry",
            "WorkloadGroup",
        ],
    ),
    ("security.istio.io", &["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"]),
    ("telemetry.istio.io", &["Telemetry"]),
    ("extensions.istio.io", &["TrafficExtension", "WasmPlugin"]),
];

/// Whether an object is the control plane's own question.
pub fn is_probe(object: &Value) -> bool {
    object.pointer("/metadata/annotations").is_some_and(|a| a.get(PROBE).is_some())
}

/// Judges one object.
pub fn review(object: &Value) -> Verdict {
    let invalid = |reason, message| Verdict::Invalid { reason, message };
    let Some(fields) = object.as_object() else {
        return invalid("yaml_decode_error", "cannot decode configuration: not an object".to_owned());
    };
    let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if !KINDS.iter().any(|(g, kinds)| *g == group && kinds.contains(&kind)) {
        return invalid("unknown_type", format!("unrecognized type {group}/{version}, Kind={kind}"));
    }
    if is_probe(object) {
        return invalid("invalid_resource", "configuration is invalid: this object asks to be refused".to_owned());
    }
    let spec = fields.get("spec").filter(|s| !s.is_null()).cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let spec = match decode(kind, spec) {
        Ok(spec) => spec,
        Err(e) => return invalid("crd_conversion_error", format!("error decoding configuration: {e}")),
    };
    let mut findings = Findings::default();
    let whole = At::new(object, "object");
    let metadata = At { value: whole.get("metadata").value, path: "metadata".to_owned() };
    semantics(&mut findings, kind, &At::new(&spec, "spec"), &metadata);
    if !findings.errors.is_empty() {
        return invalid("invalid_resource", format!("configuration is invalid: {}", joined(&findings.errors)));
    }
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    if let Some(unknown) = fields.keys().find(|k| !known.contains(&k.as_str())) {
        let (namespace, name) = (metadata.str("namespace"), metadata.str("name"));
        return invalid("invalid_resource", format!("unknown field {unknown:?} on {kind} resource {namespace}/{name}"));
    }
    Verdict::Valid(findings.warnings)
}

fn joined(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => format!("{} errors occurred:\n\t* {}\n", many.len(), many.join("\n\t* ")),
    }
}

/// How many fields that nobody knows are looked past.
const UNKNOWN: usize = 64;

/// Checks the shape. Fields that nobody knows are left out: the CRD's schema decides about them.
fn decode(kind: &str, mut spec: Value) -> Result<Value, serde_json::Error> {
    let mut last = None;
    for _ in 0..UNKNOWN {
        match pilotfish_crds::check(kind, &spec) {
            None | Some(Ok(())) => return Ok(spec),
            Some(Err(e)) => {
                let text = e.to_string();
                let field = text.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
                let Some(field) = field.filter(|f| remove(&mut spec, f)) else { return Err(e) };
                tracing::trace!(field, "an unknown field is looked past");
                last = Some(e);
            }
        }
    }
    last.map_or(Ok(spec), Err)
}

/// Takes a field out wherever it is unknown. Names that are known elsewhere stay there: the type is asked again.
fn remove(value: &mut Value, field: &str) -> bool {
    match value {
        Value::Object(map) => {
            let here = map.remove(field).is_some();
            // One place at a time would be exact, but the error does not say which.
            map.values_mut().map(|v| remove(v, field)).filter(|found| *found).count() > 0 || here
        }
        Value::Array(items) => items.iter_mut().map(|v| remove(v, field)).filter(|found| *found).count() > 0,
        _ => false,
    }
}

fn semantics(f: &mut Findings, kind: &str, spec: &At<'_>, metadata: &At<'_>) {
    let namespace = metadata.str("namespace");
    match kind {
        "AuthorizationPolicy" => security::authorization_policy(f, spec, &metadata.get("annotations")),
        "DestinationRule" => destination_rule::destination_rule(f, spec, namespace),
        "EnvoyFilter" => extension::envoy_filter(f, spec),
        "Gateway" => gateway::gateway(f, spec),
        "PeerAuthentication" => security::peer_authentication(f, spec),
        "ProxyConfig" => extension::proxy_config(f, spec),
        "RequestAuthentication" => security::request_authentication(f, spec),
        "ServiceEntry" => service_entry::service_entry(f, spec, namespace, &metadata.get("labels")),
        "Sidecar" => gateway::sidecar(f, spec),
        "Telemetry" => extension::telemetry(f, spec),
        "TrafficExtension" => extension::traffic_extension(f, spec),
        "VirtualService" => virtual_service::virtual_service(f, spec, namespace),
        "WasmPlugin" => extension::wasm_plugin(f, spec),
        "WorkloadEntry" => service_entry::workload_entry(f, spec),
        "WorkloadGroup" => service_entry::workload_group(f, spec),
        _ => {}
    }
}

/// A selector under `matchLabels`.
fn selector(f: &mut Findings, at: &At<'_>) {
    labels(f, at, "matchLabels");
}

/// A selector whose labels stand under `key`.
fn workload_selector(f: &mut Findings, at: &At<'_>, key: &str) {
    labels(f, at, key);
}

fn labels(f: &mut Findings, at: &At<'_>, key: &str) {
    if !at.exists() {
        return;
    }
    let all = at.fields(key);
    if all.is_empty() {
        f.warning(at, "workload selector specified without labels");
    }
    for (name, value) in all {
        let text = value.text().unwrap_or_default();
        f.require(!name.is_empty(), &value, format!("empty key is not supported in selector: \"{name}={text}\""));
        f.require(!name.contains('*') && !text.contains('*'), &value, format!("wildcard is not supported in selector: \"{name}={text}\""));
    }
}

/// What policies may name instead of labels.
const TARGETS: &[(&str, &str)] = &[
    ("", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];

/// Selector and target references of a policy.
fn target(f: &mut Findings, spec: &At<'_>) {
    let chosen = spec.get("selector");
    selector(f, &chosen);
    let mut all = spec.items("targetRefs");
    if spec.has("targetRef") {
        all.push(spec.get("targetRef"));
    }
    f.require(!chosen.exists() || all.is_empty(), spec, "only one of targetRefs or workloadSelector can be set");
    for at in all {
        f.require(!at.str("name").is_empty(), &at.get("name"), "targetRef name must be set");
        let none = at.str("namespace").is_empty();
        f.require(none, &at.get("namespace"), "targetRef namespace must not be set; cross namespace referencing is not supported");
        let (group, kind) = (at.str("group"), at.str("kind"));
        let group = if group == "core" { "" } else { group };
        f.require(TARGETS.contains(&(group, kind)), &at, format!("targetRef must not be to {group}/{kind}"));
    }
}
