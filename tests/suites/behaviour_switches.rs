//! What is off unless it is asked for: HTTP/3 at a gateway, several servers that one request is asked about, and keys of
//! tokens that the proxy fetches by itself; by a stock Envoy as gateway.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pilotfish_testkit::envoy;
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::tls::TlsClient;
use pilotfish_testkit::{Ask, Authority, Backend, Envoy, Identity, TokenIssuer, until};
use pilotfish_tests::behaviour::{Stage, Verdicts, endpoint, expect, gateway, gateway_node, routed, server, static_entry, status, to};
use pilotfish_tests::{NAMESPACE, answering, istio};
use serde_json::{Value, json};

/// A gateway before the one backend of `shop.example`.
fn shop(backend: &Backend, edge: Value) -> Vec<Value> {
    vec![
        static_entry("shop", &["shop.example"], "HTTP", &[endpoint(backend.addr())]),
        gateway("edge", &[edge]),
        routed("shop", "shop.example", &["edge"]),
    ]
}

fn get(path: &str) -> Ask {
    Ask::get(path).host("shop.example")
}

// === HTTP/3 ===

/// An Envoy that turns HTTP/1.1 on `listen` into HTTP/3 to `server`.
async fn to_http3(listen: SocketAddr, server: SocketAddr, trusted: &Identity) -> Option<Envoy> {
    let address = |addr: SocketAddr| json!({"socket_address": {"address": addr.ip().to_string(), "port_value": addr.port()}});
    let typed = |name: &str, message: Value| {
        let mut message = message;
        message["@type"] = json!(format!("type.googleapis.com/{name}"));
        message
    };
    let router = json!({"name": "router", "typed_config": typed("envoy.extensions.filters.http.router.v3.Router", json!({}))});
    let routes =
        json!({"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "h3"}}]}]});
    let manager = typed(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({"stat_prefix": "in", "route_config": routes, "http_filters": [router]}),
    );
    let tls = json!({
        "sni": "shop.example", "common_tls_context": {"validation_context": {"trusted_ca": {"filename": trusted.roots()}}}
    });
    let socket = typed("envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport", json!({"upstream_tls_context": tls}));
    let protocol =
        typed("envoy.extensions.upstreams.http.v3.HttpProtocolOptions", json!({"explicit_http_config": {"http3_protocol_options": {}}}));
    let bootstrap = json!({"static_resources": {
        "listeners": [{
            "name": "in", "address": address(listen),
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]
        }],
        "clusters": [{
            "name": "h3", "connect_timeout": "5s", "type": "STATIC",
            "load_assignment": {"cluster_name": "h3", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(server)}}]}]},
            "transport_socket": {"name": "envoy.transport_sockets.quic", "typed_config": socket},
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol}
        }]
    }});
    Some(Envoy::start(&envoy::binary("behaviour")?, bootstrap).await)
}

/// A gateway whose Service has the port for TCP and, if asked for, for UDP.
fn edge_service(port: u16, udp: bool) -> Vec<Value> {
    let labels = json!({"app": "edge", "istio": "edge"});
    let mut ports = vec![json!({"name": "https", "port": port, "targetPort": port})];
    if udp {
        ports.push(json!({"name": "http3", "port": port, "targetPort": port, "protocol": "UDP"}));
    }
    vec![
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "edge", "namespace": NAMESPACE},
            "spec": {"clusterIP": "10.7.7.9", "selector": {"app": "edge"}, "ports": ports}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "edge", "namespace": NAMESPACE, "labels": labels},
            "spec": {"containers": [{"name": "main"}]},
            "status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": [{"type": "Ready", "status": "True"}]}}),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_speak_http3_where_their_service_does() {
    let ours = Authority::new("ours");
    let identity = ours.issue("shop", &["shop.example"]);
    let backend = Backend::start("b").await;
    let node = json!({
        "id": "router~127.0.0.1~edge.shop~shop.svc.cluster.local", "cluster": "edge.shop",
        "metadata": {"NAMESPACE": NAMESPACE, "LABELS": {"app": "edge", "istio": "edge"}}
    });
    let mut verdicts = Verdicts::default();
    for (case, udp, switch) in [("on", true, "true"), ("without UDP", false, "true"), ("off", true, "false")] {
        let (https, through) = (free_addr(), free_addr());
        let tls = json!({"mode": "SIMPLE", "serverCertificate": identity.chain(), "privateKey": identity.key()});
        let mut objects = shop(&backend, server("https", "HTTPS", https, &["shop.example"], Some(tls)));
        objects.extend(edge_service(https.port(), udp));
        let Some(stage) = Stage::start_with("behaviour", &objects, "", &["--http3", switch]).await else { return };
        let edge = stage.envoy(node.clone()).await;
        let on = case == "on";
        let told = TlsClient::new(ours.root()).send(https, "shop.example", &Ask::get("/")).await;
        let told = told.map(|(response, _)| (response.status, response.headers.get("alt-svc").cloned()));
        let expected = (200, on.then(|| format!("h3=\":{}\"; ma=86400", https.port())));
        verdicts.equal(format_args!("{case}: who asks by TCP is told"), told.ok(), Some(expected));
        let listens = edge.config_dump().await.to_string().contains(&format!("\"udp_127.0.0.1_{}\"", https.port()));
        verdicts.equal(format_args!("{case}: a listener for UDP"), listens, on);
        if on {
            let Some(client) = to_http3(through, https, &identity).await else { return };
            let answer = to("b").path("/by/udp").sends("x-forwarded-proto", "https");
            verdicts.note("a request by HTTP/3", expect(through, get("/by/udp"), &answer).await);
            verdicts.equal("by HTTP/3 to the gateway", client.stat("cluster.h3.upstream_cx_http3_total").await, 1);
        }
        verdicts.accepted(case, &edge).await;
    }
    verdicts.finish("HTTP/3");
}

// === Several servers ===

fn custom(name: &str, provider: &str, paths: &[&str]) -> Value {
    let spec = json!({
        "selector": {"matchLabels": {"istio": "edge"}}, "action": "CUSTOM", "provider": {"name": provider},
        "rules": [{"to": [{"operation": {"paths": paths}}]}]
    });
    istio("security", "AuthorizationPolicy", name, spec)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_servers_that_policies_name_are_asked() {
    let [backend, lenient, strict] = [Backend::start("b").await, Backend::start("lenient").await, Backend::start("strict").await];
    let edge = free_addr();
    let mut objects = shop(&backend, server("http", "HTTP", edge, &["*"], None));
    objects.push(static_entry("lenient", &["lenient.example"], "HTTP", &[endpoint(lenient.addr())]));
    objects.push(static_entry("strict", &["strict.example"], "HTTP", &[endpoint(strict.addr())]));
    objects.push(custom("a", "lenient", &["/200/*", "/401/*", "/one/*"]));
    objects.push(custom("b", "strict", &["/200/*", "/401/*"]));
    // The first is asked for a path that says 200 whatever was asked for; the second for one that says what its first word is.
    let config = "extensionProviders:\n\
        - {name: lenient, envoyExtAuthzHttp: {service: lenient.example, port: 80, pathPrefix: /status/200, headersToUpstreamOnAllow: [x-backend]}}\n\
        - {name: strict, envoyExtAuthzHttp: {service: strict.example, port: 80, pathPrefix: /status, headersToDownstreamOnDeny: [x-backend]}}\n";
    let mut verdicts = Verdicts::default();
    let Some(stage) = Stage::start_with("behaviour", &objects, config, &["--several-providers", "true"]).await else { return };
    let mut gateway = stage.envoy(gateway_node()).await;
    let rows = [
        ("/200/x", to("b").sends("x-backend", "lenient"), (1, 1)),
        ("/401/x", status(401).answers("x-backend", "strict"), (2, 2)),
        ("/one/x", to("b").sends("x-backend", "lenient"), (3, 2)),
        ("/none", to("b").sends("x-backend", None), (3, 2)),
    ];
    for (path, answer, asked) in rows {
        verdicts.note(path, expect(edge, get(path), &answer).await);
        verdicts.equal(format_args!("{path}, asked"), (lenient.requests(), strict.requests()), asked);
    }
    verdicts.accepted("gateway", &gateway).await;
    gateway.process().kill().await;
    drop(stage);

    let Some(stage) = Stage::start("behaviour", &objects, config).await else { return };
    let gateway = stage.envoy(gateway_node()).await;
    for (path, answer) in [("/200/x", status(403)), ("/one/x", status(403)), ("/none", to("b"))] {
        verdicts.note(format_args!("off, {path}"), expect(edge, get(path), &answer).await);
    }
    verdicts.equal("off, asked", (lenient.requests(), strict.requests()), (3, 2));
    verdicts.accepted("gateway", &gateway).await;
    verdicts.finish("several servers are asked");
}

// === Keys ===

#[tokio::test(flavor = "multi_thread")]
async fn proxies_fetch_keys_of_servers_that_they_reach() {
    let (issuer, forger) = (TokenIssuer::new("issuer@example"), TokenIssuer::new("issuer@example"));
    let (backend, edge) = (Backend::start("b").await, free_addr());
    let fetched = Arc::new(AtomicU64::new(0));
    let keys = {
        let (fetched, keys) = (fetched.clone(), issuer.jwks());
        answering(move |request| {
            fetched.fetch_add(1, Ordering::Relaxed);
            let found = request.starts_with("GET /keys ") && request.to_lowercase().contains("host: keys.example\r\n");
            if found { (200, "content-type: application/json\r\n", keys.clone()) } else { (404, "", String::new()) }
        })
        .await
    };
    let mut objects = shop(&backend, server("http", "HTTP", edge, &["*"], None));
    objects.push(static_entry("keys", &["keys.example"], "HTTP", &[endpoint(keys)]));
    let rule = json!({"issuer": "issuer@example", "jwksUri": "http://keys.example/keys", "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}]});
    let spec = json!({"selector": {"matchLabels": {"istio": "edge"}}, "jwtRules": [rule]});
    objects.push(istio("security", "RequestAuthentication", "tokens", spec));
    let bearer = |issuer: &TokenIssuer| get("/").header("authorization", &format!("Bearer {}", issuer.token(json!({"sub": "ann"}))));
    let mut verdicts = Verdicts::default();
    let Some(stage) = Stage::start_with("behaviour", &objects, "", &["--remote-jwks", "hybrid"]).await else { return };
    let gateway = stage.envoy(gateway_node()).await;
    verdicts.equal("nobody fetches before there is a token", fetched.load(Ordering::Relaxed), 0);
    verdicts.note("no token", expect(edge, get("/"), &to("b").sends("x-sub", None)).await);
    // The cluster may come a moment after the listener that names it.
    until("a token that is proved", async || {
        expect(edge, bearer(&issuer), &to("b").sends("x-sub", "ann")).await.map_err(|e| format!("{e:#}"))
    })
    .await;
    for _ in 0..3 {
        verdicts.note("the token again", expect(edge, bearer(&issuer), &to("b").sends("x-sub", "ann")).await);
        verdicts.note("of a forger", expect(edge, bearer(&forger), &status(401)).await);
    }
    verdicts.equal("fetched once", fetched.load(Ordering::Relaxed), 1);
    verdicts.accepted("gateway", &gateway).await;
    verdicts.finish("keys that proxies fetch");
}
