//! Every operation on everything that can be patched: whole messages before and after.

mod of_listeners;
mod of_routes;

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_envoy::json::{from_json, message_to_json};
use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
use pilotfish_envoy::pb::envoy::config::listener::v3::Listener;
use pilotfish_envoy::pb::envoy::config::route::v3::RouteConfiguration;
use pilotfish_model::envoy_filter::{
    ApplyTo, ChainMatch, ClusterMatch, HostMatch, ListenerMatch, Matching, Operation, Patch, PatchContext, ProxyMatch, RouteAction,
    RouteMatch, RoutesMatch,
};
use pilotfish_model::{ContentHash, Diagnostic, Kind, ObjectId};
use serde_json::{Value, json};

use super::compile::Ready;
use super::run::{Notes, Result, Run, run};
use super::set::{Patches, PortNames};
use super::sound::{Sound, check};
use super::{cluster, listener, routes};

use ApplyTo::{FilterChain, HttpFilter, HttpRoute, ListenerFilter, NetworkFilter, RouteConfiguration as Routes, VirtualHost};
use Operation::{Add, InsertAfter, InsertBefore, InsertFirst, Merge, MergeAndReplaceList, Remove, Replace};

fn patch(apply_to: ApplyTo, operation: Operation, matching: Option<Matching>, value: Value) -> Patch {
    let value = (!value.is_null()).then(|| value.to_string().into());
    Patch { index: 0, apply_to, operation, context: None, proxy: ProxyMatch::default(), matching, value }
}

fn ready(patches: Vec<Patch>) -> (Vec<Arc<Ready>>, Vec<Diagnostic>) {
    let object = ObjectId::new(Kind::EnvoyFilter, "ns", "ef");
    let mut diagnostics = Vec::new();
    let patches = patches.iter().enumerate().map(|(index, p)| Patch { index, ..p.clone() });
    let ready = patches.filter_map(|p| Ready::new(&object, &p, &mut diagnostics).map(Arc::new)).collect();
    (ready, diagnostics)
}

fn applied<M: Sound>(
    context: PatchContext,
    strict: bool,
    ports: &PortNames,
    target: &Value,
    patches: Vec<Patch>,
    by: impl Fn(&Run<'_>, M) -> Option<M>,
) -> (Result<Value>, Notes) {
    let (list, diagnostics) = ready(patches);
    assert_eq!(diagnostics, []);
    let patches = Patches { list, others: Vec::new(), lacking: Vec::new(), strict, hash: ContentHash::default() };
    let name = M::full_name();
    let original = M::decode(from_json(&name, target).unwrap()).unwrap();
    let (result, notes) = run(&patches, context, ports, &original, by, |m| check(m, strict));
    let result = match result {
        Result::Changed(message) => Result::Changed(message_to_json(&name, &message.encode_to_vec())),
        Result::Unchanged => Result::Unchanged,
        Result::Removed => Result::Removed,
    };
    (result, notes)
}

fn on_cluster(target: &Value, patches: Vec<Patch>) -> Result<Value> {
    let context =
        if target["name"].as_str().unwrap().starts_with("inbound") { PatchContext::SidecarInbound } else { PatchContext::Gateway };
    applied::<Cluster>(context, true, &PortNames::new(), target, patches, cluster::patch).0
}

fn on_listener(target: &Value, patches: Vec<Patch>) -> Result<Value> {
    applied::<Listener>(PatchContext::SidecarInbound, true, &PortNames::new(), target, patches, listener::patch).0
}

fn on_routes(context: PatchContext, target: &Value, patches: Vec<Patch>) -> Result<Value> {
    let ports = PortNames::from([(8080, [80].into())]);
    applied::<RouteConfiguration>(context, true, &ports, target, patches, |run, routes| Some(routes::patch(run, routes))).0
}

/// The message with a field set, by JSON pointer.
fn with(target: &Value, pointer: &str, value: Value) -> Value {
    let mut changed = target.clone();
    *changed.pointer_mut(pointer).unwrap() = value;
    changed
}

fn of_cluster(m: ClusterMatch) -> Option<Matching> {
    Some(Matching::Cluster(m))
}

fn of_chain(chain: ChainMatch) -> Option<Matching> {
    Some(Matching::Listener(ListenerMatch { chain: Some(chain), ..ListenerMatch::default() }))
}

fn of_filter(filter: &str, sub_filter: Option<&str>) -> Option<Matching> {
    of_chain(ChainMatch { filter: Some(filter.into()), sub_filter: sub_filter.map(Into::into), ..ChainMatch::default() })
}

fn of_host(host: HostMatch) -> Option<Matching> {
    Some(Matching::Routes(RoutesMatch { host: Some(host), ..RoutesMatch::default() }))
}

const LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const TCP: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const HCM: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const MANAGER: &str = "envoy.filters.network.http_connection_manager";
const PROXY: &str = "envoy.filters.network.tcp_proxy";

fn tcp(cluster: &str) -> Value {
    json!({"name": PROXY, "typed_config": {"@type": TCP, "stat_prefix": "s", "cluster": cluster}})
}

fn http(name: &str, config: Value) -> Value {
    json!({"name": name, "typed_config": config})
}

fn lua(name: &str) -> Value {
    http(name, json!({"@type": LUA, "inline_code": "x"}))
}

fn router() -> Value {
    http("envoy.filters.http.router", json!({"@type": ROUTER}))
}

fn manager(http_filters: &[Value]) -> Value {
    let routes = json!({"name": "inbound|80||", "virtual_hosts": [{"name": "inbound|http|80", "domains": ["*"], "routes": [
        {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": "inbound|80||"}},
    ]}]});
    json!({"name": MANAGER, "typed_config": {"@type": HCM, "stat_prefix": "s", "route_config": routes, "http_filters": http_filters}})
}

fn chain(port: u32, filters: &[Value]) -> Value {
    json!({"name": format!("chain-{port}"), "filter_chain_match": {"destination_port": port}, "filters": filters})
}

fn a_listener() -> Value {
    json!({
        "name": "virtualInbound",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15006}},
        "traffic_direction": "INBOUND",
        "listener_filters": [{"name": "first"}, {"name": "second"}],
        "filter_chains": [chain(80, &[manager(&[lua("a"), router()])]), chain(90, &[tcp("c")])],
    })
}

impl Result<Value> {
    /// Lists that are empty are not shown.
    fn map_filters_out(self, target: &Value) -> Self {
        let mut chains = target["filter_chains"].clone();
        chains[1].as_object_mut().unwrap().remove("filters");
        match self {
            Result::Changed(_) => Result::Changed(with(target, "/filter_chains", chains)),
            other => other,
        }
    }
}

fn some_routes(name: &str) -> Value {
    json!({"name": name, "virtual_hosts": [
        {"name": "a:80", "domains": ["a"], "routes": [
            {"name": "one", "match": {"prefix": "/1"}, "route": {"cluster": "c"}},
            {"name": "two", "match": {"prefix": "/"}, "redirect": {"path_redirect": "/1"}},
        ]},
        {"name": "b:80", "domains": ["b", "c"]},
    ]})
}

#[test]
fn clusters_are_matched_by_what_their_names_say() {
    let target = json!({"name": "outbound|80|v1|web.ns.svc"});
    let of = |m: ClusterMatch| on_cluster(&target, vec![patch(ApplyTo::Cluster, Merge, of_cluster(m), json!({"lb_policy": "MAGLEV"}))]);
    let changed = || Result::Changed(json!({"name": "outbound|80|v1|web.ns.svc", "lb_policy": "MAGLEV"}));
    let all = ClusterMatch::default;
    for fits in [
        all(),
        ClusterMatch { port: 80, service: "web.ns.svc".into(), subset: "v1".into(), ..all() },
        // Nothing else counts beside a name.
        ClusterMatch { name: "outbound|80|v1|web.ns.svc".into(), port: 99, ..all() },
    ] {
        assert_eq!(of(fits.clone()), changed(), "{fits:?}");
    }
    for other in [
        ClusterMatch { port: 81, ..all() },
        ClusterMatch { service: "other".into(), ..all() },
        ClusterMatch { subset: "v2".into(), ..all() },
        ClusterMatch { name: "outbound|80||web.ns.svc".into(), ..all() },
    ] {
        assert_eq!(of(other.clone()), Result::Unchanged, "{other:?}");
    }
}

#[test]
fn inbound_clusters_are_of_the_services_that_their_metadata_list() {
    let services = json!([{"host": "a.ns.svc"}, {"host": "b.ns.svc"}]);
    let target = json!({"name": "inbound|8080||", "metadata": {"filter_metadata": {"istio": {"services": services}}}});
    let of = |host: &str| {
        let m = ClusterMatch { service: host.into(), port: 8080, ..ClusterMatch::default() };
        on_cluster(&target, vec![patch(ApplyTo::Cluster, Remove, of_cluster(m), Value::Null)])
    };
    assert_eq!([of("b.ns.svc"), of("c.ns.svc")], [Result::Removed, Result::Unchanged]);
}

#[test]
fn a_transport_socket_is_merged_into_the_one_of_its_name() {
    let socket = |name: &str, sni: &str| json!({"name": name, "typed_config": {"@type": TLS, "sni": sni}});
    let given = |socket: Value| patch(ApplyTo::Cluster, Merge, None, json!({"transport_socket": socket, "lb_policy": "MAGLEV"}));
    let more = json!({"name": "tls", "typed_config": {"@type": TLS, "allow_renegotiation": true}});
    let both = json!({"name": "tls", "typed_config": {"@type": TLS, "sni": "a", "allow_renegotiation": true}});
    let one = json!({"name": "c", "transport_socket": socket("tls", "a")});
    // The patch is about the socket alone.
    assert_eq!(on_cluster(&one, vec![given(more.clone())]), Result::Changed(with(&one, "/transport_socket", both.clone())));
    assert_eq!(on_cluster(&one, vec![given(socket("other", "b"))]), Result::Changed(with(&one, "/transport_socket", socket("other", "b"))));
    assert_eq!(
        on_cluster(&json!({"name": "c"}), vec![given(socket("tls", "b"))]),
        Result::Changed(json!({"name": "c", "transport_socket": socket("tls", "b")}))
    );
    let choice = json!({"name": "c", "transport_socket_matches": [
        {"name": "m", "match": {}, "transport_socket": socket("tls", "a")}, {"name": "n", "transport_socket": {"name": "raw"}},
    ]});
    let Result::Changed(merged) = on_cluster(&choice, vec![given(more)]) else { panic!() };
    assert_eq!(merged, with(&choice, "/transport_socket_matches/0/transport_socket", both));
}

#[test]
fn contexts_divide_what_is_alike() {
    let target = a_listener();
    let of = |context| {
        let patch = Patch { context, ..patch(ApplyTo::Listener, Remove, None, Value::Null) };
        on_listener(&target, vec![patch])
    };
    let contexts = [None, Some(PatchContext::SidecarInbound), Some(PatchContext::SidecarOutbound), Some(PatchContext::Gateway)];
    assert_eq!(contexts.map(of), [Result::Removed, Result::Removed, Result::Unchanged, Result::Unchanged]);
}

#[test]
fn a_patch_that_breaks_a_resource_is_left_out_of_it() {
    let target = json!({"name": "c"});
    let merged = |value: Value| patch(ApplyTo::Cluster, Merge, None, value);
    let too_short = merged(json!({"connect_timeout": "0s"}));
    let patches = vec![merged(json!({"lb_policy": "MAGLEV"})), too_short, merged(json!({"alt_stat_name": "x"}))];
    let (result, notes) = applied::<Cluster>(PatchContext::Gateway, false, &PortNames::new(), &target, patches, cluster::patch);
    assert_eq!(result, Result::Changed(json!({"name": "c", "lb_policy": "MAGLEV", "alt_stat_name": "x"})));
    assert_eq!(notes.applied, BTreeMap::from([(0, 1), (2, 1)]));
    assert_eq!(notes.failed.keys().collect::<Vec<_>>(), [&1]);
    assert!(notes.failed[&1].starts_with("connect_timeout: "), "{}", notes.failed[&1]);
}

#[test]
fn what_breaks_in_the_middle_is_left_out_as_well() {
    let target = json!({"name": "c"});
    let merged = |value: Value| patch(ApplyTo::Cluster, Merge, None, value);
    let patches = vec![merged(json!({"lb_policy": "MAGLEV"})), merged(json!({"alt_stat_name": "panic"}))];
    let by = |run: &Run<'_>, c: Cluster| cluster::patch(run, c).inspect(|c| assert_ne!(c.alt_stat_name, "panic"));
    let (result, notes) = applied::<Cluster>(PatchContext::Gateway, false, &PortNames::new(), &target, patches, by);
    assert_eq!((result, notes.failed.len()), (Result::Changed(json!({"name": "c", "lb_policy": "MAGLEV"})), 1));
}

#[test]
fn strict_clients_get_no_double_domain_and_nothing_behind_the_router() {
    let target = some_routes("80");
    let patches = || vec![patch(VirtualHost, Add, None, json!({"name": "new", "domains": ["a"]}))];
    let on = |strict| {
        let by = |run: &Run<'_>, routes| Some(routes::patch(run, routes));
        applied::<RouteConfiguration>(PatchContext::SidecarOutbound, strict, &PortNames::new(), &target, patches(), by)
    };
    assert_eq!((on(true).0, on(true).1.failed.len(), on(false).1.failed.len()), (Result::Unchanged, 1, 0));
    let behind = vec![patch(HttpFilter, Add, of_filter(MANAGER, None), lua("b"))];
    assert_eq!(on_listener(&a_listener(), behind), Result::Unchanged);
}

#[test]
fn values_that_are_no_messages_are_told_with_their_place() {
    let nested = (0..200).fold(json!({}), |inner, _| json!({"a": inner}));
    let cases = [
        (json!({"connect_timeout": 5}), Some("connect_timeout: expected a string")),
        (json!({"filters": {}}), Some("filters: expected a list")),
        (json!({"filters": [{"typed_config": {"@type": "type.googleapis.com/no.Such"}}]}), Some("unknown message type")),
        (json!({"metadata": {"filter_metadata": {"x": nested}}}), Some("recursion limit")),
        (json!({"of_another_version": 1, "name": "c"}), None),
        (json!({"filters": (0..20_000).map(|i| json!({"name": i.to_string()})).collect::<Vec<_>>()}), None),
    ];
    for (value, error) in cases {
        let shown = value.to_string().chars().take(60).collect::<String>();
        let (list, diagnostics) = ready(vec![patch(ApplyTo::Cluster, Add, None, value)]);
        match error {
            Some(error) => {
                assert_eq!((list.len(), diagnostics.len()), (0, 1), "{shown}");
                assert!(diagnostics[0].message.contains(error), "{shown}: {}", diagnostics[0].message);
                assert_eq!(diagnostics[0].field, "spec.configPatches[0].patch.value");
            }
            None => assert_eq!(list.len(), 1, "{shown}"),
        }
    }
}
