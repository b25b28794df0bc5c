//! The shared validation cases, if they are there. Cases that differ are listed in docs/validation.md with the reason, and
//! here by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pilotfish_webhook::validate::{Verdict, review};
use serde_json::{Value, json};

/// Cases whose verdict is known to differ.
const DIFFER: &[&str] = &[
    // Go's regular expressions have no `++`; ours take it as what it says, and it is as cheap.
    "EnvoyFilter/match_with_invalid_regex",
    // Only Envoy's protos tell that the value is of the wrong type: the translator says so in a warning.
    "EnvoyFilter/invalid_patch_value",
];

/// Long strings are written as a rule.
fn expand(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let count = map.get("$count").and_then(Value::as_u64).map(|n| usize::try_from(n).unwrap());
            let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
            match (count, text("$repeat"), text("$base64_of_repeat")) {
                (Some(n), Some(c), _) => *value = json!(c.repeat(n)),
                // Only its length matters.
                (Some(n), _, Some(_)) => *value = json!("QUFB".repeat(n / 3 + 1)),
                _ => map.values_mut().for_each(expand),
            }
        }
        Value::Array(items) => items.iter_mut().for_each(expand),
        _ => {}
    }
}

#[test]
fn shared_cases() {
    let Some(root) = pilotfish_testkit::skip::shared("validation").map(|s| s.join("peer-data/validation")) else { return };
    let text = std::fs::read_to_string(root.join("validation-cases.yaml")).unwrap();
    let mut all: Value = yaml_serde::from_str(&text).unwrap();
    expand(&mut all);
    let cases = all["cases"].as_array().unwrap();
    let (mut differing, mut warnings) = (Vec::new(), 0);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let verdict = review(&case["object"]);
        let valid = matches!(verdict, Verdict::Valid(_));
        if valid != case["valid"].as_bool().unwrap() {
            println!(
                "=== {name}\n  ours: {verdict:?}\n  theirs: {}\n  {}",
                case["error"],
                serde_json::to_string(&case["object"]["spec"]).unwrap().chars().take(400).collect::<String>()
            );
            differing.push(name);
        }
        let warned = matches!(&verdict, Verdict::Valid(w) if !w.is_empty());
        if case["valid"] == true && warned != case["warning"].as_bool().unwrap() {
            println!("--- warnings of {name}\n  ours: {verdict:?}\n  theirs: {}", case["warnings"]);
            warnings += 1;
        }
    }
    println!("{} of {} verdicts equal, {warnings} differ in whether they warn", cases.len() - differing.len(), cases.len());
    assert!(cases.len() > 400);
    assert_eq!(differing, DIFFER);
}

#[test]
fn shared_crd_cases() {
    let Some(root) = pilotfish_testkit::skip::shared("validation of CRD cases").map(|s| s.join("peer-data/validation")) else { return };
    let all: Value = yaml_serde::from_str(&std::fs::read_to_string(root.join("crd-cases.yaml")).unwrap()).unwrap();
    let cases = all["cases"].as_array().unwrap();
    let mut differing = Vec::new();
    for case in cases {
        let text = std::fs::read_to_string(root.join(case["file"].as_str().unwrap())).unwrap();
        let documents = yaml_serde::Deserializer::from_str(&text).map(|d| <Value as serde::Deserialize>::deserialize(d).unwrap());
        let documents: Vec<Value> = documents.filter(|v| !v.is_null()).collect();
        let object = &documents[usize::try_from(case["doc"].as_u64().unwrap()).unwrap()];
        let verdict = review(object);
        // What the schema refuses never reaches a webhook.
        let stored = case["crd_schema_accepts"] == true;
        if stored && matches!(verdict, Verdict::Valid(_)) != case["webhook_allows"].as_bool().unwrap() {
            println!("=== {}\n  {verdict:?}\n {}", case["name"], case["webhook_error"]);
            differing.push(case["name"].as_str().unwrap());
        }
    }
    assert!(cases.len() > 40);
    assert_eq!(differing, Vec::<&str>::new());
}
