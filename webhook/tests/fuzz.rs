//! Objects of strangers: whatever they are, both webhooks answer, and what they say of a Pod can be applied to it.
//!
//! `PROPTEST_CASES=1000000 cargo test -p pilotfish-webhook --test fuzz` looks for longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, OnceLock};

use base64::Engine;
use pilotfish_webhook::admission::{Answer, Question};
use pilotfish_webhook::inject::Config;
use pilotfish_webhook::server::{Nothing, Webhooks};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

/// Words that mean something somewhere.
const WORDS: &[&str] = &[
    "",
    "*",
    "a",
    "/",
    ".",
    "-1",
    "0",
    "1",
    "65536",
    "18446744073709551616",
    "true",
    "false",
    "null",
    "10.0.0.0/8",
    "1s",
    "1ns",
    "-5s",
    "1e309",
    "(a+)+$",
    "(x{1000}){1000}",
    "*.example.com",
    "a.b.svc.cluster.local",
    "auto",
    "REDIRECT",
    "TPROXY",
    "{{ 1 }}",
    "{{ .Name }}",
    "\"",
    "\n",
    "{",
    "[]",
    "{}",
    "gateway",
    "sidecar,gateway",
    "grpc-agent",
    "istio-proxy",
    "istio-init",
    "concurrency: x",
    "concurrency: 3",
];

/// Fields and annotations that are looked at.
const KEYS: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "labels",
    "annotations",
    "generateName",
    "ownerReferences",
    "containers",
    "initContainers",
    "volumes",
    "ports",
    "containerPort",
    "httpGet",
    "tcpSocket",
    "grpc",
    "port",
    "path",
    "readinessProbe",
    "livenessProbe",
    "startupProbe",
    "lifecycle",
    "preStop",
    "postStart",
    "exec",
    "env",
    "value",
    "resources",
    "limits",
    "requests",
    "cpu",
    "memory",
    "securityContext",
    "runAsUser",
    "hostNetwork",
    "nodeName",
    "http",
    "match",
    "uri",
    "regex",
    "prefix",
    "exact",
    "route",
    "destination",
    "host",
    "subset",
    "weight",
    "timeout",
    "retries",
    "hosts",
    "gateways",
    "tls",
    "tcp",
    "servers",
    "selector",
    "trafficPolicy",
    "loadBalancer",
    "consistentHash",
    "rules",
    "from",
    "source",
    "principals",
    "when",
    "key",
    "values",
    "configPatches",
    "applyTo",
    "patch",
    "operation",
    "jwtRules",
    "issuer",
    "jwks",
    "endpoints",
    "address",
    "sidecar.istio.io/inject",
    "inject.istio.io/templates",
    "proxy.istio.io/config",
    "proxy.istio.io/overrides",
    "sidecar.istio.io/status",
    "sidecar.istio.io/proxyCPU",
    "sidecar.istio.io/proxyImage",
    "sidecar.istio.io/userVolume",
    "sidecar.istio.io/userVolumeMount",
    "sidecar.istio.io/interceptionMode",
    "status.sidecar.istio.io/port",
    "traffic.sidecar.istio.io/includeInboundPorts",
    "prometheus.io/port",
    "traffic.sidecar.istio.io/excludeOutboundIPRanges",
    "prometheus.istio.io/merge-metrics",
    "sidecar.istio.io/nativeSidecar",
];

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0i64..70_000).prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        select(WORDS).prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            btree_map(select(KEYS).prop_map(str::to_owned), inner, 0..5).prop_map(|m| json!(m)),
        ]
    })
}

/// Objects that are fine.
fn seeds() -> &'static Vec<Value> {
    static SEEDS: OnceLock<Vec<Value>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let object = |group: &str, kind: &str, spec: Value| {
            json!({"apiVersion": format!("{group}.istio.io/v1"), "kind": kind, "metadata": {"name": "a", "namespace": "b"}, "spec": spec})
        };
        let to = json!([{"destination": {"host": "a", "subset": "v1", "port": {"number": 80}}, "weight": 100}]);
        let fine = [
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a", "namespace": "b", "labels": {"app": "a"}, "annotations": {"prometheus.io/port": "8080",
                    "sidecar.istio.io/userVolume": "{}", "proxy.istio.io/config": "concurrency: 1", "sidecar.istio.io/proxyCPU": "10m"}},
                "spec": {"volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {"runAsUser": 7},
                    "containers": [{"name": "app", "image": "i", "ports": [{"name": "http", "containerPort": 8080}],
                        "readinessProbe": {"httpGet": {"port": "http", "path": "/"}}, "lifecycle": {"preStop": {"httpGet": {"port": 8080}}}},
                        {"name": "istio-proxy", "image": "auto", "env": [{"name": "A", "value": "b"}]}]}}),
            object("networking", "VirtualService", json!({"hosts": ["a.example.com"], "gateways": ["mesh"],
                "http": [{"match": [{"uri": {"regex": "/a.*"}, "headers": {"x": {"exact": "y"}}}], "route": to, "timeout": "5s",
                    "retries": {"attempts": 3, "perTryTimeout": "1s"}, "fault": {"delay": {"percentage": {"value": 1}, "fixedDelay": "1s"}}}],
                "tls": [{"match": [{"port": 443, "sniHosts": ["a.example.com"]}], "route": to}]})),
            object("networking", "DestinationRule", json!({"host": "a", "subsets": [{"name": "v1", "labels": {"v": "1"}}],
                "trafficPolicy": {"loadBalancer": {"consistentHash": {"httpHeaderName": "x"}}, "outlierDetection": {"interval": "1s"},
                    "tls": {"mode": "SIMPLE"}}})),
            object("networking", "Gateway", json!({"selector": {"istio": "ingressgateway"}, "servers": [{"hosts": ["*"],
                "port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "tls": {"mode": "SIMPLE", "credentialName": "c"}}]})),
            object("networking", "ServiceEntry", json!({"hosts": ["a.example.com"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
                "resolution": "STATIC", "endpoints": [{"address": "10.0.0.1", "weight": 1}]})),
            object("networking", "Sidecar", json!({"ingress": [{"port": {"number": 80, "protocol": "HTTP", "name": "a"}, "defaultEndpoint": "127.0.0.1:8080"}],
                "egress": [{"hosts": ["./*"]}]})),
            object("networking", "EnvoyFilter", json!({"configPatches": [{"applyTo": "CLUSTER", "match": {"context": "ANY", "proxy": {"proxyVersion": "^1.*"}},
                "patch": {"operation": "MERGE", "value": {"connect_timeout": "1s"}}}]})),
            object("security", "AuthorizationPolicy", json!({"action": "DENY", "selector": {"matchLabels": {"a": "b"}}, "rules": [{"from": [{"source":
                {"principals": ["*"], "ipBlocks": ["10.0.0.0/8"]}}], "to": [{"operation": {"paths": ["/a/{*}"]}}], "when": [{"key": "source.ip", "values": ["1.2.3.4"]}]}]})),
            object("security", "RequestAuthentication", json!({"jwtRules": [{"issuer": "a", "jwksUri": "https://a.example.com", "fromHeaders": [{"name": "x"}]}]})),
            object("security", "PeerAuthentication", json!({"selector": {"matchLabels": {"a": "b"}}, "mtls": {"mode": "STRICT"}, "portLevelMtls": {"80": {"mode": "DISABLE"}}})),
            object("telemetry", "Telemetry", json!({"tracing": [{"providers": [{"name": "x"}], "customTags": {"a": {"literal": {"value": "b"}}}}],
                "metrics": [{"overrides": [{"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": {"a": {"operation": "REMOVE"}}}]}]})),
            object("extensions", "WasmPlugin", json!({"url": "oci://a/b", "pluginConfig": {"a": 1}, "match": [{"ports": [{"number": 80}]}]})),
        ];
        fine.into()
    })
}

/// Where everything is in an object.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => map.iter().for_each(|(key, v)| places(v, &format!("{at}/{}", escape(key)), out)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| places(v, &format!("{at}/{i}"), out)),
        _ => {}
    }
}

fn changed(seed: &Value, changes: Vec<(Index, &str, Value)>) -> Value {
    let mut object = seed.clone();
    for (place, key, value) in changes {
        let mut all = Vec::new();
        places(&object, "", &mut all);
        match object.pointer_mut(place.get(&all[..]).as_str()).unwrap() {
            // Half of the words are fields that belong elsewhere.
            Value::Object(map) if key.len() % 2 == 0 => drop(map.insert(key.to_owned(), value)),
            Value::Array(items) if key.len() % 2 == 0 => items.push(value),
            other => *other = value,
        }
    }
    object
}

fn ask(object: &Value) -> Vec<u8> {
    let request = json!({"uid": "u", "operation": "CREATE", "namespace": "b", "kind": {"kind": object["kind"]}, "object": object});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string().into_bytes()
}

/// Both webhooks answer. What is patched stays as it is if it is asked for again.
fn answer(body: &[u8]) {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    let config = CONFIG.get_or_init(|| Config::parse("", "", json!({})).unwrap());
    let webhooks = Webhooks::new(Arc::new(Nothing));
    let Ok(mut question) = Question::parse(body) else { return };
    let whole = |text: String| {
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(answer["response"]["allowed"].is_boolean(), "{answer}");
        answer
    };
    whole(question.answer(&webhooks.validate(&question.request)));
    let injected = webhooks.inject(&question.request, "/cluster/c/net/n", config);
    let text = whole(question.answer(&injected));
    let Answer::Patched(_) = injected else { return };
    let patch = base64::engine::general_purpose::STANDARD.decode(text["response"]["patch"].as_str().unwrap()).unwrap();
    json_patch::patch(&mut question.request.object, &serde_json::from_slice::<json_patch::Patch>(&patch).unwrap()).unwrap();
    let again = webhooks.inject(&question.request, "/cluster/c/net/n", config);
    assert!(!matches!(again, Answer::Denied(_)), "its own result is refused: {again:?}");
}

fn cases(few: u32) -> ProptestConfig {
    if std::env::var_os("PROPTEST_CASES").is_some() { ProptestConfig::default() } else { ProptestConfig::with_cases(few) }
}

#[test]
fn seeds_are_fine() {
    for seed in seeds().iter().skip(1) {
        let verdict = pilotfish_webhook::validate::review(seed);
        assert!(matches!(verdict, pilotfish_webhook::validate::Verdict::Valid(_)), "{seed}: {verdict:?}");
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn good_objects_with_changes(seed in any::<Index>(), changes in vec((any::<Index>(), select(KEYS), values()), 1..5)) {
        answer(&ask(&changed(seed.get(seeds()), changes)));
    }

    #[test]
    fn pods_with_changes(changes in vec((any::<Index>(), select(KEYS), values()), 1..5)) {
        answer(&ask(&changed(&seeds()[0], changes)));
    }
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn objects_out_of_nothing(object in values()) {
        answer(&ask(&object));
    }

    #[test]
    fn bytes_that_are_not_as_they_were(seed in any::<Index>(), holes in vec((any::<Index>(), any::<u8>()), 1..4), end in any::<Index>()) {
        let mut body = ask(seed.get(seeds()));
        for (at, byte) in holes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        answer(&body);
        answer(&body[..end.index(body.len())]);
    }
}
