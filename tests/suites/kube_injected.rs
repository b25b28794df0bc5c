//! Every Pod that injection makes of the shared cases is one that a real API server takes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../../webhook/tests/cases/mod.rs"]
mod cases;

use cases::Corpus;
use http::{Request, header};
use pilotfish_testkit::kube::{self, KubeCluster};
use serde_json::{Value, json};

/// Cases whose Pods no server takes, as the reference makes them and as we do.
const REFUSED: &[&str] = &[
    // Its template adds to the proxy among the containers, where the proxy is not that stays as an init container.
    "sidecar-spire.yaml",
];

/// What is said of a Pod that is not taken.
async fn refusal(client: &::kube::Client, namespace: &str, pod: &Value) -> Option<String> {
    let mut pod = pod.clone();
    pod["metadata"]["namespace"] = json!(namespace);
    // What an admission plugin of real API servers does before any webhook is asked; it wants accounts that exist.
    if pod["spec"]["serviceAccountName"].is_null() {
        pod["spec"]["serviceAccountName"] = json!("default");
    }
    // Some Deployments of the cases have names that no cluster would take.
    for key in ["name", "generateName"] {
        if let Some(name) = pod["metadata"][key].as_str().map(str::to_lowercase) {
            pod["metadata"][key] = json!(name);
        }
    }
    // Owners of the cases were never created.
    pod["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All&fieldValidation=Strict");
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/json").body(pod.to_string().into_bytes()).unwrap();
    client.request::<Value>(request).await.err().map(|e| e.to_string())
}

#[tokio::test]
async fn injected_pods_are_taken() {
    let (Some(assets), Some(corpus)) = (kube::assets("kube_injected"), Corpus::load("kube_injected")) else { return };
    let cluster = KubeCluster::start(&assets, kube::Options::default()).await;
    let client = cluster.client().await;
    let (mut injected, mut refused) = (0, Vec::new());
    let mut known = std::collections::BTreeSet::from(["default".to_owned()]);
    for case in corpus.cases.iter().filter(|c| c["webhook"].is_string()) {
        let (name, config) = (case["name"].as_str().unwrap(), corpus.config(case, "default"));
        for (i, one) in corpus.webhook(case).iter().enumerate() {
            let pod = &one["request_object"];
            let namespace = one["namespace"].as_str().filter(|n| !n.is_empty()).unwrap_or("default");
            let Ok(done) = corpus.inject(pod, namespace, &config) else { continue };
            if done == *pod {
                continue;
            }
            injected += 1;
            if known.insert(namespace.to_owned()) {
                cluster.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})]).await;
            }
            if let Some(why) = refusal(&client, namespace, &done).await {
                let before = refusal(&client, namespace, pod).await.unwrap_or_else(|| "taken".to_owned());
                let theirs = refusal(&client, namespace, &one["result_pod"]).await.unwrap_or_else(|| "taken".to_owned());
                println!("{name} {i}: {why}\n  as it was: {before}\n  the reference's: {theirs}");
                refused.push(name);
            }
        }
    }
    println!("{} of {injected} injected Pods are taken", injected - refused.len());
    assert!(injected >= 80, "{injected}");
    assert_eq!(refused, REFUSED);
}
