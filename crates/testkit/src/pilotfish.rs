//! The real `pilotfish` binary.

use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use serde_json::Value;
use tokio::process::Command;

use crate::http::{Response, get};
use crate::process::{Process, free_addr};
use crate::skip;

/// A running `pilotfish serve`. Dropping it kills it; its log is shown if the test fails.
pub struct Pilotfish {
    process: Process,
    http: SocketAddr,
    grpc: SocketAddr,
    secure: SocketAddr,
    monitoring: SocketAddr,
}

/// What to serve.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Files or directories with objects.
    pub config: Vec<PathBuf>,
    /// File with the MeshConfig.
    pub mesh_config: Option<PathBuf>,
    /// Where ADS listens, if not on a free port of loopback.
    pub grpc: Option<SocketAddr>,
    /// Where ADS over TLS listens, if not on a free port of loopback.
    pub secure: Option<SocketAddr>,
    /// Further arguments.
    pub args: Vec<OsString>,
}

/// The binary to test: `PILOTFISH_BIN`, or the newer of the workspace's release and dev builds. Without any, says that
/// `suite` is skipped (see [`skip`]).
pub fn binary(suite: &str) -> Option<PathBuf> {
    let found = env::var_os("PILOTFISH_BIN").map(PathBuf::from).or_else(built).filter(|path| path.is_file());
    skip::needed(suite, found, "the pilotfish binary (`cargo build -p pilotfish`, or PILOTFISH_BIN)")
}

fn built() -> Option<PathBuf> {
    let candidates = ["release", "debug"].map(|profile| skip::target().join(profile).join("pilotfish"));
    candidates.into_iter().filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).max().map(|(_, path)| path)
}

impl Pilotfish {
    /// Serves on free loopback ports and waits for `/ready`.
    pub async fn serve(binary: &Path, options: Options) -> Self {
        let mut pilotfish = Self::start(binary, options);
        let http = pilotfish.http;
        let ready = async || {
            let response = get(http, "localhost", "/ready", &[]).await?;
            ensure!(response.status == 200, "/ready answers {} {}", response.status, response.body);
            Ok(())
        };
        pilotfish.process.until("ready", ready).await;
        pilotfish
    }

    /// The same without waiting.
    pub fn start(binary: &Path, options: Options) -> Self {
        let (http, grpc, secure, monitoring) =
            (free_addr(), options.grpc.unwrap_or_else(free_addr), options.secure.unwrap_or_else(free_addr), free_addr());
        let mut command = Command::new(binary);
        command.arg("serve");
        for path in &options.config {
            command.arg("--config-dir").arg(path);
        }
        if let Some(path) = &options.mesh_config {
            command.arg("--mesh-config").arg(path);
        }
        let ports = [("--http-addr", http), ("--grpc-addr", grpc), ("--secure-grpc-addr", secure), ("--monitoring-addr", monitoring)];
        for (flag, addr) in ports {
            command.arg(flag).arg(addr.to_string());
        }
        command.args(&options.args);
        let process = Process::start("pilotfish", tempfile::tempdir().unwrap(), command);
        Pilotfish { process, http, grpc, secure, monitoring }
    }

    /// Serves one file or directory, everything else at its default.
    pub async fn serve_dir(binary: &Path, config: &Path) -> Self {
        Self::serve(binary, Options { config: vec![config.to_owned()], ..Default::default() }).await
    }

    /// `/ready` and `/debug`.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// ADS in clear text.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc
    }

    /// ADS and the certificate authority over TLS, where there is one.
    pub fn secure(&self) -> SocketAddr {
        self.secure
    }

    /// `/metrics`.
    pub fn monitoring(&self) -> SocketAddr {
        self.monitoring
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks the HTTP address.
    pub async fn get(&self, path: &str) -> Response {
        get(self.http, "localhost", path, &[]).await.unwrap()
    }

    /// A page of `/debug` as JSON: `debug("syncz")`.
    pub async fn debug(&self, page: &str) -> Value {
        let response = self.get(&format!("/debug/{page}")).await;
        assert_eq!(response.status, 200, "/debug/{page}: {}", response.body);
        response.json()
    }

    /// `/metrics` as text.
    pub async fn metrics(&self) -> String {
        get(self.monitoring, "localhost", "/metrics", &[]).await.unwrap().body
    }

    /// A figure of `/metrics`, by name and label.
    pub async fn figure(&self, series: &str) -> f64 {
        let page = self.metrics().await;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in {page}")).trim().parse().unwrap()
    }

    /// Waits until something that is asked of it is so. Fails at once, with the log, if it ends.
    pub async fn until<T>(&mut self, what: &str, ask: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
        self.process.until(what, ask).await
    }
}

/// Runs the binary to its end, such as `run(&binary, &["version"])`.
pub async fn run(binary: &Path, args: &[&str]) -> std::process::Output {
    Command::new(binary).args(args).kill_on_drop(true).output().await.unwrap_or_else(|e| panic!("{}: {e}", binary.display()))
}
