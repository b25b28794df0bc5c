//! Telemetry and extensions with a stock Envoy as gateway: code of users runs in its order and for its traffic, what cannot run lets
//! nothing pass, and logs and spans are what the objects say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use pilotfish_testkit::poll::until_within;
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::{Ask, Backend};
use pilotfish_tests::behaviour::{Stage, Verdicts, expect, gateway, gateway_node, server, status, to};
use pilotfish_tests::{istio, service};
use serde_json::{Value, json};

const HOST: &str = "shop.example";
/// Envoy writes logs and sends spans every few seconds only.
const PATIENCE: Duration = Duration::from_secs(60);

fn get(path: &str) -> Ask {
    Ask::get(path).host(HOST)
}

/// A Gateway on these addresses, and one rule for all of them.
fn entrances(addresses: &[SocketAddr]) -> Vec<Value> {
    let servers: Vec<Value> =
        addresses.iter().enumerate().map(|(i, addr)| server(&format!("http-{i}"), "HTTP", *addr, &["*"], None)).collect();
    let rule = json!({"hosts": ["*"], "gateways": ["edge"], "http": [{"route": [{"destination": {"host": "shop"}}]}]});
    vec![gateway("edge", &servers), istio("networking", "VirtualService", "all", rule)]
}

/// For the gateway's port of an address only.
fn extension(kind: &str, name: &str, addr: SocketAddr, mut spec: Value) -> Value {
    spec["selector"] = json!({"matchLabels": {"istio": "edge"}});
    spec["match"] = json!([{"mode": "CLIENT", "ports": [{"number": addr.port()}]}]);
    let mut object = istio("extensions", kind, name, spec);
    object["apiVersion"] = json!("extensions.istio.io/v1alpha1");
    object
}

/// Leaves a mark on each request.
fn script(name: &str, mark: &str, priority: i32, phase: &str, addr: SocketAddr) -> Value {
    let code = format!(
        "function envoy_on_request(h)\n local t = h:headers():get('x-trail') or ''\n h:headers():replace('x-trail', t .. '{mark}')\nend"
    );
    extension("TrafficExtension", name, addr, json!({"phase": phase, "priority": priority, "lua": {"inlineCode": code}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn code_of_users_runs_in_its_order_and_for_its_traffic() {
    let shop = Backend::start("shop").await;
    let [scripted, plain, closed, open, missing] = [(); 5].map(|()| free_addr());
    let mut objects = entrances(&[scripted, plain, closed, open, missing]);
    objects.extend(service("shop", "http", 80, &[("v1", shop.addr())]));
    let scripts = [
        script("late", "d", 9, "STATS", scripted),
        script("low", "c", 1, "AUTHN", scripted),
        script("high", "a", 5, "AUTHN", scripted),
        script("also-high", "b", 2, "AUTHN", scripted),
    ];
    let modules = [
        extension("WasmPlugin", "closed", closed, json!({"url": "registry.example/x:1"})),
        extension("WasmPlugin", "open", open, json!({"url": "registry.example/x:1", "failStrategy": "FAIL_OPEN"})),
        extension("WasmPlugin", "missing", missing, json!({"url": "file:///nowhere/x.wasm"})),
    ];
    let Some(stage) = Stage::start("behaviour_telemetry", &objects, "{}").await else { return };
    stage.mesh.write("scripts.yaml", &scripts);
    stage.mesh.write("modules.yaml", &modules[..2]);
    let mut edge = stage.envoy(gateway_node()).await;
    let mut verdicts = Verdicts::default();
    edge.until("the scripts run", async |_| expect(scripted, get("/"), &to("shop").sends("x-trail", "abcd")).await).await;
    edge.until("the module closes", async |_| expect(closed, get("/"), &status(403)).await).await;
    verdicts.note("other port", expect(plain, get("/"), &to("shop").sends("x-trail", None)).await);
    verdicts.note("open", expect(open, get("/"), &to("shop").sends("x-trail", None)).await);
    verdicts.accepted("edge", &edge).await;
    // A file that is not there: the proxy refuses the module's settings, and what stands in for them is closed.
    stage.mesh.write("modules.yaml", &modules);
    edge.until("the missing module closes", async |_| expect(missing, get("/"), &status(403)).await).await;
    verdicts.note("closed beside it", expect(closed, get("/"), &status(403)).await);
    stage.mesh.write("modules.yaml", &modules[..1]);
    edge.until("the missing module is gone", async |_| expect(missing, get("/"), &to("shop")).await).await;
    stage.mesh.write("scripts.yaml", &scripts[1..2]);
    edge.until("one script is left", async |_| expect(scripted, get("/"), &to("shop").sends("x-trail", "c")).await).await;
    verdicts.finish("extensions");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_spans_are_what_the_objects_say() {
    let (shop, spans) = (Backend::start("shop").await, Backend::start("spans").await);
    let addr = free_addr();
    let mut objects = entrances(&[addr]);
    objects.extend(service("shop", "http", 80, &[("v1", shop.addr())]));
    objects.extend(service("spans", "http-zipkin", 9411, &[("v1", spans.addr())]));
    let tags = json!({
        "l": {"literal": {"value": "v"}}, "h": {"header": {"name": "x-h", "defaultValue": "d"}}, "e": {"environment": {"name": "NONE"}},
        "f": {"formatter": {"value": "%PROTOCOL%"}}
    });
    let telemetry = |filter: &str| {
        istio(
            "telemetry",
            "Telemetry",
            "edge",
            json!({
                "accessLogging": [{"providers": [{"name": "lines"}], "filter": {"expression": filter}}],
                "tracing": [{"providers": [{"name": "zipkin"}], "randomSamplingPercentage": 100, "customTags": tags.clone()}]
            }),
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let mesh_config = json!({"extensionProviders": [
        {"name": "lines", "envoyFileAccessLog": {"path": log.to_str().unwrap(), "logFormat": {"text": "%RESPONSE_CODE% %REQ(:PATH)%"}}},
        {"name": "zipkin", "zipkin": {"service": "spans.shop.svc.cluster.local", "port": 9411}}
    ]});
    let Some(stage) = Stage::start("behaviour_telemetry", &objects, &mesh_config.to_string()).await else { return };
    stage.mesh.write("telemetry.yaml", &[telemetry("response.code >= 400 && request.path != '/status/404'")]);
    let mut edge = stage.envoy(gateway_node()).await;
    edge.until("it serves", async |_| expect(addr, get("/"), &to("shop")).await).await;
    let traced = |r: &pilotfish_testkit::http::Response| r.echo().headers.contains_key("x-b3-traceid");
    edge.until("it traces", async |_| {
        let answer = get("/").send(addr).await?;
        ensure!(traced(&answer), "no trace");
        Ok(())
    })
    .await;
    for path in ["/status/500", "/status/404", "/", "/status/401"] {
        get(path).send(addr).await.unwrap();
    }
    let logged = || std::fs::read_to_string(&log).unwrap_or_default();
    until_within(PATIENCE, "failures are logged", async || match logged().lines().count() {
        0 | 1 => Err("nothing yet"),
        _ => Ok(()),
    })
    .await;
    let mut verdicts = Verdicts::default();
    verdicts.equal("log", logged().as_str(), "500 /status/500\n401 /status/401\n");
    until_within(PATIENCE, "spans arrive", async || if spans.requests() > 0 { Ok(()) } else { Err("none") }).await;
    verdicts.accepted("edge", &edge).await;
    // A filter that is no expression changes nothing: the last good form stays, and nothing is rejected.
    stage.mesh.write("telemetry.yaml", &[telemetry("response.code >=")]);
    stage.mesh.write("more.yaml", &[script("mark", "x", 0, "AUTHN", addr)]);
    edge.until("a later change arrives", async |_| expect(addr, get("/status/418"), &status(418)).await).await;
    edge.until("the script runs", async |_| expect(addr, get("/"), &to("shop").sends("x-trail", "x")).await).await;
    verdicts.accepted("edge, after a broken filter", &edge).await;
    verdicts.finish("telemetry");
}
