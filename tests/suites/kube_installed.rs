//! The charts installed by the real Helm, and the control plane run exactly as its rendered Deployment says: image, arguments,
//! environment, volumes, tokens, rights, probes. A small kubelet of the test kit reads them from the API server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use anyhow::{Context, ensure};
use pilotfish_envoy::TypeUrl;
use pilotfish_testkit::ads::{Delta, sidecar, tls_channel};
use pilotfish_testkit::csr::{Ask, certificate};
use pilotfish_testkit::tls::TlsClient;
use pilotfish_testkit::until;
use pilotfish_tests::installed::{IMAGE, Installed, SYSTEM, namespace, pod, programs, sidecars};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn helm_installs_what_runs_and_serves() {
    let Some(programs) = programs("kube_installed") else { return };
    Installed::run(programs, installed).await;
}

async fn installed(all: Installed) {
    all.cluster.apply(&[namespace("shop", &json!({"istio-injection": "enabled"}))]).await;
    all.upgrade("base", "base", &[]).await;
    all.upgrade("istiod", "pilotfish", &[IMAGE]).await;

    // A workload with what its Pod would have: the mesh's roots, a token of its account. And no more.
    let roots = until("the mesh's roots in the namespace", async || {
        let map = all.cluster.try_kubectl(&["get", "configmap", "istio-ca-root-cert", "--namespace=shop", "--output=json"], "").await?;
        let map: serde_json::Value = serde_json::from_str(&map)?;
        Ok::<_, anyhow::Error>(map["data"]["root-cert.pem"].as_str().context("no roots")?.to_owned())
    })
    .await;
    let root = pilotfish_ca::pem::certificates(roots.as_bytes()).unwrap().remove(0);
    let token = all.cluster.kubectl(&["create", "token", "default", "--namespace=shop", "--audience=istio-ca"]).await;
    let addr = all.cluster.endpoint(SYSTEM, "istiod", "https-dns").await.unwrap();
    let channel = tls_channel(addr, "istiod.istio-system.svc", &TlsClient::new(root)).await.unwrap();
    let own = certificate(channel.clone(), &Ask { token: Some(token.trim()), ..Ask::default() }).await.unwrap();
    let parsed = pilotfish_ca::chain::parse(&own.der).unwrap();
    let names: Vec<String> = pilotfish_ca::chain::identities(&parsed).iter().map(ToString::to_string).collect();
    assert_eq!(names, ["spiffe://cluster.local/ns/shop/sa/default"]);
    let mut ads = Delta::on_as(channel.clone(), sidecar("shop"), Some(token.trim())).await.unwrap();
    ads.subscribe(TypeUrl::Cluster, &[]).await;
    let clusters = ads.next().await;
    // The Service of the chart itself is one of them.
    let wanted = "outbound|15012||istiod.istio-system.svc.cluster.local";
    assert!(clusters.resources.iter().any(|r| r.name == wanted), "{:?}", clusters.resources.iter().map(|r| &r.name).collect::<Vec<_>>());

    // Both webhooks, through their Services.
    until("injection", async || {
        let injected = all.create(&pod("shop", "app")).await?;
        ensure!(sidecars(&injected) == 1, "{injected:#}");
        Ok(())
    })
    .await;
    let invalid = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "bad", "namespace": "shop"},
        "spec": {"hosts": ["a.example.com"], "http": [{"timeout": "1ns"}]}});
    until("both configurations fail closed", async || {
        let text = all.cluster.try_kubectl(&["get", "validatingwebhookconfigurations", "--output=json"], "").await?;
        let list: serde_json::Value = serde_json::from_str(&text)?;
        let open: Vec<_> = list["items"].as_array().unwrap().iter().filter(|o| o["webhooks"][0]["failurePolicy"] != "Fail").collect();
        ensure!(open.is_empty() && list["items"].as_array().unwrap().len() == 2, "{open:?}");
        Ok(())
    })
    .await;
    let refused = all.cluster.try_kubectl(&["apply", "-f", "-"], &invalid.to_string()).await.unwrap_err().to_string();
    assert!(refused.contains("spec.http[0]: HTTP route, redirect or direct_response is required"), "{refused}");

    let seen = all.kubelet.seen();
    assert_eq!((seen.crashes, seen.logs.len()), (Vec::<String>::new(), 1));
    let log = seen.logs.values().next().unwrap();
    // Rights that the chart forgets show here, even where the process can do without.
    for word in ["forbidden", "ERROR", "WARN"] {
        assert!(!log.contains(word), "{log}");
    }
}
