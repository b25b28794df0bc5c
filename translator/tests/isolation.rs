//! One bad object hurts only itself.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::{Index, Settings};
use pilotfish_envoy::{Snapshot, TypeUrl};
use pilotfish_model::Proxy;
use pilotfish_model::name::Labels;
use pilotfish_model::proxy::{Metadata, Node};
use pilotfish_translator::diagnose::{Workloads, findings};
use pilotfish_translator::secret::secrets;
use pilotfish_translator::{World, classify, snapshot};
use serde_json::{Value, json};

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let group = if kind == "Service" { "v1" } else { "networking.istio.io/v1" };
    json!({"apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
}

fn service(name: &str) -> Value {
    object("Service", name, json!({"clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 80}], "selector": {"app": name}}))
}

fn routes(name: &str, host: &str, http: Value) -> Value {
    object("VirtualService", name, json!({"hosts": [host], "http": http}))
}

/// What a sidecar gets, and what is said of objects.
fn served(objects: Vec<Value>) -> (Snapshot, Vec<String>) {
    let mut index = Index::new(Settings::default());
    for object in objects {
        let Decoded::Object(object) = decode(object).unwrap() else { panic!("not ours") };
        index.apply((*object).into());
    }
    let (mesh, _) = index.publish().unwrap();
    let metadata = Metadata { istio_version: Some("1.30.0".into()), namespace: Some("shop".into()), ..Metadata::default() };
    let node = Node { id: "sidecar~10.9.9.9~client.shop~shop.svc.cluster.local".into(), metadata, ..Node::default() };
    let proxy = Proxy::parse(node, "istio-system", "cluster.local").unwrap();
    let world = World::new(mesh);
    let said = index.snapshot().diagnostics.iter().map(ToString::to_string).collect();
    (snapshot(&world, &classify(&world, &proxy)), said)
}

/// The route configuration of port 80 with these objects beside a service `web` whose requests for `/x` go elsewhere.
fn beside_web(mut objects: Vec<Value>) -> (Vec<u8>, Vec<String>) {
    let to = |host: &str| json!([{"destination": {"host": host}}]);
    let rules = json!([{"match": [{"uri": {"prefix": "/x"}}], "route": to("other")}, {"route": to("web")}]);
    objects.extend([service("web"), service("other"), routes("web", "web", rules)]);
    let (snapshot, said) = served(objects);
    let port_80 = snapshot.get(TypeUrl::Route).get("80").unwrap().to_any();
    (port_80.value.to_vec(), said)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|w| w == text.as_bytes())
}

#[test]
fn rules_that_make_no_sense_leave_the_others_in_place() {
    let (alone, _) = beside_web(vec![service("bad")]);
    let to_bad = json!([{"destination": {"host": "bad"}}]);
    let broken = routes("bad", "bad", json!([{"match": [{"uri": {"regex": "("}}], "route": to_bad}]));
    let (with_broken, said) = beside_web(vec![service("bad"), broken]);
    assert!(with_broken == alone, "the rest differs");
    assert!(matches!(&said[..], [one] if one.starts_with("VirtualService shop/bad: spec.http[0].match[0].uri")), "{said:?}");

    let delegate = |to: &str| json!([{"delegate": {"name": to, "namespace": "shop"}}]);
    let cycle = vec![
        service("bad"),
        routes("root", "bad", delegate("a")),
        object("VirtualService", "a", json!({"http": delegate("b")})),
        object("VirtualService", "b", json!({"http": delegate("a")})),
    ];
    // Whoever delegates in a circle has no rules at all: its service is as it would be without.
    assert!(beside_web(cycle).0 == alone, "the rest differs");
}

#[test]
fn ten_megabytes_of_rules_are_rules() {
    let rule = |i: usize| {
        let value = format!("{i}-{}", "x".repeat(200));
        json!({"match": [{"headers": {"user": {"exact": value}}}], "route": [{"destination": {"host": "big"}}]})
    };
    let huge = routes("big", "big", (0..35_000).map(rule).collect());
    assert!(huge.to_string().len() > 10_000_000);
    let (port_80, said) = beside_web(vec![service("big"), huge]);
    assert_eq!(said, [""; 0]);
    assert!(contains(&port_80, "34999-xxx") && contains(&port_80, "outbound|80||other.shop.svc.cluster.local"));
}

#[test]
fn of_32_secrets_one_that_is_no_pair_is_kept_back() {
    let pairs: Vec<(String, String)> = (0..32)
        .map(|i| {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(vec![format!("{i}.example")]).unwrap().self_signed(&key).unwrap();
            (certificate.pem(), key.serialize_pem())
        })
        .collect();
    let mut index = Index::new(Settings::default());
    let mut apply = |object: Value| {
        let Decoded::Object(object) = decode(object).unwrap() else { panic!("not ours") };
        index.apply((*object).into());
    };
    for (i, (certificate, key)) in pairs.iter().enumerate() {
        // The seventh has its neighbour's key.
        let key = if i == 7 { &pairs[8].1 } else { key };
        apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("c{i}"), "namespace": "shop"},
            "stringData": {"tls.crt": certificate, "tls.key": key}}));
    }
    let server = |i: usize| {
        json!({"port": {"number": 443, "name": format!("https-{i}"), "protocol": "HTTPS"}, "hosts": [format!("{i}.example")],
            "tls": {"mode": "SIMPLE", "credentialName": format!("c{i}")}})
    };
    apply(object("Gateway", "edge", json!({"selector": {"istio": "gw"}, "servers": (0..32).map(server).collect::<Vec<_>>()})));
    let (mesh, _) = index.publish().unwrap();

    let node = Node { id: "router~10.9.9.9~edge.shop~shop.svc.cluster.local".into(), ..Node::default() };
    let proxy = Proxy::parse(node, "istio-system", "cluster.local").unwrap();
    let names: Vec<Arc<str>> = (0..32).map(|i| Arc::from(format!("kubernetes://c{i}"))).collect();
    let served: Vec<Arc<str>> = secrets(&mesh, &proxy, &names).iter().map(|r| r.name().clone()).collect();
    let expected: Vec<&Arc<str>> = names.iter().filter(|n| &***n != "kubernetes://c7").collect();
    assert_eq!(served.iter().collect::<Vec<_>>(), expected);

    let mut workloads = Workloads::default();
    workloads.add(&"shop".into(), &Labels::from([("istio".into(), "gw".into())]));
    let found = findings(&World::new(mesh), &workloads, std::iter::empty());
    let said: Vec<String> = found.into_values().flatten().map(|d| d.to_string()).collect();
    let mistake = "Secret shop/c7 is not served: the key is not that of the certificate";
    assert_eq!(said, [format!("Gateway shop/edge: spec.servers[7].tls.credentialName: {mistake}")]);
}
