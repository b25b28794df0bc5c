//! Schema and type say the same: what one knows, the other knows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;

use pilotfish_crds::{check, definitions};
use pretty_assertions::assert_eq;
use serde_json::{Value, json};

/// The kind and the schema of the spec of each version.
fn specs() -> Vec<(String, Value)> {
    let of = |crd: &Value| {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        let versions = crd["spec"]["versions"].as_array().unwrap().clone();
        versions.into_iter().map(move |v| (kind.clone(), v["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()))
    };
    definitions().iter().flat_map(of).collect()
}

/// How many values say all that a schema has to say.
fn width(schema: &Value) -> usize {
    let own = [
        schema["enum"].as_array().map_or(1, Vec::len),
        usize::from(schema.get("minimum").is_some()) + usize::from(schema.get("maximum").is_some()),
    ];
    let inner = schema["properties"]
        .as_object()
        .into_iter()
        .flat_map(|p| p.values())
        .chain(schema.get("items"))
        .chain(schema.get("additionalProperties"));
    own.into_iter().chain(inner.map(width)).max().unwrap()
}

/// A value with every property, the `n`th of those that differ in enum values and bounds.
fn example(schema: &Value, n: usize) -> Value {
    if let Some(values) = schema["enum"].as_array() {
        return values[n % values.len()].clone();
    }
    match schema["type"].as_str() {
        Some("object") => match (schema["properties"].as_object(), schema.get("additionalProperties")) {
            (Some(properties), _) => properties.iter().map(|(name, inner)| (name.clone(), example(inner, n))).collect(),
            // Keys are names nearly everywhere; those that are ports are numbers.
            (None, Some(values)) => json!({"8080": example(values, n)}),
            (None, None) => json!({"any": {"thing": [1]}}),
        },
        Some("array") => json!([example(&schema["items"], n)]),
        Some("string") => json!("1s"),
        Some("boolean") => json!(true),
        Some("integer") => {
            [&schema["minimum"], &schema["maximum"]].into_iter().filter(|v| !v.is_null()).nth(n % 2).unwrap_or(&json!(1)).clone()
        }
        Some("number") => json!(0.5),
        None => json!([{"any": "thing"}]),
        Some(other) => panic!("a type {other}"),
    }
}

#[test]
fn the_types_know_whatever_the_schemas_know() {
    let mut kinds = BTreeSet::new();
    for (kind, spec) in specs() {
        for n in 0..width(&spec) {
            let value = example(&spec, n);
            assert_eq!(check(&kind, &value).unwrap().map_err(|e| e.to_string()), Ok(()), "{kind} {value:#}");
        }
        kinds.insert(kind);
    }
    assert_eq!(kinds.len(), 15);
}

/// The paths of all objects of a value that its schema looks into, with their properties.
fn objects(schema: &Value, path: &str, found: &mut Vec<(String, BTreeSet<String>)>) {
    if let Some(properties) = schema["properties"].as_object() {
        found.push((path.to_owned(), properties.keys().cloned().collect()));
        properties.iter().for_each(|(name, inner)| objects(inner, &format!("{path}/{name}"), found));
    }
    if let Some(items) = schema.get("items") {
        objects(items, &format!("{path}/0"), found);
    }
    if let Some(values) = schema.get("additionalProperties") {
        objects(values, &format!("{path}/8080"), found);
    }
}

#[test]
fn the_schemas_know_whatever_the_types_know() {
    let mut looked_into = 0;
    for (kind, spec) in specs() {
        let mut found = Vec::new();
        objects(&spec, "", &mut found);
        looked_into += found.len();
        for (path, known) in found {
            let mut value = example(&spec, 0);
            value.pointer_mut(&path).unwrap()["notAField"] = json!(1);
            // Serde lists what it would have taken.
            let error = check(&kind, &value).unwrap().unwrap_err().to_string();
            let names: BTreeSet<String> = error.split('`').skip(3).step_by(2).map(str::to_owned).collect();
            assert_eq!(names, known, "{kind} {path}: {error}");
        }
    }
    assert!(looked_into > 500, "{looked_into}");
}
