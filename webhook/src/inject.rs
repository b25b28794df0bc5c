//! Injection: a pod comes in, a JSON patch goes out. Pure: no clock, no I/O, no client.
//!
//! Enter at [`inject`]. Everything works on JSON and not on types, so that fields of newer Kubernetes versions survive.

mod annotations;
mod config;
mod containers;
mod data;
mod decision;
pub mod document;
mod image;
mod native;
mod ordered;
mod probes;
mod prometheus;
mod proxy_config;
mod quantity;
mod strategic;
mod template;
mod tree;
mod variables;
mod workload;

use std::collections::BTreeMap;

use minijinja::value::Serde;
use serde_json::{Value, json};

pub(crate) use self::annotations::parse_bool;
pub use self::config::{Config, ConfigError, Settings};
pub use self::decision::{Decision, IGNORED_NAMESPACES, INJECT, Policy, Rules};
pub use self::native::NativeSidecars;
pub use self::proxy_config::ProxyConfigObject;
use self::tree::{at, list, list_mut, name, object, text, texts};
pub use self::variables::parse as parse_variables;
pub use self::workload::Workload;

/// The proxy's container.
pub const PROXY: &str = "istio-proxy";

/// Why a pod that should be injected cannot be. The message is for whoever made the pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum InjectError {
    #[error("annotation {name}: {reason}")]
    Annotation { name: String, reason: String },
    #[error("there is no injection template {name:?}")]
    UnknownTemplate { name: String },
    #[error("injection template {name:?}: {reason}")]
    Template { name: String, reason: String },
    #[error("metrics of {name} cannot be merged: {reason}")]
    Metrics { name: String, reason: String },
    #[error("not a pod: {0}")]
    NotAPod(&'static str),
    #[error("the patch cannot be made: {0}")]
    Patch(String),
}

/// A pod, and what the API server and the control plane say about it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The pod.
    pub pod: &'a Value,
    /// Its namespace; the pod itself may not say yet.
    pub namespace: &'a str,
    /// Annotations of the namespace.
    pub namespace_annotations: &'a BTreeMap<String, String>,
    /// Variables of the webhook's path, see [`parse_variables`].
    pub variables: &'a BTreeMap<String, String>,
    /// ProxyConfig objects of the pod's and the root namespace.
    pub proxy_configs: &'a [ProxyConfigObject],
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It stays as it is, and why.
    Skipped(&'static str),
    /// It changes to this.
    Injected(Value),
}

/// Decides about a pod and injects it.
pub fn inject(request: &Request<'_>, config: &Config) -> Result<Outcome, InjectError> {
    if !at(request.pod, &["spec", "containers"]).is_some_and(Value::is_array) {
        return Err(InjectError::NotAPod("it has no containers"));
    }
    let namespace =
        if request.namespace.is_empty() { text(request.pod, &["metadata", "namespace"]).unwrap_or_default() } else { request.namespace };
    match config.rules.decide(request.pod, namespace) {
        Decision::Skip(why) => Ok(Outcome::Skipped(why)),
        Decision::Inject => injected(request, config).map(Outcome::Injected),
    }
}

/// The changes as a JSON patch (RFC 6902); `None` if there are none.
pub fn patch(before: &Value, after: &Value) -> Result<Option<Value>, InjectError> {
    if before == after {
        return Ok(None);
    }
    let patch = json_patch::diff(before, after);
    serde_json::to_value(patch).map(Some).map_err(|e| InjectError::Patch(e.to_string()))
}

fn injected(request: &Request<'_>, config: &Config) -> Result<Value, InjectError> {
    annotations::check(&texts(request.pod, &["metadata", "annotations"]))?;
    let again = at(request.pod, &["metadata", "annotations", annotations::STATUS]).is_some();
    // Templates are told of the pod as the user wrote it. What comes out is laid over the pod as it is, so that what others
    // changed since an earlier injection stays.
    let original = containers::without_injected(request.pod);
    let pod_annotations = texts(&original, &["metadata", "annotations"]);
    let native = config.native.decide(&pod_annotations, text(&original, &["spec", "nodeName"]));
    let facts = data::collect(&original, request, config, native)?;

    let data = minijinja::Value::from(Serde(&facts.data));
    let rendered = config.chosen(&pod_annotations).iter().map(|t| config.templates.render(t, &data)).collect::<Result<Vec<_>, _>>()?;
    let mut pod = request.pod.clone();
    if rendered.iter().any(|t| list(t, &["spec", "initContainers"]).iter().any(|c| name(c) == PROXY)) {
        containers::move_proxy_to_init(&mut pod);
    }
    let mut merged = pod.clone();
    let mut template = json!({});
    for layer in &rendered {
        strategic::merge(&mut merged, layer);
        strategic::merge(&mut template, layer);
    }
    let overrides = containers::overrides(&pod, &template);
    if !again && overrides != json!({}) {
        object(&mut merged, &["metadata", "annotations"]).insert(annotations::OVERRIDES.to_owned(), json!(ordered::json(&overrides)));
    }
    containers::lay_over(&mut merged, &overrides, facts.tproxy);
    containers::fill(&mut merged);

    cluster(&mut merged, request, facts.network.as_deref());
    prometheus::merge(&mut merged, &facts.proxy, &config.mesh)?;
    probes::rewrite(&mut merged, &facts.proxy, &config.values, request.pod);
    for (key, value) in &config.injected_annotations {
        object(&mut merged, &["metadata", "annotations"]).insert(key.clone(), json!(value));
    }
    let status = status(&template, &config.revision);
    object(&mut merged, &["metadata", "annotations"]).insert(annotations::STATUS.to_owned(), json!(status));
    containers::sort(&mut merged, facts.hold);
    Ok(merged)
}

/// Where the pod is, as its cluster's webhook says.
fn cluster(pod: &mut Value, request: &Request<'_>, network: Option<&str>) {
    let mut variables = request.variables.clone();
    if let Some(network) = network {
        variables.insert("ISTIO_META_NETWORK".to_owned(), network.to_owned());
        let labels = object(pod, &["metadata", "labels"]);
        labels.entry("topology.istio.io/network").or_insert_with(|| json!(network));
    }
    if variables.is_empty() {
        return;
    }
    if let Some(proxy) = containers::proxy_mut(pod) {
        let env = list_mut(proxy, &[], "env");
        env.retain(|e| !variables.contains_key(name(e)));
        env.extend(variables.iter().map(|(k, v)| json!({"name": k, "value": v})));
    }
}

/// What was put in, so that it can be taken out again.
fn status(template: &Value, revision: &str) -> String {
    let names = |key: &str| {
        let names: Vec<&str> = list(template, &["spec", key]).iter().map(name).collect();
        if names.is_empty() { Value::Null } else { json!(names) }
    };
    let revision = if revision.is_empty() { "default" } else { revision };
    format!(
        r#"{{"initContainers":{},"containers":{},"volumes":{},"imagePullSecrets":{},"revision":{}}}"#,
        names("initContainers"),
        names("containers"),
        names("volumes"),
        names("imagePullSecrets"),
        Value::from(revision)
    )
}
