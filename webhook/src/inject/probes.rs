//! Probes of the application go through the agent: the kubelet has no certificate, and the agent is not redirected.

use serde_json::{Map, Value, json};

use super::annotations::{REWRITE_PROBES, STATUS_PORT, parse_bool};
use super::tree::{at, list, list_mut, name, number, text};
use super::{PROXY, containers, ordered};

/// What the agent serves, by path.
const ENV: &str = "ISTIO_KUBE_APP_PROBERS";

const PROBES: &[(&str, &str)] = &[("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz")];
const HOOKS: &[(&str, &str)] = &[("preStop", "prestopz"), ("postStart", "poststartz")];

/// Rewrites all probes, unless the pod or the values say no. `before` is the pod as it came in: an earlier injection may
/// have left probers there whose probes look like ours now.
pub(crate) fn rewrite(pod: &mut Value, proxy: &Value, values: &Value, before: &Value) {
    let asked = text(pod, &["metadata", "annotations", REWRITE_PROBES]).and_then(parse_bool);
    let on =
        asked.unwrap_or_else(|| at(values, &["sidecarInjectorWebhook", "rewriteAppHTTPProbe"]).and_then(Value::as_bool).unwrap_or(true));
    if !on || containers::proxy_mut(pod).is_none() {
        return;
    }
    let annotated = text(pod, &["metadata", "annotations", STATUS_PORT]).and_then(|p| p.parse().ok());
    let agent = annotated.or_else(|| at(proxy, &["statusPort"]).and_then(number)).unwrap_or(15020);
    let mut probers = earlier(before);
    for key in ["initContainers", "containers"] {
        let containers = pod.get_mut("spec").and_then(|s| s.get_mut(key)).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|c| name(c) != PROXY) {
            let owner = name(container).to_owned();
            let ports: Vec<(String, i64)> =
                list(container, &["ports"]).iter().filter_map(|p| Some((name(p).to_owned(), p.get("containerPort")?.as_i64()?))).collect();
            let mut handle = |handler: Option<&mut Value>, path: String, timeout: bool| {
                if let Some(handler) = handler
                    && let Some(prober) = redirect(handler, &path, agent, &ports, timeout)
                {
                    probers.insert(path, prober);
                }
            };
            for (probe, path) in PROBES {
                handle(container.get_mut(*probe), format!("/app-health/{owner}/{path}"), true);
            }
            for (hook, path) in HOOKS {
                let hook = container.get_mut("lifecycle").and_then(|l| l.get_mut(*hook));
                handle(hook, format!("/app-lifecycle/{owner}/{path}"), false);
            }
        }
    }
    if probers.is_empty() {
        return;
    }
    if let Some(proxy) = containers::proxy_mut(pod) {
        let env = list_mut(proxy, &[], "env");
        env.retain(|e| name(e) != ENV);
        let fields: Vec<_> = probers.iter().map(|(k, v)| format!("{}:{}", Value::from(k.as_str()), ordered::json(v))).collect();
        env.push(json!({"name": ENV, "value": format!("{{{}}}", fields.join(","))}));
    }
}

/// Probers of an earlier injection.
fn earlier(pod: &Value) -> Map<String, Value> {
    let mut pod = pod.clone();
    let proxy = containers::proxy_mut(&mut pod);
    let env = proxy.as_deref().and_then(|p| list(p, &["env"]).iter().find(|e| name(e) == ENV));
    env.and_then(|e| serde_json::from_str(text(e, &["value"])?).ok()).unwrap_or_default()
}

/// Points a handler to the agent; gives what the agent must ask instead. `None` if there is nothing to redirect.
fn redirect(handler: &mut Value, path: &str, agent: i64, ports: &[(String, i64)], timeout: bool) -> Option<Value> {
    let fields = handler.as_object_mut()?;
    let kind = ["httpGet", "tcpSocket", "grpc"].into_iter().find(|k| fields.get(*k).is_some_and(Value::is_object))?;
    let mut original = fields.get(kind)?.clone();
    let port = original.get("port")?;
    let port = match number(port) {
        Some(port) => port,
        None => ports.iter().find(|(n, _)| Some(n.as_str()) == port.as_str())?.1,
    };
    if port == agent {
        return None;
    }
    if let Some(original) = original.as_object_mut() {
        original.insert("port".to_owned(), json!(port));
    }
    let mut get = json!({"path": path, "port": agent});
    if let (Some(headers), Some(get)) = (original.get("httpHeaders"), get.as_object_mut()) {
        get.insert("httpHeaders".to_owned(), headers.clone());
    }
    // The kubelet speaks plain HTTP to the agent, whatever the agent speaks to the application.
    if original.get("scheme").is_some()
        && let Some(get) = get.as_object_mut()
    {
        get.insert("scheme".to_owned(), json!("HTTP"));
    }
    let mut prober = Map::new();
    prober.insert(kind.to_owned(), original);
    if timeout && let Some(seconds) = fields.get("timeoutSeconds").filter(|s| **s != 0) {
        prober.insert("timeoutSeconds".to_owned(), seconds.clone());
    }
    fields.remove(kind);
    fields.insert("httpGet".to_owned(), get);
    Some(Value::Object(prober))
}
