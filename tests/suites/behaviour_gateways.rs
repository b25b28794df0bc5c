//! Servers of Gateways: who is let in by which name, certificate and version, and where bytes go, by a stock Envoy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::tls::{Seen, TlsClient};
use pilotfish_testkit::{Ask, Authority, Backend, Identity, TcpBackend, TlsServer, tcp, until};
use pilotfish_tests::behaviour::{
    Stage, Verdicts, endpoint, expect, gateway, gateway_node, routed, routed_bytes, server, static_entry, status, to,
};
use pilotfish_tests::{NAMESPACE, istio};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// TLS settings with certificate files.
fn files(mode: &str, identity: &Identity, more: Value) -> Option<Value> {
    let mut tls = json!({
        "mode": mode, "serverCertificate": identity.chain(), "privateKey": identity.key(), "caCertificates": identity.roots()
    });
    tls.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    Some(tls)
}

/// The one endpoint's host, open to all names below `.example`.
fn shop(backend: &Backend) -> Vec<Value> {
    let http = json!([
        {"match": [{"scheme": {"exact": "https"}, "uri": {"prefix": "/scheme"}}], "directResponse": {"status": 299}},
        {"route": [{"destination": {"host": "shop.example", "port": {"number": 80}}}]}
    ]);
    let routes = json!({"hosts": ["*.example"], "gateways": ["edge"], "http": http});
    let entry = static_entry("shop", &["shop.example"], "HTTP", &[endpoint(backend.addr())]);
    vec![entry, istio("networking", "VirtualService", "shop", routes)]
}

/// What an attempt came to: the certificate that the server showed, and the `x-forwarded-client-cert` that the backend got.
async fn visit(client: TlsClient<'_>, addr: SocketAddr, name: &str) -> Result<(Seen, Option<String>)> {
    let (response, seen) = client.send(addr, name, &Ask::get("/")).await?;
    ensure!(response.status == 200, "{} {}", response.status, response.body);
    Ok((seen, response.echo().headers.get("x-forwarded-client-cert").cloned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_served_by_name_and_certificate() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let [one, two] = ["one", "two"].map(|name| ours.issue(name, &[&format!("{name}.example"), "shop.example"]));
    let mutual = ours.issue("mutual", &["mutual.example", "optional.example", "named.example", "secret.example"]);
    let (client, other) = (ours.issue("client", &["spiffe://mesh/ns/a/sa/client"]), ours.issue("other", &["spiffe://mesh/ns/a/sa/other"]));
    let stranger = theirs.issue("stranger", &[]);
    let backend = Backend::start("b").await;
    let (https, new, old, plain) = (free_addr(), free_addr(), free_addr(), free_addr());
    let names = json!({"subjectAltNames": ["spiffe://mesh/ns/a/sa/client"]});
    let mut objects = shop(&backend);
    let secret = json!({"mode": "MUTUAL", "credentialName": "secret"});
    objects.push(gateway(
        "edge",
        &[
            server("https-one", "HTTPS", https, &["one.example"], files("SIMPLE", &one, json!({}))),
            server("https-two", "HTTPS", https, &["two.example"], files("SIMPLE", &two, json!({}))),
            server("https-mutual", "HTTPS", https, &["mutual.example"], files("MUTUAL", &mutual, json!({}))),
            server("https-optional", "HTTPS", https, &["optional.example"], files("OPTIONAL_MUTUAL", &mutual, json!({}))),
            server("https-named", "HTTPS", https, &["named.example"], files("MUTUAL", &mutual, names)),
            server("https-secret", "HTTPS", https, &["secret.example"], Some(secret)),
            server("https-new", "HTTPS", new, &["one.example"], files("SIMPLE", &one, json!({"minProtocolVersion": "TLSV1_3"}))),
            server("https-old", "HTTPS", old, &["one.example"], files("SIMPLE", &one, json!({"maxProtocolVersion": "TLSV1_2"}))),
            server("http", "HTTP", plain, &["shop.example"], Some(json!({"httpsRedirect": true}))),
        ],
    ));
    objects.push(mutual.secret(NAMESPACE, "secret"));
    let Some(stage) = Stage::start("behaviour", &objects, "").await else { return };
    let envoy = stage.envoy(gateway_node()).await;
    let mut verdicts = Verdicts::default();
    let anybody = TlsClient::new(ours.root());
    until("the secret", async || visit(anybody.clone().certificate(&client), https, "secret.example").await.map_err(|e| format!("{e:#}")))
        .await;

    let version = |attempt: Result<(Seen, Option<String>)>| attempt.map(|(seen, _)| seen.version).ok();
    let shown = |attempt: Result<(Seen, Option<String>)>| attempt.map(|(seen, _)| seen.peer.unwrap_or_default()).ok();
    let let_in = |attempt: Result<(Seen, Option<String>)>| attempt.is_ok();
    let as_client = || anybody.clone().certificate(&client);
    let text = |text: &str| Some(text.to_owned());
    verdicts.equal("one by name", shown(visit(anybody.clone(), https, "one.example").await), text("one"));
    verdicts.equal("two by name", shown(visit(anybody.clone(), https, "two.example").await), text("two"));
    verdicts.equal("nobody by name", shown(visit(anybody.clone(), https, "shop.example").await), None);
    for (name, anonymous) in [("mutual", false), ("secret", false), ("named", false), ("optional", true), ("one", true)] {
        let host = format!("{name}.example");
        verdicts.equal(format_args!("{name}, anonymous"), let_in(visit(anybody.clone(), https, &host).await), anonymous);
        verdicts.equal(format_args!("{name}, with a certificate"), let_in(visit(as_client(), https, &host).await), true);
        let foreign = visit(anybody.clone().certificate(&stranger), https, &host).await;
        verdicts.equal(format_args!("{name}, of a stranger"), let_in(foreign), name == "one");
    }
    let by_other = visit(anybody.clone().certificate(&other), https, "named.example").await;
    verdicts.equal("another name than demanded", let_in(by_other), false);
    for (name, known) in [("mutual", true), ("optional", true), ("one", false)] {
        let forwarded = visit(as_client(), https, &format!("{name}.example")).await.ok().and_then(|(_, forwarded)| forwarded);
        let says_who = forwarded.as_ref().is_some_and(|f| f.contains("CN=client") && f.contains("URI=spiffe://mesh/ns/a/sa/client"));
        verdicts.equal(format_args!("{name}: the backend learns who it is: {forwarded:?}"), says_who, known);
    }
    let forged = Ask::get("/").header("x-forwarded-client-cert", "By=me;Subject=\"CN=admin\"");
    let forged = anybody.send(https, "one.example", &forged).await.map(|(r, _)| r.echo().headers.contains_key("x-forwarded-client-cert"));
    verdicts.equal("a forged certificate header does not pass", forged.ok(), Some(false));
    verdicts.equal("1.2 where 1.3 is the least", version(visit(anybody.clone().at_most_1_2(), new, "one.example").await), None);
    verdicts.equal("1.3 where 1.3 is the least", version(visit(anybody.clone(), new, "one.example").await), text("TLSv1_3"));
    verdicts.equal("1.3 where 1.2 is the most", version(visit(anybody.clone(), old, "one.example").await), text("TLSv1_2"));
    verdicts.equal("1.2 by default", version(visit(anybody.clone().at_most_1_2(), https, "one.example").await), text("TLSv1_2"));
    let alpn = |attempt: Result<(_, Seen)>| attempt.map(|(_, seen)| seen.alpn).ok();
    verdicts.equal(
        "HTTP/2 is offered",
        alpn(anybody.clone().alpn(&["h2", "http/1.1"]).connect(https, "one.example").await),
        Some(text("h2")),
    );
    verdicts.equal(
        "HTTP/1.1 is offered",
        alpn(anybody.clone().alpn(&["http/1.1"]).connect(https, "one.example").await),
        Some(text("http/1.1")),
    );
    let scheme = anybody.send(https, "one.example", &Ask::get("/scheme")).await.map(|(response, _)| response.status);
    verdicts.equal("the scheme is https", scheme.ok(), Some(299));
    let redirected = status(301).answers("location", "https://shop.example/a?b=c");
    verdicts.note("http is redirected", expect(plain, Ask::get("/a?b=c").host("shop.example"), &redirected).await);
    verdicts.accepted("gateway", &envoy).await;
    verdicts.finish("HTTPS");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_forwarded_by_name_and_port() {
    let ours = Authority::new("ours");
    let [a, b, edge] = ["a", "b", "edge"].map(|name| ours.issue(name, &[&format!("{name}.example"), "c.wild.example"]));
    let backends = [
        Backend::start_tls("a", &TlsServer::new(&a, &["http/1.1"], false)).await,
        Backend::start_tls("b", &TlsServer::new(&b, &["http/1.1"], false)).await,
    ];
    let (bytes, more_bytes) = (TcpBackend::start("t").await, TcpBackend::start("u").await);
    let (passed, auto, first, second, ended, split) = (free_addr(), free_addr(), free_addr(), free_addr(), free_addr(), free_addr());
    let passthrough = Some(json!({"mode": "PASSTHROUGH"}));
    let mut objects = vec![gateway(
        "edge",
        &[
            server("tls", "TLS", passed, &["*"], passthrough),
            server("auto", "TLS", auto, &["*.example"], Some(json!({"mode": "AUTO_PASSTHROUGH"}))),
            server("tcp-1", "TCP", first, &["*"], None),
            server("tcp-2", "TCP", second, &["*"], None),
            server("tcp-3", "TCP", split, &["*"], None),
            server("tls-ended", "TLS", ended, &["edge.example"], files("SIMPLE", &edge, json!({}))),
        ],
    )];
    for (name, backend) in ["a", "b"].into_iter().zip(&backends) {
        objects.push(static_entry(name, &[&format!("{name}.example")], "TLS", &[endpoint(backend.addr())]));
    }
    // Only services inside the mesh speak its TLS, and of their endpoints those that say so.
    for (name, labels) in [("inner", json!({"security.istio.io/tlsMode": "istio"})), ("bare", json!({}))] {
        let mut inner = static_entry(name, &[&format!("{name}.example")], "TLS", &[endpoint(backends[0].addr())]);
        inner["spec"]["location"] = json!("MESH_INTERNAL");
        inner["spec"]["endpoints"][0]["labels"] = labels;
        objects.push(inner);
    }
    let by_name = |names: &[&str], host: &str| {
        let destination = json!({"host": host, "port": {"number": 80}});
        json!({"match": [{"sniHosts": names, "port": passed.port()}], "route": [{"destination": destination}]})
    };
    let tls = json!([by_name(&["a.example"], "a.example"), by_name(&["b.example", "*.wild.example"], "b.example")]);
    let names = json!({"hosts": ["a.example", "b.example", "*.wild.example"], "gateways": ["edge"], "tls": tls});
    objects.push(istio("networking", "VirtualService", "names", names));
    for (name, backend) in [("t", &bytes), ("u", &more_bytes)] {
        objects.push(static_entry(name, &[&format!("{name}.example")], "TCP", &[endpoint(backend.addr())]));
    }
    objects.push(routed_bytes("t", "t.example", first));
    objects.push(routed_bytes("u", "u.example", second));
    let to = |host: &str, weight: u32| json!({"destination": {"host": host, "port": {"number": 80}}, "weight": weight});
    let weighted = json!([{"match": [{"port": split.port()}], "route": [to("t.example", 50), to("u.example", 50)]}]);
    objects.push(istio(
        "networking",
        "VirtualService",
        "split",
        json!({"hosts": ["split.example"], "gateways": ["edge"], "tcp": weighted}),
    ));
    let after_tls = json!([{"match": [{"port": ended.port()}], "route": [to("t.example", 100)]}]);
    objects.push(istio(
        "networking",
        "VirtualService",
        "ended",
        json!({"hosts": ["edge.example"], "gateways": ["edge"], "tcp": after_tls}),
    ));
    let Some(stage) = Stage::start("behaviour", &objects, "").await else { return };
    let envoy = stage.envoy(gateway_node()).await;
    let mut verdicts = Verdicts::default();
    let client = TlsClient::new(ours.root());
    let reached = async |addr: SocketAddr, name: &str| -> Option<(String, String)> {
        let (response, seen) = client.send(addr, name, &Ask::get("/")).await.ok()?;
        Some((response.echo().backend, seen.peer.unwrap_or_default()))
    };
    let both = |name: &str| Some((name.to_owned(), name.to_owned()));
    verdicts.equal("passed on to a", reached(passed, "a.example").await, both("a"));
    verdicts.equal("passed on to b", reached(passed, "b.example").await, both("b"));
    verdicts.equal("passed on by a wildcard", reached(passed, "c.wild.example").await, both("b"));
    verdicts.equal("passed on to nobody", reached(passed, "edge.example").await, None);
    let say = async |addr: SocketAddr| tcp::say(addr, "hello").await.unwrap_or_default();
    verdicts.equal("the first port", say(first).await.as_str(), "t: hello");
    verdicts.equal("the second port", say(second).await.as_str(), "u: hello");
    verdicts.halves("two destinations of a port", async || say(split).await, ["t: hello", "u: hello"]).await;
    let through = async || -> Result<String> { tcp::say_on(client.connect(ended, "edge.example").await?.0, "hello").await };
    verdicts.equal("TLS ends, bytes go on", through().await.unwrap_or_else(|e| format!("{e:#}")).as_str(), "t: hello");
    // The name of the cluster is the server name: TLS of the mesh's own, which this client only pretends to speak.
    let mesh = client.clone().alpn(&["istio", "http/1.1"]);
    let attempt = mesh.connect(auto, "outbound_.80_._.inner.example").await;
    let says = attempt.map_or_else(|e| format!("{e:#}"), |(_, seen)| seen.peer.unwrap_or_default());
    verdicts.equal(
        format_args!("AUTO_PASSTHROUGH reaches a, whose certificate has another name: {says}"),
        says.contains("certificate"),
        true,
    );
    verdicts.equal("AUTO_PASSTHROUGH counts", envoy.stat("cluster.outbound_.80_._.inner.example.upstream_cx_total").await, 1);
    for (case, host) in [("what is outside", "a.example"), ("what does not speak mesh mTLS", "bare.example")] {
        let connected = mesh.connect(auto, &format!("outbound_.80_._.{host}")).await.is_ok();
        let count = envoy.stat(&format!("cluster.outbound_.80_._.{host}.upstream_cx_total")).await;
        verdicts.equal(format_args!("AUTO_PASSTHROUGH to {case}"), (connected, count), (false, 0));
    }
    verdicts.accepted("gateway", &envoy).await;
    verdicts.finish("bytes");
}

/// Who stands before a gateway says who the client is: with the PROXY protocol, or in headers of a trusted number of hops.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_before_is_believed_as_told() {
    let backend = Backend::start("b").await;
    let mut verdicts = Verdicts::default();
    for (name, mesh_config, hops, proxy) in [
        ("by default", "", 0, false),
        ("one trusted proxy", "defaultConfig: {gatewayTopology: {numTrustedProxies: 1}}\n", 1, false),
        ("PROXY protocol", "defaultConfig: {gatewayTopology: {proxyProtocol: {}}}\n", 0, true),
    ] {
        let listen = free_addr();
        let entry = static_entry("shop", &["shop.example"], "HTTP", &[endpoint(backend.addr())]);
        let edge = gateway("edge", &[server("http", "HTTP", listen, &["*"], None)]);
        let Some(stage) = Stage::start("behaviour", &[entry, edge, routed("shop", "shop.example", &["edge"])], mesh_config).await else {
            return;
        };
        let envoy = stage.envoy(gateway_node()).await;
        let ask = Ask::get("/").host("shop.example").header("x-forwarded-for", "9.9.9.9, 8.8.8.8");
        let through = async || -> Result<Option<String>> {
            let mut stream = TcpStream::connect(listen).await?;
            if proxy {
                stream.write_all(b"PROXY TCP4 7.7.7.7 6.6.6.6 5555 4444\r\n").await?;
            }
            Ok(ask.exchange(stream).await?.echo().headers.get("x-envoy-external-address").cloned())
        };
        let expected = match (hops, proxy) {
            (1, _) => Some("8.8.8.8".to_owned()),
            (_, true) => Some("7.7.7.7".to_owned()),
            _ => Some("127.0.0.1".to_owned()),
        };
        match through().await {
            Ok(seen) => verdicts.equal(name, seen, expected),
            failed => verdicts.note(name, failed.map(drop)),
        }
        if proxy {
            let mut stream = TcpStream::connect(listen).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").await.unwrap();
            verdicts.equal("without the PROXY protocol where it is demanded", stream.read_u8().await.is_err(), true);
        } else {
            verdicts.note(name, expect(listen, ask, &to("b")).await);
        }
        verdicts.accepted(name, &envoy).await;
    }
    verdicts.finish("what stands before a gateway");
}

/// Where nobody knows who asks, requests are read strictly; and a server may take certificates that lead to no root, but not none.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_is_strict_and_takes_whom_it_is_told_to() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let any = ours.issue("any", &["any.example", "shop.example"]);
    let stranger = theirs.issue("stranger", &[]);
    let backend = Backend::start("b").await;
    let (https, plain) = (free_addr(), free_addr());
    let mut objects = shop(&backend);
    let servers = [
        server("https", "HTTPS", https, &["any.example"], files("MUTUAL", &any, json!({"insecureSkipVerify": true}))),
        server("http", "HTTP", plain, &["shop.example"], None),
    ];
    objects.push(gateway("edge", &servers));
    let settings = "defaultConfig: {connectionSettings: {profile: EDGE}}\n";
    let Some(stage) = Stage::start("behaviour", &objects, settings).await else { return };
    let envoy = stage.envoy(gateway_node()).await;
    let mut verdicts = Verdicts::default();
    let ask = |path| Ask::get(path).host("shop.example");
    verdicts.note("an ordinary request", expect(plain, ask("/"), &to("b")).await);
    verdicts.note("a header with an underscore", expect(plain, ask("/").header("x_under", "1"), &status(400)).await);
    verdicts.note("slashes become one", expect(plain, ask("/a//b"), &to("b").path("/a/b")).await);
    verdicts.note("escaped slashes are sent back", expect(plain, ask("/a%2Fb"), &status(307)).await);
    let anybody = TlsClient::new(ours.root());
    let known = visit(anybody.clone().certificate(&stranger), https, "any.example").await.is_ok();
    verdicts.equal("a certificate of a stranger", known, true);
    verdicts.equal("no certificate", visit(anybody, https, "any.example").await.is_ok(), false);
    verdicts.accepted("gateway", &envoy).await;
    verdicts.finish("edge");
}
