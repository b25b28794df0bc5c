//! Patches of listeners, their chains and filters.

use super::*;

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
