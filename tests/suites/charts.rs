//! The charts with a real Helm: they lint, mistakes in values are found, and what common values render is what is expected.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;

use pilotfish_testkit::helm::helm;
use serde_json::Value;

/// Golden renders: name, release, chart, values.
const RENDERS: &[(&str, &str, &str, &[&str])] = &[
    ("base", "base", "base", &["--set", "base.enableCRDTemplates=false"]),
    ("default", "istiod", "pilotfish", &[]),
    ("revision", "istiod-canary", "pilotfish", &["--set", "revision=canary,revisionTags={prod,default}"]),
    (
        "large",
        "istiod",
        "pilotfish",
        &[
            "--set",
            "autoscaleMin=2,pdb.minAvailable=1,global.networkPolicy.enabled=true,cni.enabled=true,global.logAsJson=true",
            "--set",
            "meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY,env.FOO=bar,global.imagePullSecrets={regcred}",
            "--set",
            "sidecarInjectorWebhook.enableNamespacesByDefault=true,sidecarInjectorWebhook.reinvocationPolicy=IfNeeded",
        ],
    ),
    (
        "remote",
        "istiod",
        "pilotfish",
        &["--set", "istiodRemote.injectionURL=https://istiod.example.com/inject,istiodRemote.injectionCABundle=Zm9v"],
    ),
    ("gateway", "istio-ingress", "gateway", &[]),
    (
        "gateway-daemonset",
        "edge",
        "gateway",
        &["--set", "kind=DaemonSet,service.type=None,networkGateway=network1,revision=canary,env.A=b,global.networkPolicy.enabled=true"],
    ),
];

#[tokio::test]
async fn they_lint() {
    let Some(helm) = helm("charts") else { return };
    for chart in ["base", "pilotfish", "gateway"] {
        let output = helm.run(&["lint", "--strict", chart]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[tokio::test]
async fn mistakes_in_values_are_found() {
    let Some(helm) = helm("charts") else { return };
    for (chart, set, complaint) in [
        ("pilotfish", "autoscalMin=2", "autoscalMin"),
        ("pilotfish", "global.proxy.autoInject=maybe", "autoInject"),
        ("pilotfish", "resources=none", "resources"),
        ("gateway", "kind=StatefulSet", "kind"),
        ("base", "global.resourceScope=some", "resourceScope"),
    ] {
        let output = helm.run(&["template", "x", chart, "--set", set]).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(complaint), "{chart} with {set}: {said}");
    }
}

/// Kinds and rights are links to what the code generates: a chart without them must not pass.
#[tokio::test]
async fn kinds_and_rights_come_along() {
    let Some(helm) = helm("charts") else { return };
    let kinds = |documents: &[Value], kind: &str| documents.iter().filter(|d| d["kind"] == kind).count();
    let base = helm.render("base", "base", &[]).await;
    assert_eq!(kinds(&base, "CustomResourceDefinition"), 15);
    let some = helm.render("base", "base", &["--set", "base.excludedCRDs={gateways.networking.istio.io}"]).await;
    assert_eq!(kinds(&some, "CustomResourceDefinition"), 14);
    let control_plane = helm.render("istiod", "pilotfish", &[]).await;
    let role = control_plane.iter().find(|d| d["kind"] == "ClusterRole").unwrap();
    assert!(role["rules"].as_array().unwrap().len() > 5, "{role}");
}

/// Roots for keys of token issuers are mounted, and the process is told where.
#[tokio::test]
async fn extra_roots_are_read_where_they_are_mounted() {
    let Some(helm) = helm("charts") else { return };
    let all = helm.render("istiod", "pilotfish", &["--set", "jwksResolverExtraRootCA=roots"]).await;
    let pod = &all.iter().find(|d| d["kind"] == "Deployment").unwrap()["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let file = container["args"].as_array().unwrap().iter().find_map(|a| a.as_str()?.strip_prefix("--jwks-ca=")).unwrap();
    let (folder, name) = file.rsplit_once('/').unwrap();
    let volume = container["volumeMounts"].as_array().unwrap().iter().find(|m| m["mountPath"] == folder).map(|m| &m["name"]).unwrap();
    let volume = pod["volumes"].as_array().unwrap().iter().find(|v| v["name"] == *volume).unwrap();
    let map = all.iter().find(|d| d["kind"] == "ConfigMap" && d["metadata"]["name"] == volume["configMap"]["name"]).unwrap();
    assert_eq!(map["data"][name], "roots");
}

#[tokio::test]
async fn common_values_render_as_expected() {
    let Some(helm) = helm("charts") else { return };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/charts");
    let mut differing = Vec::new();
    for (name, release, chart, values) in RENDERS {
        let documents = helm.render(release, chart, values).await;
        let by_name: BTreeMap<String, &Value> =
            documents.iter().map(|d| (format!("{} {}", d["kind"].as_str().unwrap(), d["metadata"]["name"].as_str().unwrap()), d)).collect();
        assert_eq!(by_name.len(), documents.len(), "{name} has an object twice");
        let text: String = by_name.values().map(|d| format!("---\n{}", yaml_serde::to_string(d).unwrap())).collect();
        let path = golden.join(format!("{name}.yaml"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&golden).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != text {
            differing.push(*name);
        }
    }
    assert_eq!(differing, Vec::<&str>::new(), "look at the difference that UPDATE_GOLDEN=1 makes");
}
