//! Patches of route configurations, their virtual hosts and routes.

use super::*;

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
