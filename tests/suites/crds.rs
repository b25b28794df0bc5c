//! Our CustomResourceDefinitions in a real API server: it takes and refuses what the reference's would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use pilotfish_testkit::http::post_json;
use pilotfish_testkit::kube::{self, Options};
use pilotfish_testkit::{KubeCluster, skip};
use pilotfish_tests::{NAMESPACE, istio};
use serde_json::{Value, json};

/// Objects that the reference's definitions take and ours refuse, or the other way round, and why that is right.
const DIFFERENCES: &[(&str, &str)] = &[
    ("Gateway Gateway/invalid_port", "a port beyond 65535: the reference leaves it to its webhook"),
    ("Sidecar Sidecar/invalid_Port", "a port beyond 65535: the reference leaves it to its webhook"),
];

/// Cases whose refusal is right and worded differently, and why.
const WORDED_DIFFERENTLY: &[(&str, &str)] =
    &[("wasm-invalid/12-nested-nil", "this API server takes a null for a field that is missing, as the reference's run on one shows")];

struct Case {
    name: String,
    object: Value,
    accepted: bool,
    /// Part of the complaint.
    complaint: Option<String>,
}

fn yaml(path: &Path) -> Value {
    yaml_serde::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The objects of the reference's own tests of its definitions.
fn crd_cases(dir: &Path) -> Vec<Case> {
    let list = yaml(&dir.join("crd-cases.yaml"));
    let case = |case: &Value| {
        let text = fs::read_to_string(dir.join(case["file"].as_str().unwrap())).unwrap();
        let document = text.split("\n---\n").nth(usize::try_from(case["doc"].as_u64().unwrap()).unwrap()).unwrap();
        let mut object: Value = yaml_serde::from_str(document).unwrap();
        object.as_object_mut().unwrap().remove("_err");
        // Older API servers said what type the value has that a rule refuses.
        let complaint =
            case["expected_schema_error_contains"].as_str().map(|text| text.replace("Invalid value: \"object\": ", "Invalid value: "));
        Case { name: case["name"].as_str().unwrap().to_owned(), object, accepted: case["crd_schema_accepts"] == true, complaint }
    };
    list["cases"].as_array().unwrap().iter().map(case).collect()
}

/// The objects of the reference's tests of its webhook.
fn validation_cases(dir: &Path) -> Vec<Case> {
    let list = yaml(&dir.join("validation-cases.yaml"));
    let case = |case: &Value| {
        let mut object = case["object"].clone();
        expand(&mut object);
        let name = format!("{} {}", case["kind"].as_str().unwrap(), case["name"].as_str().unwrap());
        Case { name, object, accepted: case["crd_schema_accepts"] == true, complaint: None }
    };
    list["cases"].as_array().unwrap().iter().map(case).collect()
}

/// Long strings are written as what is repeated and how often.
fn expand(value: &mut Value) {
    if let (Some(text), Some(n)) = (value["$repeat"].as_str(), value["$count"].as_u64()) {
        *value = text.repeat(usize::try_from(n).unwrap()).into();
    }
    if let (Some(_), Some(n)) = (value["$base64_of_repeat"].as_str(), value["$count"].as_u64()) {
        // Of some other characters, but as many.
        *value = "QUFB".repeat(usize::try_from(n / 3).unwrap()).into();
    }
    match value {
        Value::Array(list) => list.iter_mut().for_each(expand),
        Value::Object(map) => map.values_mut().for_each(expand),
        _ => {}
    }
}

/// What the API server says to each: nothing, or its complaint.
async fn verdicts(cluster: &KubeCluster, cases: &[Case]) -> Vec<Option<String>> {
    let (_proxy, addr) = cluster.proxy().await;
    let crds = kube::istio_crds();
    let plural =
        |kind: &Value| crds.iter().map(|crd| &crd["spec"]["names"]).find(|n| n["kind"] == *kind).unwrap()["plural"].as_str().unwrap();
    let mut verdicts = Vec::new();
    for case in cases {
        let mut object = case.object.clone();
        object["metadata"] = json!({"name": "case", "namespace": "default"});
        let (version, plural) = (object["apiVersion"].as_str().unwrap(), plural(&object["kind"]));
        let path = format!("/apis/{version}/namespaces/default/{plural}?dryRun=All&fieldValidation=Strict");
        let answer = post_json(addr, &path, &object).await.unwrap();
        let message = || answer.json()["message"].as_str().unwrap().to_owned();
        verdicts.push((answer.status != 201).then(message));
    }
    verdicts
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_taken_and_refused_as_by_the_reference() {
    let (Some(assets), Some(shared)) = (kube::assets("crds"), skip::shared("crds")) else { return };
    let dir = shared.join("peer-data/validation");
    let cluster = KubeCluster::start(&assets, Options::default()).await;
    cluster.install_crds().await;
    let mut cases = crd_cases(&dir);
    cases.extend(validation_cases(&dir));
    assert!(cases.len() > 500, "{} cases", cases.len());

    let verdicts = verdicts(&cluster, &cases).await;
    let judged = || cases.iter().zip(&verdicts);
    let differ = judged().filter(|(case, said)| case.accepted != said.is_none());
    let differ: BTreeMap<&str, &Option<String>> = differ.map(|(case, said)| (case.name.as_str(), said)).collect();
    let known: BTreeSet<&str> = DIFFERENCES.iter().map(|(name, _)| *name).collect();
    assert_eq!(differ.keys().copied().collect::<BTreeSet<_>>(), known, "{differ:#?}");

    let other_words =
        judged().filter(|(case, said)| said.as_ref().zip(case.complaint.as_ref()).is_some_and(|(said, expected)| !said.contains(expected)));
    let other_words: BTreeMap<&str, &Option<String>> = other_words.map(|(case, said)| (case.name.as_str(), said)).collect();
    let known: BTreeSet<&str> = WORDED_DIFFERENTLY.iter().map(|(name, _)| *name).collect();
    assert_eq!(other_words.keys().copied().collect::<BTreeSet<_>>(), known, "{other_words:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_knows_short_names_categories_and_columns() {
    let Some(assets) = kube::assets("crds") else { return };
    let cluster = KubeCluster::start(&assets, Options::default()).await;
    cluster.install_crds().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let routes = json!({"hosts": ["web"], "gateways": ["edge"], "http": [{"route": [{"destination": {"host": "web"}}]}]});
    let mode = json!({"mtls": {"mode": "STRICT"}});
    cluster
        .apply(&[namespace, istio("networking", "VirtualService", "web", routes), istio("security", "PeerAuthentication", "all", mode)])
        .await;
    let rows = async |kind: &str| {
        let text = cluster.kubectl(&["get", kind, "--namespace", NAMESPACE]).await;
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut rows: Vec<Vec<String>> = text.lines().map(words).collect();
        // How old the objects are by now.
        rows.iter_mut().skip(1).for_each(|row| drop(row.pop()));
        rows
    };
    assert_eq!(rows("vs").await, [vec!["NAME", "GATEWAYS", "HOSTS", "AGE"], vec!["web", "[\"edge\"]", "[\"web\"]"]]);
    assert_eq!(rows("pa").await, [vec!["NAME", "MODE", "AGE"], vec!["all", "STRICT"]]);
    let all = cluster.kubectl(&["get", "istio-io", "--namespace", NAMESPACE, "--output", "name"]).await;
    assert_eq!(all.lines().collect::<Vec<_>>(), ["virtualservice.networking.istio.io/web", "peerauthentication.security.istio.io/all"]);
}
