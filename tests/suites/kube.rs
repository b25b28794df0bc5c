//! The test cluster itself: a real API server takes our kinds and keeps them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use anyhow::ensure;
use pilotfish_testkit::KubeCluster;
use pilotfish_testkit::kube::{self, Options};
use pilotfish_testkit::until;
use pilotfish_tests::{NAMESPACE, istio};
use serde_json::{Value, json};

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
}

fn service() -> Value {
    let spec = json!({"clusterIP": "10.98.0.1", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]});
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": NAMESPACE}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_outlive_the_api_server() {
    let Some(assets) = kube::assets("kube") else { return };
    let mut cluster = KubeCluster::start(&assets, Options::default()).await;
    cluster.install_crds().await;
    let spec = json!({"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}}]}]});
    cluster.apply(&[namespace(), service(), istio("networking", "VirtualService", "web", spec.clone())]).await;
    let stored = cluster.get(NAMESPACE, "virtualservice", "web").await;
    assert_eq!(stored["spec"], spec);
    // Every version is served, as users have all of them in their files.
    let older = cluster.get(NAMESPACE, "virtualservices.v1alpha3.networking.istio.io", "web").await;
    assert_eq!((&older["apiVersion"], &older["spec"]), (&json!("networking.istio.io/v1alpha3"), &spec));

    cluster.stop_api_server().await;
    assert!(cluster.try_kubectl(&["get", "--raw", "/readyz"], "").await.is_err());
    cluster.start_api_server().await;
    assert_eq!(cluster.get(NAMESPACE, "virtualservice", "web").await["metadata"], stored["metadata"]);
    assert_eq!(cluster.get(NAMESPACE, "service", "web").await["spec"]["clusterIP"], json!("10.98.0.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_join_services_with_pods_and_clear_namespaces() {
    let Some(assets) = kube::assets("kube") else { return };
    let cluster = KubeCluster::start(&assets, Options { controllers: true, ..Options::default() }).await;
    cluster.apply(&[namespace(), service()]).await;
    let slices = ["get", "endpointslices", "--namespace", NAMESPACE, "--selector", "kubernetes.io/service-name=web", "--output", "name"];
    let slice = async || {
        let slices = cluster.try_kubectl(&slices, "").await?;
        ensure!(!slices.is_empty(), "none yet");
        Ok(slices)
    };
    assert_eq!(until("an EndpointSlice", slice).await.lines().count(), 1);
    cluster.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s"]).await;
}
