//! What the API server knows of callers: [`ClusterFacts`].

use std::collections::BTreeMap;

use http::Method;
use pilotfish_ca::auth::keys::Keys;
use pilotfish_ca::auth::tokens::{Reviewer, Subject, service_account};
use pilotfish_ca::service::{Boxed, Pods};
use pilotfish_controller::api::{Api, Call, JSON};
use pilotfish_controller::rbac::PATHS;
use pilotfish_model::Identity;
use pilotfish_model::identity::PodRef;
use serde_json::{Value, json};

/// The group that all service accounts are in.
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Asks an API server.
#[derive(Clone)]
pub struct ClusterFacts<A>(pub A);

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn post(path: &str, body: Value) -> Call {
    Call { method: Method::POST, path: path.to_owned(), content_type: JSON, body }
}

impl<A: Api> Reviewer for ClusterFacts<A> {
    fn keys(&self) -> Boxed<'_, Result<(String, Keys), String>> {
        Box::pin(async {
            let about = self.0.call(Call::get(PATHS[0])).await.map_err(|e| e.to_string())?;
            let issuer = text(&about, "/issuer").to_owned();
            let keys = self.0.call(Call::get(PATHS[1])).await.map_err(|e| e.to_string())?;
            let keys = Keys::parse(keys.to_string().as_bytes()).ok_or("the keys of the cluster do not parse")?;
            if issuer.is_empty() { Err("the cluster does not say who it is".into()) } else { Ok((issuer, keys)) }
        })
    }

    fn review<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> Boxed<'a, Result<Option<Subject>, String>> {
        Box::pin(async move {
            let spec = json!({"token": token, "audiences": audiences});
            let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec});
            let review = self.0.call(post("/apis/authentication.k8s.io/v1/tokenreviews", body)).await.map_err(|e| e.to_string())?;
            Ok(reviewed(&review, audiences))
        })
    }
}

/// Whom a review names, if it is good for us.
fn reviewed(review: &Value, audiences: &[String]) -> Option<Subject> {
    let status = &review["status"];
    let is_in = |list: &Value, wanted: &str| list.as_array().is_some_and(|l| l.iter().any(|v| v == wanted));
    let good = status["authenticated"] == true
        && audiences.iter().any(|a| is_in(&status["audiences"], a))
        && is_in(&status["user"]["groups"], SERVICE_ACCOUNTS);
    if !good {
        return None;
    }
    let (namespace, account) = service_account(text(status, "/user/username"))?;
    let extra = |key: &str| status["user"]["extra"][key].get(0).and_then(Value::as_str);
    let pod = extra(POD_NAME).zip(extra(POD_UID)).map(|(name, uid)| PodRef { name: name.into(), uid: uid.into() });
    Some(Subject { namespace: namespace.into(), account: account.into(), pod })
}

impl<A: Api> Pods for ClusterFacts<A> {
    fn beside<'a>(&'a self, caller: &'a Identity, pod: &'a PodRef, wanted: &'a Identity) -> Boxed<'a, Result<bool, String>> {
        Box::pin(async move {
            let own = self.pods(&caller.namespace, "metadata.name", &pod.name).await?;
            let is_caller = |p: &&Value| text(p, "/metadata/uid") == &*pod.uid && text(p, "/spec/serviceAccountName") == &*caller.account;
            let Some(node) = own.iter().find(is_caller).map(|p| text(p, "/spec/nodeName")).filter(|node| !node.is_empty()) else {
                return Ok(false);
            };
            let there = self.pods(&wanted.namespace, "spec.nodeName", node).await?;
            Ok(there.iter().any(|p| text(p, "/spec/serviceAccountName") == &*wanted.account && text(p, "/status/phase") != "Failed"))
        })
    }
}

impl<A: Api> ClusterFacts<A> {
    /// Pods of a namespace with such a field. Values are names of Kubernetes, which need no escaping; others are refused.
    async fn pods(&self, namespace: &str, field: &str, value: &str) -> Result<Vec<Value>, String> {
        let is_name = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
        if !is_name(namespace) || !is_name(value) {
            return Err("not a name".into());
        }
        // The watch cache may answer: what it has is seconds old at most.
        let path = format!("/api/v1/namespaces/{namespace}/pods?fieldSelector={field}%3D{value}&resourceVersion=0");
        let list = self.0.call(Call::get(path)).await.map_err(|e| e.to_string())?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Whether a service account may list the Secrets of its namespace.
    pub async fn may_read_secrets(&self, identity: &Identity) -> Result<bool, String> {
        let Identity { namespace, account, .. } = identity;
        let spec = json!({
            "user": format!("system:serviceaccount:{namespace}:{account}"),
            "groups": [SERVICE_ACCOUNTS, format!("{SERVICE_ACCOUNTS}:{namespace}"), "system:authenticated"],
            "resourceAttributes": {"namespace": &**namespace, "verb": "list", "resource": "secrets"},
        });
        let body = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let review = self.0.call(post(path, body)).await.map_err(|e| e.to_string())?;
        Ok(review["status"]["allowed"] == true)
    }
}

/// A Secret's files.
pub fn files(secret: &Value) -> pilotfish_ca::material::Files {
    use base64::Engine as _;
    let decode = |v: &Value| base64::engine::general_purpose::STANDARD.decode(v.as_str()?).ok();
    let data = secret["data"].as_object();
    data.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), decode(value)?))).collect()
}

/// The same the other way round.
pub fn data(files: &pilotfish_ca::material::Files) -> BTreeMap<String, String> {
    use base64::Engine as _;
    files.iter().map(|(name, file)| (name.clone(), base64::engine::general_purpose::STANDARD.encode(file))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(change: impl FnOnce(&mut Value)) -> Option<Subject> {
        let mut review = json!({"status": {
            "authenticated": true, "audiences": ["istio-ca"],
            "user": {
                "username": "system:serviceaccount:shop:web", "groups": ["system:serviceaccounts", "system:authenticated"],
                "extra": {POD_NAME: ["web-0"], POD_UID: ["u"]},
            },
        }});
        change(&mut review["status"]);
        reviewed(&review, &["istio-ca".to_owned()])
    }

    #[test]
    fn reviews_count_only_if_all_of_them_is_right() {
        let pod = Some(PodRef { name: "web-0".into(), uid: "u".into() });
        let web = Subject { namespace: "shop".into(), account: "web".into(), pod };
        assert_eq!(review(|_| ()), Some(web.clone()));
        assert_eq!(review(|s| s["user"]["extra"] = Value::Null), Some(Subject { pod: None, ..web }));
        assert_eq!(review(|s| s["authenticated"] = false.into()), None);
        assert_eq!(review(|s| s["audiences"] = json!(["api"])), None);
        assert_eq!(review(|s| s["audiences"] = Value::Null), None);
        assert_eq!(review(|s| s["user"]["groups"] = json!(["system:authenticated"])), None);
        assert_eq!(review(|s| s["user"]["username"] = json!("system:node:a")), None);
    }
}
