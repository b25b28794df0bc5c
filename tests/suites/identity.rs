//! The whole way of an agent: a token, a certificate, ADS over TLS with it, and what stays closed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use pilotfish_ca::root::{Key, Options as RootOptions, generate};
use pilotfish_envoy::TypeUrl;
use pilotfish_testkit::ads::{Delta, said, sidecar, tls_channel};
use pilotfish_testkit::csr::{Ask, certificate};
use pilotfish_testkit::tls::TlsClient;
use pilotfish_testkit::token::{Issuer, service_account};
use pilotfish_testkit::{Identity, Pilotfish, pilotfish, until};
use pilotfish_tests::{MeshDir, answering, service};
use serde_json::json;
use tonic::Code;
use tonic::transport::Channel;

const NAME: &str = "istiod.istio-system.svc";
const ISSUER: &str = "https://issuer";

/// A certificate authority as a mounted Secret has it. Files are replaced one by one; what is half is not taken.
fn write_root(dir: &Path) {
    let files = generate("cluster.local", &RootOptions { key: Key::P256, ..RootOptions::default() }, SystemTime::now()).unwrap();
    for (name, file) in files {
        fs::write(dir.join(name), file).unwrap();
    }
}

fn root(dir: &Path) -> Identity {
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let key = rcgen::KeyPair::from_pem(&read("ca-key.pem")).unwrap();
    Identity::of(&read("ca-cert.pem"), &read("root-cert.pem"), &key)
}

#[tokio::test]
async fn an_agent_gets_its_certificate_and_with_it_its_own_configuration_only() {
    let Some(binary) = pilotfish::binary("identity") else { return };
    let (mesh, keys, issuer) = (MeshDir::default(), tempfile::tempdir().unwrap(), Issuer::new("k"));
    mesh.write("services.yaml", &service("web", "http", 80, &[]));
    write_root(keys.path());
    let rule = json!({"issuer": ISSUER, "audiences": ["istio-ca"], "jwks": json!({"keys": [issuer.jwk()]}).to_string()});
    let args = ["--ca-dir", keys.path().to_str().unwrap(), "--jwt-rule", &rule.to_string(), "--ca-check-interval", "100ms"];
    let args = args.into_iter().map(Into::into).collect();
    let mut pilotfish =
        Pilotfish::serve(&binary, pilotfish::Options { config: vec![mesh.path().into()], args, ..Default::default() }).await;
    let (addr, old) = (pilotfish.secure(), root(keys.path()));

    let anonymous = TlsClient::new(old.der.clone());
    let channel = pilotfish.until("TLS with the new certificate", async || tls_channel(addr, NAME, &anonymous).await).await;
    let token = issuer.sign(&service_account(ISSUER, "istio-ca", "shop", "web"));
    let forged = Issuer::new("k").sign(&service_account(ISSUER, "istio-ca", "shop", "web"));
    for bad in [None, Some(forged.as_str()), Some("x")] {
        let refused = certificate(channel.clone(), &Ask { token: bad, ..Ask::default() }).await.map(|_| ()).unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "request authenticate failure"));
    }
    let ask = Ask { token: Some(&token), seconds: 3600, name: "spiffe://cluster.local/ns/kube-system/sa/admin", impersonated: None };
    let own = certificate(channel.clone(), &ask).await.unwrap();
    let parsed = pilotfish_ca::chain::parse(&own.der).unwrap();
    let names: Vec<String> = pilotfish_ca::chain::identities(&parsed).iter().map(ToString::to_string).collect();
    assert_eq!(names, ["spiffe://cluster.local/ns/shop/sa/web"]);
    assert_eq!(own.root, old.der);

    // By its certificate it is of shop, and of nothing else, on every type. Without one it is nobody.
    let mutual = tls_channel(addr, NAME, &TlsClient::new(old.der.clone()).certificate(&own)).await.unwrap();
    let mut stream = Delta::on_as(mutual.clone(), sidecar("shop"), None).await.unwrap();
    stream.subscribe(TypeUrl::Cluster, &["*"]).await;
    let clusters = stream.take().await;
    assert!(said(&clusters).1.contains(&"outbound|80||web.shop.svc.cluster.local"), "{:?}", said(&clusters));
    for (channel, namespace, expected) in [(&mutual, "bank", Code::PermissionDenied), (&channel, "shop", Code::Unauthenticated)] {
        for type_url in TypeUrl::ALL {
            let mut stream = Delta::on_as(channel.clone(), sidecar(namespace), None).await.unwrap();
            stream.subscribe(type_url, &["*"]).await;
            assert_eq!(stream.receive().await.unwrap_err().code(), expected, "{type_url:?} of {namespace}");
        }
    }
    assert_eq!(pilotfish.figure("citadel_server_success_cert_issuance_count").await, 1.0);
    let broken = pilotfish_testkit::csr::sign(channel.clone(), &ask, "no request".into()).await.unwrap_err();
    assert_eq!((broken.code(), broken.message()), (Code::InvalidArgument, "CSR signing error (not a PEM encoded request)"));
    let endless = pilotfish_testkit::csr::sign(channel.clone(), &Ask { seconds: 1 << 40, ..ask.clone() }, csr()).await.unwrap_err();
    assert_eq!(endless.code(), Code::InvalidArgument);
    let figures = [("CA_NOT_READY", 0.0), ("CSR_ERROR", 1.0), ("TTL_ERROR", 1.0), ("CERT_GEN_ERROR", 0.0), ("UNKNOWN", 0.0)];
    for (error, expected) in figures {
        assert_eq!(pilotfish.figure(&format!("citadel_server_csr_sign_err_count{{error=\"{error}\"}}")).await, expected, "{error}");
    }

    // Another root is plugged in: everybody trusts it before anything is signed by it.
    write_root(keys.path());
    let new = root(keys.path());
    let trusted = until("the new root is handed out", async || {
        let chain = pilotfish_testkit::csr::sign(channel.clone(), &ask, csr()).await?;
        let roots = chain.last().unwrap().matches("BEGIN CERTIFICATE").count();
        if roots == 2 { Ok(chain) } else { Err(tonic::Status::unknown("one root")) }
    });
    let trusted = trusted.await;
    let leaf = pilotfish_ca::pem::certificates(trusted[0].as_bytes()).unwrap().remove(0);
    pilotfish_ca::chain::verify(&leaf, &[], std::slice::from_ref(&old.der), SystemTime::now()).unwrap();
    assert!(pilotfish_ca::chain::verify(&leaf, &[], std::slice::from_ref(&new.der), SystemTime::now()).is_err());
    // Connections of before go on.
    stream.subscribe(TypeUrl::Listener, &["*"]).await;
    stream.take().await;
}

/// What a published set of keys is answered with; `None`: the issuer is down.
type Published = Arc<Mutex<Option<String>>>;

/// Pilotfish with a root, that believes tokens of an issuer whose keys are at this URL; and a connection to it.
async fn with_issuer(url: &str, more: &[&str]) -> Option<(Pilotfish, Channel, MeshDir, tempfile::TempDir)> {
    let binary = pilotfish::binary("identity")?;
    let (mesh, keys) = (MeshDir::default(), tempfile::tempdir().unwrap());
    mesh.write("services.yaml", &service("web", "http", 80, &[]));
    write_root(keys.path());
    let rule = json!({"issuer": ISSUER, "audiences": ["istio-ca"], "jwksUri": url}).to_string();
    let args = [&["--ca-dir", keys.path().to_str().unwrap(), "--jwt-rule", &rule, "--ca-check-interval", "100ms"][..], more].concat();
    let args = args.into_iter().map(Into::into).collect();
    let options = pilotfish::Options { config: vec![mesh.path().into()], args, ..Default::default() };
    let mut pilotfish = Pilotfish::serve(&binary, options).await;
    let (addr, client) = (pilotfish.secure(), TlsClient::new(root(keys.path()).der.clone()));
    let channel = pilotfish.until("TLS", async || tls_channel(addr, NAME, &client).await).await;
    Some((pilotfish, channel, mesh, keys))
}

async fn asked(channel: &Channel, token: &str) -> Code {
    certificate(channel.clone(), &Ask { token: Some(token), ..Ask::default() }).await.map_or_else(|refused| refused.code(), |_| Code::Ok)
}

#[tokio::test]
async fn keys_of_an_issuer_are_fetched_and_without_them_nobody_is_believed() {
    let (issuer, published) = (Issuer::new("k"), Published::default());
    let answers = published.clone();
    let at = answering(move |_| match answers.lock().unwrap().clone() {
        Some(keys) => (200, "", keys),
        None => (503, "", String::new()),
    })
    .await;
    let Some((mut pilotfish, channel, ..)) = with_issuer(&format!("http://{at}/keys"), &["--jwks-allow", "127.0.0.0/8"]).await else {
        return;
    };
    let claims = service_account(ISSUER, "istio-ca", "shop", "web");
    let (good, forged) = (issuer.sign(&claims), Issuer::new("k").sign(&claims));
    let unsigned = issuer.sign_with(&json!({"alg": "none", "kid": "k"}), &claims);
    // The issuer is down: whose token is good cannot be told, and nobody gets anything.
    for token in [&good, &forged, &unsigned] {
        assert!(matches!(asked(&channel, token).await, Code::Unavailable | Code::Unauthenticated));
    }
    *published.lock().unwrap() = Some(json!({"keys": [issuer.jwk()]}).to_string());
    let is = async |token: &str, code: Code| match asked(&channel, token).await {
        got if got == code => Ok(()),
        got => anyhow::bail!("{got}"),
    };
    pilotfish.until("a certificate", async || is(&good, Code::Ok).await).await;
    for token in [&forged, &unsigned] {
        assert_eq!(asked(&channel, token).await, Code::Unauthenticated);
    }
    // It is down again: what was known stays, and proves no more than before.
    *published.lock().unwrap() = None;
    let another = issuer.sign(&service_account(ISSUER, "istio-ca", "shop", "another"));
    assert_eq!([asked(&channel, &another).await, asked(&channel, &forged).await], [Code::Ok, Code::Unauthenticated]);
    assert_eq!(pilotfish.figure("citadel_server_success_cert_issuance_count").await, 2.0);
}

#[tokio::test]
async fn keys_are_fetched_from_nowhere_that_is_forbidden() {
    let (issuer, asked_for) = (Issuer::new("k"), Arc::new(AtomicUsize::new(0)));
    let (keys, count) = (json!({"keys": [issuer.jwk()]}).to_string(), asked_for.clone());
    let inside = answering(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        (200, "", keys.clone())
    })
    .await;
    let token = issuer.sign(&service_account(ISSUER, "istio-ca", "shop", "web"));
    let port = inside.port();
    for url in [
        format!("http://{inside}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        "file:///etc/passwd".into(),
    ] {
        let Some((mut pilotfish, channel, ..)) = with_issuer(&url, &[]).await else { return };
        let log = |p: &mut Pilotfish| p.process().log();
        until("that it was tried", async || if log(&mut pilotfish).contains("could not be fetched") { Ok(()) } else { Err("not yet") })
            .await;
        assert_eq!(asked(&channel, &token).await, Code::Unavailable, "{url}");
    }
    assert_eq!(asked_for.load(Ordering::SeqCst), 0);
}

fn csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}
