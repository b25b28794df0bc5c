//! What the debug interface says of a connected client.

use pilotfish_envoy::TypeUrl::{Cluster, Endpoint};
use pilotfish_envoy::pb::envoy::config::core::v3::Locality;
use pilotfish_xds_server::Config;
use pilotfish_xds_server::debug::DebugError;
use pretty_assertions::assert_eq;
use serde_json::json;

use crate::client::{Delta, said, sidecar};
use crate::fake::{World, start};

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
