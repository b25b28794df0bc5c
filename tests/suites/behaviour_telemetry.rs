//! Telemetry and extensions with a stock Envoy as gateway: code of users runs in its order and for its traffic, what cannot run lets
//! nothing pass, and logs and spans are what the objects say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
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

/// Labels and value of the only series of a metric on Envoy's page.
async fn series(admin: SocketAddr, name: &str) -> anyhow::Result<(BTreeMap<String, String>, String)> {
    let page = Ask::get("/stats/prometheus").send(admin).await?.body;
    let mut lines = page.lines().filter_map(|l| l.strip_prefix(name)?.strip_prefix('{')?.split_once("} "));
    let (labels, value) = lines.next().with_context(|| format!("no {name}"))?;
    ensure!(lines.next().is_none(), "several {name}");
    let pairs = labels.trim_end_matches('"').split("\",").filter_map(|pair| pair.split_once("=\""));
    Ok((pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(), value.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_connections_are_counted_as_istio_counts_them() {
    let shop = Backend::start("shop").await;
    let [web, raw] = [(); 2].map(|()| free_addr());
    let mut objects = entrances(&[web]);
    objects.push(gateway("raw", &[server("tcp", "TCP", raw, &["*"], None)]));
    let to_shop = json!([{"destination": {"host": "shop", "port": {"number": 80}}}]);
    objects.push(istio("networking", "VirtualService", "raw", json!({"hosts": ["*"], "gateways": ["raw"], "tcp": [{"route": to_shop}]})));
    objects.extend(service("shop", "http", 80, &[("v1", shop.addr())]));
    let overrides = json!([
        {"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": {
            "path": {"value": "request.path"}, "grpc_response_status": {"operation": "REMOVE"}, "response_flags": {"value": "request.("}
        }},
        {"match": {"metric": "REQUEST_SIZE"}, "disabled": true}
    ]);
    let counted = |overrides: Value| {
        let metrics = json!([{"providers": [{"name": "prometheus"}], "overrides": overrides}]);
        istio("telemetry", "Telemetry", "edge", json!({"metrics": metrics}))
    };
    let Some(stage) = Stage::start("behaviour_telemetry", &objects, "{}").await else { return };
    let mut sound = overrides.clone();
    sound[0]["tagOverrides"].as_object_mut().unwrap().remove("response_flags");
    stage.mesh.write("telemetry.yaml", &[counted(sound)]);
    let mut edge = stage.envoy(gateway_node()).await;
    let mut verdicts = Verdicts::default();
    edge.until("it counts", async |admin| {
        expect(web, get("/a?b=c"), &to("shop")).await?;
        series(admin, "envoy_istio_requests_total").await.map(|_| ())
    })
    .await;
    let (labels, before) = series(edge.admin(), "envoy_istio_requests_total").await.unwrap();
    let expected = [
        ("connection_security_policy", "unknown"),
        ("destination_principal", ""),
        ("destination_service", "shop.shop.svc.cluster.local"),
        ("destination_service_name", "shop"),
        ("destination_service_namespace", "shop"),
        ("path", "/a?b=c"),
        ("reporter", "source"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("response_flags", "-"),
        ("source_app", "unknown"),
        ("source_canonical_revision", "latest"),
        ("source_canonical_service", "edge"),
        ("source_cluster", "unknown"),
        ("source_principal", ""),
        ("source_version", "unknown"),
        ("source_workload", "edge"),
        ("source_workload_namespace", "shop"),
    ];
    let mut shown = labels;
    let server = shown.remove("destination_workload").unwrap_or_default();
    verdicts.equal("labels", shown, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    verdicts.equal(format_args!("the server: {server}"), server.split(';').count(), 5);
    get("/a?b=c").send(web).await.unwrap();
    edge.until("one more is counted", async |admin| {
        let (_, now) = series(admin, "envoy_istio_requests_total").await?;
        ensure!(now.parse::<u64>()? == before.parse::<u64>()? + 1, "{before} became {now}");
        Ok(())
    })
    .await;
    let page = Ask::get("/stats/prometheus").send(edge.admin()).await.unwrap().body;
    verdicts.equal("sizes of answers", page.contains("envoy_istio_response_bytes_count{"), true);
    verdicts.equal("sizes of requests", page.contains("envoy_istio_request_bytes"), false);
    expect(raw, get("/"), &to("shop")).await.unwrap();
    edge.until("connections are counted", async |admin| {
        let (labels, _) = series(admin, "envoy_istio_tcp_connections_closed_total").await?;
        ensure!(labels["request_protocol"] == "tcp" && labels["destination_service_name"] == "shop", "{labels:?}");
        let (_, sent) = series(admin, "envoy_istio_tcp_sent_bytes_total").await?;
        ensure!(sent.parse::<u64>()? > 0, "nothing sent");
        Ok(())
    })
    .await;
    // A tag that is no expression makes the object a mistake, and harms nobody.
    stage.mesh.write("telemetry.yaml", &[counted(overrides)]);
    stage.mesh.write("more.yaml", &[script("mark", "x", 0, "AUTHN", web)]);
    edge.until("a later change arrives", async |_| expect(web, get("/"), &to("shop").sends("x-trail", "x")).await).await;
    verdicts.accepted("edge", &edge).await;
    verdicts.finish("metrics");
}
