//! The shared injection cases, if they are there: the pod that the webhook makes and the document that the command line
//! makes, for each of them. Cases that differ are listed in docs/injection.md with the reason, and here by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cases;

use std::collections::BTreeMap;
use std::path::Path;

use cases::{Corpus, yaml};

use pilotfish_webhook::inject::document::inject_document;
use pilotfish_webhook::inject::{self, Config, Request, Settings};
use serde_json::{Value, json};

/// Cases that are known to differ.
const DIFFER: &[&str] = &[
    // What a CronJob's pods need stands on the pods, not on the jobs.
    "cronjob.yaml",
    "cronjob-old-version.yaml",
    // A custom template in Go's template language.
    "custom-template.yaml",
    "old-nodes/cronjob-old-version.yaml",
];

fn documents(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let all = yaml_serde::Deserializer::from_str(&text).map(|d| <Value as serde::Deserialize>::deserialize(d).unwrap());
    all.filter(|v| !v.is_null()).collect()
}

/// What the comparison does not look at.
fn normal(pod: &Value, status: bool) -> Value {
    fn walk(value: &mut Value, status: bool) {
        match value {
            Value::Object(map) => {
                if let Some(field) = map.get_mut("fieldRef").and_then(Value::as_object_mut) {
                    field.remove("apiVersion");
                }
                if let Some(Value::Object(annotations)) = map.get_mut("annotations") {
                    if status {
                        annotations.remove("sidecar.istio.io/status");
                    } else if let Some(text) = annotations.get("sidecar.istio.io/status").and_then(Value::as_str) {
                        let parsed: Value = serde_json::from_str(text).unwrap();
                        annotations.insert("sidecar.istio.io/status".to_owned(), parsed);
                    }
                }
                map.values_mut().for_each(|v| walk(v, status));
            }
            Value::Array(items) => items.iter_mut().for_each(|v| walk(v, status)),
            _ => {}
        }
    }
    let mut pod = pod.clone();
    walk(&mut pod, status);
    pod
}

fn differences(path: &str, ours: &Value, theirs: &Value, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                differences(&format!("{path}/{key}"), a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), out);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for i in 0..a.len().max(b.len()) {
                differences(&format!("{path}/{i}"), a.get(i).unwrap_or(&Value::Null), b.get(i).unwrap_or(&Value::Null), out);
            }
        }
        _ if ours == theirs => {}
        _ => out.push(format!("{path}: ours {ours}, theirs {theirs}")),
    }
}

struct Case<'a> {
    corpus: &'a Corpus,
    case: &'a Value,
}

impl Case<'_> {
    fn webhook(&self) -> Vec<String> {
        let config = self.corpus.config(self.case, "default");
        let cases = self.corpus.webhook(self.case);
        let mut out = Vec::new();
        for (i, one) in cases.iter().enumerate() {
            let pod = &one["request_object"];
            let namespace = match one["namespace"].as_str().unwrap() {
                "" => "default",
                namespace => namespace,
            };
            let done = match self.corpus.inject(pod, namespace, &config) {
                Ok(done) => done,
                Err(e) => {
                    out.push(format!("webhook {i}: {e}"));
                    continue;
                }
            };
            let patch = inject::patch(pod, &done).unwrap();
            if patch.is_some() != one["patched"].as_bool().unwrap() {
                out.push(format!("webhook {i}: patched {}", patch.is_some()));
            }
            let mut patched = pod.clone();
            if let Some(patch) = patch {
                json_patch::patch(&mut patched, &serde_json::from_value::<json_patch::Patch>(patch).unwrap()).unwrap();
            }
            differences(&format!("webhook {i}"), &normal(&patched, true), &normal(&one["result_pod"], true), &mut out);
            // The webhook on its own result changes nothing.
            match self.corpus.inject(&patched, namespace, &config) {
                Ok(again) => differences(&format!("again {i}"), &normal(&again, true), &normal(&patched, true), &mut out),
                Err(e) => out.push(format!("again {i}: {e}")),
            }
        }
        out
    }

    fn documents(&self) -> Vec<String> {
        let config = self.corpus.config(self.case, "");
        let none = BTreeMap::new();
        let request = Request { pod: &Value::Null, namespace: "", namespace_annotations: &none, variables: &none, proxy_configs: &[] };
        let mut out = Vec::new();
        let (mut done, mut warnings, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for document in documents(&self.corpus.root.join(self.case["input"].as_str().unwrap())) {
            match inject_document(&document, &request, &config) {
                Ok(document) => {
                    done.push(document.value);
                    warnings.extend(document.warnings);
                }
                Err(e) => errors.push(e.to_string().to_lowercase()),
            }
        }
        let errors = errors.join("\n");
        if let Some(wanted) = self.case["expect_error_contains"].as_str() {
            if !errors.contains(&wanted.to_lowercase()) {
                out.push(format!("no error about {wanted}: {errors}"));
            }
            return out;
        }
        if !errors.is_empty() {
            out.push(errors);
        }
        if let Some(wanted) = self.case["expect_warning_contains"].as_str()
            && !warnings.iter().any(|w| w.contains(wanted))
        {
            out.push(format!("no warning {wanted:?}: {warnings:?}"));
        }
        let expected = documents(&self.corpus.root.join(self.case["expected"].as_str().unwrap()));
        if done.len() != expected.len() {
            out.push(format!("{} documents, not {}", done.len(), expected.len()));
        }
        for (i, (ours, theirs)) in done.iter().zip(&expected).enumerate() {
            differences(&format!("document {i}"), &normal(ours, false), &normal(theirs, false), &mut out);
        }
        out
    }
}

#[test]
fn shared_cases() {
    let Some(corpus) = Corpus::load("injection") else { return };
    let only = std::env::var("INJECT_CASE").ok();
    let mut differing = Vec::new();
    let cases = &corpus.cases;
    for case in cases {
        let name = case["name"].as_str().unwrap();
        if only.as_ref().is_some_and(|o| o != name) {
            continue;
        }
        let run = Case { corpus: &corpus, case };
        let mut out = Vec::new();
        for mode in case["modes"].as_array().unwrap() {
            out.extend(if mode == "webhook" { run.webhook() } else { run.documents() });
        }
        if !out.is_empty() {
            println!("=== {name}");
            out.iter().take(if only.is_some() { 100 } else { 6 }).for_each(|d| println!("  {d}"));
            differing.push(name);
        }
    }
    println!("{} of {} cases equal", cases.len() - differing.len(), cases.len());
    assert!(cases.len() > 80);
    if only.is_none() {
        assert_eq!(differing, DIFFER);
    }
}

#[test]
fn shared_decisions() {
    let Some(root) = pilotfish_testkit::skip::shared("injection decisions").map(|s| s.join("peer-data/inject")) else { return };
    let all = yaml(&root.join("decision-cases.yaml"));
    let mut wrong = Vec::new();
    let cases = all["cases"].as_array().unwrap();
    for case in cases {
        let settings: Settings = serde_json::from_value(json!({
            "policy": case["policy"], "alwaysInjectSelector": case["always_inject_selector"], "neverInjectSelector": case["never_inject_selector"],
        }))
        .unwrap();
        let config = Config::new(settings, &Value::Null, json!({})).unwrap();
        let pod = json!({"metadata": case["metadata"], "spec": {"containers": [], "hostNetwork": case["host_network"]}});
        let namespace = case["metadata"]["namespace"].as_str().unwrap_or_default();
        let inject = config.rules.decide(&pod, namespace) == inject::Decision::Inject;
        if inject != case["inject"].as_bool().unwrap() {
            wrong.push(case["name"].as_str().unwrap());
        }
    }
    assert!(cases.len() > 15, "{}", cases.len());
    assert_eq!(wrong, Vec::<&str>::new());
}
