//! Identities with a real Kubernetes API: the leader makes a root, every namespace has it, and a token of a service account gives
//! a certificate. All with the rights that Pilotfish ships.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use base64::Engine as _;
use pilotfish_ca::root::{Key, Options as RootOptions, generate};
use pilotfish_testkit::ads::tls_channel;
use pilotfish_testkit::csr::{Ask, certificate};
use pilotfish_testkit::kube;
use pilotfish_testkit::pilotfish::{self, Options, Pilotfish};
use pilotfish_testkit::tls::{CertificateDer, TlsClient};
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

/// A root as somebody plugs it in, with a list of what it has revoked.
fn plug_in(dir: &Path, revoked: Option<u64>) -> CertificateDer<'static> {
    let now = SystemTime::now();
    let files = generate("cluster.local", &RootOptions { key: Key::P256, ..RootOptions::default() }, now).unwrap();
    for (name, file) in &files {
        std::fs::write(dir.join(name), file).unwrap();
    }
    let crl = dir.join("ca-crl.pem");
    let _ = std::fs::remove_file(&crl);
    let certificate = pilotfish_ca::pem::certificates(&files["ca-cert.pem"]).unwrap().remove(0);
    if let Some(serial) = revoked {
        let key = rcgen::KeyPair::from_pem(std::str::from_utf8(&files["ca-key.pem"]).unwrap()).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_der(&certificate, key).unwrap();
        let entry = rcgen::RevokedCertParams {
            serial_number: serial.into(),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = rcgen::CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(86_400)).into(),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![entry],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        std::fs::write(crl, list.signed_by(&issuer).unwrap().pem().unwrap()).unwrap();
    }
    certificate
}

#[tokio::test]
async fn a_folder_that_was_exchanged_while_nobody_looked_signs_when_everybody_has_its_root() {
    let (Some(binary), Some(assets)) = (pilotfish::binary("kube_identity"), kube::assets("kube_identity")) else { return };
    let cluster = KubeCluster::start(&assets, kube::Options::default()).await;
    cluster.install_crds().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "web", "namespace": NAMESPACE}});
    cluster.apply(&[json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}), account]).await;
    let args = ["create", "token", "web", "-n", NAMESPACE, "--audience", "istio-ca"];
    let token = cluster.kubectl(&args).await.trim().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let start = async || {
        let times =
            [("--ca-check-interval", "200ms"), ("--root-mount-time", "4s"), ("--max-workload-cert-ttl", "6s"), ("--lease-duration", "3s")];
        let mut args: Vec<std::ffi::OsString> = times.iter().flat_map(|(flag, value)| [(*flag).into(), (*value).into()]).collect();
        args.extend(["--kubeconfig".into(), cluster.pilotfish_kubeconfig().into(), "--ca-dir".into(), folder.path().into()]);
        Pilotfish::serve(&binary, Options { args, ..Options::default() }).await
    };
    let handed_out = async |name: &str, key: &str| {
        let args = ["get", "configmap", name, "-n", NAMESPACE, "-o", "json"];
        let object: serde_json::Value = serde_json::from_str(&cluster.try_kubectl(&args, "").await?)?;
        Ok::<_, anyhow::Error>(object["data"][key].as_str().context("no such key")?.to_owned())
    };
    let roots = async |expected: &[&CertificateDer<'static>]| {
        let bundle = handed_out("istio-ca-root-cert", "root-cert.pem").await?;
        let got = pilotfish_ca::pem::certificates(bundle.as_bytes())?;
        ensure!(got.len() == expected.len() && expected.iter().all(|root| got.contains(root)), "{} roots", got.len());
        Ok::<_, anyhow::Error>(())
    };
    // What an agent that trusts this root gets.
    let asked = async |addr: SocketAddr, root: &CertificateDer<'static>| {
        let channel = tls_channel(addr, NAME, &TlsClient::new(root.clone())).await?;
        let own = certificate(channel, &Ask { token: Some(&token), ..Ask::default() }).await?;
        pilotfish_ca::chain::verify(&own.der, &[], std::slice::from_ref(root), SystemTime::now())?;
        Ok::<_, anyhow::Error>(())
    };

    let old = plug_in(folder.path(), Some(7));
    let mut pilotfish = start().await;
    let addr = pilotfish.secure();
    pilotfish.until("the first root", async || roots(&[&old]).await).await;
    pilotfish.until("a certificate", async || asked(addr, &old).await).await;
    let list = std::fs::read_to_string(folder.path().join("ca-crl.pem")).unwrap();
    let lists = async |expected: &str| {
        let got = handed_out("istio-ca-crl", "ca-crl.pem").await?;
        ensure!(got == expected, "{got:?}");
        Ok::<_, anyhow::Error>(())
    };
    pilotfish.until("the revocation list", async || lists(&list).await).await;

    // Another root is put into the folder while no process is there.
    pilotfish.process().terminate().await;
    let new = plug_in(folder.path(), None);
    let mut pilotfish = start().await;
    let addr = pilotfish.secure();
    pilotfish.until("both roots", async || roots(&[&old, &new]).await).await;
    let refused = asked(addr, &new).await.unwrap_err();
    let refused = refused.downcast_ref::<tonic::Status>().map(|s| (s.code(), s.message().to_owned()));
    assert_eq!(refused, Some((Code::Internal, "CSR signing error (signing failed)".to_owned())));
    let began = Instant::now();
    pilotfish.until("a certificate of the new one", async || asked(addr, &new).await).await;
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}: nobody can have mounted it so soon", began.elapsed());
    pilotfish.until("no revocation list", async || lists("").await).await;

    // The next process knows that everybody has it, and when the old one may go.
    pilotfish.process().terminate().await;
    let mut pilotfish = start().await;
    let addr = pilotfish.secure();
    pilotfish.until("TLS", async || asked(addr, &new).await).await;
    assert!(!pilotfish.process().log().contains("another root than the mesh"));
    pilotfish.until("the old one is gone", async || roots(&[&new]).await).await;
}
