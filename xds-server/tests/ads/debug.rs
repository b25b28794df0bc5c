//! What the debug interface says of a connected client.

use pilotfish_envoy::TypeUrl::{Cluster, Endpoint};
use pilotfish_envoy::pb::envoy::config::core::v3::Locality;
use pilotfish_xds_server::Config;
use pilotfish_xds_server::debug::{DebugError, Report, Tally};
use pretty_assertions::assert_eq;
use serde_json::json;

use crate::fake::{World, start};
use pilotfish_testkit::ads::{Delta, said, sidecar};

#[tokio::test]
async fn a_client_shows_up_with_what_it_has() {
    let running = start(Config::default()).await;
    let debug = running.server.debug();
    assert_eq!((debug.syncz(None), debug.connections()), (json!([]), json!({"totalClients": 0, "clients": []})));

    running.publish(&World::default().with(Cluster, &[("a", "1")]).with(Endpoint, &[("a", "1")])).await;
    let mut node = sidecar("shop");
    node.locality = Some(Locality { region: "r1".into(), zone: "z1".into(), sub_zone: String::new() });
    let mut client = Delta::connect(&running.url, node).await;
    client.subscribe(Cluster, &["*"]).await;
    let clusters = client.take().await;
    client.subscribe(Endpoint, &["a"]).await;
    let endpoints = client.next().await;
    assert_eq!(said(&endpoints), (Endpoint, vec!["a"], vec![]));

    let mut syncz = debug.syncz(Some("shop"));
    for resource in syncz[0]["resources"].as_object_mut().unwrap().values_mut() {
        let sent_at = resource.as_object_mut().unwrap().remove("sentTime").unwrap();
        assert!(sent_at.as_str().unwrap().ends_with('Z'), "{sent_at}");
    }
    assert_eq!(
        syncz,
        json!([{
            "cluster_id": "Kubernetes", "proxy": "web-0.shop", "proxy_type": "sidecar",
            "cluster_sent": clusters.nonce, "cluster_acked": clusters.nonce, "endpoint_sent": endpoints.nonce,
            "resources": {
                Cluster.as_str(): {"sent": clusters.nonce, "acked": clusters.nonce},
                Endpoint.as_str(): {"sent": endpoints.nonce},
            }
        }])
    );
    assert_eq!(debug.syncz(Some("elsewhere")), json!([]));

    let adsz = debug.adsz(Some("web-0.shop")).unwrap();
    let shown = &adsz["clients"][0];
    assert_eq!(shown["connectionId"], "web-0.shop-1");
    assert_eq!(shown["watches"], json!({Cluster.as_str(): [], Endpoint.as_str(): ["a"]}));
    assert_eq!((&shown["locality"], &shown["metadata"]), (&json!({"region": "r1", "zone": "z1"}), &json!({})));
    assert!(shown["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{shown}");

    assert_eq!(debug.edsz(Some("web-0")).unwrap()["configs"][0]["cluster_name"], "a");
    assert_eq!(debug.resources(Some("web-0"), "CDS,eds").unwrap()["configs"].as_array().unwrap().len(), 2);
    assert_eq!(debug.resources(Some("web-0"), "what").unwrap(), json!({}));
    assert_eq!(debug.ndsz(Some("web-0")).unwrap(), json!({}));
    assert_eq!(debug.config_dump(Some("web-0"), true).unwrap()["configs"].as_array().unwrap().len(), 8);
    assert_eq!(debug.config_dump(None, false), Err(DebugError::NoProxy));
    assert_eq!(debug.config_dump(Some("nobody"), false), Err(DebugError::NotConnected("nobody".into())));
}

#[tokio::test]
async fn who_has_confirmed_an_object() {
    let running = start(Config::default()).await;
    let debug = running.server.debug();
    let told = |thing: &str| {
        let answer = debug.applied(&format!("Thing/ns/{thing}"));
        let proxies =
            |key: &str| answer[key].as_array().unwrap().iter().map(|p| p["proxy"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        (answer["proxies"].as_u64().unwrap(), answer["applied"].as_u64().unwrap(), proxies("missing"), proxies("rejected"))
    };
    let world = |content: &str| World::default().with(Cluster, &[("a", content), ("b", "1")]);
    running.publish(&world("1")).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Delta::connect(&running.url, sidecar("shop")).await;
        client.subscribe(Cluster, &["*"]).await;
        clients.push((client.next().await, client));
    }
    let id = |i: usize| format!("web-0.shop-{i}");
    assert_eq!(told("a"), (3, 0, vec![id(1), id(2), id(3)], vec![]));
    for (response, client) in &mut clients {
        client.ack(response).await;
    }
    let confirmed = |thing: &'static str, count: u64| {
        let told = &told;
        async move { crate::streams::until("confirmed", || told(thing).1 == count).await }
    };
    confirmed("a", 3).await;
    assert_eq!(debug.applied("Thing/ns/a")["summary"], "3 of 3 proxies have it; 0 missing, 0 rejected it");
    assert_eq!(told("nothing"), (0, 0, vec![], vec![]));

    running.publish(&world("2")).await;
    let responses = [clients[0].1.next().await, clients[1].1.next().await];
    clients[0].1.ack(&responses[0]).await;
    clients[1].1.nack(&responses[1], "a: no such extension").await;
    confirmed("a", 1).await;
    crate::streams::until("refused", || !told("a").3.is_empty()).await;
    assert_eq!(told("a"), (3, 1, vec![id(3)], vec![id(2)]));
    let reason = &debug.applied("Thing/ns/a")["rejected"][0]["resources"][0]["reason"];
    assert_eq!(reason, "a: no such extension");
    // What the refused response did not hold is as it was.
    assert_eq!(told("b"), (3, 3, vec![], vec![]));
    // All objects in one go.
    let b = Report { proxies: 3, applied: 3, ..Report::default() };
    let words = vec![("web-0.shop".to_owned(), "a: no such extension".to_owned())];
    let a = Report { proxies: 3, applied: 1, rejected: 1, words };
    assert_eq!(
        debug.tally(|_| true),
        Tally { settled: true, objects: [("Thing/ns/a".into(), a), ("Thing/ns/b".into(), b.clone())].into() }
    );
    let (before, only_b) = (debug.activity(), debug.tally(|s| s.ends_with('b')).objects);
    assert_eq!(only_b, [("Thing/ns/b".into(), b)].into());
    drop(clients);
    crate::streams::until("gone", || debug.tally(|_| true).objects.is_empty()).await;
    assert!(debug.activity() > before, "whoever counts again only if something happened sees it");
}
