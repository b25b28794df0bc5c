//! The servers of a cluster and their arguments.
//!
//! All state is in the cluster's folder: certificates, tokens and the kubeconfig survive a restart of the API server.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::{Assets, Options, kubectl};
use crate::process::{Process, free_addr};

/// A ready API server takes 3 s on an idle machine, and much longer on one that compiles beside it.
const DEADLINE: Duration = Duration::from_secs(120);

/// The administrator's. It opens a server that only this machine reaches, for as long as a test runs.
const TOKEN: &str = "pilotfish-test-admin";
/// That of the service account with the rights of Pilotfish.
const PILOTFISH_TOKEN: &str = "pilotfish-test-pilotfish";

/// Dual stack, with room for the addresses that tests choose.
const SERVICE_ADDRESSES: &str = "10.96.0.0/12,fd00:10:96::/112";

pub(super) struct Servers {
    assets: Assets,
    dir: PathBuf,
    addr: SocketAddr,
    etcd_addr: SocketAddr,
    options: Options,
    // In the order in which they must end.
    controllers: Option<Process>,
    api: Option<Process>,
    _etcd: Process,
}

pub(super) fn kubeconfig(dir: &Path) -> PathBuf {
    dir.join("kubeconfig")
}

pub(super) fn pilotfish_kubeconfig(dir: &Path) -> PathBuf {
    dir.join("pilotfish-kubeconfig")
}

impl Servers {
    pub(super) async fn start(assets: &Assets, dir: &Path, options: Options) -> Self {
        let (addr, etcd_addr) = (options.addr.unwrap_or_else(free_addr), free_addr());
        let etcd = start_etcd(assets, etcd_addr).await;
        let service_accounts = Command::new("openssl")
            .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"])
            .arg(dir.join("service-accounts.key"))
            .output();
        let made = service_accounts.await.expect("openssl makes the key of service accounts");
        assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        let account = "system:serviceaccount:istio-system:pilotfish";
        let tokens = format!("{TOKEN},admin,admin,system:masters\n{PILOTFISH_TOKEN},{account},pilotfish\n");
        fs::write(dir.join("tokens.csv"), tokens).unwrap();
        fs::write(kubeconfig(dir), config(addr, dir, TOKEN).to_string()).unwrap();
        fs::write(pilotfish_kubeconfig(dir), config(addr, dir, PILOTFISH_TOKEN).to_string()).unwrap();
        let (assets, dir) = (assets.clone(), dir.to_owned());
        let mut servers = Servers { assets, dir, addr, etcd_addr, options, controllers: None, api: None, _etcd: etcd };
        servers.start_api().await;
        if options.controllers {
            servers.start_controllers().await;
        }
        servers
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn etcd_addr(&self) -> SocketAddr {
        self.etcd_addr
    }

    pub(super) async fn stop_api(&mut self) {
        self.api.take().expect("the API server runs").kill().await;
    }

    pub(super) async fn start_api(&mut self) {
        assert!(self.api.is_none(), "the API server runs already");
        let path = |name: &str| self.dir.join(name).display().to_string();
        let mut command = Command::new(self.assets.program("kube-apiserver"));
        command.args([
            format!("--etcd-servers=http://{}", self.etcd_addr),
            format!("--bind-address={}", self.addr.ip()),
            format!("--advertise-address={}", self.addr.ip()),
            format!("--secure-port={}", self.addr.port()),
            // It makes a certificate of its own there, which the kubeconfig trusts.
            format!("--cert-dir={}", path("certs")),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", path("service-accounts.key")),
            format!("--service-account-signing-key-file={}", path("service-accounts.key")),
            format!("--service-cluster-ip-range={SERVICE_ADDRESSES}"),
            // Otherwise its own address is an endpoint of a Service in every mesh.
            "--endpoint-reconciler-type=none".to_owned(),
            // Nobody routes addresses of Services here: webhooks are called where their Pods are.
            "--enable-aggregator-routing=true".to_owned(),
            "--allow-privileged=true".to_owned(),
        ]);
        if !self.options.controllers {
            // Nobody makes the service accounts that it would insist on.
            command.arg("--disable-admission-plugins=ServiceAccount");
        }
        let mut api = start("kube-apiserver", command);
        let (program, config, addr) = (self.assets.program("kubectl"), kubeconfig(&self.dir), self.addr);
        let ready = async || {
            // Far cheaper than a kubectl for every look.
            TcpStream::connect(addr).await?;
            kubectl(&program, &config, &["get", "--raw", "/readyz"], "").await
        };
        api.until_within(DEADLINE, "ready", ready).await;
        self.api = Some(api);
    }

    async fn start_controllers(&mut self) {
        let addr = free_addr();
        let mut command = Command::new(self.assets.program("kube-controller-manager"));
        command.arg("--kubeconfig").arg(kubeconfig(&self.dir));
        command.arg("--service-account-private-key-file").arg(self.dir.join("service-accounts.key"));
        command.arg("--root-ca-file").arg(self.dir.join("certs/apiserver.crt"));
        command.arg("--cert-dir").arg(self.dir.join("certs"));
        command.args([&format!("--bind-address={}", addr.ip()), &format!("--secure-port={}", addr.port())]);
        command.args(["--leader-elect=false", "--use-service-account-credentials=true"]);
        // Pods of tests have no node; without this they are taken for lost.
        command.arg("--controllers=*,-node-lifecycle-controller,-pod-garbage-collector-controller");
        let mut controllers = start("kube-controller-manager", command);
        let (program, config) = (self.assets.program("kubectl"), kubeconfig(&self.dir));
        let at_work = async || kubectl(&program, &config, &["get", "serviceaccount", "default", "--namespace", "default"], "").await;
        controllers.until_within(DEADLINE, "at work", at_work).await;
        self.controllers = Some(controllers);
    }
}

async fn start_etcd(assets: &Assets, addr: SocketAddr) -> Process {
    let (client, peer) = (format!("http://{addr}"), format!("http://{}", free_addr()));
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(assets.program("etcd"));
    command.arg("--data-dir").arg(dir.path().join("data"));
    command.args(["--name", "test", "--initial-cluster", &format!("test={peer}")]);
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    // What a test stores need not survive the machine.
    command.args(["--unsafe-no-fsync", "--log-level", "warn", "--quota-backend-bytes", "8589934592"]);
    let mut etcd = start_in("etcd", dir, command);
    etcd.until_within(DEADLINE, "an open port", async || Ok(TcpStream::connect(addr).await.map(drop)?)).await;
    etcd
}

fn start(name: &str, command: Command) -> Process {
    start_in(name, tempfile::tempdir().unwrap(), command)
}

fn start_in(name: &str, dir: tempfile::TempDir, mut command: Command) -> Process {
    // Our own build of them ends when its input does, so that nothing stays behind if this process is killed.
    command.stdin(Stdio::piped()).env("END_WITH_STDIN", "1");
    Process::start_with_input(name, dir, command)
}

/// JSON is YAML.
fn config(addr: SocketAddr, dir: &Path, token: &str) -> serde_json::Value {
    let cluster = json!({"server": format!("https://{addr}"), "certificate-authority": dir.join("certs/apiserver.crt")});
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
    })
}
