//! A real Kubernetes API on loopback: etcd and kube-apiserver, and the controller-manager where a test needs it.
//!
//! Enter at [`KubeCluster::start`]. [`assets`] finds the programs, `servers` knows their arguments, `crds` what to install.

mod assets;
mod crds;
mod proxy;
mod servers;
mod writer;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::http;
use crate::process::{Process, free_addr};
pub use assets::{Assets, assets};
pub use crds::{istio_crds, schemaless_crds};
pub use proxy::ApiProxy;
use servers::Servers;
pub use writer::Writer;

/// A running API server with an etcd of its own, as its administrator. Dropping it kills both.
pub struct KubeCluster {
    servers: Servers,
    kubectl: PathBuf,
    // Last: what it holds is in use until the servers are gone.
    dir: TempDir,
}

/// What runs beside the API server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The controller-manager: for EndpointSlices of Services, the end of namespaces and garbage collection.
    pub controllers: bool,
    /// Where the API server listens, if not on a free port of loopback.
    pub addr: Option<SocketAddr>,
}

impl KubeCluster {
    /// Starts on free loopback ports and waits until the API server is ready.
    pub async fn start(assets: &Assets, options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let servers = Servers::start(assets, dir.path(), options).await;
        let cluster = KubeCluster { servers, kubectl: assets.program("kubectl"), dir };
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system}\n---\n";
        let rights = format!("{namespace}{}", include_str!("../../../controller/manifests/rbac.yaml"));
        cluster.try_kubectl(&["apply", "--server-side", "-f", "-"], &rights).await.unwrap_or_else(|error| panic!("{error:#}"));
        cluster
    }

    /// A kubeconfig of a Pilotfish in the namespace `istio-system`, with the rights that it ships and no others.
    pub fn pilotfish_kubeconfig(&self) -> PathBuf {
        servers::pilotfish_kubeconfig(self.dir.path())
    }

    /// A kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        servers::kubeconfig(self.dir.path())
    }

    /// Where the API server listens, with TLS.
    pub fn addr(&self) -> SocketAddr {
        self.servers.addr()
    }

    /// Runs `kubectl`; its output. Panics with its complaint if it fails.
    pub async fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args, "").await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Runs `kubectl` with this standard input.
    pub async fn try_kubectl(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        kubectl(&self.kubectl, &self.kubeconfig(), args, input).await
    }

    /// `kubectl` for tasks of their own.
    pub fn commands(&self) -> Kubectl {
        Kubectl { program: self.kubectl.clone(), kubeconfig: self.kubeconfig() }
    }

    /// The API over plain HTTP, for a test with more questions than a `kubectl` each would be quick for. Ends when dropped.
    pub async fn proxy(&self) -> (Process, SocketAddr) {
        let addr = free_addr();
        let mut command = Command::new(&self.kubectl);
        command.arg("proxy").arg("--kubeconfig").arg(self.kubeconfig());
        command.args([format!("--address={}", addr.ip()), format!("--port={}", addr.port())]);
        let mut proxy = Process::start("kubectl-proxy", tempfile::tempdir().unwrap(), command);
        proxy.until("an answer", async || http::get(addr, "localhost", "/readyz", &[]).await).await;
        (proxy, addr)
    }

    /// Applies objects, on the server's side.
    pub async fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let applied = self.try_kubectl(&["apply", "--server-side", "-f", "-"], &list).await;
        applied.unwrap_or_else(|error| panic!("{error:#}"));
    }

    /// One object as the API server has it.
    pub async fn get(&self, namespace: &str, kind: &str, name: &str) -> Value {
        let text = self.kubectl(&["get", kind, name, "--namespace", namespace, "--output", "json"]).await;
        serde_json::from_str(&text).unwrap()
    }

    /// Installs all of Istio's kinds and waits until they are served.
    pub async fn install_crds(&self) {
        self.install(&istio_crds()).await;
    }

    /// Installs CustomResourceDefinitions and waits until they are served.
    pub async fn install(&self, crds: &[Value]) {
        self.apply(crds).await;
        let names = crds.iter().map(|crd| format!("crd/{}", crd["metadata"]["name"].as_str().unwrap())).collect::<Vec<_>>();
        let mut wait = vec!["wait", "--for=condition=Established", "--timeout=60s"];
        wait.extend(names.iter().map(String::as_str));
        self.kubectl(&wait).await;
    }

    /// Where one of the ready Pods behind a Service serves one of its ports.
    pub async fn endpoint(&self, namespace: &str, service: &str, port: &str) -> anyhow::Result<SocketAddr> {
        let selector = format!("--selector=kubernetes.io/service-name={service}");
        let text = self.try_kubectl(&["get", "endpointslices", "--namespace", namespace, &selector, "--output=json"], "").await?;
        let slices: Value = serde_json::from_str(&text)?;
        let found = slices["items"].as_array().into_iter().flatten().find_map(|slice| {
            let number = slice["ports"].as_array()?.iter().find(|p| p["name"] == port)?["port"].as_u64()?;
            let ready = slice["endpoints"].as_array()?.iter().find(|e| e["conditions"]["ready"] == true)?;
            Some(SocketAddr::new(ready["addresses"][0].as_str()?.parse().ok()?, u16::try_from(number).ok()?))
        });
        found.with_context(|| format!("no endpoint of {service} in {namespace} for {port}"))
    }

    /// A client of the administrator: for what is done too often for a program each time.
    pub async fn client(&self) -> kube::Client {
        client(&self.kubeconfig()).await
    }

    /// The same with Pilotfish's rights.
    pub(crate) async fn pilotfish_client(&self) -> kube::Client {
        client(&self.pilotfish_kubeconfig()).await
    }

    /// Somebody who changes things many times a second.
    pub async fn writer(&self) -> Writer {
        Writer(self.client().await)
    }

    /// Makes etcd forget all versions but the newest.
    pub async fn compact(&self) {
        let ask = async |path: &str, body: Value| {
            let answer = http::post_json(self.servers.etcd_addr(), path, &body).await.unwrap();
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
            answer.json()
        };
        // Its gateway writes 64-bit numbers as texts.
        let newest = ask("/v3/kv/range", json!({"key": "AA=="})).await["header"]["revision"].as_str().unwrap().to_owned();
        ask("/v3/kv/compaction", json!({"revision": newest, "physical": true})).await;
    }

    /// Ends the API server without warning, as a crash does. Its etcd keeps what was stored.
    pub async fn stop_api_server(&mut self) {
        self.servers.stop_api().await;
    }

    /// Starts the API server again, at the same address, and waits until it is ready.
    pub async fn start_api_server(&mut self) {
        self.servers.start_api().await;
    }
}

/// The real `kubectl` as the administrator, while the cluster is there.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// Runs it with this standard input.
    pub async fn run(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        kubectl(&self.program, &self.kubeconfig, args, input).await
    }
}

async fn kubectl(program: &Path, kubeconfig: &Path, args: &[&str], input: &str) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(args).arg("--kubeconfig").arg(kubeconfig);
    // Its cache of what the server offers belongs to this server.
    command.env("HOME", kubeconfig.parent().unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().unwrap();
    let write = async move {
        // One that fails early does not read it; its complaint is what counts.
        let _ = stdin.write_all(input.as_bytes()).await;
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    let output = output?;
    anyhow::ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8(output.stdout)?)
}

async fn client(kubeconfig: &Path) -> kube::Client {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    config.default_retry = false;
    config.read_timeout = None;
    kube::Client::try_from(config).unwrap()
}
