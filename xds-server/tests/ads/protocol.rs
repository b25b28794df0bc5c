//! Both protocols on the wire.

use std::collections::BTreeMap;

use pilotfish_envoy::TypeUrl::{Cluster, Endpoint, Listener, Route};
use pilotfish_envoy::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_xds_server::Config;
use pretty_assertions::assert_eq;
use tonic::Code;

use crate::fake::{World, resource, start};
use pilotfish_testkit::ads::{Delta, Sotw, node, said, sidecar, versions};

fn anys(resources: &[(&str, &str)]) -> Vec<Any> {
    resources.iter().map(|(n, c)| resource(Cluster, n, c).to_any()).collect()
}

#[tokio::test]
async fn sotw_serves_changes_and_removals_by_omission() {
    let running = start(Config::default()).await;
    let world = World::default().with(Cluster, &[("a", "1"), ("b", "1")]);
    running.publish(&world).await;
    let mut client = Sotw::connect(&running.url, sidecar("shop")).await;
    client.ask(Cluster, &[]).await;
    let first = client.next().await;
    assert_eq!((first.resources.clone(), first.type_url.as_str()), (anys(&[("a", "1"), ("b", "1")]), Cluster.as_str()));
    client.ack(&first, &[]).await;

    running.publish(&world.clone().with(Cluster, &[("b", "2")])).await;
    let second = client.next().await;
    assert_eq!(second.resources, anys(&[("b", "2")]));
    assert_ne!((&first.nonce, &first.version_info), (&second.nonce, &second.version_info));
    client.ack(&second, &[]).await;

    running.publish(&world.with(Cluster, &[("b", "2")])).await;
    client.expect_silence().await;
    assert_eq!(running.server.work().responses, 2);
}

#[tokio::test]
async fn delta_serves_changes_and_removals_only() {
    let running = start(Config::default()).await;
    let world = World::default().with(Cluster, &[("a", "1"), ("b", "1")]).with(Endpoint, &[("a", "x")]);
    running.publish(&world).await;
    let mut client = Delta::connect(&running.url, sidecar("shop")).await;
    client.subscribe(Cluster, &[]).await;
    assert_eq!(said(&client.take().await), (Cluster, vec!["a", "b"], vec![]));
    client.subscribe(Endpoint, &["a", "nowhere"]).await;
    assert_eq!(said(&client.take().await), (Endpoint, vec!["a"], vec!["nowhere"]));

    running.publish(&world.clone().with(Cluster, &[("b", "2"), ("c", "1")])).await;
    let response = client.take().await;
    assert_eq!(said(&response), (Cluster, vec!["b", "c"], vec!["a"]));
    assert_eq!(response.resources[0].resource, Some(resource(Cluster, "b", "2").to_any()));
    client.expect_silence().await;
}

#[tokio::test]
async fn a_reconnect_gets_only_what_differs() {
    let running = start(Config::default()).await;
    let world = World::default().with(Cluster, &[("a", "1"), ("b", "1")]).with(Endpoint, &[("a", "1"), ("b", "1")]);
    running.publish(&world).await;
    let mut client = Delta::connect(&running.url, sidecar("shop")).await;
    client.subscribe(Cluster, &["*"]).await;
    let mut clusters = versions(&client.take().await);
    client.subscribe(Endpoint, &["a", "b"]).await;
    let endpoints = versions(&client.take().await);
    drop(client);

    clusters.insert("gone".into(), "of another server".into());
    running.publish(&world.clone().with(Endpoint, &[("b", "2")])).await;
    let mut client = Delta::connect(&running.url, sidecar("shop")).await;
    client.subscribe_with(Cluster, &["*"], &[], &clusters).await;
    assert_eq!(said(&client.take().await), (Cluster, vec![], vec!["gone"]));
    client.subscribe_with(Endpoint, &["a", "b"], &[], &endpoints).await;
    assert_eq!(said(&client.take().await), (Endpoint, vec!["b"], vec!["a"]));
    client.expect_silence().await;
}

#[tokio::test]
async fn what_was_rejected_is_not_sent_again_until_it_changes() {
    let running = start(Config::default()).await;
    let world = |content| World::default().with(Cluster, &[("good", "1"), ("bad", content)]);
    running.publish(&world("1")).await;
    let mut client = Delta::connect(&running.url, sidecar("shop")).await;
    client.subscribe(Cluster, &["*"]).await;
    let response = client.next().await;
    client.nack(&response, "bad: no such filter").await;
    client.expect_silence().await;
    running.publish(&world("2")).await;
    assert_eq!(said(&client.take().await), (Cluster, vec!["bad"], vec![]));

    let mut client = Sotw::connect(&running.url, sidecar("shop")).await;
    client.ask(Cluster, &[]).await;
    let response = client.next().await;
    client.nack(&response, &[], "bad: no such filter").await;
    client.expect_silence().await;
    running.publish(&world("3")).await;
    assert_eq!(client.next().await.resources.len(), 2);

    let mut registry = prometheus_client::registry::Registry::default();
    running.server.metrics().register(&mut registry);
    let text = pilotfish_xds_server::metrics::prometheus_text(&registry).unwrap();
    assert!(text.contains("pilot_total_xds_rejects{type=\"cds\"} 2\n"), "{text}");
}

#[tokio::test]
async fn every_type_that_is_served_is_answered_and_others_are_not() {
    let running = start(Config::default()).await;
    running.publish(&World::default()).await;
    let mut client = Delta::connect(&running.url, node("an-envoy")).await;
    let health = DeltaDiscoveryRequest { type_url: "type.googleapis.com/istio.v1.HealthInformation".into(), ..Default::default() };
    client.send_raw(health).await;
    // Secrets that do not exist have no answer.
    for type_url in pilotfish_envoy::TypeUrl::ALL.into_iter().filter(|t| *t != pilotfish_envoy::TypeUrl::Secret) {
        client.subscribe(type_url, &[]).await;
        assert_eq!(said(&client.take().await), (type_url, vec![], vec![]));
    }
    client.send_raw(DeltaDiscoveryRequest { type_url: "type.googleapis.com/what.is.This".into(), ..Default::default() }).await;
    client.expect_silence().await;

    let mut client = Sotw::connect(&running.url, node("an-envoy")).await;
    for type_url in [Cluster, Listener] {
        client.ask(type_url, &[]).await;
        let response = client.next().await;
        assert_eq!((response.type_url.as_str(), response.resources.len()), (type_url.as_str(), 0));
        client.ack(&response, &[]).await;
    }
    client.ask(Route, &["80"]).await;
    assert_eq!(client.next().await.resources.len(), 0);
}

#[tokio::test]
async fn bad_nodes_are_refused_with_the_reason() {
    let running = start(Config::default()).await;
    running.publish(&World::default()).await;
    let mut client = Sotw::connect(&running.url, node("robot~1.1.1.1~a.b~b.svc")).await;
    client.ask(Cluster, &[]).await;
    let status = client.receive().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("\"robot\""), "{status}");

    let mut client = Sotw::connect(&running.url, node("")).await;
    client.send_raw(DiscoveryRequest { type_url: Cluster.as_str().into(), ..Default::default() }).await;
    let status = client.receive().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("missing node information"), "{status}");
}

#[tokio::test]
async fn large_and_many_resources_arrive_whole() {
    let running = start(Config::default()).await;
    let (huge, names) = ("x".repeat(1 << 20), (0..5_000).map(|i| format!("c{i:05}")).collect::<Vec<_>>());
    let mut resources: Vec<(&str, &str)> = names.iter().map(|n| (n.as_str(), "small")).collect();
    resources.push(("huge", &huge));
    running.publish(&World::default().with(Cluster, &resources)).await;
    let mut client = Delta::connect(&running.url, sidecar("shop")).await;
    client.subscribe(Cluster, &["*"]).await;
    let response = client.take().await;
    assert_eq!(response.resources.len(), 5_001);
    let got: BTreeMap<_, _> = response.resources.into_iter().map(|r| (r.name, r.resource.unwrap())).collect();
    for (name, content) in resources {
        assert_eq!(got[name], resource(Cluster, name, content).to_any());
    }
}
