//! Roots of the mesh, for whoever asks, and who has not confirmed them.

use pilotfish_envoy::TypeUrl::{Cluster, ProxyConfig};
use pilotfish_envoy::pb::istio::mesh::v1alpha1::ProxyConfig as Message;
use pilotfish_testkit::ads::{Delta, Sotw, said, sidecar};
use pilotfish_testkit::until;
use pilotfish_xds_server::Config;
use pretty_assertions::assert_eq;
use prost::Message as _;

use crate::fake::{Running, World, start};

fn world() -> World {
    World::default().with(Cluster, &[("c", "1")])
}

async fn until_lacking(running: &Running, expected: &[&str]) {
    until("who lacks roots", async || {
        let lacking = running.server.lacking_roots();
        if lacking == expected { Ok(()) } else { Err(format!("{lacking:?} instead of {expected:?}")) }
    })
    .await;
}

fn roots(any: &[u8]) -> Vec<String> {
    Message::decode(any).unwrap().ca_certificates_pem
}

#[tokio::test]
async fn who_asks_gets_them_and_is_lacking_until_it_confirms() {
    let running = start(Config::default()).await;
    running.publish(&world()).await;
    running.server.set_roots(vec!["one".into()]);
    let mut delta = Delta::connect(&running.url, sidecar("a")).await;
    delta.subscribe(ProxyConfig, &[]).await;
    let first = delta.next().await;
    assert_eq!(said(&first), (ProxyConfig, vec![""], vec![]));
    assert_eq!(roots(&first.resources[0].resource.as_ref().unwrap().value), ["one"]);
    until_lacking(&running, &["web-0.a-1"]).await;
    delta.ack(&first).await;
    until_lacking(&running, &[]).await;

    // Others are not told, and nobody waits for them.
    let mut other = Delta::connect(&running.url, sidecar("b")).await;
    other.subscribe(Cluster, &["*"]).await;
    assert_eq!(said(&other.take().await), (Cluster, vec!["c"], vec![]));
    let mut sotw = Sotw::connect(&running.url, sidecar("c")).await;
    sotw.ask(ProxyConfig, &[]).await;
    let response = sotw.next().await;
    assert_eq!(roots(&response.resources[0].value), ["one"]);
    sotw.ack(&response, &[]).await;

    running.server.set_roots(vec!["one".into(), "two".into()]);
    let [second, response] = [delta.next().await.resources[0].clone().resource.unwrap(), sotw.next().await.resources[0].clone()];
    assert_eq!([roots(&second.value), roots(&response.value)], [["one", "two"], ["one", "two"]]);
    until_lacking(&running, &["web-0.a-1", "web-0.c-3"]).await;
    other.expect_silence().await;
    // Who leaves is not waited for.
    drop(sotw);
    until_lacking(&running, &["web-0.a-1"]).await;
}

#[tokio::test]
async fn who_refuses_them_or_resumes_with_old_ones_lacks_them() {
    let running = start(Config::default()).await;
    running.publish(&world()).await;
    let mut client = Delta::connect(&running.url, sidecar("a")).await;
    client.subscribe(ProxyConfig, &[]).await;
    // There are none yet: nothing to have, nothing to lack.
    assert_eq!(said(&client.take().await), (ProxyConfig, vec![], vec![]));
    until_lacking(&running, &[]).await;
    running.server.set_roots(vec!["one".into()]);
    let refused = client.next().await;
    client.nack(&refused, "no").await;
    client.subscribe(Cluster, &["*"]).await;
    client.take().await;
    until_lacking(&running, &["web-0.a-1"]).await;
    running.server.set_roots(vec!["two".into()]);
    client.take().await;
    until_lacking(&running, &[]).await;

    // The same roots again are no news.
    let responses = running.server.work().responses;
    running.server.set_roots(vec!["two".into()]);
    client.expect_silence().await;
    assert_eq!(running.server.work().responses, responses);
}
