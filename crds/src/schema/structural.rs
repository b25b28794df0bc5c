//! From a JSON schema to what Kubernetes calls structural: one type for every value, no references, nothing beside it.

use serde_json::{Map, Value};

/// Brings the schema of a type, with everything inlined, into structural form.
pub(crate) fn structural(mut schema: Value) -> Value {
    visit(&mut schema);
    schema
}

fn visit(schema: &mut Value) {
    // `true`: anything goes.
    if !schema.is_object() {
        *schema = Value::Object(Map::new());
    }
    if let Value::Object(map) = schema {
        object(map);
    }
}

fn object(map: &mut Map<String, Value>) {
    for key in ["$schema", "title", "default"] {
        map.remove(key);
    }
    without_null(map);
    one_enum(map);
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.retain(|v| !v.is_null());
    }
    if !map.contains_key("type") {
        map.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
    }
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    match map.get_mut("additionalProperties") {
        // Unknown fields are pruned, or refused in strict mode, without being told.
        Some(Value::Bool(false)) => drop(map.remove("additionalProperties")),
        Some(values) => visit(values),
        None => {}
    }
    if let Some(items) = map.get_mut("items") {
        visit(items);
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(visit);
    }
}

/// An absent field is absent; null is not another way to say so.
fn without_null(map: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = map.get("anyOf") else { return };
    let is_null = |choice: &Value| choice["type"] == "null";
    if let [Value::Object(one), null] = choices.as_slice()
        && is_null(null)
    {
        let one = one.clone();
        map.remove("anyOf");
        for (key, value) in one {
            map.entry(key).or_insert(value);
        }
    }
}

/// Variants with a description each come as alternatives of one value.
fn one_enum(map: &mut Map<String, Value>) {
    let Some(Value::Array(choices)) = map.get("oneOf") else { return };
    let values = |choice: &Value| match (choice.get("const"), choice.get("enum")) {
        (Some(one), _) => vec![one.clone()],
        (None, Some(Value::Array(some))) => some.clone(),
        _ => Vec::new(),
    };
    let all: Vec<Value> = choices.iter().flat_map(values).collect();
    if !all.is_empty() {
        map.remove("oneOf");
        map.insert("type".into(), "string".into());
        map.insert("enum".into(), all.into());
    }
}
