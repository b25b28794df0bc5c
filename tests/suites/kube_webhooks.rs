//! Both webhooks behind a real API server, with the charts that real Helm renders: Pods that kubectl creates come back with
//! their sidecar, or without where they should not have one, and bad objects are refused with a reason.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use anyhow::ensure;
use pilotfish_testkit::helm::{Helm, helm};
use pilotfish_testkit::kube::{self, Assets};
use pilotfish_testkit::pilotfish::{self, Options, Pilotfish};
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::{KubeCluster, get, until};
use serde_json::{Value, json};

/// A cluster with the charts applied, and the control plane as the service account that the chart makes.
struct Installed {
    cluster: KubeCluster,
    pilotfish: Pilotfish,
    _dir: tempfile::TempDir,
}

async fn install(assets: &Assets, helm: &Helm, binary: &Path, values: &[&str]) -> Installed {
    let cluster = KubeCluster::start(assets, kube::Options::default()).await;
    let https = free_addr();
    let validation = format!("base.validationURL=https://{https}/validate");
    let injection = format!("istiodRemote.injectionURL=https://{https}/inject");
    let base = helm.render("base", "base", &["--set", &validation]).await;
    let (crds, rest): (Vec<_>, Vec<_>) = base.into_iter().partition(|d| d["kind"] == "CustomResourceDefinition");
    cluster.install(&crds).await;
    cluster.apply(&rest).await;
    let control_plane = helm.render("istiod", "pilotfish", &[&["--set", &injection], values].concat()).await;
    cluster.apply(&control_plane).await;
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = account(&cluster, dir.path()).await;
    let args = [
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "--https-addr",
        &https.to_string(),
        "--webhook-host",
        "127.0.0.1",
        "--revision",
        "default",
    ];
    let pilotfish = Pilotfish::serve(binary, Options { args: args.map(Into::into).into(), ..Options::default() }).await;
    Installed { cluster, pilotfish, _dir: dir }
}

/// A kubeconfig of the chart's service account.
async fn account(cluster: &KubeCluster, dir: &Path) -> PathBuf {
    let token = cluster.kubectl(&["create", "token", "istiod", "--namespace", "istio-system"]).await;
    let administrators = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let mut config: Value = serde_json::from_str(&administrators).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let path = dir.join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn pod(namespace: &str, name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
        // Its API server has no controllers that would make the account.
        "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "example.com/app", "ports": [{"containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/healthy", "port": 8080}}}]}})
}

impl Installed {
    async fn until_ready(&mut self) {
        let cluster = &self.cluster;
        let patched = async || {
            for (kind, name) in
                [("mutatingwebhookconfiguration", "istio-sidecar-injector"), ("validatingwebhookconfiguration", "istiod-default-validator")]
            {
                let object = cluster.get("default", kind, name).await;
                for entry in object["webhooks"].as_array().unwrap() {
                    ensure!(entry["clientConfig"]["caBundle"].is_string(), "{name} has no bundle");
                    ensure!(entry["failurePolicy"] == "Fail", "{name} does not fail closed");
                }
            }
            Ok(())
        };
        self.pilotfish.until("webhook configurations patched", patched).await;
        // Injection needs its ConfigMap, which is looked for now and then.
        let probe = pod("injected", "probe", &json!({}));
        let injecting = async || {
            let answer = cluster.try_kubectl(&["create", "--dry-run=server", "--output=json", "-f", "-"], &probe.to_string()).await?;
            ensure!(sidecars(&serde_json::from_str(&answer)?) == 1, "not injected yet");
            Ok(())
        };
        until("injection", injecting).await;
    }

    /// The Pod as the API server has it after kubectl created it.
    async fn create(&self, pod: &Value) -> Value {
        let text = self.cluster.try_kubectl(&["create", "--output=json", "-f", "-"], &pod.to_string()).await;
        serde_json::from_str(&text.unwrap_or_else(|e| panic!("{e:#}"))).unwrap()
    }
}

fn sidecars(pod: &Value) -> usize {
    let of = |list: &str| pod["spec"][list].as_array().into_iter().flatten().filter(|c| c["name"] == "istio-proxy").count();
    of("containers") + of("initContainers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_and_objects_meet_the_webhooks() {
    let Some(assets) = kube::assets("webhooks") else { return };
    let Some(helm) = helm("webhooks") else { return };
    let Some(binary) = pilotfish::binary("webhooks") else { return };
    let mut all = install(&assets, &helm, &binary, &["--set", "revisionTags={prod}"]).await;
    all.cluster
        .apply(&[
            namespace("injected", &json!({"istio-injection": "enabled"})),
            namespace("plain", &json!({})),
            namespace("tagged", &json!({"istio.io/rev": "prod"})),
            namespace("other", &json!({"istio.io/rev": "canary"})),
        ])
        .await;
    all.until_ready().await;

    let injected = all.create(&pod("injected", "app", &json!({}))).await;
    assert_eq!(sidecars(&injected), 1, "{injected:#}");
    let probe = &injected["spec"]["containers"][0]["readinessProbe"]["httpGet"];
    assert_eq!((&probe["path"], &probe["port"]), (&json!("/app-health/app/readyz"), &json!(15020)));
    assert_eq!(injected["metadata"]["labels"]["security.istio.io/tlsMode"], "istio");
    for (namespace, labels, wanted) in [
        ("injected", json!({"sidecar.istio.io/inject": "false"}), 0),
        ("plain", json!({}), 0),
        ("plain", json!({"sidecar.istio.io/inject": "true"}), 1),
        ("tagged", json!({}), 1),
        ("other", json!({}), 0),
        // As the control plane's own Pods are labelled.
        ("istio-system", json!({"app": "istiod", "istio": "pilot", "sidecar.istio.io/inject": "false"}), 0),
    ] {
        let name = format!("case-{wanted}-{}", labels.as_object().unwrap().len());
        let created = all.create(&pod(namespace, &name, &labels)).await;
        assert_eq!(sidecars(&created), wanted, "{namespace} {labels}");
    }
    let mut bad = pod("injected", "bad", &json!({}));
    bad["metadata"]["annotations"] = json!({"traffic.sidecar.istio.io/includeInboundPorts": "many"});
    let refused = all.cluster.try_kubectl(&["create", "-f", "-"], &bad.to_string()).await.unwrap_err().to_string();
    assert!(refused.contains("traffic.sidecar.istio.io/includeInboundPorts: \"many\" is not a port"), "{refused}");

    let service = |spec: Value| {
        json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "routes", "namespace": "plain"}, "spec": spec})
    };
    let invalid = service(json!({"hosts": ["a.example.com"], "http": [{"timeout": "1ns"}]}));
    let refused = all.cluster.try_kubectl(&["apply", "-f", "-"], &invalid.to_string()).await.unwrap_err().to_string();
    for part in ["denied the request", "spec.http[0]: HTTP route, redirect or direct_response is required"] {
        assert!(refused.contains(part), "{refused}");
    }
    let valid = service(json!({"hosts": ["a.example.com"], "http": [{"route": [{"destination": {"host": "b.example.com"}}]}]}));
    all.cluster.try_kubectl(&["apply", "-f", "-"], &valid.to_string()).await.unwrap();

    let metrics = get(all.pilotfish.monitoring(), "localhost", "/metrics", &[]).await.unwrap().body;
    for name in ["sidecar_injection_success_total", "galley_validation_failed{", "galley_validation_config_updates"] {
        assert!(metrics.contains(name), "{metrics}");
    }
    assert!(metrics.contains("sidecar_injection_failure_total 1"), "{metrics}");
}
