//! EnvoyFilters on whole snapshots: which proxies get them, in what order, and what is left as it is.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::source::yaml;
use pilotfish_controller::{Index, Settings};
use pilotfish_envoy::json::to_json;
use pilotfish_envoy::{Snapshot, TypeUrl};
use pilotfish_model::diagnostic::Severity;
use pilotfish_model::proxy::Node;
use pilotfish_model::{Kind, Mesh, ObjectId, Proxy};
use pilotfish_translator::{Translator, World, classify, patch_diagnostics, snapshot};
use serde_json::{Value, json};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90}]}
";

/// An EnvoyFilter with these patches; `extra` is more of its spec.
fn filter(namespace: &str, name: &str, extra: &str, patches: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{extra} configPatches: [{patches}]}}
"
    )
}

/// A patch that gives the cluster of port 80 another name in statistics.
fn named(name: &str, matching: &str) -> String {
    let matching = format!("{{{matching} cluster: {{portNumber: 80, service: web.shop.svc.cluster.local}}}}");
    format!("{{applyTo: CLUSTER, match: {matching}, patch: {{operation: MERGE, value: {{alt_stat_name: {name}}}}}}}")
}

fn index(objects: &[String]) -> Index {
    let mut index = Index::new(Settings::default());
    for text in objects {
        apply(&mut index, text);
    }
    index
}

fn apply(index: &mut Index, text: &str) {
    let Decoded::Object(object) = decode(yaml::parse(text).unwrap()).unwrap() else { panic!("not an object") };
    index.apply(Arc::from(object));
}

fn world(objects: &[String]) -> World {
    World::new(index(objects).publish().unwrap().0)
}

fn sidecar(mesh: &Mesh, metadata: &Value) -> Proxy {
    proxy(mesh, "sidecar~10.1.0.1~web-0.shop~shop.svc.cluster.local", metadata, &[])
}

fn proxy(mesh: &Mesh, id: &str, metadata: &Value, extensions: &[&str]) -> Proxy {
    let extensions: Vec<Value> = extensions.iter().map(|e| json!({"name": e})).collect();
    let node: Node = serde_json::from_value(json!({"id": id, "metadata": metadata, "extensions": extensions})).unwrap();
    Proxy::parse(node, &mesh.config.root_namespace, &mesh.domain).unwrap()
}

fn istio() -> Value {
    json!({"ISTIO_VERSION": "1.29.1", "LABELS": {"app": "web"}})
}

fn of(world: &World, proxy: &Proxy) -> Snapshot {
    snapshot(world, &classify(world, proxy))
}

fn resource(snapshot: &Snapshot, type_url: TypeUrl, name: &str) -> Option<Value> {
    snapshot.get(type_url).get(name).map(|r| to_json(&r.to_any()))
}

/// What the cluster of port 80 is called in statistics.
fn stat_name(world: &World, metadata: &Value) -> String {
    let cluster = resource(&of(world, &sidecar(&world.mesh, metadata)), TypeUrl::Cluster, "outbound|80||web.shop.svc.cluster.local");
    cluster.unwrap()["alt_stat_name"].as_str().unwrap().to_owned()
}

const PLAIN: &str = "outbound|80||web.shop.svc.cluster.local;";

#[test]
fn the_later_of_two_patches_wins_by_priority_then_root_then_name() {
    let wins = |filters: &[String]| {
        let objects: Vec<String> = [SERVICE.to_owned()].into_iter().chain(filters.iter().cloned()).collect();
        stat_name(&world(&objects), &istio())
    };
    let (a, b, root) = (named("a", ""), named("b", ""), named("root", ""));
    let of = |name: &str, extra: &str, patch: &str| filter("shop", name, extra, patch);
    assert_eq!(wins(&[of("a", "", &a), of("b", "", &b)]), "b");
    assert_eq!(wins(&[of("a", "priority: 1,", &a), of("b", "", &b)]), "a");
    assert_eq!(wins(&[filter("istio-system", "z", "", &root), of("a", "", &a)]), "a");
    assert_eq!(wins(&[filter("istio-system", "z", "priority: 1,", &root), of("a", "", &a)]), "root");
    assert_eq!(wins(&[of("a", "", &format!("{a}, {b}"))]), "b");
    assert_eq!(wins(&[filter("other", "a", "", &a)]), PLAIN);
}

#[test]
fn proxies_are_told_apart_by_labels_version_and_metadata() {
    let with = |extra: &str, matching: &str, metadata: Value| {
        let objects = [SERVICE.to_owned(), filter("shop", "f", extra, &named("x", matching))];
        stat_name(&world(&objects), &metadata) == "x"
    };
    let selects = |app: &str| format!("workloadSelector: {{labels: {{app: {app}}}}},");
    assert_eq!([with(&selects("web"), "", istio()), with(&selects("api"), "", istio())], [true, false]);
    let target = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}],";
    // Of a gateway only: no sidecar can be named as target.
    let of_gateway = || json!({"ISTIO_VERSION": "1.29.1", "LABELS": {"gateway.networking.k8s.io/gateway-name": "edge"}});
    let world = world(&[SERVICE.to_owned(), filter("shop", "f", target, &named("x", ""))]);
    let gateway = proxy(&world.mesh, "router~10.1.0.3~edge.shop~shop.svc.cluster.local", &of_gateway(), &[]);
    let cluster = resource(&of(&world, &gateway), TypeUrl::Cluster, "outbound|80||web.shop.svc.cluster.local").unwrap();
    assert_eq!((cluster["alt_stat_name"].as_str(), with(target, "", of_gateway()), with(target, "", istio())), (Some("x"), false, false));
    let version = |v: &str| format!("proxy: {{proxyVersion: '{v}'}},");
    assert_eq!([with("", &version("^1\\.29.*"), istio()), with("", &version("29"), istio())], [true, true]);
    assert!(!with("", &version("^1\\.28.*"), istio()));
    // A proxy without version matches no pattern, not even one for all.
    assert!(!with("", &version(".*"), json!({"ISTIO_PROXY_SHA": "x"})));
    let metadata = |m: &str| format!("proxy: {{metadata: {{{m}}}}},");
    let own = || json!({"ISTIO_VERSION": "1.29.1", "MESH_ID": "m", "TIER": "gold"});
    assert!(with("", &metadata("MESH_ID: m, TIER: gold"), own()));
    assert_eq!([with("", &metadata("TIER: silver"), own()), with("", &metadata("NONE: ''"), own())], [false, false]);
    assert_eq!([with("", "context: SIDECAR_OUTBOUND,", istio()), with("", "context: SIDECAR_INBOUND,", istio())], [true, false]);
}

/// Names by type that the patched snapshot has beyond the other, or (second) that it lacks.
fn names_beyond(more: &Snapshot, less: &Snapshot) -> BTreeMap<&'static str, Vec<String>> {
    let mut beyond = BTreeMap::new();
    for type_url in TypeUrl::ALL {
        let names = more.get(type_url).iter().filter(|r| less.get(type_url).get(r.name()).is_none());
        let names: Vec<String> = names.map(|r| r.name().to_string()).collect();
        if !names.is_empty() {
            beyond.insert(type_url.short(), names);
        }
    }
    beyond
}

fn addition(apply_to: &str, context: &str, value: &str) -> String {
    format!("{{applyTo: {apply_to}, match: {{context: {context}}}, patch: {{operation: ADD, value: {value}}}}}")
}

#[test]
fn resources_are_added_once_and_never_in_the_place_of_others() {
    let cluster = |name: &str| format!("{{name: {name}, connect_timeout: 1s}}");
    let chain = "{filters: [{name: envoy.filters.network.tcp_proxy, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: c}}]}";
    let listener = |name: &str| {
        format!("{{name: {name}, address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}, filter_chains: [{chain}]}}")
    };
    let lua = "{name: e, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, inline_code: x}}";
    let patches = [
        addition("CLUSTER", "ANY", &cluster("any")),
        addition("CLUSTER", "SIDECAR_INBOUND", &cluster("in")),
        addition("CLUSTER", "SIDECAR_OUTBOUND", &cluster("any")),
        addition("CLUSTER", "ANY", &cluster("BlackHoleCluster")),
        addition("CLUSTER", "ANY", "{connect_timeout: 1s}"),
        addition("CLUSTER", "GATEWAY", &cluster("gateway")),
        addition("LISTENER", "ANY", &listener("any")),
        addition("LISTENER", "ANY", "{name: broken, connection_balance_config: {}}"),
        addition("LISTENER", "SIDECAR_INBOUND", &listener("in")),
        addition("EXTENSION_CONFIG", "SIDECAR_INBOUND", lua),
    ];
    let world = world(&[SERVICE.to_owned(), filter("shop", "f", "", &patches.join(", "))]);
    let plain = self::world(&[SERVICE.to_owned()]);
    let proxy = sidecar(&world.mesh, &istio());
    let (with, without) = (of(&world, &proxy), of(&plain, &proxy));
    let added = names_beyond(&with, &without);
    let expected = [("cds", vec!["any", "in"]), ("ecds", vec!["e"]), ("lds", vec!["any", "in"])];
    assert_eq!(added, expected.map(|(t, names)| (t, names.into_iter().map(str::to_owned).collect())).into());
    assert_eq!(names_beyond(&without, &with), BTreeMap::new());
    let black_hole = |s: &Snapshot| resource(s, TypeUrl::Cluster, "BlackHoleCluster");
    assert_eq!(black_hole(&with), black_hole(&without));

    let translator = Translator::default();
    let class = classify(&world, &proxy);
    let view = translator.view(&world, class.scope(), None);
    let own = translator.own(&world, &class, &view, None);
    let told = patch_diagnostics(view.applied().into_iter().chain(own.applied()));
    let told: Vec<(Severity, &str, &str)> = told.iter().map(|d| (d.severity, d.field.as_str(), d.message.as_str())).collect();
    let nothing = "matches nothing that a proxy gets";
    assert_eq!(
        told,
        [
            (Severity::Error, "spec.configPatches[2]", "there is another \"any\""),
            (Severity::Error, "spec.configPatches[3]", "there is another \"BlackHoleCluster\""),
            (Severity::Error, "spec.configPatches[4]", "has no name"),
            (Severity::Warning, "spec.configPatches[5]", nothing),
            (
                Severity::Error,
                "spec.configPatches[7]",
                "connection_balance_config.balance_type: is required: one of its fields must be set"
            ),
        ]
    );
    let source = |name: &str| with.get(TypeUrl::Cluster).get(name).unwrap().sources().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(source("any"), ["EnvoyFilter/shop/f"]);
}

#[test]
fn a_client_gets_no_extension_that_it_lacks() {
    let patch = "{applyTo: NETWORK_FILTER, match: {context: SIDECAR_OUTBOUND, listener: {filterChain: \
        {filter: {name: envoy.filters.network.tcp_proxy}}}}, patch: {operation: INSERT_BEFORE, value: {name: limit, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: l, max_connections: 1}}}}";
    let world = world(&[SERVICE.to_owned(), filter("shop", "f", "", patch)]);
    let limited = |extensions: &[&str]| {
        let proxy = proxy(&world.mesh, "sidecar~10.1.0.1~web-0.shop~shop.svc.cluster.local", &json!({}), extensions);
        let snapshot = of(&world, &proxy);
        let listener = resource(&snapshot, TypeUrl::Listener, "10.0.0.1_90").unwrap();
        let view = Translator::default().view(&world, classify(&world, &proxy).scope(), None);
        let told = patch_diagnostics(view.applied()).into_iter().map(|d| d.message).collect::<Vec<_>>();
        (listener.to_string().contains("\"limit\""), told)
    };
    let tcp = "envoy.filters.network.tcp_proxy";
    assert_eq!(limited(&[tcp, "envoy.filters.network.connection_limit"]), (true, Vec::new()));
    assert_eq!(limited(&[]), (true, Vec::new()));
    assert_eq!(limited(&[tcp]), (false, vec!["the client lacks the extension that it needs".to_owned()]));
}

#[test]
fn one_bad_patch_costs_nobody_else_anything() {
    let broken = [
        // Wrong types, unknown types, a pattern that does not compile, and what Envoy would refuse.
        "{applyTo: CLUSTER, patch: {operation: MERGE, value: {connect_timeout: 5}}}".to_owned(),
        "{applyTo: CLUSTER, patch: {operation: MERGE, value: {filters: [{typed_config: {'@type': a/no.Such}}]}}}".to_owned(),
        "{applyTo: CLUSTER, patch: {operation: MERGE, value: {lb_policy: NO_SUCH}}}".to_owned(),
        "{applyTo: CLUSTER, match: {proxy: {proxyVersion: '('}}, patch: {operation: MERGE, value: {name: x}}}".to_owned(),
        "{applyTo: CLUSTER, patch: {operation: MERGE, value: {connect_timeout: 0s}}}".to_owned(),
        "{applyTo: CLUSTER, patch: {operation: ADD}}".to_owned(),
        "{applyTo: CLUSTER, patch: {operation: REPLACE, value: {}}}".to_owned(),
        "{applyTo: CLUSTER, match: {listener: {}}, patch: {operation: REMOVE}}".to_owned(),
        "{applyTo: HTTP_FILTER, patch: {operation: MERGE, value: {typed_config: {}}}}".to_owned(),
        "{applyTo: LISTENER, patch: {operation: MERGE, value: {bind_to_port: 7}}}".to_owned(),
        "{patch: {operation: MERGE, value: {}}}".to_owned(),
        "{applyTo: CLUSTER}".to_owned(),
    ];
    let with = world(&[SERVICE.to_owned(), filter("shop", "f", "", &(broken.join(", ") + ", " + &named("good", "")))]);
    let without = world(&[SERVICE.to_owned(), filter("shop", "f", "", &named("good", ""))]);
    let proxy = sidecar(&with.mesh, &istio());
    assert_eq!(of(&with, &proxy), of(&without, &proxy));
    assert_eq!(stat_name(&with, &istio()), "good");
    let fields: Vec<String> = with.patch_diagnostics().map(|d| d.field.clone()).collect();
    let field = |i: usize| format!("spec.configPatches[{i}].patch.value");
    assert_eq!(fields, [0, 1, 2, 9].map(field));
}

#[test]
fn a_scope_without_patches_is_as_it_was_and_an_edit_costs_those_who_have_them() {
    let mut index = index(&[SERVICE.to_owned()]);
    let before = World::new(index.publish().unwrap().0);
    let translator = Translator::default();
    let shop = classify(&before, &sidecar(&before.mesh, &istio()));
    let other = classify(&before, &proxy(&before.mesh, "sidecar~10.1.0.2~x.y~y.svc.cluster.local", &istio(), &[]));
    let views = [&shop, &other].map(|class| translator.view(&before, class.scope(), None));

    apply(&mut index, &filter("shop", "f", "", &named("x", "")));
    let (mesh, mut changes) = index.publish().unwrap();
    let world = before.next(mesh, &changes);
    changes.classes |= !world.same_keys(&before);
    assert!(!changes.classes && views[0].touched_by(&world, &changes) && !views[1].touched_by(&world, &changes));
    let work = translator.work();
    let patched = translator.view(&world, shop.scope(), Some((&views[0], &changes)));
    let spent = translator.work();
    assert_eq!((spent.views - work.views, spent.leaves_built - work.leaves_built), (1, 1));
    // One cluster is another, and its layer knows.
    let clusters = |v: &pilotfish_translator::View| v.layers().get(TypeUrl::Cluster).clone();
    let changed = |new: &Arc<pilotfish_envoy::Layer>, old: &Arc<pilotfish_envoy::Layer>| {
        new.changed_since(old).unwrap().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(changed(&clusters(&patched), &clusters(&views[0])), ["outbound|80||web.shop.svc.cluster.local"]);
    for type_url in [TypeUrl::Listener, TypeUrl::Route] {
        assert!(Arc::ptr_eq(patched.layers().get(type_url), views[0].layers().get(type_url)));
    }
    // The same again is nothing, and another class of the scope finds what is patched.
    assert!(Arc::ptr_eq(&translator.view(&world, shop.scope(), Some((&patched, &changes))), &patched));
    let again = Translator::view(&translator, &world, shop.scope(), None);
    assert_eq!(translator.work().leaves_built, spent.leaves_built);
    assert_eq!(again.layers(), patched.layers());

    // A service more: its cluster is all that is new, patched or not.
    apply(&mut index, &SERVICE.replace("name: web", "name: api").replace("10.0.0.1", "10.0.0.2"));
    let (mesh, changes) = index.publish().unwrap();
    let next = world.next(mesh, &changes);
    let larger = translator.view(&next, shop.scope(), Some((&patched, &changes)));
    let added = ["outbound|80||api.shop.svc.cluster.local", "outbound|90||api.shop.svc.cluster.local"];
    assert_eq!(changed(&clusters(&larger), &clusters(&patched)), added);

    // Without its object it is as before.
    index.delete(&ObjectId::new(Kind::EnvoyFilter, "shop", "f"));
    let (mesh, changes) = index.publish().unwrap();
    let last = next.next(mesh, &changes);
    let plain = translator.view(&last, shop.scope(), Some((&larger, &changes)));
    assert_eq!(*plain.layers(), *translator.view(&World::new(last.mesh.clone()), shop.scope(), None).layers());
    assert!(larger.touched_by(&last, &changes) && plain.applied().is_empty());
}

#[test]
fn a_proxy_changes_its_class_with_what_patches_look_at() {
    let mut index = index(&[SERVICE.to_owned()]);
    let before = World::new(index.publish().unwrap().0);
    let proxies = ["1.28.0", "1.29.1"].map(|v| sidecar(&before.mesh, &json!({"ISTIO_VERSION": v, "TIER": v})));
    let scopes = |world: &World| proxies.clone().map(|p| classify(world, &p).scope().facts().texts.clone());
    assert_eq!(scopes(&before), [BTreeMap::new(), BTreeMap::new()]);
    apply(&mut index, &filter("shop", "f", "", &named("x", "proxy: {metadata: {TIER: gold}},")));
    let (mesh, changes) = index.publish().unwrap();
    let after = before.next(mesh, &changes);
    assert!(!after.same_keys(&before));
    let tier = |v: &str| BTreeMap::from([("TIER".into(), v.into())]);
    assert_eq!(scopes(&after), [tier("1.28.0"), tier("1.29.1")]);
}
