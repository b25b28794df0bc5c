//! Key material: one stream's own, merged with its class's secrets.

use pilotfish_envoy::TypeUrl::{Cluster, Secret};
use pilotfish_xds_server::Config;
use pretty_assertions::assert_eq;

use crate::fake::{Running, World, start};
use pilotfish_testkit::ads::{Delta, Sotw, said, sidecar};

/// One cluster and one secret of the class, which holds no key.
fn world() -> World {
    World::default().with(Cluster, &[("c", "1")]).with(Secret, &[("file", "path")])
}

async fn client(running: &Running, names: &[&str]) -> Delta {
    let mut client = Delta::connect(&running.url, sidecar("shop")).await;
    client.subscribe(Secret, names).await;
    client
}

#[tokio::test]
async fn a_stream_gets_what_it_asks_for_when_it_exists_and_when_it_changes() {
    let running = start(Config::default()).await;
    running.publish(&world().with_key("bank", "theirs", "k")).await;
    let mut client = client(&running, &["ours", "theirs", "file"]).await;
    assert_eq!(said(&client.take().await), (Secret, vec!["file"], vec![]));

    let with_ours = world().with_key("bank", "theirs", "k").with_key("shop", "ours", "k1");
    running.publish(&with_ours).await;
    assert_eq!(said(&client.take().await), (Secret, vec!["ours"], vec![]));

    // What neither changes nor comes back changed costs nothing; what vanishes is not mentioned.
    let responses = running.server.work().responses;
    for world in [with_ours.clone(), world(), with_ours] {
        running.publish(&world).await;
    }
    client.expect_silence().await;
    assert_eq!(running.server.work().responses, responses);

    running.publish(&world().with_key("shop", "ours", "k2")).await;
    assert_eq!(said(&client.take().await), (Secret, vec!["ours"], vec![]));
    let work = running.server.work();
    assert_eq!((work.live_classes, work.live_streams), (1, 1));
}

#[tokio::test]
async fn names_that_come_later_are_looked_up_too_and_silence_holds_up_nothing() {
    let running = start(Config::default()).await;
    running.publish(&world().with_key("shop", "a", "k").with_key("shop", "b", "k")).await;
    let mut client = Sotw::connect(&running.url, sidecar("shop")).await;
    client.ask(Secret, &["none"]).await;
    client.ask(Cluster, &[]).await;
    let clusters = client.next().await;
    assert_eq!(clusters.type_url, Cluster.as_str());
    client.ack(&clusters, &[]).await;
    client.ask(Secret, &["none", "a"]).await;
    let first = client.next().await;
    assert_eq!((first.type_url.as_str(), first.resources.len()), (Secret.as_str(), 1));
    client.ack(&first, &["none", "a", "b"]).await;
    let second = client.next().await;
    assert_eq!((second.type_url.as_str(), second.resources.len()), (Secret.as_str(), 1));
    client.ack(&second, &["none", "a", "b"]).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn key_material_reaches_no_other_stream_and_no_dump() {
    let running = start(Config::default()).await;
    running.publish(&world().with_key("shop", "ours", "hush")).await;
    let mut holder = client(&running, &["ours"]).await;
    let sent = holder.take().await;
    assert_eq!(said(&sent), (Secret, vec!["ours"], vec![]));
    // Of the same class, under a wildcard.
    let mut other = client(&running, &["*"]).await;
    assert_eq!(said(&other.take().await), (Secret, vec!["file"], vec![]));

    let dump = running.server.debug().config_dump(Some("web-0.shop-1"), true).unwrap();
    let secrets = dump["configs"][5]["dynamic_active_secrets"].as_array().unwrap();
    let shown: Vec<_> = secrets.iter().map(|s| (s["name"].as_str().unwrap(), s["version_info"].as_str().unwrap())).collect();
    assert_eq!((shown.len(), shown[1]), (2, ("ours", sent.resources[0].version.as_str())));
    assert!(!dump.to_string().contains("hush"), "{dump:#}");
}

#[tokio::test]
async fn a_panic_costs_the_news_and_not_the_stream() {
    let running = start(Config::default()).await;
    running.publish(&world()).await;
    let mut client = client(&running, &["poison", "file"]).await;
    assert_eq!(said(&client.take().await), (Secret, vec!["file"], vec![]));
}
