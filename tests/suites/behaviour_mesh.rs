//! Settings of the mesh, Telemetry and extensions: what they change for traffic, with stock Envoys.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, ensure};
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::tls::TlsClient;
use pilotfish_testkit::{Ask, Authority, Backend, Envoy, until};
use pilotfish_tests::behaviour::{
    Expect, Stage, Verdicts, endpoint, expect, gateway, gateway_node, routed, server, static_entry, status, to,
};
use pilotfish_tests::istio;
use serde_json::{Value, json};

/// A gateway with one service behind it, under this MeshConfig.
async fn edge(backend: &Backend, listen: SocketAddr, mesh_config: &str, more: Vec<Value>) -> Option<(Stage, Envoy)> {
    let mut objects = vec![
        static_entry("shop", &["shop.example"], "HTTP", &[endpoint(backend.addr())]),
        gateway("edge", &[server("http", "HTTP", listen, &["*"], None)]),
        routed("shop", "shop.example", &["edge"]),
    ];
    objects.extend(more);
    let stage = Stage::start("behaviour", &objects, mesh_config).await?;
    let envoy = stage.envoy(gateway_node()).await;
    Some((stage, envoy))
}

fn shop(path: &str) -> Ask {
    Ask::get(path).host("shop.example")
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_mesh_change_traffic() {
    let backend = Backend::start("b").await;
    let mut verdicts = Verdicts::default();
    let normal = |mode: &str| format!("pathNormalization: {{normalization: {mode}}}\n");
    let headers = |headers: &str| format!("defaultConfig: {{proxyHeaders: {{{headers}}}}}\n");
    let rows: Vec<(String, Vec<(Ask, Expect)>)> = vec![
        (
            String::new(),
            vec![
                (shop("/a/../b"), to("b").path("/b").answers("server", "envoy")),
                (shop("/a//b"), to("b").path("/a//b")),
                (shop("/flaky/x/1"), status(503)),
            ],
        ),
        (normal("NONE"), vec![(shop("/a/../b"), to("b").path("/a/../b"))]),
        (normal("MERGE_SLASHES"), vec![(shop("/a//b/../c"), to("b").path("/a/c"))]),
        (normal("DECODE_AND_MERGE_SLASHES"), vec![(shop("/a%2Fb"), to("b").path("/a/b"))]),
        (
            "defaultHttpRetryPolicy: {attempts: 2, retryOn: \"503\"}\n".to_owned(),
            vec![(shop("/flaky/y/2"), to("b")), (shop("/status/500"), status(500))],
        ),
        (headers("server: {disabled: true}"), vec![(shop("/"), to("b").answers("server", None))]),
        (headers("server: {value: mine}"), vec![(shop("/"), to("b").answers("server", "mine"))]),
        (headers("requestId: {disabled: true}"), vec![(shop("/"), to("b").sends("x-request-id", None))]),
        (headers("envoyDebugHeaders: {disabled: true}"), vec![(shop("/"), to("b").answers("x-envoy-upstream-service-time", None))]),
    ];
    for (config, asks) in rows {
        let listen = free_addr();
        let Some((_stage, envoy)) = edge(&backend, listen, &config, Vec::new()).await else { return };
        for (ask, expected) in asks {
            verdicts.note(format_args!("{config:?}, {ask}"), expect(listen, ask.clone(), &expected).await);
        }
        verdicts.accepted(&config, &envoy).await;
    }
    verdicts.finish("settings of the mesh");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_version_of_tls_is_the_meshs() {
    let authority = Authority::new("ours");
    let (identity, backend, https) = (authority.issue("edge", &["shop.example"]), Backend::start("b").await, free_addr());
    let tls = json!({"mode": "SIMPLE", "serverCertificate": identity.chain(), "privateKey": identity.key()});
    let objects =
        vec![gateway("secure", &[server("https", "HTTPS", https, &["*"], Some(tls))]), routed("secure", "shop.example", &["secure"])];
    let Some((_stage, envoy)) = edge(&backend, free_addr(), "tlsDefaults: {minProtocolVersion: TLSV1_3}\n", objects).await else { return };
    let client = TlsClient::new(authority.root());
    let mut verdicts = Verdicts::default();
    verdicts.equal("1.3", client.send(https, "shop.example", &Ask::get("/")).await.map(|(r, _)| r.status).ok(), Some(200));
    verdicts.equal("1.2", client.at_most_1_2().send(https, "shop.example", &Ask::get("/")).await.is_ok(), false);
    verdicts.accepted("gateway", &envoy).await;
    verdicts.finish("TLS of the mesh");
}

/// Waits until a log has as many lines as expected, and returns them.
async fn lines(path: &Path, count: usize) -> Vec<String> {
    until(&format!("{count} lines in {}", path.display()), async || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        ensure!(lines.len() == count, "{} lines: {text}", lines.len());
        Ok::<_, anyhow::Error>(lines)
    })
    .await
}

fn telemetry(name: &str, spec: Value) -> Value {
    istio("telemetry", "Telemetry", name, spec)
}

#[tokio::test(flavor = "multi_thread")]
async fn access_logs_tell_what_was_asked_for() {
    let (backend, listen, dir) = (Backend::start("b").await, free_addr(), tempfile::tempdir().unwrap());
    let file = |name: &str| dir.path().join(name);
    let format = "%REQ(:METHOD)% %REQ(:PATH)% %RESPONSE_CODE%\\n";
    let provider = |name: &str| {
        let path = file(name);
        format!("- name: {name}\n  envoyFileAccessLog: {{path: {}, logFormat: {{text: \"{format}\"}}}}\n", path.display())
    };
    let config = format!("extensionProviders:\n{}{}{}", provider("everything"), provider("errors"), provider("never"));
    let logs = telemetry(
        "logs",
        json!({"accessLogging": [
            {"providers": [{"name": "everything"}]},
            {"providers": [{"name": "errors"}], "filter": {"expression": "response.code >= 400"}},
            {"providers": [{"name": "never"}], "disabled": true}
        ]}),
    );
    let Some((stage, envoy)) = edge(&backend, listen, &config, vec![logs]).await else { return };
    let mut verdicts = Verdicts::default();
    let ask = async |path: &str| shop(path).send(listen).await.map(|r| r.status).unwrap_or_default();
    verdicts.equal("answers", (ask("/one").await, ask("/status/404").await), (200, 404));
    verdicts.equal("everything", lines(&file("everything"), 2).await, vec!["GET /one 200".to_owned(), "GET /status/404 404".to_owned()]);
    verdicts.equal("errors", lines(&file("errors"), 1).await, vec!["GET /status/404 404".to_owned()]);
    verdicts.equal("never", std::fs::read_to_string(file("never")).unwrap_or_default().as_str(), "");
    verdicts.accepted("gateway", &envoy).await;
    drop((stage, envoy));

    // The setting of the mesh, in both encodings.
    for (name, encoding, expected) in [("text", "TEXT", "GET /two 200"), ("json", "JSON", r#"{"method":"GET","status":200}"#)] {
        let path = file(name);
        let format = if encoding == "TEXT" {
            format!("\"{format}\"")
        } else {
            r#"'{"method": "%REQ(:METHOD)%", "status": "%RESPONSE_CODE%"}'"#.to_owned()
        };
        let config = format!("accessLogFile: {}\naccessLogEncoding: {encoding}\naccessLogFormat: {format}\n", path.display());
        let listen = free_addr();
        let Some((_stage, envoy)) = edge(&backend, listen, &config, Vec::new()).await else { return };
        verdicts.note(name, expect(listen, shop("/two"), &to("b")).await);
        verdicts.equal(name, lines(&path, 1).await, vec![expected.to_owned()]);
        verdicts.accepted(name, &envoy).await;
    }
    verdicts.finish("access logs");
}

#[tokio::test(flavor = "multi_thread")]
async fn extensions_run_in_their_order() -> Result<()> {
    let (backend, listen) = (Backend::start("b").await, free_addr());
    let script = |name: &str, priority: u32, code: &str| {
        istio("extensions", "TrafficExtension", name, json!({"priority": priority, "phase": "AUTHN", "lua": {"inlineCode": code}}))
    };
    let append = |word: &str| {
        format!(
            "function envoy_on_request(h)\n  local v = h:headers():get('x-order') or ''\n  h:headers():replace('x-order', v .. '{word}')\nend\n\
             function envoy_on_response(h)\n  h:headers():add('x-by-{word}', 'lua')\nend\n"
        )
    };
    let mut objects = vec![script("late", 1, &append("b")), script("early", 2, &append("a"))];
    objects.iter_mut().for_each(|o| o["apiVersion"] = json!("extensions.istio.io/v1alpha1"));
    let Some((_stage, envoy)) = edge(&backend, listen, "", objects).await else { return Ok(()) };
    let mut verdicts = Verdicts::default();
    verdicts
        .note("order", expect(listen, shop("/"), &to("b").sends("x-order", "ab").answers("x-by-a", "lua").answers("x-by-b", "lua")).await);
    verdicts.accepted("gateway", &envoy).await;
    verdicts.finish("extensions");
    Ok(())
}
