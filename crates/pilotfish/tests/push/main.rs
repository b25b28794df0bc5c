//! From objects to bytes through the whole pipeline, in one process: what an edit costs, counted, and what Envoy makes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod envoy;
mod fixture;

use pilotfish_envoy::TypeUrl::{Cluster, Endpoint, Listener, Route};
use pilotfish_testkit::ads::{channel, said};
use pilotfish_translator::Work as Made;
use pilotfish_xds_server::Work as Served;
use serde_json::{Value, json};

use crate::fixture::{Fixture, istio};

fn host(service: usize, namespaces: usize) -> String {
    format!("svc-{service}.ns-{}.svc.cluster.local", service % namespaces)
}

fn route(service: usize, namespaces: usize, header: &str) -> Value {
    let host = host(service, namespaces);
    let http = json!([{"headers": {"response": {"set": {"x-test": header}}}, "route": [{"destination": {"host": host}}]}]);
    istio("VirtualService", &format!("ns-{}", service % namespaces), &format!("svc-{service}"), json!({"hosts": [host], "http": http}))
}

fn slice(service: usize, namespaces: usize, endpoints: &[&str]) -> Value {
    let name = format!("svc-{service}");
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": format!("ns-{}", service % namespaces), "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": endpoints.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect::<Value>(),
    })
}

/// Services with one rule each, spread over namespaces that see themselves alone.
fn isolated(services: usize, namespaces: usize) -> Vec<Value> {
    let mut objects = Vec::new();
    for i in 0..namespaces {
        objects.push(istio("Sidecar", &format!("ns-{i}"), "default", json!({"egress": [{"hosts": ["./*"]}]})));
    }
    for i in 0..services {
        let (name, namespace) = (format!("svc-{i}"), format!("ns-{}", i % namespaces));
        objects.push(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": format!("10.1.{}.{}", i / 250, i % 250 + 1), "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }));
        objects.push(slice(i, namespaces, &["10.2.0.1", "10.2.0.2"]));
        objects.push(route(i, namespaces, "first"));
    }
    objects
}

/// What lies between two looks, of what does not depend on how streams and jobs happened to meet.
fn between(before: &(Served, Made), after: &(Served, Made)) -> Value {
    let ((served, made), (served_now, made_now)) = (before, after);
    json!({
        "scopes": served_now.views - served.views,
        "endpoint steps": served_now.endpoint_steps - served.endpoint_steps,
        "responses": served_now.responses - served.responses,
        "resources": served_now.resources - served.resources,
        "views": made_now.views - made.views,
        "leaves": made_now.leaves_built - made.leaves_built,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_proxies_of_a_class_cost_one_translation() {
    let mut fixture = Fixture::start(isolated(20, 2)).await;
    let channel = channel(&fixture.url).await;
    let connect = |i: usize| {
        let (client, subscribed) = (fixture.connect(&channel, "ns-1"), if i == 0 { vec![Cluster, Listener, Route] } else { vec![Route] });
        async move {
            let mut client = client.await;
            for type_url in subscribed {
                client.subscribe(type_url, if type_url == Route { &["80"] } else { &["*"] }).await;
                client.take().await;
            }
            client
        }
    };
    let mut clients = vec![connect(0).await];
    // From here on the class is known, and its resources are there.
    let first = fixture.work();
    for i in 1..1_000 {
        clients.push(connect(i).await);
    }
    let all = fixture.work();
    assert_eq!(between(&first, &all)["leaves"], 0);
    assert_eq!((all.0.views - first.0.views, all.0.live_scopes, all.0.live_classes, all.0.live_streams), (0, 1, 1, 1_000));

    assert!(fixture.apply(vec![route(1, 2, "second")]).await);
    for client in &mut clients {
        assert_eq!(said(&client.take().await), (Route, vec!["80"], vec![]));
    }
    fixture.settled(all.0.responses + 1_000).await;
    // One virtual host is built and encoded, for all.
    let edited = fixture.work();
    let expected = json!({"scopes": 1, "endpoint steps": 0, "responses": 1_000, "resources": 1_000, "views": 1, "leaves": 1});
    assert_eq!(between(&all, &edited), expected);

    // The same edit again, and what users do not mean anything by, costs nothing.
    assert!(!fixture.apply(vec![route(1, 2, "second")]).await);
    let mut annotated = route(1, 2, "second");
    annotated["metadata"]["annotations"] = json!({"note": "hello"});
    annotated["metadata"]["labels"] = json!({"team": "a"});
    assert!(!fixture.apply(vec![annotated]).await);
    clients[0].expect_silence().await;
    assert_eq!(between(&edited, &fixture.work())["responses"], 0);
}

/// What an edit costs that one namespace of ten sees, in a mesh of so many services.
async fn one_edit(services: usize) -> (Value, Value) {
    let namespaces = services / 10;
    let mut fixture = Fixture::start(isolated(services, namespaces)).await;
    let channel = channel(&fixture.url).await;
    let mut clients = Vec::new();
    for i in 0..10 {
        let mut client = fixture.connect(&channel, &format!("ns-{i}")).await;
        let name = format!("outbound|80||{}", host(i, namespaces));
        for (type_url, names) in [(Cluster, vec!["*"]), (Endpoint, vec![name.as_str()]), (Listener, vec!["*"]), (Route, vec!["80"])] {
            client.subscribe(type_url, &names).await;
            client.take().await;
        }
        clients.push(client);
    }
    let before = fixture.work();
    assert!(fixture.apply(vec![route(3, namespaces, "second")]).await);
    assert_eq!(said(&clients[3].take().await), (Route, vec!["80"], vec![]));
    fixture.settled(before.0.responses + 1).await;
    let edited = fixture.work();

    assert!(fixture.apply(vec![slice(3, namespaces, &["10.2.0.1"])]).await);
    let name = format!("outbound|80||{}", host(3, namespaces));
    assert_eq!(said(&clients[3].take().await), (Endpoint, vec![name.as_str()], vec![]));
    fixture.settled(edited.0.responses + 1).await;
    (between(&before, &edited), between(&edited, &fixture.work()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_costs_what_it_changes_however_large_the_mesh_is() {
    let small = one_edit(100).await;
    let edit = json!({"scopes": 1, "endpoint steps": 0, "responses": 1, "resources": 1, "views": 1, "leaves": 1});
    // The lane made the assignment, and nothing else was looked at.
    let removal = json!({"scopes": 0, "endpoint steps": 1, "responses": 1, "resources": 1, "views": 0, "leaves": 1});
    assert_eq!(small, (edit, removal));
    assert_eq!(one_edit(5_000).await, small);
}
