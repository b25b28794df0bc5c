//! Who may do what at a stock Envoy, by certificate and by token, whose keys are fetched while the mesh is served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::tls::TlsClient;
use pilotfish_testkit::{Ask, Authority, Backend, TcpBackend, tcp, until};
use pilotfish_tests::behaviour::{
    Stage, Verdicts, endpoint, expect, gateway, gateway_node, routed_bytes, server, static_entry, status, to,
};
use pilotfish_tests::{answering, istio};
use serde_json::{Value, json};

/// Signed with the key below, for the issuer `tests`, until the year 2100. Alice is in the groups staff and night, Bob is a guest.
const ALICE: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsxIn0.eyJpc3MiOiJ0ZXN0cyIsInN1YiI6ImFsaWNlIiwiYXVkIjoic2hvcCIsImV4cCI6NDEwMjQ0NDgwMCwiZ3JvdXBzIjpbInN0YWZmIiwibmlnaHQiXSwic2NvcGUiOiJyZWFkIHdyaXRlIn0.ocJsOdK8B-HfN9aAFR_gOyYrkih2Y1Tm7-uU19f6hUA";
const BOB: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsxIn0.eyJpc3MiOiJ0ZXN0cyIsInN1YiI6ImJvYiIsImF1ZCI6InNob3AiLCJleHAiOjQxMDI0NDQ4MDAsImdyb3VwcyI6WyJndWVzdHMiXX0.b6Wk7dxyuLAWMGhwIPtdKnHGk8QPtS_D-ScQXdPf8xk";
/// Says to be of staff, and is signed with another key.
const MALLORY: &str = "eyJhbGciOiJIUzI1NiIsImtpZCI6ImsxIn0.eyJpc3MiOiJ0ZXN0cyIsInN1YiI6Im1hbGxvcnkiLCJhdWQiOiJzaG9wIiwiZXhwIjo0MTAyNDQ0ODAwLCJncm91cHMiOlsic3RhZmYiXX0.rwxkthDmyZjtE_y2tojuu_HEfdMKU6pPQqkYOpYUt_M";
const KEYS: &str = r#"{"keys":[{"kty":"oct","kid":"k1","alg":"HS256","k":"YSBrZXkgdGhhdCBpcyBvbmx5IGZvciB0ZXN0cw"}]}"#;

fn policy(name: &str, spec: Value) -> Value {
    istio("security", "AuthorizationPolicy", name, spec)
}

/// The shop's backend behind the gateway, for all names below `.example`.
fn shop(backend: &Backend) -> Vec<Value> {
    let http = json!([
        {"match": [{"headers": {"@request.auth.claims.groups": {"exact": "night"}}}], "directResponse": {"status": 298}},
        {"route": [{"destination": {"host": "shop.example", "port": {"number": 80}}}]}
    ]);
    let routes = json!({"hosts": ["*.example"], "gateways": ["edge"], "http": http});
    vec![
        static_entry("shop", &["shop.example"], "HTTP", &[endpoint(backend.addr())]),
        istio("networking", "VirtualService", "shop", routes),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_say_who_may_do_what() {
    let roots = Authority::new("mesh");
    let edge = roots.issue("edge", &["shop.example"]);
    let [reader, writer] = ["reader", "writer"].map(|name| roots.issue(name, &[&format!("spiffe://cluster.local/ns/a/sa/{name}")]));
    let (backend, bytes, https, raw) = (Backend::start("b").await, TcpBackend::start("bytes").await, free_addr(), free_addr());
    let mut objects = shop(&backend);
    let tls = json!({"mode": "MUTUAL", "serverCertificate": edge.chain(), "privateKey": edge.key(), "caCertificates": edge.roots()});
    objects
        .push(gateway("edge", &[server("https", "HTTPS", https, &["shop.example"], Some(tls)), server("tcp", "TCP", raw, &["*"], None)]));
    objects
        .extend([static_entry("bytes", &["bytes.example"], "TCP", &[endpoint(bytes.addr())]), routed_bytes("bytes", "bytes.example", raw)]);
    let from = |name: &str| json!([{"source": {"principals": [format!("cluster.local/ns/a/sa/{name}")]}}]);
    let raw_port = raw.port().to_string();
    objects.extend([
        policy(
            "allow",
            json!({"rules": [
                {"from": from("reader"), "to": [{"operation": {"methods": ["GET"]}}]},
                {"from": from("writer"), "to": [{"operation": {"hosts": ["SHOP.example"]}}]},
                {"from": [{"source": {"ipBlocks": ["127.0.0.0/8"]}}], "to": [{"operation": {"ports": [raw_port]}}]}
            ]}),
        ),
        policy("deny", json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/private/{*}/key", "/never*"], "methods": ["GET"]}}],
            "when": [{"key": "request.headers[x-sesame]", "notValues": ["open"]}, {"key": "destination.port", "values": [https.port().to_string()]}]}]})),
        policy("tried", json!({"action": "DENY", "rules": [{}], "selector": {"matchLabels": {"app": "nobody"}}})),
    ]);
    let Some(stage) = Stage::start("behaviour", &objects, "").await else { return };
    let envoy = stage.envoy(gateway_node()).await;
    let mut verdicts = Verdicts::default();
    let client = TlsClient::new(roots.root());
    let visit =
        async |identity, ask: Ask| client.clone().certificate(identity).send(https, "shop.example", &ask.host("shop.example")).await;
    until("the gateway", async || visit(&reader, Ask::get("/")).await.map_err(|e| format!("{e:#}"))).await;
    for (case, identity, ask, expected) in [
        ("a reader reads", &reader, Ask::get("/a"), 200),
        ("a reader writes", &reader, Ask::new("POST", "/a"), 403),
        ("a writer writes", &writer, Ask::new("POST", "/a"), 200),
        ("what matches a template", &writer, Ask::get("/private/x/key"), 403),
        ("the same with the word", &writer, Ask::get("/private/x/key").header("x-sesame", "open"), 200),
        ("what does not match it", &writer, Ask::get("/private/x/y/key"), 200),
        ("a prefix", &reader, Ask::get("/nevermore"), 403),
        ("another method", &writer, Ask::new("POST", "/never"), 200),
    ] {
        verdicts.equal(case, visit(identity, ask).await.map(|(response, _)| response.status).unwrap(), expected);
    }
    let said = tcp::say(raw, "hello").await;
    verdicts.equal("bytes of whom the rules allow", said.unwrap_or_default(), "bytes: hello".to_owned());

    stage
        .mesh
        .write("more.yaml", &[policy("closed", json!({"action": "DENY", "rules": [{"to": [{"operation": {"ports": [raw_port]}}]}]}))]);
    until("that bytes are refused", async || match tcp::say(raw, "hello").await {
        Ok(heard) if !heard.is_empty() => Err(heard),
        _ => Ok(()),
    })
    .await;
    verdicts.equal("requests beside that", visit(&reader, Ask::get("/a")).await.map(|(r, _)| r.status).unwrap(), 200);
    verdicts.accepted("edge", &envoy).await;
    verdicts.finish("certificates");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_say_who_may_do_what() {
    let served = Arc::new(AtomicBool::new(false));
    let (backend, http, is_served) = (Backend::start("b").await, free_addr(), served.clone());
    let issuer = answering(move |_| if is_served.load(Ordering::SeqCst) { (200, "", KEYS) } else { (503, "", "") }).await;
    let mut objects = shop(&backend);
    objects.push(gateway("edge", &[server("http", "HTTP", http, &["*"], None)]));
    objects.push(istio(
        "security",
        "RequestAuthentication",
        "tokens",
        json!({"jwtRules": [{"issuer": "tests", "audiences": ["shop"], "jwksUri": format!("http://{issuer}/keys"),
            "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}]}]}),
    ));
    let deny = |name: &str, from: Value, paths: &str| {
        policy(name, json!({"action": "DENY", "rules": [{"from": [{"source": from}], "to": [{"operation": {"paths": [paths]}}]}]}))
    };
    objects.extend([
        deny("anonymous", json!({"notRequestPrincipals": ["*"]}), "/account*"),
        deny("not-alice", json!({"notRequestPrincipals": ["tests/alice"]}), "/alice*"),
        policy(
            "staff",
            json!({"action": "DENY", "rules": [{"to": [{"operation": {"paths": ["/staff*"]}}],
                "when": [{"key": "request.auth.claims[groups]", "notValues": ["staff"]}]}]}),
        ),
        policy(
            "writers",
            json!({"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["PUT"]}}],
                "when": [{"key": "request.auth.claims[scope]", "notValues": ["write"]}]}]}),
        ),
    ]);
    let Some(stage) = Stage::start_with("behaviour", &objects, "", &["--jwks-allow", "127.0.0.0/8"]).await else { return };
    let envoy = stage.envoy(gateway_node()).await;
    let mut verdicts = Verdicts::default();
    let ask = |ask: Ask, token: &str| ask.host("a.example").header("authorization", &format!("Bearer {token}"));
    let anonymous = |path: &str| Ask::get(path).host("a.example");
    until("the gateway", async || expect(http, anonymous("/"), &to("b")).await).await;
    verdicts.note("without keys no token is valid", expect(http, ask(Ask::get("/"), BOB), &status(401)).await);
    served.store(true, Ordering::SeqCst);
    until("the keys", async || expect(http, ask(Ask::get("/"), BOB), &to("b")).await).await;
    for (case, ask, expected) in [
        ("no token is no wrong one", anonymous("/"), to("b").sends("x-sub", None)),
        ("but an account needs one", anonymous("/account"), status(403)),
        ("a wrong one", ask(Ask::get("/"), MALLORY), status(401)),
        ("nonsense", ask(Ask::get("/"), "nonsense"), status(401)),
        ("a right one", ask(Ask::get("/account"), BOB), to("b").sends("x-sub", "bob")),
        ("of somebody else", ask(Ask::get("/alice"), BOB), status(403)),
        ("of her, routed by a claim", ask(Ask::get("/alice"), ALICE), status(298)),
        ("an item of a list", ask(Ask::get("/staff"), ALICE), status(298)),
        ("not in the list", ask(Ask::get("/staff"), BOB), status(403)),
        ("a word of a text", ask(Ask::new("PUT", "/"), ALICE), status(298)),
        ("without that text", ask(Ask::new("PUT", "/"), BOB), status(403)),
    ] {
        verdicts.note(case, expect(http, ask, &expected).await);
    }
    verdicts.accepted("edge", &envoy).await;
    verdicts.finish("tokens");
}
