//! Two server processes over the same input are one server to a client that moves between them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use pilotfish_envoy::TypeUrl;
use pilotfish_testkit::ads::{Held, Proxy, TYPES, node};
use pilotfish_testkit::{Pilotfish, pilotfish, until};
use pilotfish_tests::{MeshDir, istio, service, split, subsets};
use serde_json::{Value, json};

const SERVICES: usize = 20;
const EDITS: usize = 30;
const ROUTES: [&str; 1] = ["80"];

fn services() -> Vec<Value> {
    let addr = |i: usize, k: usize| format!("127.0.1.{}:{}", i + 1, 8000 + k).parse().unwrap();
    let one = |i: usize| service(&format!("svc-{i}"), "http", 80, &[("v1", addr(i, 0)), ("v2", addr(i, 1))]);
    (0..SERVICES).flat_map(one).chain((0..SERVICES).step_by(2).map(|i| subsets(&format!("svc-{i}")))).collect()
}

fn route(edit: usize) -> Value {
    let mut http = split("svc-0", 90, 10);
    http["headers"] = json!({"response": {"set": {"x-edit": edit.to_string()}}});
    istio("networking", "VirtualService", "svc-0", json!({"hosts": ["svc-0"], "http": [http]}))
}

async fn connect(replica: &Pilotfish, held: Held) -> Proxy {
    let sidecar = node("sidecar~10.9.9.9~web-0.shop~shop.svc.cluster.local");
    Proxy::connect(&format!("http://{}", replica.grpc()), sidecar, &ROUTES, held).await
}

/// What a new client is given once nothing comes any more.
async fn fresh(replica: &Pilotfish) -> Held {
    let mut proxy = connect(replica, Held::new()).await;
    while TYPES.iter().any(|t| proxy.held.get(t).is_none_or(BTreeMap::is_empty)) {
        let response = proxy.client.next().await;
        proxy.take(response).await;
    }
    proxy.until_quiet().await;
    proxy.held
}

fn counts(held: &Held) -> BTreeMap<TypeUrl, usize> {
    TYPES.iter().map(|t| (*t, held.get(t).map_or(0, BTreeMap::len))).collect()
}

#[tokio::test]
async fn a_client_that_moves_between_replicas_under_edits_loses_nothing() {
    let Some(binary) = pilotfish::binary("replicas") else { return };
    let mesh = MeshDir::default();
    mesh.write("services.yaml", &services());
    mesh.write("routes.yaml", &[route(0)]);
    let replicas = [Pilotfish::serve_dir(&binary, mesh.path()).await, Pilotfish::serve_dir(&binary, mesh.path()).await];

    let first = fresh(&replicas[0]).await;
    assert_eq!(first, fresh(&replicas[1]).await, "equal versions of every resource");
    let full = counts(&first);
    assert!(full[&TypeUrl::Cluster] > SERVICES && full[&TypeUrl::Endpoint] > SERVICES && full[&TypeUrl::Route] == 1, "{full:?}");

    let mut proxy = connect(&replicas[0], first).await;
    for edit in 1..=EDITS {
        mesh.write("routes.yaml", &[route(edit)]);
        // Each stream goes forward only, and nothing that the client holds is ever taken away.
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let Some(response) = proxy.try_next().await else { break };
            proxy.take(response).await;
            let version = &proxy.held[&TypeUrl::Route]["80"];
            assert!(seen.insert(version.clone()) || seen.last() == Some(version), "edit {edit} came back to {version}");
            assert_eq!(counts(&proxy.held), full);
        }
        proxy = connect(&replicas[edit % 2], proxy.held).await;
    }
    let expected = until("both replicas have the last edit", async || {
        let (a, b) = (fresh(&replicas[0]).await, fresh(&replicas[1]).await);
        let read = format!("\"x-edit\":\"{EDITS}\"");
        anyhow::ensure!(a == b, "they differ");
        for replica in &replicas {
            anyhow::ensure!(replica.debug("configz").await.to_string().contains(&read), "the last edit was not read");
        }
        Ok(a)
    })
    .await;
    proxy.converge(&expected, "after the last edit").await;

    // A last move: nothing differs, so nothing is sent. What has no endpoints is asked for again, and there are none.
    let mut moved = connect(&replicas[(EDITS + 1) % 2], proxy.held).await;
    while let Some(response) = moved.try_next().await {
        assert_eq!((response.resources.len(), TypeUrl::parse(&response.type_url)), (0, Some(TypeUrl::Endpoint)));
        assert!(response.removed_resources.iter().all(|name| !name.contains("svc-")), "{:?}", response.removed_resources);
        moved.take(response).await;
    }
}
