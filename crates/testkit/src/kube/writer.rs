//! Writes objects without a program for each: what changes things many times a second.

use std::time::Duration;

use anyhow::{Context, ensure};
use http::{Method, Request, header};
use serde_json::{Value, json};
use tokio::time::timeout;

/// A write that takes longer than this is given up; it may have been done all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// The administrator, as somebody who writes.
#[derive(Clone)]
pub struct Writer(pub(super) kube::Client);

impl Writer {
    /// Makes an object what is given, on the server's side.
    pub async fn apply(&self, object: &Value) -> anyhow::Result<()> {
        let path = format!("{}?fieldManager=writer&force=true", path(object));
        self.send(Method::PATCH, path, "application/apply-patch+yaml", object.to_string()).await
    }

    /// Removes an object.
    pub async fn delete(&self, object: &Value) -> anyhow::Result<()> {
        self.send(Method::DELETE, path(object), "application/json", String::new()).await
    }

    /// A token of a service account.
    pub async fn token(&self, namespace: &str, account: &str, audience: &str) -> anyhow::Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [audience]}});
        let request = Request::builder().method(Method::POST).uri(&path).header(header::CONTENT_TYPE, "application/json");
        let text = self.0.request_text(request.body(body.to_string().into_bytes())?).await?;
        let answer: Value = serde_json::from_str(&text)?;
        Ok(answer["status"]["token"].as_str().context("no token")?.to_owned())
    }

    async fn send(&self, method: Method, path: String, content_type: &str, body: String) -> anyhow::Result<()> {
        let request = Request::builder().method(method).uri(&path).header(header::CONTENT_TYPE, content_type);
        let answer = timeout(PATIENCE, self.0.send(request.body(body.into_bytes().into())?)).await.context("no answer")??;
        ensure!(answer.status().is_success(), "{path}: {}", answer.status());
        Ok(())
    }
}

/// Where an object is. Plurals are those of the kinds that tests write.
fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let root = if version.contains('/') { "apis" } else { "api" };
    let kind = text(&object["kind"]).to_lowercase();
    let plural = if let Some(stem) = kind.strip_suffix('y') { format!("{stem}ies") } else { format!("{kind}s") };
    let meta = &object["metadata"];
    format!("/{root}/{version}/namespaces/{}/{plural}/{}", text(&meta["namespace"]), text(&meta["name"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_where_their_kind_is() {
        let at =
            |version: &str, kind: &str| path(&json!({"apiVersion": version, "kind": kind, "metadata": {"namespace": "ns", "name": "n"}}));
        assert_eq!(at("v1", "Service"), "/api/v1/namespaces/ns/services/n");
        assert_eq!(at("networking.istio.io/v1", "ServiceEntry"), "/apis/networking.istio.io/v1/namespaces/ns/serviceentries/n");
    }
}
