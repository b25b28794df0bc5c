//! A stock Envoy as gateway that terminates TLS: certificates out of Secrets, and from files on disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use pilotfish_testkit::envoy::{self, Protocol};
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::{Backend, Envoy, Pilotfish, get, pilotfish, skip};
use pilotfish_tests::{MeshDir, NAMESPACE, istio, service};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

const HOST: &str = "shop.example";

/// A self-signed certificate of [`HOST`], made for one test.
struct Certificate {
    dir: TempDir,
    common_name: &'static str,
}

impl Certificate {
    /// Debian has `openssl` wherever it has roots to trust (`ca-certificates` needs it).
    async fn make(common_name: &'static str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
        openssl.args(["-subj", &format!("/CN={common_name}"), "-addext", &format!("subjectAltName=DNS:{HOST}")]);
        openssl.current_dir(dir.path()).args(["-keyout", "key.pem", "-out", "cert.pem"]);
        let made = openssl.output().await.ok().filter(|output| output.status.success());
        skip::needed("tls", made, "the openssl program")?;
        Some(Certificate { dir, common_name })
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// A Secret that holds it.
    fn secret(&self, name: &str) -> Value {
        let read = |file: &str| std::fs::read_to_string(self.path(file)).unwrap();
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name, "namespace": NAMESPACE},
            "stringData": {"tls.crt": read("cert.pem"), "tls.key": read("key.pem")}
        })
    }
}

struct Fixture {
    mesh: MeshDir,
    pilotfish: Pilotfish,
    envoy: Envoy,
    http: SocketAddr,
    https: SocketAddr,
    _backend: Backend,
}

impl Fixture {
    /// A gateway whose HTTPS server has these `tls` settings, and whose HTTP server has those; `secrets` exist at the start.
    async fn start(protocol: Protocol, tls: Value, http_tls: Option<Value>, secrets: &[Value]) -> Option<Self> {
        let (pilotfish, envoy) = (pilotfish::binary("tls")?, envoy::binary("tls")?);
        let backend = Backend::start("v1").await;
        let (mesh, http, https) = (MeshDir::default(), free_addr(), free_addr());
        let server = |name: &str, listen: SocketAddr| {
            let port = json!({"number": listen.port(), "name": name, "protocol": name.to_uppercase()});
            json!({"port": port, "bind": listen.ip().to_string(), "hosts": [HOST]})
        };
        let (mut plain, mut secure) = (server("http", http), server("https", https));
        secure["tls"] = tls;
        if let Some(tls) = http_tls {
            plain["tls"] = tls;
        }
        let gateway = istio("networking", "Gateway", "edge", json!({"selector": {"istio": "edge"}, "servers": [plain, secure]}));
        let http_rules = json!([{"route": [{"destination": {"host": "shop"}}]}]);
        let routes = istio("networking", "VirtualService", "shop", json!({"hosts": [HOST], "gateways": ["edge"], "http": http_rules}));
        mesh.write("services.yaml", &service("shop", "http", 80, &[("v1", backend.addr())]));
        mesh.write("routes.yaml", &[gateway, routes]);
        mesh.write("secrets.yaml", secrets);
        let pilotfish = Pilotfish::serve_dir(&pilotfish, mesh.path()).await;
        let node = json!({"id": "edge-1", "cluster": "edge", "metadata": {"NAMESPACE": NAMESPACE}});
        let envoy = Envoy::start(&envoy, envoy::bootstrap(node, pilotfish.grpc(), protocol)).await;
        Some(Fixture { mesh, pilotfish, envoy, http, https, _backend: backend })
    }

    /// Waits until the gateway proves to be [`HOST`] with this certificate, and answers.
    async fn until_served(&mut self, certificate: &Certificate) {
        let (https, roots, name) = (self.https, certificate.path("cert.pem"), certificate.common_name);
        let script = skip::workspace().join("tests/clients/https_get.py");
        let seen = self
            .envoy
            .until(&format!("the certificate {name}"), async |_| {
                let mut python = Command::new("python3");
                python.arg(&script).args([&https.ip().to_string(), &https.port().to_string(), HOST, "/hello"]).arg(&roots);
                let output = python.kill_on_drop(true).output().await.context("python3")?;
                ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                let seen: Value = serde_json::from_slice(&output.stdout)?;
                ensure!(seen["status"] == json!(200), "{seen}");
                Ok(seen)
            })
            .await;
        assert_eq!((&seen["common_name"], &seen["names"]), (&json!(name), &json!([HOST])));
        assert!(seen["body"].as_str().is_some_and(|body| body.contains("\"/hello\"")), "{seen}");
    }

    /// Waits until the gateway is meant to hold so many secrets, as the debug interface shows them.
    async fn until_secrets(&mut self, count: usize) -> Vec<Value> {
        let http = self.pilotfish.http();
        self.pilotfish
            .until(&format!("{count} secrets"), async || {
                let dump = get(http, "localhost", "/debug/config_dump?proxyID=edge-1", &[]).await?.json();
                let part =
                    dump["configs"].as_array().into_iter().flatten().find(|c| c["@type"].as_str().unwrap().ends_with("SecretsConfigDump"));
                let secrets = part.and_then(|part| part["dynamic_active_secrets"].as_array()).cloned().unwrap_or_default();
                ensure!(secrets.len() == count, "{} secrets", secrets.len());
                Ok(secrets)
            })
            .await
    }

    /// How often listeners came, changed or went.
    async fn listener_changes(&self) -> Vec<u64> {
        let stats = self.envoy.stats().await;
        let names = ["listener_added", "listener_modified", "listener_removed", "listener_in_place_updated", "total_listeners_draining"];
        names.iter().map(|name| stats[&format!("listener_manager.{name}")]).collect()
    }
}

fn from_secret() -> Value {
    json!({"mode": "SIMPLE", "credentialName": "web"})
}

async fn a_secret_is_replaced(protocol: Protocol) {
    let (Some(one), Some(two)) = (Certificate::make("one").await, Certificate::make("two").await) else { return };
    let Some(mut f) = Fixture::start(protocol, from_secret(), None, &[one.secret("web")]).await else { return };
    f.until_served(&one).await;
    let before = f.listener_changes().await;

    f.mesh.write("secrets.yaml", &[two.secret("web")]);
    f.until_served(&two).await;
    // What goes away stays at the proxy, and what comes back counts again.
    f.mesh.write("secrets.yaml", &[]);
    f.until_secrets(0).await;
    f.until_served(&two).await;
    f.mesh.write("secrets.yaml", &[one.secret("web")]);
    f.until_served(&one).await;
    assert_eq!(f.listener_changes().await, before, "no listener changes for a certificate");
    assert_eq!(f.envoy.rejected().await, 0);

    let secrets = f.until_secrets(1).await;
    let type_url = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    assert_eq!(secrets[0]["secret"], json!({"@type": type_url, "name": "kubernetes://web"}));
    let log = f.pilotfish.process().log();
    assert!(!log.contains("PRIVATE KEY") && !log.contains("CERTIFICATE"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_secret_is_served_without_a_new_listener_delta() {
    a_secret_is_replaced(Protocol::Delta).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_secret_is_served_without_a_new_listener_sotw() {
    a_secret_is_replaced(Protocol::Sotw).await;
}

async fn a_secret_comes_late(protocol: Protocol) {
    let Some(late) = Certificate::make("late").await else { return };
    let Some(mut f) = Fixture::start(protocol, from_secret(), None, &[]).await else { return };
    // Ready, and the other port serves: nothing waits for the secret for long.
    let http = f.http;
    f.envoy
        .until("an answer over HTTP", async |_| {
            let response = get(http, HOST, "/", &[]).await?;
            ensure!(response.status == 200, "{} {}", response.status, response.body);
            Ok(())
        })
        .await;
    f.mesh.write("secrets.yaml", &[late.secret("web")]);
    f.until_served(&late).await;
    assert_eq!(f.envoy.rejected().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_holds_up_nothing_and_is_served_once_it_comes_delta() {
    a_secret_comes_late(Protocol::Delta).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_holds_up_nothing_and_is_served_once_it_comes_sotw() {
    a_secret_comes_late(Protocol::Sotw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_come_from_files_too_and_http_is_redirected() {
    let Some(on_disk) = Certificate::make("on-disk").await else { return };
    let tls = json!({"mode": "SIMPLE", "serverCertificate": on_disk.path("cert.pem"), "privateKey": on_disk.path("key.pem")});
    let redirect = json!({"httpsRedirect": true});
    let Some(mut f) = Fixture::start(Protocol::Delta, tls, Some(redirect), &[]).await else { return };
    f.until_served(&on_disk).await;
    let response = get(f.http, HOST, "/a?b=c", &[]).await.unwrap();
    let location = response.headers.get("location").map(String::as_str);
    assert_eq!((response.status, location), (301, Some("https://shop.example/a?b=c")));
    assert_eq!(f.envoy.rejected().await, 0);
}
