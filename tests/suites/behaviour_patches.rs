//! EnvoyFilters: what patches of each kind of resource change for traffic, by a stock Envoy as gateway and as sidecar.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;

use anyhow::Result;
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::{Ask, Backend};
use pilotfish_tests::behaviour::{
    Expect, Stage, Verdicts, endpoint, expect, gateway, gateway_node, routed, server, sidecar_node, static_entry, status, to,
};
use pilotfish_tests::istio;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// An EnvoyFilter with one patch.
fn patch(name: &str, priority: i32, apply_to: &str, matching: Value, operation: &str, value: Value) -> Value {
    let patch = json!({"applyTo": apply_to, "match": matching, "patch": {"operation": operation, "value": value}});
    let mut object = istio("networking", "EnvoyFilter", name, json!({"priority": priority, "configPatches": [patch]}));
    object["apiVersion"] = json!("networking.istio.io/v1alpha3");
    object
}

/// A Lua filter that appends a word to a header.
fn lua(name: &str, word: &str) -> Value {
    let code = format!(
        "function envoy_on_request(h)\n  local v = h:headers():get('x-order') or ''\n  h:headers():replace('x-order', v .. '{word}')\nend\n"
    );
    let config =
        json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua", "default_source_code": {"inline_string": code}});
    json!({"name": name, "typed_config": config})
}

fn add_header(name: &str, value: &str) -> Value {
    json!([{"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}])
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_change_what_they_match() {
    let backend = Backend::start("b").await;
    let (listen, proxy, extra) = (free_addr(), free_addr(), free_addr());
    let hosts = ["shop", "limited", "gone", "timed"];
    let mut objects = vec![gateway("edge", &[server("http", "HTTP", listen, &["*"], None)])];
    for name in hosts {
        let host = format!("{name}.example");
        objects.push(static_entry(name, &[&host], "HTTP", &[endpoint(backend.addr())]));
        objects.push(routed(name, &host, &["edge", "mesh"]));
    }
    let router = |context: &str| {
        let sub = json!({"name": "envoy.filters.network.http_connection_manager", "subFilter": {"name": "envoy.filters.http.router"}});
        json!({"context": context, "listener": {"filterChain": {"filter": sub}}})
    };
    let host =
        |name: &str| json!({"context": "GATEWAY", "routeConfiguration": {"vhost": {"name": format!("{name}.example:{}", listen.port())}}});
    let hcm =
        json!({"context": "GATEWAY", "listener": {"filterChain": {"filter": {"name": "envoy.filters.network.http_connection_manager"}}}});
    let hcm_type = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let cluster = |name: &str| json!({"context": "GATEWAY", "cluster": {"service": format!("{name}.example")}});
    let direct = json!({"@type": "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config", "response": {"inline_string": "patched\n"}});
    let socket = json!({"socket_address": {"address": "127.0.0.1", "port_value": extra.port()}});
    let listener = json!({"name": "extra", "address": socket, "filter_chains": [{"filters": [{"name": "envoy.filters.network.direct_response", "typed_config": direct}]}]});
    objects.extend([
        // Later patches come nearer to the router.
        patch("second", 2, "HTTP_FILTER", router("ANY"), "INSERT_BEFORE", lua("lua.second", "2")),
        patch("first", 1, "HTTP_FILTER", router("ANY"), "INSERT_BEFORE", lua("lua.first", "1")),
        patch("at-gateways", 3, "HTTP_FILTER", router("GATEWAY"), "INSERT_BEFORE", lua("lua.gateway", "g")),
        patch("outbound", 3, "HTTP_FILTER", router("SIDECAR_OUTBOUND"), "INSERT_BEFORE", lua("lua.outbound", "o")),
        patch("inbound", 3, "HTTP_FILTER", router("SIDECAR_INBOUND"), "INSERT_BEFORE", lua("lua.inbound", "i")),
        patch("foremost", 4, "HTTP_FILTER", router("ANY"), "INSERT_FIRST", lua("lua.foremost", "0")),
        patch("taken-away", 5, "HTTP_FILTER", router("ANY"), "INSERT_FIRST", lua("lua.taken", "x")),
        patch(
            "routes",
            0,
            "ROUTE_CONFIGURATION",
            json!({"context": "GATEWAY"}),
            "MERGE",
            json!({"response_headers_to_add": add_header("x-routes", "1")}),
        ),
        patch("host", 0, "VIRTUAL_HOST", host("shop"), "MERGE", json!({"response_headers_to_add": add_header("x-host", "1")})),
        patch("gone", 0, "VIRTUAL_HOST", host("gone"), "REMOVE", json!({})),
        patch("route", 0, "HTTP_ROUTE", host("timed"), "MERGE", json!({"route": {"timeout": "0.2s"}})),
        patch(
            "manager",
            0,
            "NETWORK_FILTER",
            hcm,
            "MERGE",
            json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {"@type": hcm_type, "server_name": "patched"}}),
        ),
        patch(
            "cluster",
            0,
            "CLUSTER",
            cluster("limited"),
            "MERGE_AND_REPLACE_LIST",
            json!({"circuit_breakers": {"thresholds": [{"max_requests": 0}]}}),
        ),
        patch("listener", 0, "LISTENER", json!({"context": "GATEWAY"}), "ADD", listener),
    ]);
    let sub = json!({"name": "envoy.filters.network.http_connection_manager", "subFilter": {"name": "lua.taken"}});
    objects.push(patch(
        "takes-away",
        6,
        "HTTP_FILTER",
        json!({"context": "ANY", "listener": {"filterChain": {"filter": sub}}}),
        "REMOVE",
        json!({}),
    ));
    let Some(stage) = Stage::start("behaviour", &objects, &format!("proxyHttpPort: {}\n", proxy.port())).await else { return };
    let [edge, sidecar] = [stage.envoy(gateway_node()).await, stage.envoy(sidecar_node("client", json!({}))).await];
    let mut verdicts = Verdicts::default();
    let at_edge: Vec<(&str, &str, Expect)> = vec![
        (
            "filters in order, and all parts",
            "shop",
            to("b").sends("x-order", "012g").answers("x-routes", "1").answers("x-host", "1").answers("server", "patched"),
        ),
        ("only the host that is meant", "timed", to("b").answers("x-routes", "1").answers("x-host", None)),
        ("no host", "gone", status(404)),
        ("no requests", "limited", status(503)),
    ];
    for (name, host, expected) in at_edge {
        verdicts.note(name, ask(listen, host, "/", &expected).await);
    }
    verdicts.note("a route's timeout", ask(listen, "timed", "/sleep/5000", &status(504)).await);
    verdicts.note("another route's", ask(listen, "shop", "/sleep/400", &to("b")).await);
    let expected = to("b").sends("x-order", "012o").answers("x-routes", None).answers("x-host", None);
    verdicts.note("at the sidecar", ask(proxy, "shop", "/", &expected).await);
    verdicts.note("at the sidecar, what only gateways refuse", ask(proxy, "limited", "/", &to("b")).await);
    verdicts.equal("one listener more", said(extra).await.unwrap_or_else(|e| format!("{e:#}")).as_str(), "patched\n");
    verdicts.accepted("gateway", &edge).await;
    verdicts.accepted("sidecar", &sidecar).await;
    verdicts.finish("patches");
}

async fn ask(addr: SocketAddr, name: &str, path: &str, expected: &Expect) -> Result<()> {
    expect(addr, Ask::get(path).host(&format!("{name}.example")), expected).await
}

/// What comes without a word.
async fn said(addr: SocketAddr) -> Result<String> {
    let mut text = String::new();
    TcpStream::connect(addr).await?.read_to_string(&mut text).await?;
    Ok(text)
}
