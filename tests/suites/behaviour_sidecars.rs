//! Sidecars, ServiceEntries, and rules for connections: what a workload reaches through its proxy and what reaches it, with
//! a stock Envoy whose traffic is not captured.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;

use anyhow::Result;
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::tls::TlsClient;
use pilotfish_testkit::{Ask, Authority, Backend, TcpBackend, TlsServer, tcp};
use pilotfish_tests::behaviour::{Expect, Stage, Verdicts, endpoint, expect, sidecar_node, static_entry, status, to};
use pilotfish_tests::{NAMESPACE, istio};
use serde_json::{Value, json};

/// A ServiceEntry with one port and any resolution.
fn entry(name: &str, host: &str, port: (u16, &str), resolution: &str, endpoints: Value) -> Value {
    let ports = json!([{"number": port.0, "name": "main", "protocol": port.1}]);
    let spec = json!({"hosts": [host], "resolution": resolution, "location": "MESH_EXTERNAL", "ports": ports, "endpoints": endpoints});
    istio("networking", "ServiceEntry", name, spec)
}

fn target(address: &str, addr: SocketAddr) -> Value {
    json!({"address": address, "ports": {"main": addr.port()}})
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_reached_by_what_they_say() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let (bytes, more_bytes) = (TcpBackend::start("t").await, TcpBackend::start("u").await);
    let authority = Authority::new("ours");
    let identity = authority.issue("tls", &["one.tls.example", "two.tls.example", "other.tls.example"]);
    let encrypted = [
        Backend::start_tls("x", &TlsServer::new(&identity, &[], false)).await,
        Backend::start_tls("y", &TlsServer::new(&identity, &[], false)).await,
    ];
    let (proxy, port, ruled, split, tls) = (free_addr(), free_addr(), free_addr(), free_addr(), free_addr());
    let local = |addr: SocketAddr| json!([target("127.0.0.1", addr)]);
    let destination =
        |host: &str, port: u16, weight: u32| json!({"destination": {"host": host, "port": {"number": port}}, "weight": weight});
    let rule = |name: &str, kind: &str, hosts: Value, rules: Value| {
        let mut spec = json!({"hosts": hosts});
        spec[kind] = rules;
        istio("networking", "VirtualService", name, spec)
    };
    let mut elsewhere = entry("elsewhere", "private.example", (80, "HTTP"), "STATIC", local(a.addr()));
    elsewhere["metadata"]["namespace"] = json!("elsewhere");
    elsewhere["spec"]["exportTo"] = json!(["."]);
    let mut shared = elsewhere.clone();
    shared["metadata"]["name"] = json!("shared");
    shared["spec"]["hosts"] = json!(["shared.example"]);
    shared["spec"]["exportTo"] = json!(["*"]);
    let mut selecting = entry("selecting", "selected.example", (80, "HTTP"), "STATIC", Value::Null);
    selecting["spec"]["workloadSelector"] = json!({"labels": {"app": "machine"}});
    let machine = |name: &str, app: &str, addr: SocketAddr| {
        let spec = json!({"address": "127.0.0.1", "labels": {"app": app}, "ports": {"main": addr.port()}});
        istio("networking", "WorkloadEntry", name, spec)
    };
    let objects = vec![
        entry("fixed", "fixed.example", (80, "HTTP"), "STATIC", local(a.addr())),
        entry("named", "named.example", (80, "HTTP"), "DNS", json!([target("localhost", b.addr())])),
        entry("in-turn", "in-turn.example", (80, "HTTP"), "DNS_ROUND_ROBIN", json!([target("localhost", b.addr())])),
        selecting,
        machine("machine-1", "machine", b.addr()),
        machine("machine-2", "other", a.addr()),
        elsewhere,
        shared,
        entry("bytes", "bytes.example", (port.port(), "TCP"), "STATIC", local(bytes.addr())),
        entry("ruled", "ruled.example", (ruled.port(), "TCP"), "STATIC", local(bytes.addr())),
        entry("more", "more.example", (9, "TCP"), "STATIC", local(more_bytes.addr())),
        entry("split", "split.example", (split.port(), "TCP"), "STATIC", local(bytes.addr())),
        rule(
            "ruled",
            "tcp",
            json!(["ruled.example"]),
            json!([{"match": [{"port": ruled.port()}], "route": [destination("more.example", 9, 100)]}]),
        ),
        rule(
            "split",
            "tcp",
            json!(["split.example"]),
            json!([{"route": [destination("split.example", split.port(), 50), destination("more.example", 9, 50)]}]),
        ),
        entry("x", "one.tls.example", (tls.port(), "TLS"), "STATIC", local(encrypted[0].addr())),
        entry("y", "two.tls.example", (tls.port(), "TLS"), "STATIC", local(encrypted[1].addr())),
        entry("z", "other.tls.example", (tls.port(), "TLS"), "STATIC", local(encrypted[0].addr())),
        // The first has no rule, so what no rule names is meant for it: all share an address.
        rule(
            "y",
            "tls",
            json!(["two.tls.example"]),
            json!([{"match": [{"sniHosts": ["two.tls.example"]}], "route": [destination("two.tls.example", tls.port(), 100)]}]),
        ),
        rule(
            "z",
            "tls",
            json!(["other.tls.example"]),
            json!([
                {"match": [{"sniHosts": ["other.tls.example"], "sourceLabels": {"app": "server"}}], "route": [destination("one.tls.example", tls.port(), 100)]},
                {"match": [{"sniHosts": ["other.tls.example"], "sourceLabels": {"app": "client"}}], "route": [destination("two.tls.example", tls.port(), 100)]}
            ]),
        ),
    ];
    let config = format!("proxyHttpPort: {}\noutboundTrafficPolicy: {{mode: REGISTRY_ONLY}}\n", proxy.port());
    let Some(stage) = Stage::start("behaviour", &objects, &config).await else { return };
    let envoy = stage.envoy(sidecar_node("client", json!({}))).await;
    let mut verdicts = Verdicts::default();
    for (host, expected) in [
        ("fixed.example", to("a")),
        ("named.example", to("b")),
        ("in-turn.example", to("b")),
        ("selected.example", to("b")),
        ("shared.example", to("a")),
        ("private.example", status(502)),
        ("unknown.example", status(502)),
    ] {
        verdicts.note(host, expect(proxy, Ask::get("/").host(host), &expected).await);
    }
    let say = async |addr: SocketAddr| tcp::say(addr, "hello").await.unwrap_or_else(|e| format!("{e:#}"));
    verdicts.equal("bytes", say(port).await.as_str(), "t: hello");
    verdicts.equal("bytes by rule", say(ruled).await.as_str(), "u: hello");
    verdicts.halves("bytes by weight", async || say(split).await, ["t: hello", "u: hello"]).await;
    let client = TlsClient::new(authority.root());
    let reached = async |name: &str| -> Result<String> { Ok(client.send(tls, name, &Ask::get("/")).await?.0.echo().backend) };
    for (name, backend) in [("one.tls.example", "x"), ("two.tls.example", "y"), ("other.tls.example", "y")] {
        verdicts.equal(name, reached(name).await.unwrap_or_else(|e| format!("{e:#}")).as_str(), backend);
    }
    verdicts.accepted("sidecar", &envoy).await;
    verdicts.finish("services");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_says_what_is_reached() {
    let (a, b, out, app) = (Backend::start("a").await, Backend::start("b").await, Backend::start("out").await, Backend::start("app").await);
    let bytes = TcpBackend::start("t").await;
    let (proxy, own_port, inbound, inbound_bytes) = (free_addr(), free_addr(), free_addr(), free_addr());
    let sidecar = |app: &str, more: Value| {
        let mut spec = json!({"workloadSelector": {"labels": {"app": app}}});
        spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        istio("networking", "Sidecar", app, spec)
    };
    let listener = |addr: SocketAddr, protocol: &str, to: SocketAddr| {
        json!({
            "port": {"number": addr.port(), "protocol": protocol, "name": protocol.to_lowercase()}, "bind": "127.0.0.1", "captureMode": "NONE",
            "defaultEndpoint": format!("127.0.0.1:{}", to.port())
        })
    };
    let own = json!({"port": {"number": own_port.port(), "protocol": "HTTP", "name": "own"}, "bind": "127.0.0.1", "captureMode": "NONE", "hosts": ["./own.example"]});
    let mut foreign = static_entry("foreign", &["foreign.example"], "HTTP", &[endpoint(b.addr())]);
    foreign["metadata"]["namespace"] = json!("elsewhere");
    let objects = vec![
        static_entry("a", &["a.example"], "HTTP", &[endpoint(a.addr())]),
        static_entry("b", &["b.example"], "HTTP", &[endpoint(b.addr())]),
        static_entry("out", &["out.example"], "HTTP", &[endpoint(out.addr())]),
        foreign,
        entry("own", "own.example", (own_port.port(), "HTTP"), "STATIC", json!([target("127.0.0.1", b.addr())])),
        sidecar("one-host", json!({"egress": [{"hosts": ["./a.example"]}], "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}})),
        sidecar("own-namespace", json!({"egress": [{"hosts": ["./*"]}], "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}})),
        sidecar("other-namespace", json!({"egress": [{"hosts": ["elsewhere/*"]}], "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}})),
        sidecar("own-port", json!({"egress": [own, {"hosts": ["./a.example"]}], "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}})),
        sidecar(
            "egress-proxy",
            json!({
                "egress": [{"hosts": ["./*"]}],
                "outboundTrafficPolicy": {"mode": "ALLOW_ANY", "egressProxy": {"host": "out.example", "port": {"number": 80}}}
            }),
        ),
        sidecar("server", json!({"ingress": [listener(inbound, "HTTP", app.addr()), listener(inbound_bytes, "TCP", bytes.addr())]})),
    ];
    let config = format!("proxyHttpPort: {}\n", proxy.port());
    let Some(stage) = Stage::start("behaviour", &objects, &config).await else { return };
    let mut verdicts = Verdicts::default();
    let nobody = || status(502);
    for (app, a, b, foreign, unknown) in [
        ("one-host", to("a"), nobody(), nobody(), nobody()),
        ("own-namespace", to("a"), to("b"), nobody(), nobody()),
        ("other-namespace", nobody(), nobody(), to("b"), nobody()),
        ("own-port", to("a"), nobody(), nobody(), nobody()),
        ("egress-proxy", to("a"), to("b"), to("out"), to("out")),
    ] {
        // All listen on the same port, one after the other.
        let envoy = stage.envoy(sidecar_node(app, json!({}))).await;
        for (host, expected) in [("a.example", a), ("b.example", b), ("foreign.example", foreign), ("unknown.example", unknown)] {
            verdicts.note(format_args!("{app}, {host}"), ask(proxy, host, &expected).await);
        }
        if app == "own-port" {
            verdicts.note("own port, own.example", ask(own_port, "own.example", &to("b")).await);
            verdicts.note("own port, a.example", ask(own_port, "a.example", &nobody()).await);
        }
        verdicts.accepted(app, &envoy).await;
        let mut envoy = envoy;
        envoy.process().kill().await;
    }
    let envoy = stage.envoy(sidecar_node("server", json!({}))).await;
    verdicts.note("ingress", ask(inbound, "server", &to("app")).await);
    verdicts.equal("ingress of bytes", tcp::say(inbound_bytes, "hello").await.unwrap_or_else(|e| format!("{e:#}")).as_str(), "t: hello");
    verdicts.accepted("server", &envoy).await;
    verdicts.finish(&format!("Sidecars of {NAMESPACE}"));
}

/// Names below localhost are the host itself, so they resolve anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn requests_and_tls_name_servers_that_are_looked_up() {
    let authority = Authority::new("ours");
    let identity = authority.issue("tls", &["x.localhost"]);
    let (a, x) = (Backend::start("a").await, Backend::start_tls("x", &TlsServer::new(&identity, &[], false)).await);
    // The ports of the service are those of the servers, so the sidecar listens on another address.
    let entrance = |backend: &Backend| SocketAddr::from(([127, 0, 0, 3], backend.addr().port()));
    let (proxy, plain, tls) = (free_addr(), entrance(&a), entrance(&x));
    let ports = json!([
        {"number": plain.port(), "name": "http", "protocol": "HTTP"}, {"number": tls.port(), "name": "tls", "protocol": "TLS"}
    ]);
    let spec = json!({"hosts": ["*.localhost"], "resolution": "DYNAMIC_DNS", "location": "MESH_EXTERNAL", "ports": ports});
    let listener = |addr: SocketAddr, protocol: &str| {
        let port = json!({"number": addr.port(), "protocol": protocol, "name": protocol.to_lowercase()});
        json!({"port": port, "bind": addr.ip().to_string(), "captureMode": "NONE", "hosts": ["./*.localhost"]})
    };
    let egress = json!({"egress": [listener(plain, "HTTP"), listener(tls, "TLS")],
        "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}});
    let objects = [istio("networking", "ServiceEntry", "named", spec), istio("networking", "Sidecar", "client", egress)];
    let Some(stage) = Stage::start("behaviour", &objects, &format!("proxyHttpPort: {}\n", proxy.port())).await else { return };
    let envoy = stage.envoy(sidecar_node("client", json!({}))).await;
    let mut verdicts = Verdicts::default();
    for name in ["a.localhost", "b.localhost"] {
        let host = format!("{name}:{}", plain.port());
        verdicts.note(format_args!("{host}"), ask(plain, &host, &to("a")).await);
    }
    verdicts.note("a name of nobody", ask(plain, &format!("a.example:{}", plain.port()), &status(502)).await);
    verdicts.note("by the proxy, which has no listener's hosts", ask(proxy, &format!("a.localhost:{}", plain.port()), &status(502)).await);
    let client = TlsClient::new(authority.root());
    let reached = client.send(tls, "x.localhost", &Ask::get("/")).await.map(|(response, _)| response.echo().backend);
    verdicts.equal("the name that TLS asks for", reached.unwrap_or_else(|e| format!("{e:#}")).as_str(), "x");
    verdicts.accepted("sidecar", &envoy).await;
    verdicts.finish("servers that are named");
}

async fn ask(addr: SocketAddr, host: &str, expected: &Expect) -> Result<()> {
    expect(addr, Ask::get("/").host(host), expected).await
}
