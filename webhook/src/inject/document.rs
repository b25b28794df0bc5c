//! Injection of any document that holds a pod, as the command line does it.

use serde_json::{Value, json};

use super::tree::{at, object, text};
use super::{Config, InjectError, Outcome, Request, containers, inject, template};

/// A document after injection.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The document; what cannot be injected is as it was.
    pub value: Value,
    /// What whoever runs the command should know.
    pub warnings: Vec<String>,
}

/// Where the pod's template is, by kind; `None` for kinds without one.
fn template_path(kind: &str) -> Option<&'static [&'static str]> {
    match kind {
        "Pod" => Some(&[]),
        "CronJob" => Some(&["spec", "jobTemplate", "spec", "template"]),
        "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet" | "ReplicationController" | "Job" | "DeploymentConfig" | "Rollout" => {
            Some(&["spec", "template"])
        }
        _ => None,
    }
}

/// Injects one document; the items of a list one by one. `base` says everything of the request but pod and namespace.
pub fn inject_document(document: &Value, base: &Request<'_>, config: &Config) -> Result<Document, InjectError> {
    let kind = text(document, &["kind"]).unwrap_or_default();
    if kind == "List" {
        let mut value = document.clone();
        object(&mut value, &["metadata"]);
        let mut warnings = Vec::new();
        for item in value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            let done = inject_document(item, base, config)?;
            *item = done.value;
            warnings.extend(done.warnings);
        }
        return Ok(Document { value, warnings });
    }
    let Some(path) = template_path(kind).filter(|path| at(document, path).is_some()) else {
        return Ok(Document { value: document.clone(), warnings: Vec::new() });
    };
    let unchanged = |warnings| {
        let mut value = document.clone();
        always_there(&mut value, kind, path);
        Ok(Document { value, warnings })
    };
    let namespace = text(document, &["metadata", "namespace"]).unwrap_or("default");
    let pod = pod_of(document, kind, path);
    match inject(&Request { pod: &pod, namespace, ..*base }, config)? {
        Outcome::Skipped("host network") => {
            let name = text(document, &["metadata", "name"]).unwrap_or_default();
            let warning = format!("Skipping injection because {kind} \"{namespace}/{name}\" has host networking enabled");
            unchanged(vec![warning])
        }
        Outcome::Skipped(_) => unchanged(Vec::new()),
        Outcome::Injected(pod) => Ok(Document { value: put_back(document, kind, path, pod), warnings: Vec::new() }),
    }
}

/// The pod as a controller would make it, with an owner that leads back to the workload.
fn pod_of(document: &Value, kind: &str, path: &[&str]) -> Value {
    let template = at(document, path).cloned().unwrap_or_default();
    let mut pod = json!({"metadata": template.get("metadata").cloned().unwrap_or(json!({})), "spec": template.get("spec").cloned().unwrap_or(json!({}))});
    containers::fill(&mut pod);
    template::canonical(&mut pod);
    if kind == "Pod" {
        return pod;
    }
    let name = text(document, &["metadata", "name"]).unwrap_or_default();
    let api = text(document, &["apiVersion"]).unwrap_or_default();
    let mut owner = json!({"apiVersion": api, "kind": kind, "name": name, "controller": true});
    let metadata = object(&mut pod, &["metadata"]);
    metadata.insert("generateName".to_owned(), json!(format!("{name}-")));
    if kind == "Deployment" {
        owner["kind"] = json!("ReplicaSet");
        owner["name"] = json!(format!("{name}-{HASH}"));
        object(&mut pod, &["metadata", "labels"]).insert("pod-template-hash".to_owned(), json!(HASH));
    }
    object(&mut pod, &["metadata"]).insert("ownerReferences".to_owned(), json!([owner]));
    pod
}

/// Stands for the hash that a Deployment would give its pods.
const HASH: &str = "fake";

fn put_back(document: &Value, kind: &str, path: &[&str], mut pod: Value) -> Value {
    if kind != "Pod" {
        let metadata = object(&mut pod, &["metadata"]);
        metadata.remove("generateName");
        metadata.remove("ownerReferences");
        let own = "pod-template-hash";
        let written = at(document, path).and_then(|t| at(t, &["metadata", "labels", own])).is_some();
        if !written {
            object(&mut pod, &["metadata", "labels"]).remove(own);
        }
    }
    let mut value = document.clone();
    let target = object(&mut value, path);
    for key in ["metadata", "spec"] {
        if let Some(part) = pod.get(key) {
            target.insert(key.to_owned(), part.clone());
        }
    }
    always_there(&mut value, kind, path);
    value
}

/// Fields that Kubernetes' own tools always write, so that a comparison with their output shows what injection changed.
fn always_there(value: &mut Value, kind: &str, path: &[&str]) {
    let spec = object(value, &["spec"]);
    spec.retain(|k, v| !(k == "minReadySeconds" && *v == 0 || k == "paused" && *v == false));
    let template = path.iter().try_fold(&mut *value, |v, key| v.get_mut(*key));
    if let Some(template) = template {
        containers::fill(template);
    }
    let mut fill = |path: &[&str], key: &str, default: Value| {
        let map = object(value, path);
        if map.get(key).is_none_or(Value::is_null) {
            map.insert(key.to_owned(), default);
        }
    };
    match kind {
        "Deployment" => {
            fill(&["spec"], "strategy", json!({}));
            fill(&[], "status", json!({}));
        }
        "DaemonSet" => {
            fill(&["spec"], "updateStrategy", json!({}));
            fill(
                &[],
                "status",
                json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0}),
            );
        }
        "StatefulSet" => {
            fill(&["spec"], "updateStrategy", json!({}));
            fill(&[], "status", json!({"availableReplicas": 0, "replicas": 0}));
        }
        "DeploymentConfig" => {
            fill(&["spec"], "test", json!(false));
            fill(&["spec", "strategy"], "resources", json!({}));
            for count in ["availableReplicas", "latestVersion", "observedGeneration", "replicas", "unavailableReplicas", "updatedReplicas"]
            {
                fill(&["status"], count, json!(0));
            }
        }
        "ReplicaSet" | "ReplicationController" => fill(&[], "status", json!({"replicas": 0})),
        "CronJob" => {
            fill(&["spec", "jobTemplate"], "metadata", json!({}));
            fill(&[], "status", json!({}));
        }
        _ => fill(&[], "status", json!({})),
    }
}
