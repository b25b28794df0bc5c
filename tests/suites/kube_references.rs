//! What Pilotfish reads of a real Kubernetes API because something refers to it: Secrets by name, its own ConfigMaps, and
//! namespaces that are part of the mesh. With the rights that it ships, or fewer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use anyhow::ensure;
use pilotfish_envoy::TypeUrl;
use pilotfish_testkit::ads::{Delta, sidecar};
use pilotfish_testkit::kube::{self, Assets};
use pilotfish_testkit::pilotfish::{self, Options, Pilotfish};
use pilotfish_testkit::{KubeCluster, get};
use pilotfish_tests::{NAMESPACE, istio};
use serde_json::{Value, json};

async fn cluster(assets: &Assets) -> KubeCluster {
    let cluster = KubeCluster::start(assets, kube::Options::default()).await;
    cluster.install_crds().await;
    cluster.apply(&[namespace(NAMESPACE, json!({})), namespace("other", json!({}))]).await;
    cluster
}

fn namespace(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

async fn follow(binary: &Path, cluster: &KubeCluster, args: &[&str]) -> Pilotfish {
    let mut all = vec!["--kubeconfig".into(), cluster.pilotfish_kubeconfig().into()];
    all.extend(args.iter().map(Into::into));
    Pilotfish::serve(binary, Options { args: all, ..Options::default() }).await
}

fn tls(name: &str, credential: &str) -> Value {
    let port = json!({"number": 443, "name": "https", "protocol": "HTTPS"});
    let server = json!({"port": port, "hosts": ["shop.example"], "tls": {"mode": "SIMPLE", "credentialName": credential}});
    istio("networking", "Gateway", name, json!({"selector": {"istio": "edge"}, "servers": [server]}))
}

/// A certificate and its key, with a remark before the certificate as PEM allows it.
fn secret(namespace: &str, name: &str, remark: &str) -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["web.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let data = json!({"tls.crt": format!("{remark}\n{}", certificate.pem()), "tls.key": key.serialize_pem()});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": data})
}

/// The certificate of the only secret that comes.
async fn certificate(client: &mut Delta) -> String {
    let response = client.take().await;
    assert_eq!(response.resources.len(), 1);
    // Enough to tell them apart.
    String::from_utf8_lossy(&response.resources[0].resource.as_ref().unwrap().value).into_owned()
}

/// Takes away all rights to Secrets but those of these names.
async fn narrow(cluster: &KubeCluster, names: &[&str]) {
    let text = cluster.kubectl(&["get", "clusterrole", "pilotfish-istio-system", "--output", "json"]).await;
    let mut role: Value = serde_json::from_str(&text).unwrap();
    let rules = role["rules"].as_array_mut().unwrap();
    let rule = rules.iter_mut().find(|r| r["resources"] == json!(["secrets"])).unwrap();
    rule["resourceNames"] = json!(names);
    cluster.try_kubectl(&["replace", "-f", "-"], &role.to_string()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_secrets_that_are_referred_to_are_read() {
    let (Some(assets), Some(binary)) = (kube::assets("kube_references"), pilotfish::binary("kube_references")) else { return };
    let cluster = cluster(&assets).await;
    // Whoever asked for more than these would be refused, and would wait.
    narrow(&cluster, &["web", "web-cacert"]).await;
    let foreign = (0..50).map(|i| secret("other", &format!("sh.helm.release.v1.x.v{i}"), "release"));
    cluster.apply(&foreign.chain([tls("edge", "web"), secret("other", "web", "not this one")]).collect::<Vec<_>>()).await;
    let live = follow(&binary, &cluster, &[]).await;

    let mut client = Delta::connect(&format!("http://{}", live.grpc()), sidecar(NAMESPACE)).await;
    client.subscribe(TypeUrl::Secret, &["kubernetes://web"]).await;
    // It comes late, and is renewed.
    for text in ["first", "second"] {
        cluster.apply(&[secret(NAMESPACE, "web", text)]).await;
        let found = certificate(&mut client).await;
        assert!(found.contains(text) && !found.contains("not this one"), "{found}");
    }
    // With all rights, another one is found as soon as it is referred to.
    cluster.apply(&[secret(NAMESPACE, "late", "late")]).await;
    let text = include_str!("../../controller/manifests/rbac.yaml");
    cluster.try_kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], text).await.unwrap();
    let role: Value =
        serde_json::from_str(&cluster.kubectl(&["get", "clusterrole", "pilotfish-istio-system", "--output", "json"]).await).unwrap();
    let rule = role["rules"].as_array().unwrap().iter().find(|r| r["resources"] == json!(["secrets"])).unwrap();
    assert!(rule.get("resourceNames").is_none(), "{rule}");
    cluster.apply(&[tls("late", "late")]).await;
    client.subscribe(TypeUrl::Secret, &["kubernetes://late"]).await;
    assert!(certificate(&mut client).await.contains("late"));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_out_of_config_maps_and_hold_at_once() {
    let (Some(assets), Some(binary)) = (kube::assets("kube_references"), pilotfish::binary("kube_references")) else { return };
    let cluster = cluster(&assets).await;
    let settings = |text: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": text, "meshNetworks": "networks: {}"},
        })
    };
    let service = |namespace: &str| {
        let spec = json!({"ports": [{"name": "http", "port": 80}]});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": namespace}, "spec": spec})
    };
    cluster.apply(&[service(NAMESPACE), service("other"), settings("discoverySelectors: [{matchLabels: {mesh: one}}]")]).await;
    cluster.apply(&[namespace(NAMESPACE, json!({"mesh": "one"})), namespace("other", json!({"mesh": "two"}))]).await;
    let mut live = follow(&binary, &cluster, &[]).await;
    let http = live.http();
    let mut serves = async |expected: &[&str]| {
        live.until(&format!("services of {expected:?}"), async || {
            let services = get(http, "localhost", "/debug/registryz", &[]).await?.json();
            let of = |s: &Value| s["Attributes"]["Namespace"].as_str().unwrap().to_owned();
            let found: Vec<_> = services.as_array().unwrap().iter().map(of).collect();
            ensure!(found == expected, "{found:?}");
            Ok(())
        })
        .await;
    };
    serves(&[NAMESPACE]).await;
    cluster.apply(&[namespace("other", json!({"mesh": "one"}))]).await;
    serves(&["other", NAMESPACE]).await;
    cluster.apply(&[settings("discoverySelectors: [{matchExpressions: [{key: mesh, operator: NotIn, values: [one]}]}]")]).await;
    serves(&["default"]).await;
    // A broken one changes nothing and is reported; the next good one counts.
    cluster.apply(&[settings("discoverySelectors: no")]).await;
    live.until("the complaint", async || {
        let said = get(http, "localhost", "/debug/diagnosticz", &[]).await?.body;
        ensure!(said.contains("data.mesh") && said.contains("discoverySelectors"), "{said}");
        Ok(())
    })
    .await;
    let services = live.debug("registryz").await;
    assert_eq!(services.as_array().unwrap().len(), 1, "{services:#}");
    cluster.apply(&[settings("discoverySelectors: [{matchLabels: {mesh: one}}]")]).await;
    live.until("the good one", async || {
        let services = get(http, "localhost", "/debug/registryz", &[]).await?.json();
        ensure!(services.as_array().unwrap().len() == 2, "{services:#}");
        Ok(())
    })
    .await;
}
