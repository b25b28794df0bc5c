//! Fields of a schema, where they are in a value, and what else they could say.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A field in a value.
pub(crate) struct Place<'a> {
    /// JSON pointer.
    pub(crate) pointer: String,
    /// Its path in the schema.
    pub(crate) path: String,
    /// What it may be.
    pub(crate) schema: &'a Value,
}

/// Fields that hold no others, by path.
pub(crate) fn leaves<'a>(schema: &'a Value, path: &str, found: &mut BTreeMap<String, &'a Value>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Some(properties) = schema["properties"].as_object().filter(|p| !p.is_empty()) {
        properties.iter().for_each(|(name, of)| leaves(of, &below(name), found));
    } else if is_structure(&schema["items"]) {
        leaves(&schema["items"], &format!("{path}[]"), found);
    } else if is_structure(&schema["additionalProperties"]) {
        leaves(&schema["additionalProperties"], &format!("{path}{{}}"), found);
    } else {
        found.insert(path.to_owned(), schema);
    }
}

fn is_structure(schema: &Value) -> bool {
    schema["properties"].as_object().is_some_and(|p| !p.is_empty()) || is_structure_list(schema)
}

fn is_structure_list(schema: &Value) -> bool {
    ["items", "additionalProperties"].iter().any(|f| schema[f].is_object() && is_structure(&schema[f]))
}

/// Where such fields are in a value.
pub(crate) fn places<'a>(value: &Value, pointer: &str, path: &str, schema: &'a Value, found: &mut Vec<Place<'a>>) {
    if let Some(properties) = schema["properties"].as_object().filter(|p| !p.is_empty()) {
        for (name, inner) in value.as_object().into_iter().flatten() {
            let Some(of) = properties.get(name) else { continue };
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            places(inner, &format!("{pointer}/{}", escaped(name)), &path, of, found);
        }
    } else if is_structure(&schema["items"]) {
        for (i, inner) in value.as_array().into_iter().flatten().enumerate() {
            places(inner, &format!("{pointer}/{i}"), &format!("{path}[]"), &schema["items"], found);
        }
    } else if is_structure(&schema["additionalProperties"]) {
        for (name, inner) in value.as_object().into_iter().flatten() {
            places(inner, &format!("{pointer}/{}", escaped(name)), &format!("{path}{{}}"), &schema["additionalProperties"], found);
        }
    } else {
        found.push(Place { pointer: pointer.to_owned(), path: path.to_owned(), schema });
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The value without that field, and with other values in it: some that are near, and `known` ones.
pub(crate) fn alterations<'a>(value: &Value, place: &Place, known: impl IntoIterator<Item = &'a Value>) -> Vec<Value> {
    let here = value.pointer(&place.pointer).unwrap();
    let others = known.into_iter().filter(|v| *v != here).cloned().chain(others(here, place.schema));
    without(value, place).into_iter().chain(others.map(|other| with(value, place, other))).collect()
}

/// An enumerated field with its other members.
pub(crate) fn values(value: &Value, place: &Place) -> Vec<(Value, Value)> {
    let here = value.pointer(&place.pointer).unwrap();
    let others = place.schema["enum"].as_array().into_iter().flatten().filter(|v| *v != here);
    others.map(|other| (other.clone(), with(value, place, other.clone()))).collect()
}

fn without(value: &Value, place: &Place) -> Option<Value> {
    let (parent, field) = place.pointer.rsplit_once('/').unwrap();
    let mut value = value.clone();
    value.pointer_mut(parent)?.as_object_mut()?.remove(&field.replace("~1", "/").replace("~0", "~"));
    Some(value)
}

fn with(value: &Value, place: &Place, other: Value) -> Value {
    let mut value = value.clone();
    *value.pointer_mut(&place.pointer).unwrap() = other;
    value
}

/// A rule's policy says the same of a subset.
pub(crate) fn policy_of_subset(document: &mut Value) {
    if let Some(policy) = take_policy(document) {
        document["spec"]["subsets"] = json!([{"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": policy}]);
    }
}

/// A rule's policy says the same of a port.
pub(crate) fn policy_of_port(document: &mut Value) {
    if let Some(policy) = take_policy(document) {
        document["spec"]["trafficPolicy"] = json!({"portLevelSettings": [of_port(policy)]});
    }
}

/// A rule's policy says the same of a subset's port.
pub(crate) fn policy_of_subset_port(document: &mut Value) {
    if let Some(policy) = take_policy(document) {
        let policy = json!({"portLevelSettings": [of_port(policy)]});
        document["spec"]["subsets"] = json!([{"name": "v1", "labels": {"version": "v1"}, "trafficPolicy": policy}]);
    }
}

fn take_policy(document: &mut Value) -> Option<Value> {
    let is_rule = document["kind"] == "DestinationRule";
    is_rule.then(|| document["spec"].as_object_mut()?.remove("trafficPolicy"))?
}

fn of_port(mut policy: Value) -> Value {
    policy["port"] = json!({"number": 80});
    // Ports do not say these.
    ["tunnel", "proxyProtocol", "retryBudget"].iter().for_each(|f| drop(policy.as_object_mut().unwrap().remove(*f)));
    policy
}

/// What is not quite the same.
fn others(value: &Value, schema: &Value) -> Vec<Value> {
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().filter(|v| *v != value).cloned().collect();
    }
    match value {
        Value::Bool(b) => vec![json!(!b)],
        Value::Number(n) => match n.as_i64() {
            Some(n) => vec![json!(n + 1), json!(n - 1)],
            None => vec![json!(n.as_f64().unwrap() / 2.0)],
        },
        Value::String(text) => texts(text),
        Value::Array(items) => {
            let mut lists: Vec<Value> = Vec::new();
            for (i, item) in items.iter().enumerate() {
                let mut fewer = items.clone();
                fewer.remove(i);
                lists.push(Value::Array(fewer));
                for other in others(item, &schema["items"]) {
                    let mut list = items.clone();
                    list[i] = other;
                    lists.push(Value::Array(list));
                }
            }
            lists
        }
        Value::Object(map) => {
            let mut maps = Vec::new();
            for (name, item) in map {
                let mut fewer = map.clone();
                fewer.remove(name);
                maps.push(Value::Object(fewer));
                for other in others(item, &schema["additionalProperties"]) {
                    maps.push(Value::Object(Map::from_iter(map.clone().into_iter().chain([(name.clone(), other)]))));
                }
            }
            maps
        }
        Value::Null => Vec::new(),
    }
}

fn texts(text: &str) -> Vec<Value> {
    let is_span = text.ends_with('s') && text.starts_with(|c: char| c.is_ascii_digit());
    let mut texts = if is_span { vec![format!("1{text}")] } else { vec![format!("{text}x"), format!("x{text}")] };
    if let Some(at) = text.rfind(|c: char| c.is_ascii_digit()) {
        let digit = (text.as_bytes()[at] - b'0' + 1) % 10;
        texts.push(format!("{}{digit}{}", &text[..at], &text[at + 1..]));
    }
    texts.into_iter().map(Value::from).collect()
}
