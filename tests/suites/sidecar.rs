//! A stock Envoy as sidecar, over both protocols: outbound through its HTTP proxy listener, inbound on a bound port.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use anyhow::ensure;
use pilotfish_testkit::envoy::{self, Protocol};
use pilotfish_testkit::pilotfish::{self, Options};
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::{Backend, Envoy, Pilotfish, get};
use pilotfish_tests::{MeshDir, istio, service, split, subsets, within_99};
use serde_json::{Value, json};

async fn start(protocol: Protocol) -> Option<(Envoy, Pilotfish, std::net::SocketAddr, Backend, Backend, MeshDir)> {
    let (pilotfish, envoy) = (pilotfish::binary("sidecar")?, envoy::binary("sidecar")?);
    let (v1, v2) = (Backend::start("v1").await, Backend::start("v2").await);
    let (mesh, proxy) = (MeshDir::default(), free_addr());
    mesh.write("services.yaml", &service("shop", "http", 80, &[("v1", v1.addr()), ("v2", v2.addr())]));
    let rule = istio(
        "networking",
        "VirtualService",
        "shop",
        json!({"hosts": ["shop"], "http": [
            {"match": [{"headers": {"user": {"exact": "ada"}}}], "route": [{"destination": {"host": "shop", "subset": "v2"}}]},
            split("shop", 90, 10)
        ]}),
    );
    mesh.write("routes.yaml", &[subsets("shop"), rule]);
    let config = tempfile::NamedTempFile::new().ok()?;
    std::fs::write(config.path(), format!("proxyHttpPort: {}\n", proxy.port())).ok()?;
    let options = Options { config: vec![mesh.path().into()], mesh_config: Some(config.path().into()), ..Default::default() };
    let pilotfish = Pilotfish::serve(&pilotfish, options).await;
    let node = json!({
        "id": "sidecar~127.0.0.1~client.shop~shop.svc.cluster.local",
        "cluster": "client.shop",
        "metadata": {"NAMESPACE": "shop", "INTERCEPTION_MODE": "NONE", "LABELS": {"app": "client"}}
    });
    let envoy = Envoy::start(&envoy, envoy::bootstrap(node, pilotfish.grpc(), protocol)).await;
    Some((envoy, pilotfish, proxy, v1, v2, mesh))
}

async fn routes_by_virtual_service(protocol: Protocol) {
    let Some((mut envoy, _pilotfish, proxy, _v1, v2, _mesh)) = start(protocol).await else { return };
    envoy
        .until("the HTTP proxy listener answers", async |_| {
            let response = get(proxy, "shop", "/", &[]).await?;
            ensure!(response.status == 200, "{} {}", response.status, response.body);
            Ok(())
        })
        .await;
    for _ in 0..20 {
        assert_eq!(get(proxy, "shop.shop.svc.cluster.local", "/", &[("user", "ada")]).await.unwrap().echo().backend, "v2");
    }
    // As in the gateway suite: two samples, because one misses a 99 % bound once in a hundred runs.
    let mut seen = Vec::new();
    for _ in 0..2 {
        let before = v2.requests();
        for _ in 0..1000 {
            assert_eq!(get(proxy, "shop", "/", &[]).await.unwrap().status, 200);
        }
        seen.push(v2.requests() - before);
        if within_99(seen[seen.len() - 1], 1000, 0.1) {
            break;
        }
    }
    assert!(within_99(seen[seen.len() - 1], 1000, 0.1), "of 1000 requests v2 got {seen:?}");
    assert_eq!(envoy.rejected().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_routes_by_virtual_service_delta() {
    routes_by_virtual_service(Protocol::Delta).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_routes_by_virtual_service_sotw() {
    routes_by_virtual_service(Protocol::Sotw).await;
}

/// A workload's own proxy takes requests for it, here through a Sidecar that names the port.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_serves_its_workload() {
    let (Some(pilotfish), Some(binary)) = (pilotfish::binary("sidecar"), envoy::binary("sidecar")) else { return };
    let (app, inbound, mesh) = (Backend::start("app").await, free_addr(), MeshDir::default());
    let ingress: Value = json!({
        "workloadSelector": {"labels": {"app": "server"}},
        "ingress": [{
            "port": {"number": inbound.port(), "protocol": "HTTP", "name": "http"}, "bind": "127.0.0.1",
            "captureMode": "NONE", "defaultEndpoint": format!("127.0.0.1:{}", app.addr().port())
        }]
    });
    mesh.write("sidecar.yaml", &[istio("networking", "Sidecar", "server", ingress)]);
    let pilotfish = Pilotfish::serve_dir(&pilotfish, mesh.path()).await;
    let node = json!({
        "id": "sidecar~127.0.0.1~server.shop~shop.svc.cluster.local", "cluster": "server.shop",
        "metadata": {"NAMESPACE": "shop", "INTERCEPTION_MODE": "NONE", "LABELS": {"app": "server"}}
    });
    let mut envoy = Envoy::start(&binary, envoy::bootstrap(node, pilotfish.grpc(), Protocol::Delta)).await;
    envoy
        .until("the workload answers through its proxy", async |_| {
            let response = get(inbound, "server", "/", &[]).await?;
            ensure!(response.status == 200 && response.echo().backend == "app", "{} {}", response.status, response.body);
            Ok(())
        })
        .await;
    assert_eq!(envoy.rejected().await, 0);
}
