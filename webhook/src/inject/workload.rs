//! Which workload a pod belongs to, as far as its owner and its labels say.

use serde_json::Value;

use super::tree::{flag, list, text};

/// The workload that telemetry names.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Workload {
    /// API version of the kind.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name; what the API server will generate a pod's name from, if nothing better is known.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

impl Workload {
    /// Finds it. Pods without `generateName` count as themselves: nobody makes replicas of them.
    pub(crate) fn of(pod: &Value, namespace: &str) -> Workload {
        let make = |api: &str, kind: &str, name: &str| Workload {
            api_version: api.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        };
        let itself = text(pod, &["metadata", "name"]).unwrap_or_default();
        let Some(generated) = text(pod, &["metadata", "generateName"]) else { return make("v1", "Pod", itself) };
        let owner = list(pod, &["metadata", "ownerReferences"]).iter().find(|o| flag(o, &["controller"]));
        let Some(owner) = owner else { return make("v1", "Pod", if itself.is_empty() { generated } else { itself }) };
        let field = |key| text(owner, &[key]).unwrap_or_default();
        let (api, kind, name) = (field("apiVersion"), field("kind"), field("name"));
        let label = |key| text(pod, &["metadata", "labels", key]);
        let without = |hash: Option<&str>| name.strip_suffix(hash?)?.strip_suffix('-');
        match kind {
            "ReplicaSet" => {
                if let Some(rollout) = without(label("rollouts-pod-template-hash")) {
                    make("v1alpha1", "Rollout", rollout)
                } else if let Some(deployment) = without(label("pod-template-hash")) {
                    make(api, "Deployment", deployment)
                } else {
                    make(api, kind, name)
                }
            }
            "ReplicationController" => match label("deploymentconfig") {
                Some(config) => make("v1", "DeploymentConfig", config),
                None => make(api, kind, name),
            },
            "Job" => match name.rsplit_once('-') {
                // A CronJob names its jobs after the minute they are for.
                Some((cron, time)) if (8..=10).contains(&time.len()) && time.bytes().all(|b| b.is_ascii_digit()) => {
                    make("batch/v1", "CronJob", cron)
                }
                _ => make(api, kind, name),
            },
            _ => make(api, kind, name),
        }
    }

    /// As the proxy reports it.
    pub(crate) fn owner(&self) -> String {
        format!("kubernetes://apis/{}/namespaces/{}/{}s/{}", self.api_version, self.namespace, self.kind.to_lowercase(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn owners() {
        for (kind, name, labels, wanted) in [
            ("ReplicaSet", "web-abc", json!({"pod-template-hash": "abc"}), ("apps/v1", "Deployment", "web")),
            ("ReplicaSet", "web-abc", json!({"rollouts-pod-template-hash": "abc"}), ("v1alpha1", "Rollout", "web")),
            ("ReplicaSet", "web-abc", json!({"pod-template-hash": "xyz"}), ("apps/v1", "ReplicaSet", "web-abc")),
            ("ReplicationController", "dc-1", json!({"deploymentconfig": "dc"}), ("v1", "DeploymentConfig", "dc")),
            ("Job", "nightly-28012345", json!({}), ("batch/v1", "CronJob", "nightly")),
            ("Job", "once-1", json!({}), ("apps/v1", "Job", "once-1")),
            ("StatefulSet", "db", json!({}), ("apps/v1", "StatefulSet", "db")),
        ] {
            let pod = json!({"metadata": {"generateName": "x-", "labels": labels,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true}]}});
            let found = Workload::of(&pod, "ns");
            assert_eq!((found.api_version.as_str(), found.kind.as_str(), found.name.as_str()), wanted, "{kind} {name}");
        }
        let pod = json!({"metadata": {"name": "alone", "ownerReferences": [{"kind": "ReplicaSet", "name": "x", "controller": true}]}});
        assert_eq!(Workload::of(&pod, "ns").owner(), "kubernetes://apis/v1/namespaces/ns/pods/alone");
    }
}
