//! What is said of objects that have no effect, or hardly the one that was meant.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::source::yaml;
use pilotfish_controller::{Index, Settings};
use pilotfish_model::name::Labels;
use pilotfish_translator::World;
use pilotfish_translator::diagnose::{Workloads, findings};
use serde_json::{Value, json};

/// The findings of a mesh, as `object: field: message`. Its only workloads are `app=web` in `shop` and `istio=gw` in `edge`.
fn found(objects: &[Value]) -> Vec<String> {
    let mut index = Index::new(Settings::default());
    for (i, object) in objects.iter().enumerate() {
        let mut object = object.clone();
        // In the order of age.
        object["metadata"]["creationTimestamp"] = format!("2026-01-01T00:00:{i:02}Z").into();
        let Decoded::Object(object) = decode(object).unwrap() else { panic!("not ours") };
        index.apply((*object).into());
    }
    let (mesh, _) = index.publish().unwrap();
    let snapshot = index.snapshot();
    assert!(snapshot.diagnostics.is_empty(), "{:?}", snapshot.diagnostics);
    let mut workloads = Workloads::default();
    for (namespace, key, value) in [("shop", "app", "web"), ("edge", "istio", "gw")] {
        workloads.add(&namespace.into(), &Labels::from([(key.into(), value.into())]));
    }
    findings(&World::new(mesh), &workloads, snapshot.objects.keys()).into_values().flatten().map(|d| d.to_string()).collect()
}

fn istio(group: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("{group}.istio.io/v1"), "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec})
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 80}], "selector": {"app": name}}})
}

fn virtual_service(name: &str, spec: &str) -> Value {
    let mut spec: Value = yaml::parse(spec).unwrap();
    if spec.get("http").is_none() {
        spec["http"] = json!([{"route": [{"destination": {"host": "web"}}]}]);
    }
    istio("networking", "VirtualService", name, spec)
}

#[test]
fn the_older_rules_for_a_host_hide_the_younger() {
    let all = [
        service("web"),
        service("b"),
        service("d"),
        virtual_service("z-first", "{hosts: [web, b]}"),
        virtual_service("second", "{hosts: [web]}"),
        virtual_service("private", "{hosts: [d], exportTo: ['.']}"),
        // Who does not see the private one takes the public one.
        virtual_service("public", "{hosts: [d]}"),
    ];
    let message = "has no effect on sidecars: the older VirtualService shop/z-first has rules for web.shop.svc.cluster.local";
    assert_eq!(found(&all), [format!("VirtualService shop/second: spec.hosts[0]: {message}")]);
}

#[test]
fn routes_that_lead_nowhere() {
    let to = |destination: &str| format!("{{hosts: [web], http: [{{route: [{{destination: {destination}}}]}}]}}");
    let rows = [
        (
            to("{host: gone}"),
            "spec.http[0].route[0].destination.host: there is no service gone.shop.svc.cluster.local: what is sent there fails",
        ),
        (
            to("{host: web, port: {number: 81}}"),
            "spec.http[0].route[0].destination.port: service web.shop.svc.cluster.local has no port 81: what is sent there fails",
        ),
        (
            to("{host: web, subset: v9}"),
            "spec.http[0].route[0].destination.subset: no DestinationRule has a subset \"v9\" of web.shop.svc.cluster.local: what is sent there fails",
        ),
        (
            "{hosts: [web], http: [{delegate: {name: other}}]}".into(),
            "spec.http[0].delegate: has no effect: there is no VirtualService shop/other",
        ),
        ("{hosts: [web], gateways: [none]}".into(), "spec.gateways: there is no Gateway shop/none"),
        ("{hosts: [web], exportTo: ['~']}".into(), "spec.exportTo: has no effect: it is exported to nobody"),
        (
            "{hosts: [gone]}".into(),
            "spec.hosts[0]: there is no service gone.shop.svc.cluster.local: its rules are for clients that send HTTP for that name to port 80",
        ),
    ];
    for (spec, expected) in rows {
        assert_eq!(found(&[service("web"), virtual_service("v", &spec)]), [format!("VirtualService shop/v: {expected}")]);
    }
}

#[test]
fn selectors_that_select_nothing() {
    let none = json!({"matchLabels": {"app": "gone"}});
    let rows = [
        ("security", "PeerAuthentication", json!({"selector": none}), "spec.selector"),
        ("security", "AuthorizationPolicy", json!({"selector": none}), "spec.selector"),
        ("security", "RequestAuthentication", json!({"selector": none}), "spec.selector"),
        ("telemetry", "Telemetry", json!({"selector": none}), "spec.selector"),
        (
            "networking",
            "Sidecar",
            json!({"workloadSelector": {"labels": {"app": "gone"}}, "egress": [{"hosts": ["*/*"]}]}),
            "spec.workloadSelector",
        ),
        ("networking", "DestinationRule", json!({"host": "web", "workloadSelector": none}), "spec.workloadSelector"),
    ];
    for (group, kind, spec, field) in rows {
        let expected = format!("{kind} shop/x: {field}: has no effect: no workload of namespace shop has the labels app=gone");
        assert_eq!(found(&[service("web"), istio(group, kind, "x", spec.clone())]), [expected]);
        let mut fine = spec;
        match kind {
            "Sidecar" => fine["workloadSelector"]["labels"]["app"] = "web".into(),
            "DestinationRule" => fine["workloadSelector"]["matchLabels"]["app"] = "web".into(),
            _ => fine["selector"]["matchLabels"]["app"] = "web".into(),
        }
        assert_eq!(found(&[service("web"), istio(group, kind, "x", fine)]), [""; 0]);
    }
}

#[test]
fn modules_that_nobody_can_pull() {
    let secret = |name: &str, kind: &str, content: &str| {
        let metadata = json!({"name": name, "namespace": "shop"});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "stringData": {".dockerconfigjson": content}})
    };
    let docker = "kubernetes.io/dockerconfigjson";
    let module = |url: &str, secret: &str| json!({"url": url, "imagePullSecret": secret});
    let wasm = |name: &str, secret: &str| istio("extensions", "WasmPlugin", name, module("registry.example/m:v1", secret));
    let mut extension = istio("extensions", "TrafficExtension", "te", json!({"wasm": module("x", "none")}));
    extension["apiVersion"] = "extensions.istio.io/v1alpha1".into();
    let mut objects = vec![
        secret("good", docker, "{}"),
        secret("opaque", "Opaque", "{}"),
        secret("words", docker, "words"),
        secret("empty", docker, ""),
        extension,
        wasm("good", "good"),
        wasm("missing", "none"),
        wasm("opaque", "opaque"),
        wasm("words", "words"),
        wasm("empty", "empty"),
        istio("extensions", "WasmPlugin", "file", module("https://files.example/m.wasm", "good")),
    ];
    for object in objects.iter_mut().filter(|o| o["kind"] == "WasmPlugin") {
        object["apiVersion"] = "extensions.istio.io/v1alpha1".into();
    }
    let none = "no proxy can fetch the module";
    let lacks = |name: &str, why: &str| format!("Secret shop/{name} has no credentials for registries: {why}; {none}");
    let expected = [
        ("WasmPlugin shop/empty: spec.imagePullSecret", lacks("empty", "it has no .dockerconfigjson")),
        ("WasmPlugin shop/file: spec.imagePullSecret", "has no effect: only images are fetched with credentials".to_owned()),
        ("WasmPlugin shop/missing: spec.imagePullSecret", format!("namespace shop has no Secret \"none\"; {none}")),
        ("WasmPlugin shop/opaque: spec.imagePullSecret", lacks("opaque", "its type is another than kubernetes.io/dockerconfigjson")),
        ("WasmPlugin shop/words: spec.imagePullSecret", lacks("words", "its .dockerconfigjson is no JSON object")),
        ("TrafficExtension shop/te: spec.wasm.imagePullSecret", format!("namespace shop has no Secret \"none\"; {none}")),
    ];
    assert_eq!(found(&objects), expected.map(|(at, why)| format!("{at}: {why}")));
}

#[test]
fn servers_of_gateways_that_do_not_go_together() {
    let server =
        |port: u16, name: &str, protocol: &str| json!({"port": {"number": port, "name": name, "protocol": protocol}, "hosts": ["*"]});
    let gateway =
        |name: &str, servers: Value| istio("networking", "Gateway", name, json!({"selector": {"istio": "gw"}, "servers": servers}));
    let all = [
        gateway("a", json!([server(80, "http", "HTTP")])),
        gateway("b", json!([server(80, "tcp", "TCP"), server(81, "tcp", "TCP")])),
        istio("networking", "Gateway", "c", json!({"selector": {"istio": "gone"}, "servers": [server(80, "http", "HTTP")]})),
    ];
    let unrouted = "has no effect: no VirtualService of this Gateway has rules for its connections";
    assert_eq!(
        found(&all),
        [
            format!("Gateway shop/b: spec.servers[0]: {unrouted}"),
            "Gateway shop/b: spec.servers[0]: is not served: an older server of port 80 has another protocol, or one of these server names"
                .into(),
            format!("Gateway shop/b: spec.servers[1]: {unrouted}"),
            "Gateway shop/c: spec.selector: has no effect: no workload has the labels istio=gone".into(),
        ]
    );
}

#[test]
fn destination_rules_that_nobody_uses() {
    let rule = |name: &str, spec: Value| istio("networking", "DestinationRule", name, spec);
    let random = json!({"loadBalancer": {"simple": "RANDOM"}});
    let all = [
        service("web"),
        rule("a", json!({"host": "web", "trafficPolicy": random, "subsets": [{"name": "v1"}]})),
        rule("b", json!({"host": "web", "trafficPolicy": random, "subsets": [{"name": "v1"}, {"name": "v2"}]})),
        rule("gone", json!({"host": "gone"})),
        rule("wide", json!({"host": "*.shop.svc.cluster.local", "trafficPolicy": random})),
    ];
    assert_eq!(
        found(&all),
        [
            "DestinationRule shop/b: spec.subsets[0]: has no effect: the older shop/a has a subset of that name",
            "DestinationRule shop/b: spec.trafficPolicy: has no effect: the older shop/a has one for the same host",
            "DestinationRule shop/gone: spec.host: has no effect: there is no service gone.shop.svc.cluster.local with a port",
            "DestinationRule shop/wide: spec.host: has no effect: for each of its hosts a more specific rule is used, or one of another namespace",
        ]
    );
}

#[test]
fn policies_that_deny_because_nobody_can_be_asked() {
    let custom = |name: &str, provider: &str, app: &str| {
        let spec = json!({"action": "CUSTOM", "provider": {"name": provider}, "selector": {"matchLabels": {"app": app}}, "rules": [{}]});
        istio("security", "AuthorizationPolicy", name, spec)
    };
    let found = found(&[custom("one", "a", "web"), custom("two", "b", "web")]);
    let denied = "Whatever the rules match is denied";
    let unknown = format!("spec.provider.name: cannot be asked: the mesh has no such provider, or it does not authorise. {denied}");
    let other = format!("spec.provider.name: cannot be asked: other policies of a workload ask another one. {denied}");
    let expected: Vec<String> =
        ["one", "two"].iter().flat_map(|name| [&other, &unknown].map(|m| format!("AuthorizationPolicy shop/{name}: {m}"))).collect();
    assert_eq!(found, expected);
}

#[test]
fn policies_on_requests_at_ports_without_them() {
    let status = json!({"phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}], "conditions": [{"type": "Ready", "status": "True"}]});
    let meta = |name: &str, labels: Value| json!({"name": name, "namespace": "shop", "labels": labels});
    let objects = [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("web", json!({})),
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 80}, {"name": "tcp-db", "port": 5432}], "selector": {"app": "web"}}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta("web", json!({"app": "web"})),
            "spec": {"containers": [{"name": "app"}]}, "status": status}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta("web-1", json!({"kubernetes.io/service-name": "web"})),
            "addressType": "IPv4", "ports": [{"name": "http", "port": 80}, {"name": "tcp-db", "port": 5432}],
            "endpoints": [{"addresses": ["10.0.0.2"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "web", "namespace": "shop"}}]}),
        istio(
            "security",
            "AuthorizationPolicy",
            "a",
            json!({"rules": [
            {"from": [{"source": {"namespaces": ["x"]}}]}, {"to": [{"operation": {"methods": ["GET"]}}]}]}),
        ),
        istio(
            "security",
            "AuthorizationPolicy",
            "b",
            json!({"action": "DENY", "rules": [{"when": [{"key": "request.headers[a]", "values": ["b"]}]}]}),
        ),
    ];
    let at = "looks at requests, but some ports are not read as HTTP, such as 5432 of web.shop.svc.cluster.local: there";
    let expected = [
        format!("AuthorizationPolicy shop/a: spec.rules[1]: {at} it allows nothing"),
        format!("AuthorizationPolicy shop/b: spec.rules[0]: {at} that part is left out, so it matches more"),
    ];
    let found = found(&objects);
    let of_policies: Vec<&String> = found.iter().filter(|f| f.starts_with("AuthorizationPolicy")).collect();
    assert_eq!(of_policies, expected.iter().collect::<Vec<_>>());
}
