//! How long a Pod waits for its sidecar while the translator has all hands full: 100 Pods a second ask over HTTPS, at fixed times,
//! and 10,000 services are translated again and again for proxies of several namespaces.
//!
//! `cargo test -p pilotfish-tests --release --test admission -- --nocapture` shows the figures of docs/measurements.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use pilotfish_envoy::TypeUrl;
use pilotfish_testkit::ads::{Delta, sidecar};
use pilotfish_testkit::pilotfish::{self, Options, Pilotfish};
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::tls::TlsClient;
use pilotfish_testkit::{Authority, skip};
use pilotfish_tests::MeshDir;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

const SERVICES: usize = 10_000;
const NAMESPACES: usize = 100;
/// Namespaces with a proxy: each is a scope with a translation of its own, one after the other without a break.
const PROXIES: usize = 1;
const PODS: usize = 2_000;
const PER_SECOND: u32 = 100;
/// What a Pod may wait in 99 of 100 cases where the program is built to be fast and the machine is its own.
const BOUND: Duration = Duration::from_millis(10);
/// What it may wait on a machine with company: far less than the second and more that a translation takes.
const LOOSE: Duration = Duration::from_millis(100);

fn mesh() -> MeshDir {
    let mesh = MeshDir::default();
    for ns in 0..NAMESPACES {
        let service = |i: usize| {
            let (name, namespace) = (format!("s{i}"), format!("ns{ns}"));
            let ports = json!([{"name": "http", "port": 80}, {"name": "tcp", "port": 9000}]);
            [
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
                    "spec": {"clusterIP": format!("10.{}.{}.7", 100 + ns, i), "ports": ports}}),
                json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
                    "addressType": "IPv4", "ports": ports,
                    "endpoints": [{"addresses": [format!("10.{}.{}.8", 100 + ns, i)], "conditions": {"ready": true}}]}),
            ]
        };
        let objects: Vec<Value> = (0..SERVICES / NAMESPACES).flat_map(service).collect();
        mesh.write(&format!("ns{ns}.yaml"), &objects);
    }
    mesh
}

fn review(n: usize) -> String {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-", "namespace": "ns1", "labels": {"app": "app"}},
        "spec": {"containers": [{"name": "app", "image": "example.com/app", "ports": [{"containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/healthy", "port": 8080}}}]}});
    let request =
        json!({"uid": n.to_string(), "operation": "CREATE", "kind": {"version": "v1", "kind": "Pod"}, "namespace": "ns1", "object": pod});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string()
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connections that rest, as an API server keeps them.
#[derive(Clone)]
struct Client {
    addr: SocketAddr,
    root: Arc<Authority>,
    idle: Arc<Mutex<Vec<Box<dyn Stream>>>>,
}

impl Client {
    async fn inject(&self, n: usize) -> Value {
        let resting = self.idle.lock().unwrap().pop();
        let mut stream = match resting {
            Some(stream) => stream,
            None => Box::new(TlsClient::new(self.root.root()).alpn(&["http/1.1"]).connect(self.addr, "webhooks.example").await.unwrap().0),
        };
        let body = review(n);
        let head =
            format!("POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut answer, mut part) = (Vec::new(), vec![0; 16384]);
        let (head, length) = loop {
            let n = stream.read(&mut part).await.unwrap();
            assert!(n > 0, "{}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&part[..n]);
            let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
            let text = String::from_utf8_lossy(&answer[..end]).to_lowercase();
            let length = text.split("content-length: ").nth(1).and_then(|t| t.lines().next()?.parse::<usize>().ok()).unwrap();
            break (end + 4, length);
        };
        while answer.len() < head + length {
            let n = stream.read(&mut part).await.unwrap();
            assert!(n > 0);
            answer.extend_from_slice(&part[..n]);
        }
        self.idle.lock().unwrap().push(stream);
        serde_json::from_slice(&answer[head..]).unwrap()
    }

    /// [`Client::pods`] in a thread of their own: what the proxies of this test do should not count.
    async fn apart(self, count: usize) -> Vec<Duration> {
        let (done, took) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let client = Client { idle: Arc::default(), ..self };
            let _ = done.send(runtime.block_on(client.pods(count)));
        });
        took.await.expect("all Pods are answered")
    }

    /// Waiting times, from when a Pod was due to be created to its answer.
    async fn pods(&self, count: usize) -> Vec<Duration> {
        let start = Instant::now();
        let all = (0..count).map(|n| {
            let client = self.clone();
            tokio::spawn(async move {
                let due = start + Duration::from_secs(1) / PER_SECOND * u32::try_from(n).unwrap();
                sleep_until(due).await;
                let answer = client.inject(n).await;
                let took = due.elapsed();
                let patch = answer["response"]["patch"].as_str().unwrap_or_else(|| panic!("{answer}"));
                let patch = base64::engine::general_purpose::STANDARD.decode(patch).unwrap();
                assert_eq!(answer["response"]["uid"], n.to_string());
                assert!(String::from_utf8(patch).unwrap().contains("istio-proxy"));
                took
            })
        });
        let mut took = Vec::new();
        for task in all.collect::<Vec<_>>() {
            took.push(task.await.unwrap());
        }
        took.sort();
        took
    }
}

fn percentile(sorted: &[Duration], p: usize) -> Duration {
    sorted[(sorted.len() * p / 100).min(sorted.len() - 1)]
}

fn is_release(binary: &Path) -> bool {
    binary.components().any(|c| c.as_os_str() == "release")
}

#[tokio::test]
async fn pods_do_not_wait_for_translations() {
    let Some(binary) = pilotfish::binary("admission") else { return };
    // One that is not optimized cannot keep up with so many Pods beside such a translation.
    let Some(()) = skip::needed("admission", is_release(&binary).then_some(()), "a release build of pilotfish") else { return };
    let mesh = mesh();
    let dir = tempfile::tempdir().unwrap();
    let (injection, settings) = (dir.path().join("inject"), dir.path().join("mesh.yaml"));
    std::fs::create_dir(&injection).unwrap();
    std::fs::write(injection.join("config"), "policy: enabled\n").unwrap();
    std::fs::write(injection.join("values"), "{}").unwrap();
    std::fs::write(&settings, "connectTimeout: 10s\n").unwrap();
    let authority = Arc::new(Authority::new("webhooks"));
    let identity = authority.issue("webhooks", &["webhooks.example"]);
    let https = free_addr();
    let args = [
        ("--https-addr", https.to_string()),
        ("--tls-cert-file", identity.chain().display().to_string()),
        ("--tls-key-file", identity.key().display().to_string()),
        ("--injection-dir", injection.display().to_string()),
    ];
    let args = args.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]).collect();
    let options = Options { config: vec![mesh.path().into()], mesh_config: Some(settings.clone()), args, ..Options::default() };
    let server = Pilotfish::serve(&binary, options).await;
    let client = Client { addr: https, root: authority, idle: Arc::default() };
    client.clone().apart(200).await;
    let at_rest = client.clone().apart(PODS / 4).await;

    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    for ns in 0..PROXIES {
        let (url, heard) = (format!("http://{}", server.grpc()), heard.clone());
        tokio::spawn(async move {
            // No more than makes the server work: the machine that proxies are on is another one, elsewhere.
            let mut proxy = Delta::connect(&url, sidecar(&format!("ns{ns}"))).await;
            proxy.subscribe(TypeUrl::Cluster, &["*"]).await;
            loop {
                let response = proxy.receive_patiently().await;
                proxy.ack(&response).await;
                let _ = heard.send(response.resources.len());
            }
        });
    }
    // What a setting of the mesh changes is every cluster of every proxy: it is changed again when all have it.
    let (began, translated) = (Instant::now(), Arc::<Mutex<Vec<Duration>>>::default());
    let times = translated.clone();
    let translating = tokio::spawn(async move {
        let mut everything = async || {
            let mut all = 0;
            while all < PROXIES * 2 * SERVICES {
                all += hears.recv().await.unwrap();
            }
        };
        everything().await;
        for n in 1.. {
            let began = Instant::now();
            let aside = settings.with_extension("tmp");
            std::fs::write(&aside, format!("connectTimeout: {}s\n", 10 + n)).unwrap();
            std::fs::rename(&aside, &settings).unwrap();
            everything().await;
            times.lock().unwrap().push(began.elapsed());
        }
    });
    let busy = client.clone().apart(PODS).await;
    let span = began.elapsed();
    translating.abort();
    let times = translated.lock().unwrap().clone();
    for (name, took) in [("at rest", &at_rest), ("while translating", &busy)] {
        let [p50, p99, max] = [50, 99, 100].map(|p| percentile(took, p));
        println!("admission, {name}: {} Pods, p50 {p50:?}, p99 {p99:?}, max {max:?}", took.len());
    }
    println!("translations of {SERVICES} services for {PROXIES} namespaces: {} in {span:?}: {times:?}", times.len());
    assert!(times.len() >= 2, "nothing was translated meanwhile");
    let bound = if std::env::var_os("ADMISSION_QUIET").is_some() { BOUND } else { LOOSE };
    assert!(percentile(&busy, 99) < bound, "p99 is {:?}", percentile(&busy, 99));
}
