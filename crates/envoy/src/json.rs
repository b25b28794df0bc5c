//! Proto JSON of any message that the descriptors know: output with original field names and every Any expanded, input
//! with either spelling. Enter at [`to_json`] and [`from_json`].
//!
//! Unlike the reflection library's own JSON, an Any of an unknown type does not fail: it shows, and takes, its bytes as
//! `value_base64`. Input becomes bytes that are equal to what the typed message encodes to (fields by number, map
//! entries by key), so it may be hashed.

mod parse;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage, SerializeOptions, Value as ProtoValue};
use serde_json::{Map, Value, json};

use crate::descriptors;
use crate::pb::google::protobuf::Any;

pub use parse::{JsonError, Problem, any_from_json, from_json, from_json_lenient};

/// An Any as JSON: its fields beside `@type`, or `value` for types with a JSON form of their own.
pub fn to_json(any: &Any) -> Value {
    any_to_json(&any.type_url, &any.value)
}

/// An encoded message as JSON; `type_name` may be a type URL. Bytes of an unknown type, or that do not decode, show as
/// `value_base64`.
pub fn message_to_json(type_name: &str, bytes: &[u8]) -> Value {
    match decode(type_name, bytes) {
        Ok(message) => message_value(&message),
        Err(opaque) => Value::Object(opaque),
    }
}

fn any_to_json(type_url: &str, bytes: &[u8]) -> Value {
    if type_url.is_empty() && bytes.is_empty() {
        return json!({});
    }
    let mut fields = match decode(type_url, bytes) {
        Err(opaque) => opaque,
        Ok(message) => match message_value(&message) {
            Value::Object(fields) if !has_own_form(message.descriptor().full_name()) => fields,
            value => Map::from_iter([("value".to_owned(), value)]),
        },
    };
    fields.insert("@type".to_owned(), type_url.into());
    Value::Object(fields)
}

fn decode(type_url: &str, bytes: &[u8]) -> Result<DynamicMessage, Map<String, Value>> {
    let opaque = || Map::from_iter([("value_base64".to_owned(), STANDARD.encode(bytes).into())]);
    let descriptor = descriptors::message(type_url).ok_or_else(opaque)?;
    DynamicMessage::decode(descriptor, bytes).map_err(|_| {
        let mut fields = opaque();
        fields.insert("@error".to_owned(), "does not decode".into());
        fields
    })
}

/// Types whose JSON is not an object of their fields.
fn has_own_form(full_name: &str) -> bool {
    full_name.strip_prefix("google.protobuf.").is_some_and(|name| {
        let own = ["Any", "Duration", "Timestamp", "FieldMask", "Struct", "Value", "ListValue", "Empty"];
        own.contains(&name) || is_wrapper(name)
    })
}

/// The messages that hold one scalar to tell unset from default; takes the name without its package.
fn is_wrapper(name: &str) -> bool {
    matches!(
        name,
        "DoubleValue"
            | "FloatValue"
            | "Int64Value"
            | "UInt64Value"
            | "Int32Value"
            | "UInt32Value"
            | "BoolValue"
            | "StringValue"
            | "BytesValue"
    )
}

fn message_value(message: &DynamicMessage) -> Value {
    let descriptor = message.descriptor();
    if let Some(name) = descriptor.full_name().strip_prefix("google.protobuf.") {
        match name {
            "Any" => {
                let (url, value) = (message.get_field_by_number(1), message.get_field_by_number(2));
                let url = url.as_deref().and_then(ProtoValue::as_str).unwrap_or_default();
                return any_to_json(url, value.as_deref().and_then(ProtoValue::as_bytes).map_or(&[], |b| b));
            }
            "Struct" => return first_field(message).unwrap_or_else(|| json!({})),
            "ListValue" => return first_field(message).unwrap_or_else(|| json!([])),
            "Value" => return first_field(message).unwrap_or(Value::Null),
            "Duration" | "Timestamp" | "FieldMask" => {
                let written = message.serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new());
                return written.unwrap_or_else(|error| json!({ "@error": error.to_string() }));
            }
            name if is_wrapper(name) => {
                let field = descriptor.get_field(1);
                return field.map_or(Value::Null, |field| scalar(&field.kind(), &message.get_field(&field)));
            }
            _ => {}
        }
    }
    Value::Object(message.fields().map(|(field, value)| (field.name().to_owned(), field_value(&field.kind(), value))).collect())
}

fn first_field(message: &DynamicMessage) -> Option<Value> {
    message.fields().next().map(|(field, value)| field_value(&field.kind(), value))
}

fn field_value(kind: &Kind, value: &ProtoValue) -> Value {
    match value {
        ProtoValue::List(items) => items.iter().map(|item| scalar(kind, item)).collect(),
        ProtoValue::Map(entries) => {
            let value_kind = kind.as_message().map(|entry| entry.map_entry_value_field().kind());
            let entries =
                entries.iter().map(|(key, value)| (map_key(key), value_kind.as_ref().map_or(Value::Null, |kind| scalar(kind, value))));
            Value::Object(entries.collect())
        }
        value => scalar(kind, value),
    }
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(v) => v.to_string(),
        MapKey::I32(v) => v.to_string(),
        MapKey::I64(v) => v.to_string(),
        MapKey::U32(v) => v.to_string(),
        MapKey::U64(v) => v.to_string(),
        MapKey::String(v) => v.clone(),
    }
}

fn scalar(kind: &Kind, value: &ProtoValue) -> Value {
    match value {
        ProtoValue::Bool(v) => (*v).into(),
        ProtoValue::I32(v) => (*v).into(),
        ProtoValue::U32(v) => (*v).into(),
        // As text: JSON numbers hold 53 bits.
        ProtoValue::I64(v) => v.to_string().into(),
        ProtoValue::U64(v) => v.to_string().into(),
        // Through text, so that 0.1 stays 0.1.
        ProtoValue::F32(v) => number(v.to_string().parse().unwrap_or(f64::from(*v))),
        ProtoValue::F64(v) => number(*v),
        ProtoValue::String(v) => v.as_str().into(),
        ProtoValue::Bytes(v) => STANDARD.encode(v).into(),
        ProtoValue::EnumNumber(number) => match kind {
            Kind::Enum(e) if e.full_name() == "google.protobuf.NullValue" => Value::Null,
            Kind::Enum(e) => e.get_value(*number).map_or_else(|| (*number).into(), |v| v.name().into()),
            _ => (*number).into(),
        },
        ProtoValue::Message(message) => message_value(message),
        ProtoValue::List(_) | ProtoValue::Map(_) => field_value(kind, value),
    }
}

/// Whole numbers without a fraction, and names for what JSON numbers cannot hold.
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else if value.fract() == 0.0 && value.abs() < EXACT {
        (value as i64).into()
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests;
