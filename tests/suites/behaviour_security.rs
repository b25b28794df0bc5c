//! AuthorizationPolicies and RequestAuthentications: who may do what, by a stock Envoy as gateway. Policies on identities of
//! the mesh are in suite `netns`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::{Ask, Backend, TcpBackend, TokenIssuer, tcp, until};
use pilotfish_tests::behaviour::{
    Expect, Stage, Verdicts, endpoint, expect, gateway, gateway_node, routed_bytes, server, static_entry, status, to,
};
use pilotfish_tests::istio;
use serde_json::{Value, json};

fn policy(name: &str, action: &str, rules: Value) -> Value {
    istio(
        "security",
        "AuthorizationPolicy",
        name,
        json!({"selector": {"matchLabels": {"istio": "edge"}}, "action": action, "rules": rules}),
    )
}

/// Policies that only the proxy with this label has.
fn only(row: usize, policies: &[Value]) -> Vec<Value> {
    let one = |(i, policy): (usize, &Value)| {
        let mut policy = policy.clone();
        policy["metadata"]["name"] = json!(format!("row-{row}-{i}"));
        policy["spec"]["selector"] = json!({"matchLabels": {"row": row.to_string()}});
        policy
    };
    policies.iter().enumerate().map(one).collect()
}

fn row_node(row: usize) -> Value {
    let mut node = gateway_node();
    node["metadata"]["LABELS"]["row"] = json!(row.to_string());
    node
}

/// Policies by the name of the case, and what they make of requests.
type Row = (&'static str, Vec<Value>, Vec<(Ask, Expect)>);

/// What an answer without permission is.
fn denied() -> Expect {
    status(403).body("RBAC: access denied")
}

/// A gateway for `*.example` before one backend, that also forwards bytes.
struct Group {
    backend: Backend,
    bytes: TcpBackend,
    http: SocketAddr,
    tcp: SocketAddr,
}

impl Group {
    async fn start() -> Self {
        Group { backend: Backend::start("b").await, bytes: TcpBackend::start("t").await, http: free_addr(), tcp: free_addr() }
    }

    fn objects(&self) -> Vec<Value> {
        let http = json!([{"route": [{"destination": {"host": "shop.example", "port": {"number": 80}}}]}]);
        vec![
            static_entry("shop", &["shop.example"], "HTTP", &[endpoint(self.backend.addr())]),
            static_entry("bytes", &["bytes.example"], "TCP", &[endpoint(self.bytes.addr())]),
            gateway("edge", &[server("http", "HTTP", self.http, &["*"], None), server("tcp", "TCP", self.tcp, &["*"], None)]),
            istio("networking", "VirtualService", "shop", json!({"hosts": ["*.example"], "gateways": ["edge"], "http": http})),
            routed_bytes("bytes", "bytes.example", self.tcp),
        ]
    }

    /// Whether bytes come through.
    async fn bytes(&self, from: Ipv4Addr) -> bool {
        let talk = async || -> Result<String> {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind((from, 0).into())?;
            tcp::say_on(socket.connect(self.tcp).await?, "hello").await
        };
        talk().await.is_ok_and(|heard| heard == "t: hello")
    }
}

fn get(path: &str) -> Ask {
    Ask::get(path).host("shop.example")
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_allow_and_deny() {
    let group = Group::start().await;
    let allowed = || to("b");
    let mut verdicts = Verdicts::default();
    let (one, two) = (Ipv4Addr::new(127, 0, 5, 1), Ipv4Addr::new(127, 0, 6, 1));
    let operation = |operation: Value| json!([{"to": [{"operation": operation}]}]);
    let when = |key: &str, values: &[&str]| json!([{"when": [{"key": key, "values": values}]}]);
    let rows: Vec<Row> = vec![
        ("nothing", vec![], vec![(get("/"), allowed())]),
        ("nobody", vec![istio("security", "AuthorizationPolicy", "nobody", json!({}))], vec![(get("/"), denied())]),
        ("everybody", vec![policy("a", "ALLOW", json!([{}]))], vec![(get("/"), allowed())]),
        (
            "paths",
            vec![policy("a", "ALLOW", operation(json!({"paths": ["/a", "/b/*", "*/c"], "notPaths": ["/b/secret"]})))],
            vec![
                (get("/a"), allowed()),
                (get("/a?b=c"), allowed()),
                (get("/a/b"), denied()),
                (get("/b/x"), allowed()),
                (get("/b/secret"), denied()),
                (get("/x/c"), allowed()),
                (get("/d"), denied()),
                (get("/d/../a"), allowed()),
            ],
        ),
        (
            "path templates",
            vec![policy("a", "ALLOW", operation(json!({"paths": ["/user/{*}/cart", "/files/{**}"]})))],
            vec![(get("/user/ann/cart"), allowed()), (get("/user/ann/x/cart"), denied()), (get("/files/a/b/c"), allowed())],
        ),
        (
            "methods",
            vec![policy("a", "ALLOW", operation(json!({"methods": ["GET", "PUT"]})))],
            vec![(get("/"), allowed()), (Ask::new("DELETE", "/").host("shop.example"), denied())],
        ),
        (
            "hosts",
            vec![policy("a", "ALLOW", operation(json!({"hosts": ["shop.example", "*.shop.example"]})))],
            vec![(get("/"), allowed()), (Ask::get("/").host("a.shop.example"), allowed()), (Ask::get("/").host("other.example"), denied())],
        ),
        ("ports", vec![policy("a", "DENY", operation(json!({"ports": [group.http.port().to_string()]})))], vec![(get("/"), denied())]),
        ("other ports", vec![policy("a", "DENY", operation(json!({"ports": ["9"]})))], vec![(get("/"), allowed())]),
        (
            "addresses",
            vec![policy("a", "ALLOW", json!([{"from": [{"source": {"ipBlocks": ["127.0.5.0/24"]}}]}]))],
            vec![(get("/").from(one), allowed()), (get("/").from(two), denied())],
        ),
        (
            "no addresses",
            vec![policy("a", "ALLOW", json!([{"from": [{"source": {"notIpBlocks": ["127.0.5.1"]}}]}]))],
            vec![(get("/").from(one), denied()), (get("/").from(two), allowed())],
        ),
        (
            "remote addresses",
            vec![policy("a", "DENY", json!([{"from": [{"source": {"remoteIpBlocks": ["127.0.5.0/24"]}}]}]))],
            vec![(get("/").from(one), denied()), (get("/").from(two), allowed())],
        ),
        (
            "headers",
            vec![policy("a", "ALLOW", when("request.headers[x-team]", &["red", "blue*"]))],
            vec![
                (get("/").header("x-team", "red"), allowed()),
                (get("/").header("x-team", "blueish"), allowed()),
                (get("/").header("x-team", "green"), denied()),
                (get("/"), denied()),
            ],
        ),
        (
            "ports of destinations",
            vec![policy("a", "ALLOW", when("destination.port", &[&group.http.port().to_string()]))],
            vec![(get("/"), allowed())],
        ),
        (
            "all of a rule, any of several",
            vec![policy(
                "a",
                "ALLOW",
                json!([
                    {"to": [{"operation": {"paths": ["/a"]}}], "when": [{"key": "request.headers[x-team]", "values": ["red"]}]},
                    {"to": [{"operation": {"paths": ["/b"]}}]}
                ]),
            )],
            vec![(get("/a").header("x-team", "red"), allowed()), (get("/a"), denied()), (get("/b"), allowed())],
        ),
        (
            "denied before allowed",
            vec![policy("a", "ALLOW", json!([{}])), policy("d", "DENY", operation(json!({"paths": ["/admin*"]})))],
            vec![(get("/"), allowed()), (get("/admin/x"), denied())],
        ),
        ("audited only", vec![policy("a", "AUDIT", json!([{}]))], vec![(get("/"), allowed())]),
    ];
    let of_bytes = [
        ("bytes", vec![], true, true),
        ("bytes by address", vec![policy("a", "ALLOW", json!([{"from": [{"source": {"ipBlocks": ["127.0.5.1"]}}]}]))], true, false),
        ("bytes by port", vec![policy("a", "DENY", operation(json!({"ports": [group.tcp.port().to_string()]})))], false, false),
        // What only requests have cannot be seen: to allow it allows nothing.
        ("bytes by path", vec![policy("a", "ALLOW", operation(json!({"paths": ["/"]})))], false, false),
    ];
    let mut objects = group.objects();
    let policies = rows.iter().map(|(_, policies, _)| policies).chain(of_bytes.iter().map(|(_, policies, ..)| policies));
    objects.extend(policies.enumerate().flat_map(|(row, policies)| only(row, policies)));
    let Some(stage) = Stage::start("behaviour", &objects, "").await else { return };
    let count = rows.len();
    for (row, (name, _, asks)) in rows.into_iter().enumerate() {
        // All listen on the same port, one after the other.
        let mut envoy = stage.envoy(row_node(row)).await;
        for (ask, expected) in asks {
            verdicts.note(format_args!("{name}, {ask}"), expect(group.http, ask.clone(), &expected).await);
        }
        verdicts.accepted(name, &envoy).await;
        envoy.process().kill().await;
    }
    for (row, (name, _, first, second)) in of_bytes.into_iter().enumerate() {
        let mut envoy = stage.envoy(row_node(count + row)).await;
        verdicts.equal(name, (group.bytes(one).await, group.bytes(two).await), (first, second));
        verdicts.accepted(name, &envoy).await;
        envoy.process().kill().await;
    }
    verdicts.finish("authorization");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_is_asked() {
    let group = Group::start().await;
    let authz = Backend::start("authz").await;
    let mut objects = group.objects();
    objects.push(static_entry("authz", &["authz.example"], "HTTP", &[endpoint(authz.addr())]));
    let custom = |name: &str, provider: &str, path: &str| {
        let mut policy = policy(name, "CUSTOM", json!([{"to": [{"operation": {"paths": [path]}}]}]));
        policy["spec"]["provider"] = json!({"name": provider});
        policy
    };
    let config = "extensionProviders:\n- name: says\n  envoyExtAuthzHttp:\n    service: authz.example\n    port: 80\n    pathPrefix: /status\n\
                  \x20   includeRequestHeadersInCheck: [x-who]\n    headersToUpstreamOnAllow: [x-backend]\n    headersToDownstreamOnDeny: [x-backend]\n";
    // The path after the prefix is the request's own, whose first word is thus the code that is answered.
    objects.push(custom("says", "says", "/4*"));
    objects.push(custom("says-2", "says", "/2*"));
    let Some(stage) = Stage::start("behaviour", &objects, config).await else { return };
    let envoy = stage.envoy(gateway_node()).await;
    let mut verdicts = Verdicts::default();
    for (path, expected) in [
        ("/200/x", to("b").sends("x-backend", "authz")),
        ("/401/x", status(401).answers("x-backend", "authz")),
        ("/free", to("b").sends("x-backend", None)),
    ] {
        verdicts.note(path, expect(group.http, get(path), &expected).await);
    }
    verdicts.equal("asked", authz.requests(), 2);
    drop(authz);
    // Its connections end a moment later.
    until("a refusal for nobody can be asked", async || {
        expect(group.http, get("/200/x"), &status(403)).await.map_err(|e| format!("{e:#}"))
    })
    .await;
    verdicts.accepted("gateway", &envoy).await;
    verdicts.finish("external authorization");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_proved_and_used() {
    let group = Group::start().await;
    let (issuer, forger) = (TokenIssuer::new("issuer@example"), TokenIssuer::new("issuer@example"));
    let v2 = Backend::start("v2").await;
    let mut objects = group.objects();
    objects.push(static_entry("v2", &["v2.example"], "HTTP", &[endpoint(v2.addr())]));
    objects.retain(|o| o["kind"] != "VirtualService" || o["metadata"]["name"] == "bytes");
    let claims = json!({"hosts": ["shop.example"], "gateways": ["edge"], "http": [
        {"match": [{"headers": {"@request.auth.claims.team": {"exact": "red"}}}], "route": [{"destination": {"host": "v2.example", "port": {"number": 80}}}]},
        {"match": [{"headers": {"@request.auth.claims[org][unit]": {"exact": "ops"}}}], "route": [{"destination": {"host": "v2.example", "port": {"number": 80}}}]},
        {"route": [{"destination": {"host": "shop.example", "port": {"number": 80}}}]}
    ]});
    objects.push(istio("networking", "VirtualService", "claims", claims));
    objects.push(istio(
        "security",
        "RequestAuthentication",
        "tokens",
        json!({
            "selector": {"matchLabels": {"istio": "edge"}},
            "jwtRules": [{
                "issuer": "issuer@example", "jwks": issuer.jwks(), "audiences": ["shop"], "forwardOriginalToken": true,
                "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}, {"name": "x-token"}], "fromParams": ["token"],
                "outputPayloadToHeader": "x-payload", "outputClaimToHeaders": [{"header": "x-team", "claim": "team"}]
            }]
        }),
    ));
    let with =
        |key: &str, values: &[&str]| json!([{"to": [{"operation": {"paths": ["/private*"]}}], "when": [{"key": key, "values": values}]}]);
    objects.push(policy("open", "ALLOW", json!([{"to": [{"operation": {"notPaths": ["/private*", "/own*"]}}]}])));
    objects.push(policy("team", "ALLOW", with("request.auth.claims[team]", &["blue"])));
    objects.push(policy(
        "own",
        "ALLOW",
        json!([{
            "from": [{"source": {"requestPrincipals": ["issuer@example/ann"]}}], "to": [{"operation": {"paths": ["/own*"]}}]
        }]),
    ));
    let Some(stage) = Stage::start("behaviour", &objects, "").await else { return };
    let envoy = stage.envoy(gateway_node()).await;
    let mut verdicts = Verdicts::default();
    let of = |issuer: &TokenIssuer, team: &str| issuer.token(json!({"sub": "ann", "aud": "shop", "team": team}));
    let bearer = |ask: Ask, token: &str| ask.header("authorization", &format!("Bearer {token}"));
    let (blue, red) = (of(&issuer, "blue"), of(&issuer, "red"));
    let other_audience = issuer.token(json!({"sub": "ann", "aud": "else"}));
    let old = issuer.token_until(json!({"sub": "ann", "aud": "shop"}), Duration::from_secs(1_000_000_000));
    let bob = issuer.token(json!({"sub": "bob", "aud": "shop"}));
    let nested = issuer.token(json!({"sub": "ann", "aud": "shop", "org": {"unit": "ops"}}));
    let rows: Vec<(&str, Ask, Expect)> = vec![
        ("no token", get("/"), to("b").sends("x-team", None)),
        ("a token", bearer(get("/"), &blue), to("b").sends("x-team", "blue")),
        ("of a forger", bearer(get("/"), &of(&forger, "blue")), status(401)),
        ("for others", bearer(get("/"), &other_audience), status(403)),
        ("out of date", bearer(get("/"), &old), status(401)),
        ("no token at all", bearer(get("/"), "what"), status(401)),
        ("in another header", get("/").header("x-token", &blue), to("b").sends("x-team", "blue")),
        ("in a parameter", get(&format!("/?token={blue}")), to("b").sends("x-team", "blue")),
        ("a claim routes", bearer(get("/"), &red), to("v2")),
        ("a nested claim routes", bearer(get("/"), &nested), to("v2")),
        ("a claim is no header", get("/").header("team", "red"), to("b")),
        ("the right team", bearer(get("/private"), &blue), to("b")),
        ("the wrong team", bearer(get("/private"), &red), denied()),
        ("no team", get("/private"), denied()),
        ("the right one", bearer(get("/own"), &blue), to("b")),
        ("the wrong one", bearer(get("/own"), &bob), denied()),
        ("nobody", get("/own"), denied()),
        ("a forged claim header", get("/").header("x-team", "admin"), to("b").sends("x-team", None)),
    ];
    for (name, ask, expected) in rows {
        verdicts.note(name, expect(group.http, ask, &expected).await);
    }
    let passed_on = bearer(get("/"), &blue).send(group.http).await.map(|r| r.echo().headers);
    let passed_on = passed_on.map(|h| (h.get("authorization").cloned(), h.contains_key("x-payload"))).ok();
    verdicts.equal("the token and its content are passed on", passed_on, Some((Some(format!("Bearer {blue}")), true)));
    verdicts.accepted("gateway", &envoy).await;
    verdicts.finish("tokens");
}
