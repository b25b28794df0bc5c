//! The settings of one proxy, laid over each other: mesh, ProxyConfig objects that select the pod, the pod's annotation.

use std::collections::BTreeMap;

use pilotfish_model::name::Labels;
use serde_json::{Map, Value, json};

use super::annotations::PROXY_CONFIG;
use super::tree::{at, text};
use super::{InjectError, ordered};

/// A ProxyConfig object.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyConfigObject {
    /// Its namespace.
    pub namespace: String,
    /// Its name; among several of a rank the first by name wins.
    pub name: String,
    /// Its spec, as the user wrote it.
    pub spec: Value,
}

/// Fields in the order of the API, in which the proxy's agent has always been told them.
#[rustfmt::skip]
const ORDER: &[&str] = &[
    "configPath", "binaryPath", "serviceCluster", "tracingServiceName", "drainDuration", "discoveryAddress", "zipkinAddress",
    "statsdUdpAddress", "proxyAdminPort", "controlPlaneAuthPolicy", "customConfigFile", "statNameLength", "concurrency",
    "proxyBootstrapTemplatePath", "interceptionMode", "tracing", "envoyAccessLogService", "envoyMetricsService", "proxyMetadata",
    "runtimeValues", "statusPort", "extraStatTags", "gatewayTopology", "terminationDrainDuration", "meshId", "readinessProbe",
    "proxyStatsMatcher", "holdApplicationUntilProxyStarts", "caCertificatesPem", "image", "privateKeyProvider", "proxyHeaders",
];

/// What an agent assumes when it is told nothing.
pub(crate) fn defaults() -> Value {
    json!({
        "binaryPath": "/usr/local/bin/envoy",
        "configPath": "./etc/istio/proxy",
        "controlPlaneAuthPolicy": "MUTUAL_TLS",
        "discoveryAddress": "istiod.istio-system.svc:15012",
        "drainDuration": "45s",
        "proxyAdminPort": 15000,
        "serviceCluster": "istio-proxy",
        "statNameLength": 189,
        "statusPort": 15020,
        "terminationDrainDuration": "5s",
    })
}

/// The settings that hold for a pod.
pub(crate) fn effective(
    mesh: &Value,
    objects: &[ProxyConfigObject],
    namespace: &str,
    labels: &Labels,
    annotations: &BTreeMap<String, String>,
) -> Result<Value, InjectError> {
    let mut config = defaults();
    if let Some(mesh_default) = mesh.get("defaultConfig") {
        lay(&mut config, mesh_default);
    }
    let root = text(mesh, &["rootNamespace"]).unwrap_or("istio-system");
    for object in selected(objects, root, namespace, labels) {
        lay(&mut config, &from_object(&object.spec));
    }
    if let Some(written) = annotations.get(PROXY_CONFIG) {
        let bad = |reason: String| InjectError::Annotation { name: PROXY_CONFIG.to_owned(), reason };
        let layer: Value = yaml_serde::from_str(written).map_err(|e| bad(e.to_string()))?;
        check(&layer).map_err(bad)?;
        lay(&mut config, &layer);
    }
    Ok(config)
}

/// Objects of the whole mesh, then of the namespace, then those that select the pod; one each.
fn selected<'a>(objects: &'a [ProxyConfigObject], root: &str, namespace: &str, labels: &Labels) -> Vec<&'a ProxyConfigObject> {
    let selector = |o: &ProxyConfigObject| -> Option<Labels> {
        let map = at(&o.spec, &["selector", "matchLabels"])?.as_object()?;
        Some(map.iter().filter_map(|(k, v)| Some((k.as_str().into(), v.as_str()?.into()))).collect())
    };
    let first = |wanted: &dyn Fn(&ProxyConfigObject) -> bool| objects.iter().filter(|o| wanted(o)).min_by_key(|o| &o.name);
    let plain = |ns: &str| first(&|o| o.namespace == ns && selector(o).is_none_or(|s| s.is_empty()));
    let mesh = plain(root);
    let of_namespace = if namespace == root { None } else { plain(namespace) };
    let of_pod =
        first(&|o| o.namespace == namespace && selector(o).is_some_and(|s| !s.is_empty() && pilotfish_model::name::selects(&s, labels)));
    [mesh, of_namespace, of_pod].into_iter().flatten().collect()
}

fn from_object(spec: &Value) -> Value {
    let mut layer = Map::new();
    for (from, to) in [("concurrency", "concurrency"), ("environmentVariables", "proxyMetadata"), ("image", "image")] {
        if let Some(value) = spec.get(from) {
            layer.insert(to.to_owned(), value.clone());
        }
    }
    Value::Object(layer)
}

/// Metadata is collected; any other field replaces.
fn lay(config: &mut Value, layer: &Value) {
    let (Some(config), Some(layer)) = (config.as_object_mut(), layer.as_object()) else { return };
    for (key, value) in layer {
        match (key.as_str(), config.get_mut(key), value) {
            (_, _, Value::Null) => {}
            ("proxyMetadata", Some(Value::Object(old)), Value::Object(new)) => {
                old.extend(new.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
            ("tracing", Some(old @ Value::Object(_)), Value::Object(_)) => lay(old, value),
            _ => drop(config.insert(key.clone(), value.clone())),
        }
    }
}

/// The shape of fields that matter here; the agent reads the rest.
fn check(layer: &Value) -> Result<(), String> {
    let Some(fields) = layer.as_object() else {
        return if layer.is_null() { Ok(()) } else { Err("is not a ProxyConfig".to_owned()) };
    };
    for (key, value) in fields {
        let fine = match key.as_str() {
            "drainDuration" | "terminationDrainDuration" => {
                value.as_str().is_some_and(|t| pilotfish_model::time::parse_duration(t).is_ok())
            }
            "concurrency" | "statusPort" | "proxyAdminPort" | "statNameLength" => value.is_i64() || value.is_u64(),
            "proxyMetadata" | "runtimeValues" => value.as_object().is_some_and(|m| m.values().all(Value::is_string)),
            "interceptionMode" => matches!(value.as_str(), Some("REDIRECT" | "TPROXY" | "NONE")),
            "holdApplicationUntilProxyStarts" => value.is_boolean(),
            "discoveryAddress" | "configPath" | "binaryPath" | "serviceCluster" | "meshId" => value.is_string(),
            // Both spellings of a field's name are fine in the API.
            other => ORDER.contains(&other) || other.contains('_'),
        };
        if !fine && !value.is_null() {
            return Err(format!("{key} is not a field of a ProxyConfig, or not of this shape"));
        }
    }
    Ok(())
}

/// What differs from the defaults, as the proxy's agent reads it.
pub(crate) fn difference(config: &Value) -> String {
    let defaults = defaults();
    let rank = |key: &str| ORDER.iter().position(|k| *k == key).unwrap_or(ORDER.len());
    let mut fields: Vec<_> = config.as_object().into_iter().flatten().filter(|(k, v)| defaults.get(k) != Some(v)).collect();
    fields.sort_by_key(|(k, _)| rank(k));
    let fields: Vec<String> = fields.into_iter().map(|(k, v)| format!("{}:{}", Value::from(k.as_str()), ordered::json(v))).collect();
    format!("{{{}}}\n", fields.join(","))
}
