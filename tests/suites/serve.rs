//! The program as a person meets it: how it starts, refuses to start, and ends; what broken files do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::TcpListener;
use std::path::Path;

use anyhow::ensure;
use pilotfish_testkit::envoy::{self, Protocol};
use pilotfish_testkit::pilotfish::{self, Options, run};
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::{Envoy, Pilotfish, get};
use pilotfish_tests::{MeshDir, istio, service};
use serde_json::json;

/// Runs `serve` that must not start; its one line of complaint.
async fn refused(binary: &Path, args: &[&str]) -> String {
    let free: Vec<String> = (0..3).map(|_| free_addr().to_string()).collect();
    let mut all = vec!["serve", "--http-addr", &free[0], "--grpc-addr", &free[1], "--monitoring-addr", &free[2]];
    all.retain(|a| !args.contains(a) || !a.starts_with("--"));
    let defaults: Vec<&str> = all[1..].chunks(2).filter(|pair| pair[0].starts_with("--") && pair.len() == 2).flatten().copied().collect();
    let line: Vec<&str> = ["serve"].into_iter().chain(defaults).chain(args.iter().copied()).collect();
    let output = run(binary, &line).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let complaint: Vec<&str> = text.lines().filter(|l| l.starts_with("pilotfish: ")).collect();
    assert_eq!(complaint.len(), 1, "one clear line is expected:\n{text}");
    complaint[0].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_ends_the_start_with_one_line() {
    let Some(binary) = pilotfish::binary("serve") else { return };
    let mesh = MeshDir::default();
    let dir = mesh.path().to_str().unwrap();

    let missing = refused(&binary, &["--config-dir", "/nonexistent/mesh"]).await;
    assert!(missing.contains("/nonexistent/mesh"), "{missing}");

    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), "rootNamespace: a\nconnectTimeout: soon\n").unwrap();
    let bad = refused(&binary, &["--config-dir", dir, "--mesh-config", config.path().to_str().unwrap()]).await;
    assert!(bad.contains("connectTimeout") && bad.contains("soon"), "{bad}");

    std::fs::write(config.path(), "rootNamespce: a\n").unwrap();
    let unknown = refused(&binary, &["--config-dir", dir, "--mesh-config", config.path().to_str().unwrap()]).await;
    assert!(unknown.contains("rootNamespce"), "{unknown}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let busy = refused(&binary, &["--config-dir", dir, "--http-addr", &addr]).await;
    assert!(busy.contains(&addr), "{busy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_the_last_good_objects() {
    let Some(binary) = pilotfish::binary("serve") else { return };
    let mesh = MeshDir::default();
    let addr = "127.0.0.1:9".parse().unwrap();
    mesh.write("a.yaml", &service("one", "http", 80, &[("v1", addr)]));
    let mut server = Pilotfish::serve_dir(&binary, mesh.path()).await;
    let http = server.http();
    let hosts = async || -> anyhow::Result<Vec<String>> {
        let services = get(http, "localhost", "/debug/registryz", &[]).await?.json();
        Ok(services.as_array().into_iter().flatten().filter_map(|s| s["hostname"].as_str().map(str::to_owned)).collect())
    };
    assert_eq!(hosts().await.unwrap(), ["one.shop.svc.cluster.local"]);

    std::fs::write(mesh.path().join("a.yaml"), "apiVersion: v1\nkind: Service\nmetadata: {name: one\n").unwrap();
    mesh.write("b.yaml", &service("two", "http", 80, &[("v1", "127.0.0.2:9".parse().unwrap())]));
    server
        .until("the second service", async || {
            let hosts = hosts().await?;
            ensure!(hosts == ["one.shop.svc.cluster.local", "two.shop.svc.cluster.local"], "{hosts:?}");
            Ok(())
        })
        .await;
    let log = server.process().log();
    assert!(log.contains("a.yaml"), "the log names the file:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains() {
    let (Some(binary), Some(envoy)) = (pilotfish::binary("serve"), envoy::binary("serve")) else { return };
    let mesh = MeshDir::default();
    mesh.write("a.yaml", &[istio("networking", "Gateway", "g", json!({"selector": {"istio": "edge"}, "servers": []}))]);
    let mut server = Pilotfish::serve(&binary, Options { config: vec![mesh.path().into()], ..Default::default() }).await;
    let node = json!({"id": "edge-1", "cluster": "edge"});
    let _envoy = Envoy::start(&envoy, envoy::bootstrap(node, server.grpc(), Protocol::Delta)).await;
    assert_eq!(server.process().terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstrap_connects_a_stock_envoy() {
    let (Some(binary), Some(envoy)) = (pilotfish::binary("serve"), envoy::binary("serve")) else { return };
    let mesh = MeshDir::default();
    let backend = pilotfish_testkit::Backend::start("b").await;
    let listen = free_addr();
    let server = json!({"port": {"number": listen.port(), "name": "http", "protocol": "HTTP"}, "bind": "127.0.0.1", "hosts": ["*"]});
    let mut objects = service("web", "http", 80, &[("v1", backend.addr())]);
    objects.push(istio("networking", "Gateway", "g", json!({"selector": {"istio": "ingressgateway"}, "servers": [server]})));
    let route = json!({"hosts": ["*"], "gateways": ["g"], "http": [{"route": [{"destination": {"host": "web"}}]}]});
    objects.push(istio("networking", "VirtualService", "v", route));
    mesh.write("a.yaml", &objects);
    let server = Pilotfish::serve_dir(&binary, mesh.path()).await;
    let output = run(&binary, &["bootstrap", "--xds-addr", &server.grpc().to_string()]).await;
    assert!(output.status.success());
    let mut envoy = Envoy::start(&envoy, serde_json::from_slice(&output.stdout).unwrap()).await;
    envoy
        .until("the backend answers", async |_| {
            let response = get(listen, "any", "/", &[]).await?;
            ensure!(response.status == 200, "{}", response.status);
            Ok(())
        })
        .await;
}
