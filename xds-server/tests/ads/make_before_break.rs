//! Order across types, as a client sees it.

use std::time::Duration;

use pilotfish_envoy::TypeUrl::{Cluster, Endpoint, Listener, Route};
use pilotfish_xds_server::Config;
use pretty_assertions::assert_eq;

use crate::fake::{Running, World, start};
use pilotfish_testkit::ads::{Delta, Sotw, said, sidecar};

fn split(cluster: &str) -> World {
    World::default()
        .with(Cluster, &[("keep", "1"), (cluster, "1")])
        .with(Endpoint, &[("keep", "1"), (cluster, "1")])
        .with(Listener, &[("80", "1")])
        .with(Route, &[("80", cluster)])
}

async fn warm(running: &Running) -> Delta {
    running.publish(&split("old")).await;
    let mut client = Delta::connect(&running.url, sidecar("shop")).await;
    client.subscribe(Cluster, &[]).await;
    client.take().await;
    client.subscribe(Endpoint, &["keep", "old"]).await;
    client.take().await;
    client.subscribe(Listener, &[]).await;
    client.take().await;
    client.subscribe(Route, &["80"]).await;
    client.take().await;
    client
}

#[tokio::test]
async fn routes_wait_for_clusters_and_endpoints_and_removals_wait_for_routes() {
    let running = start(Config { patience: Duration::from_secs(600), ..Config::default() }).await;
    let mut client = warm(&running).await;
    running.publish(&split("new")).await;

    let clusters = client.next().await;
    assert_eq!(said(&clusters), (Cluster, vec!["new"], vec![]));
    client.expect_silence().await;
    client.ack(&clusters).await;
    // The cluster was taken, but its endpoints were not asked for yet.
    client.expect_silence().await;
    client.subscribe(Endpoint, &["new"]).await;
    let endpoints = client.next().await;
    assert_eq!(said(&endpoints), (Endpoint, vec!["new"], vec![]));
    client.expect_silence().await;
    client.ack(&endpoints).await;

    let routes = client.next().await;
    assert_eq!(said(&routes), (Route, vec!["80"], vec![]));
    client.expect_silence().await;
    client.ack(&routes).await;
    assert_eq!(said(&client.take().await), (Cluster, vec![], vec!["old"]));
    assert_eq!(said(&client.take().await), (Endpoint, vec![], vec!["old"]));
    client.expect_silence().await;
}

#[tokio::test]
async fn sotw_keeps_the_old_cluster_until_the_route_left_it() {
    let running = start(Config { patience: Duration::from_secs(600), ..Config::default() }).await;
    running.publish(&split("old")).await;
    let mut client = Sotw::connect(&running.url, sidecar("shop")).await;
    for (type_url, names) in [(Cluster, &[][..]), (Route, &["80"])] {
        client.ask(type_url, names).await;
        let response = client.next().await;
        client.ack(&response, names).await;
    }
    running.publish(&split("new")).await;
    let union = client.next().await;
    assert_eq!((union.type_url.as_str(), union.resources.len()), (Cluster.as_str(), 3));
    client.ack(&union, &[]).await;
    let routes = client.next().await;
    assert_eq!(routes.type_url, Route.as_str());
    client.expect_silence().await;
    client.ack(&routes, &["80"]).await;
    let rest = client.next().await;
    assert_eq!((rest.type_url.as_str(), rest.resources.len()), (Cluster.as_str(), 2));
    client.ack(&rest, &[]).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn endpoints_come_again_after_their_cluster_changed() {
    let running = start(Config::default()).await;
    let mut client = warm(&running).await;
    running.publish(&split("old").with(Cluster, &[("keep", "2"), ("old", "1")])).await;
    assert_eq!(said(&client.take().await), (Cluster, vec!["keep"], vec![]));
    assert_eq!(said(&client.take().await), (Endpoint, vec!["keep"], vec![]));
    client.expect_silence().await;
}

#[tokio::test]
async fn patience_ends() {
    let running = start(Config { patience: Duration::from_millis(200), ..Config::default() }).await;
    let mut client = warm(&running).await;
    running.publish(&split("new")).await;
    // Nothing is answered.
    assert_eq!(said(&client.next().await), (Cluster, vec!["new"], vec![]));
    assert_eq!(said(&client.next().await).0, Route);
    let removal = client.next().await;
    assert_eq!(said(&removal), (Endpoint, vec![], vec!["old"]));
}
