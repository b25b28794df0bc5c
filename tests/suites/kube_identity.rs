//! Identities with a real Kubernetes API: the leader makes a root, every namespace has it, and a token of a service account gives
//! a certificate. All with the rights that Pilotfish ships.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use anyhow::{Context, ensure};
use base64::Engine as _;
use pilotfish_testkit::ads::tls_channel;
use pilotfish_testkit::csr::{Ask, certificate};
use pilotfish_testkit::kube;
use pilotfish_testkit::pilotfish::{self, Options, Pilotfish};
use pilotfish_testkit::tls::TlsClient;
use pilotfish_testkit::{KubeCluster, until};
use pilotfish_tests::NAMESPACE;
use serde_json::json;
use tonic::Code;

const NAME: &str = "istiod.istio-system.svc";

#[tokio::test]
async fn the_leader_makes_a_root_hands_it_out_and_vouches_for_service_accounts() {
    let (Some(binary), Some(assets)) = (pilotfish::binary("kube_identity"), kube::assets("kube_identity")) else { return };
    let cluster = KubeCluster::start(&assets, kube::Options::default()).await;
    cluster.install_crds().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "namespace": NAMESPACE}});
    cluster.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}), account]).await;
    let args = ["--lease-duration", "3s", "--ca-check-interval", "200ms"].map(Into::into);
    let args = [vec!["--kubeconfig".into(), cluster.pilotfish_kubeconfig().into()], args.into()].concat();
    let mut pilotfish = Pilotfish::serve(&binary, Options { args, ..Options::default() }).await;

    let in_namespace = async || {
        let args = ["get", "configmap", "istio-ca-root-cert", "-n", NAMESPACE, "-o", "json"];
        let object: serde_json::Value = serde_json::from_str(&cluster.try_kubectl(&args, "").await?)?;
        Ok::<_, anyhow::Error>(object["data"]["root-cert.pem"].as_str().context("no roots")?.to_owned())
    };
    let roots = pilotfish.until("roots in the namespace", in_namespace).await;
    let secret = cluster.get("istio-system", "secret", "istio-ca-secret").await;
    let root = base64::engine::general_purpose::STANDARD.decode(secret["data"]["root-cert.pem"].as_str().unwrap()).unwrap();
    assert_eq!((secret["type"].as_str(), roots.as_bytes()), (Some("istio.io/ca-root"), root.as_slice()));

    // Somebody deletes it; it comes back.
    cluster.kubectl(&["delete", "configmap", "istio-ca-root-cert", "-n", NAMESPACE]).await;
    assert_eq!(pilotfish.until("roots again", in_namespace).await, roots);

    let token = async |audience: &str| {
        let args = ["create", "token", "web", "-n", NAMESPACE, "--audience", audience];
        cluster.kubectl(&args).await.trim().to_owned()
    };
    let anonymous = TlsClient::new(pilotfish_ca::pem::certificates(&root).unwrap().remove(0));
    let channel = tls_channel(pilotfish.secure(), NAME, &anonymous).await.unwrap();
    let good = token("istio-ca").await;
    let own = certificate(channel.clone(), &Ask { token: Some(&good), ..Ask::default() }).await.unwrap();
    let parsed = pilotfish_ca::chain::parse(&own.der).unwrap();
    let names: Vec<String> = pilotfish_ca::chain::identities(&parsed).iter().map(ToString::to_string).collect();
    assert_eq!(names, [format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/web")]);
    let other = token("somebody-else").await;
    let refused = certificate(channel, &Ask { token: Some(&other), ..Ask::default() }).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    // A second replica signs with the same key.
    let args = [vec!["--kubeconfig".into(), cluster.pilotfish_kubeconfig().into()]].concat();
    let second = Pilotfish::serve(&binary, Options { args, ..Options::default() }).await;
    let shaken = until("the second replica's TLS", async || {
        let channel = tls_channel(second.secure(), NAME, &anonymous).await?;
        ensure!(certificate(channel, &Ask { token: Some(&good), ..Ask::default() }).await?.root == own.root, "another root");
        Ok::<_, anyhow::Error>(())
    });
    shaken.await;
}
