//! Containers of a pod: taking out what was injected before, laying the user's own words over ours, and their order.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::PROXY;
use super::annotations::{OVERRIDES, STATUS};
use super::prometheus;
use super::strategic;
use super::tree::{at, list, list_mut, name, object, text};

const LISTS: &[&str] = &["containers", "initContainers"];

/// The pod as it was before an earlier injection.
pub(crate) fn without_injected(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let parse = |key: &str| text(&pod, &["metadata", "annotations", key]).and_then(|t| serde_json::from_str::<Value>(t).ok());
    let Some(status) = parse(STATUS) else { return pod };
    let overrides = parse(OVERRIDES).unwrap_or_default();
    for key in LISTS {
        let ours: BTreeSet<&str> = list(&status, &[key]).iter().filter_map(Value::as_str).collect();
        let kept = |c: &Value| !ours.contains(name(c));
        let mut theirs: Vec<Value> = list(&pod, &["spec", key]).to_vec();
        let before: Vec<Value> = list(&overrides, &[key]).to_vec();
        // A container that the user wrote as well goes back to what they wrote, in its place.
        theirs.retain_mut(|c| match before.iter().find(|b| name(b) == name(c)) {
            Some(original) => {
                c.clone_from(original);
                true
            }
            None => kept(c),
        });
        // Its place may be another list by now: native sidecars move.
        let elsewhere: Vec<Value> = before.into_iter().filter(|b| !theirs.iter().any(|c| name(c) == name(b))).collect();
        theirs.extend(elsewhere);
        if theirs.is_empty() {
            object(&mut pod, &["spec"]).remove(*key);
        } else {
            *list_mut(&mut pod, &["spec"], key) = theirs;
        }
    }
    object(&mut pod, &["metadata", "annotations"]).retain(|k, v| k != STATUS && !prometheus::is_ours(k, v));
    pod
}

/// A user who writes the proxy as a container means the one that is an init container by now.
pub(crate) fn move_proxy_to_init(pod: &mut Value) {
    if list(pod, &["spec", "initContainers"]).iter().any(|c| name(c) == PROXY) {
        return;
    }
    let containers = list_mut(pod, &["spec"], "containers");
    if let Some(at) = containers.iter().position(|c| name(c) == PROXY) {
        let proxy = containers.remove(at);
        list_mut(pod, &["spec"], "initContainers").push(proxy);
    }
}

/// What the user wrote for containers that the templates have too.
pub(crate) fn overrides(pod: &Value, template: &Value) -> Value {
    let mut overrides = Map::new();
    for key in LISTS {
        let theirs = |ours: &Value| list(pod, &["spec", key]).iter().find(|c| name(c) == name(ours)).cloned();
        let found: Vec<Value> = list(template, &["spec", key]).iter().filter_map(theirs).map(auto).collect();
        if !found.is_empty() {
            overrides.insert((*key).to_owned(), Value::Array(found));
        }
    }
    Value::Object(overrides)
}

/// `auto` is what a user must write where an image is required.
fn auto(mut container: Value) -> Value {
    if let Some(fields) = container.as_object_mut()
        && fields.get("image").is_some_and(|i| i == "auto")
    {
        fields.remove("image");
    }
    container
}

/// Lays the user's fields over the merged pod.
pub(crate) fn lay_over(pod: &mut Value, overrides: &Value, tproxy: bool) {
    let mut overrides = overrides.clone();
    // A transparent proxy must be root.
    if tproxy {
        for key in LISTS {
            for container in overrides.get_mut(*key).and_then(Value::as_array_mut).into_iter().flatten().filter(|c| name(c) == PROXY) {
                if let Some(security) = container.get_mut("securityContext").and_then(Value::as_object_mut) {
                    security.remove("runAsUser");
                }
            }
        }
    }
    strategic::merge(pod, &json!({"spec": overrides}));
}

/// The fields that the API server's types always have.
pub(crate) fn fill(pod: &mut Value) {
    for key in LISTS {
        let containers = pod.get_mut("spec").and_then(|s| s.get_mut(*key)).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            container.entry("resources").or_insert_with(|| json!({}));
        }
    }
}

/// The proxy, wherever it runs.
pub(crate) fn proxy_mut(pod: &mut Value) -> Option<&mut Value> {
    let spec = pod.get_mut("spec")?.as_object_mut()?;
    let place = LISTS.iter().find(|key| spec.get(**key).and_then(Value::as_array).is_some_and(|l| l.iter().any(|c| name(c) == PROXY)))?;
    spec.get_mut(*place)?.as_array_mut()?.iter_mut().find(|c| name(c) == PROXY)
}

/// Redirection before anything that talks; the proxy before what it serves if that is asked for, else behind.
pub(crate) fn sort(pod: &mut Value, hold: bool) {
    let native = list(pod, &["spec", "initContainers"]).iter().any(|c| name(c) == PROXY);
    if at(pod, &["spec", "initContainers"]).is_some() {
        let init = list_mut(pod, &["spec"], "initContainers");
        // Lower is earlier; containers of one rank keep their order.
        init.sort_by_key(|c| match name(c) {
            "istio-validation" => 0,
            "istio-init" => {
                if native {
                    1
                } else {
                    5
                }
            }
            PROXY => 2,
            "enable-core-dump" => {
                if native {
                    3
                } else {
                    6
                }
            }
            _ => 4,
        });
    }
    let containers = list_mut(pod, &["spec"], "containers");
    containers.sort_by_key(|c| (name(c) == PROXY) != hold);
}
