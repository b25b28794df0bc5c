//! What thousands of updates leave behind in a real Envoy.

use anyhow::{Context, ensure};
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::{Envoy, envoy, get};
use serde_json::{Value, json};

use crate::fixture::{Fixture, istio};

const UPDATES: u64 = 4_000;
/// Times the memory of an Envoy that has seen the last configuration only.
const BOUND: f64 = 1.3;

/// A gateway with a rule whose answer carries a number.
fn objects(port: u16, number: u64) -> Vec<Value> {
    let server = json!({"port": {"number": port, "name": "http", "protocol": "HTTP"}, "bind": "127.0.0.1", "hosts": ["*"]});
    let http = json!([{"directResponse": {"status": 200, "body": {"string": number.to_string()}}}]);
    vec![
        istio("Gateway", "shop", "edge", json!({"selector": {"istio": "edge"}, "servers": [server]})),
        istio("VirtualService", "shop", "shop", json!({"hosts": ["*"], "gateways": ["edge"], "http": http})),
    ]
}

async fn connect(binary: &std::path::Path, fixture: &Fixture, id: &str) -> Envoy {
    let node = json!({"id": id, "cluster": "edge", "metadata": {"NAMESPACE": "shop", "LABELS": {"istio": "edge"}}});
    let ads = fixture.url.trim_start_matches("http://").parse().unwrap();
    Envoy::start(binary, envoy::bootstrap(node, ads, envoy::Protocol::Delta)).await
}

/// Bytes that Envoy's allocator has given out.
async fn allocated(envoy: &mut Envoy) -> f64 {
    let ask = async |admin| {
        let answer = get(admin, "admin", "/memory", &[]).await?.json();
        answer["allocated"].as_str().context("allocated")?.parse::<f64>().context("a number")
    };
    envoy.until("memory", ask).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_thousand_updates_leave_an_envoy_as_small_as_a_fresh_one() {
    let Some(binary) = envoy::binary("push") else { return };
    let listen = free_addr();
    let mut fixture = Fixture::start(objects(listen.port(), 0)).await;
    let mut old = connect(&binary, &fixture, "edge-1").await;
    for i in 1..=UPDATES {
        let responses = fixture.work().0.responses;
        assert!(fixture.apply(objects(listen.port(), i)).await);
        // One response each, sent only after the one before was confirmed.
        fixture.settled(responses + 1).await;
    }
    let last = async |_| {
        let answer = get(listen, "shop", "/", &[]).await?;
        ensure!(answer.body == UPDATES.to_string(), "{}", answer.body);
        Ok(())
    };
    old.until("the last answer", last).await;
    // It gives its port back; what it holds stays.
    let (after, mut fresh) = (allocated(&mut old).await, connect(&binary, &fixture, "edge-2").await);
    let new = allocated(&mut fresh).await;
    println!("after {UPDATES} updates {:.2} MiB, fresh {:.2} MiB", after / 1048576.0, new / 1048576.0);
    assert!(after < BOUND * new, "{after} bytes after {UPDATES} updates, {new} in a fresh Envoy");
}
