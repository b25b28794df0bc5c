//! Policies as a whole: their order, what is done about clients that cannot enforce them, and that no policy, however odd or
//! large, costs a workload its listeners or lets more through.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_controller::object::{Decoded, Object, decode};
use pilotfish_controller::{Index, Settings, load_mesh_config};
use pilotfish_envoy::json::to_json;
use pilotfish_envoy::{Snapshot, TypeUrl, validate};
use pilotfish_model::Proxy;
use pilotfish_model::proxy::Node;
use pilotfish_model::request_authentication::JwksSource;
use pilotfish_testkit::Random;
use pilotfish_translator::{Translator, World, classify, snapshot};
use serde_json::{Value, json};

const CONFIG: &str = "extensionProviders:\n- name: ask\n  envoyExtAuthzGrpc: {service: asked.app.svc.cluster.local, port: 9000}\n";

fn index() -> Index {
    let mesh_config = Arc::new(load_mesh_config(CONFIG).unwrap());
    let mut index = Index::new(Settings { mesh_config, ..Settings::default() });
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "asked", "namespace": "app"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "grpc", "port": 9000}]}});
    apply(&mut index, service);
    index
}

fn apply(index: &mut Index, document: Value) {
    let Ok(Decoded::Object(object)) = decode(document) else { panic!("an object") };
    index.apply(Arc::<Object>::from(object));
}

fn policy(name: &str, spec: Value) -> Value {
    let metadata = json!({"name": name, "namespace": "app"});
    json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec})
}

fn authentication(name: &str, rule: Value) -> Value {
    let metadata = json!({"name": name, "namespace": "app"});
    json!({"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": metadata, "spec": {"jwtRules": [rule]}})
}

/// A sidecar with these labels; a plain Envoy unless it is Istio's.
fn proxy(istio: bool, extensions: &[&str], app: &str) -> Proxy {
    let mut metadata = json!({"NAMESPACE": "app", "LABELS": {"app": app}});
    if istio {
        metadata["ISTIO_VERSION"] = "1.29.1".into();
    }
    let extensions: Vec<Value> = extensions.iter().map(|e| json!({"name": e, "category": "envoy"})).collect();
    let node = json!({"id": "sidecar~10.0.0.2~web.app~app.svc.cluster.local", "cluster": "web.app", "metadata": metadata,
        "extensions": extensions});
    Proxy::parse(serde_json::from_value::<Node>(node).unwrap(), "istio-system", "cluster.local").unwrap()
}

fn translated(index: &mut Index, proxy: &Proxy) -> Snapshot {
    let (mesh, _) = index.publish().unwrap();
    let world = World::new(mesh);
    snapshot(&world, &classify(&world, proxy))
}

/// Filters of the chain for requests, and of the one for connections, that nothing else is known of.
fn filters(snapshot: &Snapshot) -> (Vec<Value>, Vec<Value>) {
    let listener = to_json(&snapshot.get(TypeUrl::Listener).get("virtualInbound").expect("virtualInbound").to_any());
    let chain = |name: &str| {
        let chains = listener["filter_chains"].as_array().unwrap();
        chains.iter().find(|c| c["name"] == name).unwrap()["filters"].as_array().unwrap().clone()
    };
    let of_requests = chain("virtualInbound-catchall-http");
    let manager = of_requests.iter().find(|f| f["name"] == "envoy.filters.network.http_connection_manager");
    let of_requests = manager.map_or(of_requests.clone(), |m| m["typed_config"]["http_filters"].as_array().unwrap().clone());
    (of_requests, chain("virtualInbound"))
}

/// What they are and do, in short.
fn short(filters: &[Value]) -> Vec<String> {
    let one = |f: &Value| {
        let name = f["name"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
        let config = &f["typed_config"];
        let effect = |rules: &Value| match rules {
            Value::Null => String::new(),
            rules => format!(" {}", rules["action"].as_str().unwrap_or("ALLOW")),
        };
        match name.as_str() {
            "rbac" if config["shadow_rules"].is_null() => name + &effect(&config["rules"]),
            "rbac" => name + &effect(&config["rules"]) + " shadow" + &effect(&config["shadow_rules"]),
            _ => name,
        }
    };
    filters.iter().map(one).collect()
}

fn all_actions(index: &mut Index) {
    let rule = json!([{"from": [{"source": {"namespaces": ["a"]}}]}]);
    for action in ["ALLOW", "DENY", "AUDIT"] {
        apply(index, policy(&action.to_lowercase(), json!({"action": action, "rules": rule})));
    }
    apply(index, policy("custom", json!({"action": "CUSTOM", "provider": {"name": "ask"}, "rules": rule})));
    apply(index, authentication("tokens", json!({"issuer": "i", "jwks": "{\"keys\":[{\"kty\":\"oct\",\"k\":\"b25l\"}]}"})));
}

#[test]
fn who_asks_decides_before_who_denies_and_who_allows() {
    let mut index = index();
    all_actions(&mut index);
    let (http, tcp) = filters(&translated(&mut index, &proxy(false, &[], "web")));
    let decides = |f: &String| ["rbac", "ext_authz", "jwt_authn"].iter().any(|n| f.starts_with(n));
    let deciding = |filters: &[Value]| short(filters).into_iter().filter(decides).collect::<Vec<_>>();
    assert_eq!(deciding(&http), ["rbac shadow DENY", "ext_authz", "jwt_authn", "rbac LOG", "rbac DENY", "rbac ALLOW"]);
    assert_eq!(deciding(&tcp), ["rbac shadow DENY", "ext_authz", "rbac LOG", "rbac DENY", "rbac ALLOW"]);
}

#[test]
fn of_rules_for_one_issuer_the_nearer_come_first() {
    let mut index = index();
    let rule = |issuer: &str, audience: &str| json!({"issuer": issuer, "audiences": [audience], "jwksUri": "https://a.example/keys"});
    let mut far = authentication("far", rule("b", "far"));
    far["metadata"]["namespace"] = "istio-system".into();
    for object in [far, authentication("near", rule("b", "near")), authentication("first", rule("a", "first"))] {
        apply(&mut index, object);
    }
    let (http, _) = filters(&translated(&mut index, &proxy(true, &[], "web")));
    let tokens = http.iter().find(|f| f["name"] == "envoy.filters.http.jwt_authn").unwrap();
    let providers = tokens["typed_config"]["providers"].as_object().unwrap().values();
    let audiences: Vec<_> = providers.map(|p| p["audiences"][0].as_str().unwrap()).collect();
    assert_eq!(audiences, ["first", "near", "far"]);
}

#[test]
fn grpc_servers_enforce_what_they_can() {
    let mut index = index();
    all_actions(&mut index);
    let mut dry_run = policy("tried", json!({"action": "DENY", "rules": [{}]}));
    dry_run["metadata"]["annotations"] = json!({"istio.io/dry-run": "true"});
    apply(&mut index, dry_run);
    let status = json!({"phase": "Running", "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}], "conditions": [{"type": "Ready", "status": "True"}]});
    for document in [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "app"},
            "spec": {"clusterIP": "10.0.0.9", "selector": {"app": "web"}, "ports": [{"name": "grpc", "port": 7070}]}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "app", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "app"}]}, "status": status}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"name": "grpc", "port": 7070}],
            "metadata": {"name": "web-1", "namespace": "app", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"addresses": ["10.0.0.2"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "web", "namespace": "app"}}]}),
    ] {
        apply(&mut index, document);
    }
    let node = json!({"id": "sidecar~10.0.0.2~web.app~app.svc.cluster.local", "metadata": {"GENERATOR": "grpc", "NAMESPACE": "app"}});
    let proxy = Proxy::parse(serde_json::from_value::<Node>(node).unwrap(), "istio-system", "cluster.local").unwrap();
    let snapshot = translated(&mut index, &proxy);
    let listener = snapshot.get(TypeUrl::Listener).get("xds.istio.io/grpc/lds/inbound/0.0.0.0:7070").unwrap();
    let manager = to_json(&listener.to_any())["filter_chains"][0]["filters"][0]["typed_config"].clone();
    let filters = manager["http_filters"].as_array().unwrap();
    let names: Vec<_> = filters.iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["envoy.filters.http.rbac.DENY", "envoy.filters.http.rbac", "envoy.filters.http.router"],
        "gRPC wants each name once"
    );
    let action = |f: &Value| f["typed_config"]["rules"]["action"].as_str().unwrap_or("ALLOW").to_owned();
    assert_eq!([&filters[0], &filters[1]].map(action), ["DENY", "ALLOW"]);
    let names = |f: &Value| f["typed_config"]["rules"]["policies"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        [&filters[0], &filters[1]].map(names),
        [vec!["app-custom-0", "app-deny-0"], vec!["app-allow-0"]],
        "who cannot be asked denies"
    );
}

/// Everything of a stock Envoy that listeners need beside policies.
const BASE: &[&str] = &[
    "envoy.filters.http.router",
    "envoy.filters.network.http_connection_manager",
    "envoy.filters.network.tcp_proxy",
    "envoy.filters.listener.original_dst",
    "envoy.filters.listener.tls_inspector",
    "envoy.filters.listener.http_inspector",
];

#[test]
fn what_cannot_be_enforced_lets_nothing_through() {
    let nowhere = |filters: &[Value]| {
        filters.len() == 1
            && filters[0]["typed_config"]["cluster"] == "BlackHoleCluster"
            && filters[0]["name"] == "envoy.filters.network.tcp_proxy"
    };
    let rbac = ["envoy.filters.http.rbac", "envoy.filters.network.rbac"];
    let ask = ["envoy.filters.http.ext_authz", "envoy.filters.network.ext_authz"];
    let jwt = ["envoy.filters.http.jwt_authn"];
    for (more, closed) in [
        (vec![], (true, true)),
        (rbac.to_vec(), (true, true)),
        ([&rbac[..], &ask].concat(), (true, false)),
        ([&ask[..], &jwt].concat(), (true, true)),
        ([&rbac[..], &ask, &jwt].concat(), (false, false)),
    ] {
        let mut index = index();
        all_actions(&mut index);
        let (http, tcp) = filters(&translated(&mut index, &proxy(false, &[BASE, &more].concat(), "web")));
        assert_eq!((nowhere(&http), nowhere(&tcp)), closed, "{more:?}: {:?} {:?}", short(&http), short(&tcp));
    }
    // Who has no policies needs nothing.
    let (http, tcp) = filters(&translated(&mut index(), &proxy(false, BASE, "web")));
    assert!(!nowhere(&http) && !nowhere(&tcp));
}

#[test]
fn path_templates_work_without_their_extension() {
    let path = |extensions: &[&str]| {
        let mut index = index();
        apply(&mut index, policy("paths", json!({"rules": [{"to": [{"operation": {"paths": ["/a.b/{*}/c/{**}"]}}]}]})));
        let (http, _) = filters(&translated(&mut index, &proxy(false, extensions, "web")));
        let rbac = http.iter().find(|f| f["name"] == "envoy.filters.http.rbac").unwrap();
        let rules = &rbac["typed_config"]["rules"]["policies"]["ns[app]-policy[paths]-rule[0]"]["permissions"][0]["and_rules"]["rules"];
        rules[0]["or_rules"]["rules"][0].clone()
    };
    let rbac = [BASE, &["envoy.filters.http.rbac", "envoy.filters.network.rbac"]].concat();
    assert_eq!(path(&rbac), json!({"url_path": {"path": {"safe_regex": {"regex": "/a\\.b/[^/]+/c/.*"}}}}));
    let with = [&rbac[..], &["envoy.path.match.uri_template.uri_template_matcher"]].concat();
    assert_eq!(path(&with)["uri_template"]["typed_config"]["path_template"], "/a.b/*/c/**");
}

#[test]
fn keys_that_come_reach_only_who_waits_for_them() {
    let mut index = index();
    let source = JwksSource::Uri("https://i.example/keys".into());
    let mut waiting = authentication("web", json!({"issuer": "i", "jwksUri": "https://i.example/keys"}));
    waiting["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    apply(&mut index, waiting);
    let (mesh, _) = index.publish().unwrap();
    let mut world = World::new(mesh);
    let translator = Translator::default();
    let make = |world: &World, app: &str| {
        let class = classify(world, &proxy(true, &[], app));
        let view = translator.view(world, class.scope(), None);
        let own = translator.own(world, &class, &view, None);
        (class, view, own)
    };
    let (class, view, own) = make(&world, "web");
    let (_, other_view, other_own) = make(&world, "other");
    let text = |own: &pilotfish_translator::Own| {
        let resource = own.layers().get(TypeUrl::Listener).get("virtualInbound").unwrap().clone();
        to_json(&resource.to_any()).to_string()
    };
    let known = "b25l";
    assert!(text(&own).contains("nobody") && !text(&own).contains(known), "without keys no token is valid");

    index.set_keys([(source.clone(), Some(format!("{{\"keys\":[{{\"kty\":\"oct\",\"k\":\"{known}\"}}]}}").into()))].into());
    let (mesh, changes) = index.publish().unwrap();
    world = world.next(mesh, &changes);
    assert!(!view.touched_by(&world, &changes) && !other_view.touched_by(&world, &changes));
    assert!(own.touched_by(&world, &changes) && !other_own.touched_by(&world, &changes));
    let own = translator.own(&world, &class, &view, Some((&own, &changes)));
    assert!(text(&own).contains(known) && !text(&own).contains("nobody"));
    assert_eq!(text(&own), text(&make(&world, "web").2), "incremental equals fresh");

    index.set_keys([(source, Some(format!("{{\"keys\":[{{\"kty\":\"oct\",\"k\":\"{known}\"}}]}}").into()))].into());
    assert!(index.publish().is_none(), "the same keys are no change");
}

#[test]
fn large_policies_take_no_longer_than_their_size() {
    let mut index = index();
    let source = |i: usize| json!({"source": {"principals": [format!("cluster.local/ns/app/sa/client-with-a-long-name-{i:07}")]}});
    // Some 12 MB in all.
    for i in 0..20 {
        let from: Vec<Value> = (0..7_000).map(|j| source(i * 7_000 + j)).collect();
        apply(&mut index, policy(&format!("large-{i}"), json!({"action": "DENY", "rules": [{"from": from}]})));
    }
    let start = Instant::now();
    let snapshot = translated(&mut index, &proxy(true, &[], "web"));
    // Seconds without optimisation; anything that multiplies would take minutes.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(snapshot.get(TypeUrl::Listener).get("virtualInbound").is_some());
}

/// Values that a user could write, odd ones among them.
const TEXTS: &[&str] = &[
    "",
    "*",
    "**",
    "a",
    "a*",
    "*a",
    "*a*",
    "/",
    "/a",
    "/{*}",
    "/{**}/{*}",
    "{*}",
    "1.2.3.4",
    "10.0.0.0/8",
    "10.0.0.0/99",
    "::/0",
    "80",
    "0",
    "99999",
    "cluster.local/ns/a/sa/b",
    "*/ns/a/sa/b",
    "a/b",
    "https://a.example/b",
    "[a]",
    "[",
    "\u{0}",
    "a\nb",
    "ü",
    "(",
    "\\",
];
const KEYS: &[&str] = &[
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[a]",
    "request.auth.claims[a][b]",
    "request.auth.claims[]",
    "request.headers[x-a]",
    "request.headers[]",
    "request.headers[a\nb]",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "experimental.envoy.filters.a.b[c]",
    "experimental.envoy.filters.[c]",
    "nonsense",
    "",
];

fn texts(random: &mut Random) -> Value {
    (0..random.below(4)).map(|_| Value::from(TEXTS[random.below(TEXTS.len())])).collect()
}

fn some_of(fields: &[&str], random: &mut Random) -> Value {
    let mut some = json!({});
    for field in fields.iter().filter(|_| random.below(4) == 0).collect::<Vec<_>>() {
        some[*field] = texts(random);
    }
    some
}

fn arbitrary(random: &mut Random) -> Value {
    let source = ["principals", "requestPrincipals", "namespaces", "serviceAccounts", "ipBlocks", "remoteIpBlocks", "trustDomains"];
    let not_source = ["notPrincipals", "notRequestPrincipals", "notNamespaces", "notServiceAccounts", "notIpBlocks", "notRemoteIpBlocks"];
    let operation = ["hosts", "ports", "methods", "paths", "notHosts", "notPorts", "notMethods", "notPaths"];
    let rules: Vec<Value> = (0..random.below(4))
        .map(|_| {
            let from: Vec<Value> =
                (0..random.below(3)).map(|_| json!({"source": some_of(&[&source[..], &not_source].concat(), random)})).collect();
            let to: Vec<Value> = (0..random.below(3)).map(|_| json!({"operation": some_of(&operation, random)})).collect();
            let when: Vec<Value> = (0..random.below(4))
                .map(|_| json!({"key": KEYS[random.below(KEYS.len())], "values": texts(random), "notValues": texts(random)}))
                .collect();
            json!({"from": from, "to": to, "when": when})
        })
        .collect();
    let action = ["ALLOW", "DENY", "AUDIT", "CUSTOM"][random.below(4)];
    let provider = ["ask", "nobody", ""][random.below(3)];
    let mut made = policy(&format!("p{}", random.below(4)), json!({"action": action, "provider": {"name": provider}, "rules": rules}));
    if random.below(4) == 0 {
        let dry_run = ["true", "maybe"][random.below(2)];
        made["metadata"]["annotations"] = json!({"istio.io/dry-run": dry_run});
    }
    made
}

#[test]
fn no_policy_costs_a_workload_its_listeners() {
    for seed in 0..150 {
        let mut random = Random(seed);
        let mut index = index();
        for _ in 0..=random.below(3) {
            apply(&mut index, arbitrary(&mut random));
        }
        for istio in [true, false] {
            let (mesh, _) = index.publish().unwrap_or_else(|| (index.snapshot().mesh, Default::default()));
            let world = World::new(mesh);
            let snapshot = snapshot(&world, &classify(&world, &proxy(istio, &[], "web")));
            let listener = snapshot.get(TypeUrl::Listener).get("virtualInbound");
            let listener = listener.unwrap_or_else(|| panic!("seed {seed}: kept in: {:?}", index.snapshot().objects));
            assert_eq!(validate::validate_any(&listener.to_any()), Ok(()), "seed {seed}");
        }
    }
}
