//! gRPC's own xDS client (Python) resolves a service and calls it: no Envoy between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::process::Stdio;

use pilotfish_testkit::skip;
use pilotfish_testkit::{Pilotfish, pilotfish};
use pilotfish_tests::{MeshDir, istio, service, subsets};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

fn python() -> Option<std::path::PathBuf> {
    let python = skip::workspace().join(".venv/bin/python");
    skip::needed("grpc_client", python.is_file().then_some(python), "the virtual environment (`cargo xtask setup`)")
}

/// Starts a backend that answers with `name`; its address.
async fn backend(python: &std::path::Path, name: &str) -> (Child, std::net::SocketAddr) {
    let script = skip::workspace().join("tests/clients/grpc_echo_server.py");
    let mut child = Command::new(python).arg(script).args([name, "127.0.0.1:0"]).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(std::time::Duration::from_secs(30), lines.next_line()).await.expect("the backend starts in time");
    let port: u16 = line.unwrap().unwrap().strip_prefix("ready ").unwrap().parse().unwrap();
    (child, ([127, 0, 0, 1], port).into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxyless_client_follows_the_mesh() {
    let (Some(python), Some(pilotfish)) = (python(), pilotfish::binary("grpc_client")) else { return };
    let ((_one, v1), (_two, v2)) = (backend(&python, "v1").await, backend(&python, "v2").await);
    let mesh = MeshDir::default();
    // Another service on the same port is in the same routes, by names of its own.
    let services = [service("echo", "grpc", 7070, &[("v1", v1), ("v2", v2)]), service("other", "grpc", 7070, &[("v1", v1)])];
    mesh.write("services.yaml", &services.concat());
    let to = |subset: &str| json!([{"route": [{"destination": {"host": "echo", "subset": subset}}]}]);
    let rule = |subset: &str| istio("networking", "VirtualService", "echo", json!({"hosts": ["echo"], "http": to(subset)}));
    mesh.write("routes.yaml", &[subsets("echo"), rule("v2")]);
    let pilotfish = Pilotfish::serve_dir(&pilotfish, mesh.path()).await;

    let bootstrap = tempfile::NamedTempFile::new().unwrap();
    let node = json!({
        "id": "sidecar~127.0.0.1~client.shop~shop.svc.cluster.local",
        "metadata": {"GENERATOR": "grpc", "NAMESPACE": "shop", "CLUSTER_ID": "Kubernetes"}
    });
    let server =
        json!({"server_uri": pilotfish.grpc().to_string(), "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]});
    std::fs::write(bootstrap.path(), json!({"xds_servers": [server], "node": node}).to_string()).unwrap();
    let client = Command::new(&python)
        .arg(skip::workspace().join("tests/clients/grpc_xds_client.py"))
        .args(["echo.shop.svc.cluster.local:7070", "10"])
        .env("GRPC_XDS_BOOTSTRAP", bootstrap.path())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(std::time::Duration::from_secs(60), client).await.expect("the client ends in time").unwrap();
    let answers = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(answers.lines().collect::<Vec<_>>(), ["v2"; 10]);
}
