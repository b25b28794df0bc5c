//! Every operation on everything that can be patched: whole messages before and after.

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
fn listeners_are_merged_and_removed() {
    let target = a_listener();
    let named = |name: &str| Some(Matching::Listener(ListenerMatch { name: name.into(), ..ListenerMatch::default() }));
    let on_port = |port: u32| Some(Matching::Listener(ListenerMatch { port, ..ListenerMatch::default() }));
    let value = json!({"per_connection_buffer_limit_bytes": 7, "listener_filters": [{"name": "third"}]});
    let mut merged = with(&target, "/listener_filters", json!([{"name": "first"}, {"name": "second"}, {"name": "third"}]));
    merged["per_connection_buffer_limit_bytes"] = 7.into();
    let mut replaced = with(&target, "/listener_filters", json!([{"name": "third"}]));
    replaced["per_connection_buffer_limit_bytes"] = 7.into();
    let of = |operation, matching, value: &Value| on_listener(&target, vec![patch(ApplyTo::Listener, operation, matching, value.clone())]);
    assert_eq!(of(Merge, named("virtualInbound"), &value), Result::Changed(merged));
    assert_eq!(of(MergeAndReplaceList, on_port(15006), &value), Result::Changed(replaced));
    assert_eq!(of(Remove, None, &Value::Null), Result::Removed);
    assert_eq!(of(Merge, named("virtualOutbound"), &value), Result::Unchanged);
    // The port of a chain is not that of its listener.
    assert_eq!(of(Remove, on_port(80), &Value::Null), Result::Unchanged);
}

#[test]
fn listener_filters_of_every_operation() {
    let target = a_listener();
    let of = |operation, wanted: &str, value: Value| {
        let matching = Some(Matching::Listener(ListenerMatch { listener_filter: wanted.into(), ..ListenerMatch::default() }));
        match on_listener(&target, vec![patch(ListenerFilter, operation, matching, value)]) {
            Result::Changed(l) => {
                let names = l["listener_filters"].as_array().cloned().unwrap_or_default();
                let names: Vec<_> = names.iter().map(|f| f["name"].as_str().unwrap().to_owned()).collect();
                assert_eq!(with(&l, "/listener_filters", json!([])), with(&target, "/listener_filters", json!([])));
                names.join(" ")
            }
            other => format!("{other:?}"),
        }
    };
    let new = || json!({"name": "new"});
    assert_eq!(of(Add, "", new()), "first second new");
    assert_eq!(of(InsertFirst, "second", new()), "new first second");
    assert_eq!(of(InsertBefore, "second", new()), "first new second");
    assert_eq!(of(InsertAfter, "first", new()), "first new second");
    assert_eq!(of(InsertBefore, "", new()), "new first second");
    assert_eq!(of(InsertAfter, "", new()), "first second new");
    assert_eq!(of(Replace, "first", new()), "new second");
    assert_eq!(of(Remove, "first", Value::Null), "second");
    assert_eq!(of(InsertAfter, "none", new()), "Unchanged");
}

#[test]
fn chains_are_matched_merged_added_and_removed() {
    let mut target = a_listener();
    target["filter_chains"][1]["filter_chain_match"] =
        json!({"destination_port": 90, "server_names": ["a", "b"], "transport_protocol": "tls", "application_protocols": ["x", "y"]});
    let of = |operation, m: ChainMatch, value: Value| on_listener(&target, vec![patch(FilterChain, operation, of_chain(m), value)]);
    let all = ChainMatch::default;
    let only_first = || {
        let chains = json!([target["filter_chains"][0]]);
        Result::Changed(with(&target, "/filter_chains", chains))
    };
    for fits in [
        ChainMatch { name: "chain-90".into(), ..all() },
        ChainMatch { sni: "b".into(), ..all() },
        ChainMatch { transport: "tls".into(), ..all() },
        ChainMatch { alpn: vec!["y".into(), "x".into()], ..all() },
        ChainMatch { port: 90, ..all() },
    ] {
        assert_eq!(of(Remove, fits.clone(), Value::Null), only_first(), "{fits:?}");
    }
    for other in [
        ChainMatch { name: "chain".into(), ..all() },
        ChainMatch { sni: "c".into(), ..all() },
        ChainMatch { transport: "raw_buffer".into(), ..all() },
        ChainMatch { alpn: vec!["x".into(), "z".into()], ..all() },
        ChainMatch { port: 91, ..all() },
    ] {
        assert_eq!(of(Remove, other.clone(), Value::Null), Result::Unchanged, "{other:?}");
    }
    let merged = of(Merge, ChainMatch { port: 90, ..all() }, json!({"transport_socket_connect_timeout": "3s"}));
    let mut expected = target.clone();
    expected["filter_chains"][1]["transport_socket_connect_timeout"] = "3s".into();
    assert_eq!(merged, Result::Changed(expected));
    let mut expected = target.clone();
    expected["filter_chains"].as_array_mut().unwrap().push(chain(99, &[tcp("d")]));
    assert_eq!(of(Add, all(), chain(99, &[tcp("d")])), Result::Changed(expected));
    // A listener that leads nowhere is none.
    assert_eq!(of(Remove, all(), Value::Null), Result::Removed);
    // In this listener the port to match is that of its chains.
    let by_port = Some(Matching::Listener(ListenerMatch { port: 90, ..ListenerMatch::default() }));
    assert_eq!(on_listener(&target, vec![patch(FilterChain, Remove, by_port, Value::Null)]), only_first());
}

#[test]
fn the_transport_socket_of_a_chain_is_merged_into_the_one_of_its_name() {
    let socket = |more: Value| {
        let mut config = json!({"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": "tls", "typed_config": config})
    };
    let mut target = a_listener();
    target["filter_chains"][1]["transport_socket"] = socket(json!({"common_tls_context": {"alpn_protocols": ["a"]}}));
    let of = |operation| {
        let value = json!({"transport_socket": socket(json!({"common_tls_context": {"alpn_protocols": ["b"]}})), "name": "kept out"});
        on_listener(&target, vec![patch(FilterChain, operation, of_chain(ChainMatch { port: 90, ..ChainMatch::default() }), value)])
    };
    let expected = |alpn: Value| {
        let socket = socket(json!({"common_tls_context": {"alpn_protocols": alpn}}));
        Result::Changed(with(&target, "/filter_chains/1/transport_socket", socket))
    };
    assert_eq!(of(Merge), expected(json!(["a", "b"])));
    assert_eq!(of(MergeAndReplaceList), expected(json!(["b"])));
}

#[test]
fn network_filters_of_every_operation() {
    let target = a_listener();
    let limit = json!({"name": "limit", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
        "stat_prefix": "l", "max_connections": "7",
    }});
    let of = |operation, matching, value: &Value| on_listener(&target, vec![patch(NetworkFilter, operation, matching, value.clone())]);
    let second = |filters: Value| Result::Changed(with(&target, "/filter_chains/1/filters", filters));
    let proxy = || of_filter(PROXY, None);
    assert_eq!(of(InsertBefore, proxy(), &limit), second(json!([limit, tcp("c")])));
    assert_eq!(of(InsertAfter, proxy(), &limit), second(json!([tcp("c"), limit])));
    assert_eq!(of(Replace, proxy(), &limit), second(json!([limit])));
    assert_eq!(of(Remove, proxy(), &Value::Null), second(json!([])).map_filters_out(&target));
    let to_d = json!({"typed_config": {"@type": TCP, "cluster": "d"}});
    assert_eq!(of(Merge, proxy(), &to_d), second(json!([tcp("d")])));
    // Without a filter to look for, those of the type are meant.
    assert_eq!(of(Merge, None, &to_d), second(json!([tcp("d")])));
    let renamed = json!({"name": "mine", "typed_config": {"@type": TCP}});
    let mut expected = tcp("c");
    expected["name"] = "mine".into();
    assert_eq!(of(Merge, proxy(), &renamed), second(json!([expected])));
    // As a structure of the type.
    let structure = json!({"typed_config": {
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": TCP, "value": {"cluster": "d"},
    }});
    assert_eq!(of(Merge, proxy(), &structure), second(json!([tcp("d")])));
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

#[test]
fn http_filters_of_every_operation() {
    let target = a_listener();
    let of = |operation, wanted: Option<&str>, value: Value| match on_listener(
        &target,
        vec![patch(HttpFilter, operation, of_filter(MANAGER, wanted), value)],
    ) {
        Result::Changed(l) => {
            let at = "/filter_chains/0/filters/0/typed_config/http_filters";
            let filters = l.pointer(at).cloned().unwrap();
            assert_eq!(with(&l, at, json!([])), with(&target, at, json!([])));
            filters
        }
        other => json!(format!("{other:?}")),
    };
    let b = || lua("b");
    assert_eq!(of(InsertFirst, None, b()), json!([b(), lua("a"), router()]));
    assert_eq!(of(InsertBefore, Some("envoy.filters.http.router"), b()), json!([lua("a"), b(), router()]));
    assert_eq!(of(InsertBefore, None, b()), json!([b(), lua("a"), router()]));
    assert_eq!(of(InsertAfter, Some("a"), b()), json!([lua("a"), b(), router()]));
    assert_eq!(of(Replace, Some("a"), b()), json!([b(), router()]));
    assert_eq!(of(Remove, Some("a"), Value::Null), json!([router()]));
    assert_eq!(of(Remove, Some("none"), Value::Null), json!("Unchanged"));
    let suppress = http("", json!({"@type": ROUTER, "suppress_envoy_headers": true}));
    let merged = http("envoy.filters.http.router", json!({"@type": ROUTER, "suppress_envoy_headers": true}));
    assert_eq!(of(Merge, Some("envoy.filters.http.router"), suppress.clone()), json!([lua("a"), merged]));
    assert_eq!(of(Merge, None, suppress.clone()), json!([lua("a"), merged]));
    // Of another type.
    assert_eq!(of(Merge, Some("a"), suppress), json!("Unchanged"));
}

#[test]
fn inbound_routes_are_patched_in_their_listener() {
    let target = a_listener();
    let of_route = of_host(HostMatch {
        name: "inbound|http|80".into(),
        route: Some(RouteMatch { name: "default".into(), action: Some(RouteAction::Route) }),
        ..HostMatch::default()
    });
    let patched = on_listener(&target, vec![patch(HttpRoute, Merge, of_route, json!({"route": {"timeout": "7s"}}))]);
    let mut expected = target.clone();
    expected["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["timeout"] =
        "7s".into();
    assert_eq!(patched, Result::Changed(expected));
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
fn route_configurations_are_matched_by_what_their_names_say() {
    let of = |context, name: &str, m: RoutesMatch| {
        let value = json!({"request_headers_to_remove": ["x"]});
        let target = json!({"name": name});
        match on_routes(context, &target, vec![patch(Routes, Merge, Some(Matching::Routes(m)), value)]) {
            Result::Changed(changed) => {
                assert_eq!(changed, json!({"name": name, "request_headers_to_remove": ["x"]}));
                true
            }
            _ => false,
        }
    };
    let all = RoutesMatch::default;
    let (sidecar, gateway) = (PatchContext::SidecarOutbound, PatchContext::Gateway);
    let port = |port| RoutesMatch { port, ..all() };
    assert_eq!([of(sidecar, "80", port(80)), of(sidecar, "80", port(81)), of(sidecar, "a:80", port(80))], [true, false, false]);
    assert_eq!([of(PatchContext::SidecarInbound, "inbound|80||", port(80)), of(sidecar, "80", all())], [true, true]);
    assert!(of(sidecar, "a:80", RoutesMatch { name: "a:80".into(), ..all() }));
    // A gateway's is found by the port of its server, not by that on which it listens.
    assert_eq!(
        [of(gateway, "http.8080", port(80)), of(gateway, "http.8080", port(8080)), of(gateway, "http.90", port(90))],
        [true, false, true]
    );
    let https = |m| of(gateway, "https.443.p.gw.ns", m);
    let of_gateway = |name: &str| RoutesMatch { gateway: name.into(), ..all() };
    assert_eq!([https(of_gateway("ns/gw")), https(of_gateway("gw")), of(gateway, "http.80", of_gateway("ns/gw"))], [true, false, false]);
    assert_eq!(
        [https(RoutesMatch { port_name: "p".into(), ..port(443) }), https(RoutesMatch { port_name: "q".into(), ..all() })],
        [true, false]
    );
}

#[test]
fn virtual_hosts_of_every_operation() {
    let target = some_routes("80");
    let of = |operation, m: HostMatch, value: Value| {
        on_routes(PatchContext::SidecarOutbound, &target, vec![patch(VirtualHost, operation, of_host(m), value)])
    };
    let hosts = |list: &[&Value]| Result::Changed(with(&target, "/virtual_hosts", json!(list)));
    let (a, b) = (&target["virtual_hosts"][0], &target["virtual_hosts"][1]);
    let by_name = || HostMatch { name: "b:80".into(), ..HostMatch::default() };
    let by_domain = || HostMatch { domain: "c".into(), ..HostMatch::default() };
    let mut merged = b.clone();
    merged["include_request_attempt_count"] = true.into();
    let counts = || json!({"include_request_attempt_count": true});
    assert_eq!(of(Merge, by_name(), counts()), hosts(&[a, &merged]));
    assert_eq!(of(Merge, by_domain(), counts()), hosts(&[a, &merged]));
    assert_eq!(of(Remove, by_name(), Value::Null), hosts(&[a]));
    let new = json!({"name": "new", "domains": ["new"]});
    assert_eq!(of(Replace, by_domain(), new.clone()), hosts(&[a, &new]));
    assert_eq!(of(Add, HostMatch::default(), new.clone()), hosts(&[a, b, &new]));
    assert_eq!(of(Remove, HostMatch { name: "c:80".into(), ..HostMatch::default() }, Value::Null), Result::Unchanged);
}

#[test]
fn routes_of_every_operation() {
    let target = some_routes("http.8080");
    let of = |operation, route: Option<RouteMatch>, value: Value| {
        let matching = of_host(HostMatch { name: "a:80".into(), route, ..HostMatch::default() });
        match on_routes(PatchContext::Gateway, &target, vec![patch(HttpRoute, operation, matching, value)]) {
            Result::Changed(r) => {
                assert_eq!(r["virtual_hosts"][1], target["virtual_hosts"][1]);
                let routes = r["virtual_hosts"][0]["routes"].as_array().cloned().unwrap();
                routes.iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
            }
            other => format!("{other:?}"),
        }
    };
    let named = |name: &str| Some(RouteMatch { name: name.into(), action: None });
    let that = |action| Some(RouteMatch { action: Some(action), ..RouteMatch::default() });
    let new = || json!({"name": "new", "match": {"path": "/x"}, "direct_response": {"status": 299}});
    assert_eq!(of(Add, None, new()), "one two new");
    assert_eq!(of(InsertFirst, None, new()), "new one two");
    assert_eq!(of(InsertFirst, named("two"), new()), "new one two");
    assert_eq!(of(InsertFirst, named("three"), new()), "Unchanged");
    assert_eq!(of(InsertBefore, named("two"), new()), "one new two");
    assert_eq!(of(InsertAfter, named("one"), new()), "one new two");
    assert_eq!(of(InsertAfter, None, new()), "one two new");
    assert_eq!(of(Remove, that(RouteAction::Redirect), Value::Null), "one");
    assert_eq!(of(Remove, that(RouteAction::DirectResponse), Value::Null), "Unchanged");
    assert_eq!(of(Merge, that(RouteAction::Route), json!({"name": "merged"})), "merged two");
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
