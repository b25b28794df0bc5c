//! Reading and writing paths of JSON values.

use serde_json::{Map, Value};

/// The value at a path, if it is there and not null.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |v, key| v.get(key)).filter(|v| !v.is_null())
}

/// The text at a path; empty counts as absent.
pub(crate) fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path)?.as_str().filter(|t| !t.is_empty())
}

/// Whether the value at a path is `true`.
pub(crate) fn flag(value: &Value, path: &[&str]) -> bool {
    at(value, path).and_then(Value::as_bool).unwrap_or_default()
}

/// The items of the list at a path; none if there is no list.
pub(crate) fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The name of an item of a Kubernetes list.
pub(crate) fn name(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// A number, or text that holds one.
pub(crate) fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// The object at a path; what is not an object becomes one.
pub(crate) fn object<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let target = path.iter().fold(value, |v, key| as_object(v).entry(*key).or_insert(Value::Null));
    as_object(target)
}

fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// The list at a path; what is not a list becomes one.
pub(crate) fn list_mut<'a>(value: &'a mut Value, parent: &[&str], key: &str) -> &'a mut Vec<Value> {
    let target = object(value, parent).entry(key).or_insert(Value::Null);
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    match target {
        Value::Array(items) => items,
        _ => unreachable!("made a list above"),
    }
}

/// Texts of a map such as labels.
pub(crate) fn texts(value: &Value, path: &[&str]) -> std::collections::BTreeMap<String, String> {
    let map = at(value, path).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}
