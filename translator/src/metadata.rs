//! `filter_metadata`: what telemetry and filters read beside a resource.

use std::collections::BTreeMap;

use pilotfish_envoy::pb::envoy::config::core::v3::Metadata;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

/// Key of Istio's own metadata.
pub const ISTIO: &str = "istio";

/// A text value.
pub fn text(value: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(value.into())) }
}

/// A boolean value.
pub fn boolean(value: bool) -> Value {
    Value { kind: Some(Kind::BoolValue(value)) }
}

/// A number.
pub fn number(value: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(value)) }
}

/// A list.
pub fn list(values: impl IntoIterator<Item = Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values: values.into_iter().collect() })) }
}

/// A struct.
pub fn object<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(k, v)| (k.into(), v)).collect() }
}

/// A struct as a value.
pub fn object_value<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Value {
    Value { kind: Some(Kind::StructValue(object(fields))) }
}

/// Metadata with one entry per filter; `None` if nothing is to say.
pub fn metadata<K: Into<String>>(filters: impl IntoIterator<Item = (K, Struct)>) -> Option<Metadata> {
    let filter_metadata: BTreeMap<String, Struct> = filters.into_iter().map(|(k, v)| (k.into(), v)).collect();
    (!filter_metadata.is_empty()).then(|| Metadata { filter_metadata, ..Default::default() })
}

/// Metadata with only Istio's entry.
pub fn istio<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Option<Metadata> {
    metadata([(ISTIO, object(fields))])
}
