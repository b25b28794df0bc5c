//! JSON to encoded messages.

use std::cell::RefCell;
use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use crate::descriptors;
use crate::json::{has_own_form, is_wrapper};
use crate::path::Path;
use crate::pb::google::protobuf::Any;

/// Why JSON is not the message that it should be, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Original field names, such as `filter_chains[0].name`; empty for the message itself.
    pub path: String,
    /// What is wrong there.
    pub problem: Problem,
}

/// Kinds of [`JsonError`]. All are faults of the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing is known by this name.
    #[error("unknown message type {0:?}")]
    UnknownType(String),
    /// The message has no such field.
    #[error("unknown field {field:?} of {message}")]
    UnknownField {
        /// As the input spells it.
        field: String,
        /// Full name of the message.
        message: String,
    },
    /// The value does not fit the field.
    #[error("expected {expected}, found {found}")]
    Mismatch {
        /// What the field takes.
        expected: String,
        /// The start of what was given.
        found: String,
    },
    /// One field under two spellings, or two fields of which a oneof allows one.
    #[error("{0} and {1} exclude each other")]
    Conflict(String, String),
    /// Deeper than any decoder accepts.
    #[error("nested too deeply")]
    TooDeep,
}

impl std::error::Error for JsonError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.problem)
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{}{separator}{}", self.path, self.problem)
    }
}

/// Encodes JSON as a message of the named type (or type URL). Takes camelCase and original field names; rejects unknown
/// fields. Null means unset.
pub fn from_json(type_name: &str, json: &Value) -> Result<Bytes, JsonError> {
    let descriptor = known_type(type_name, &Path::ROOT)?;
    Reader { leaves_out: None }.message(&descriptor, json, &Path::ROOT, 0).map(Bytes::from)
}

/// The same of JSON that was written for another version of the type: fields that this one does not have are left out, and the
/// first of them named.
pub fn from_json_lenient(type_name: &str, json: &Value) -> Result<(Bytes, Vec<JsonError>), JsonError> {
    let descriptor = known_type(type_name, &Path::ROOT)?;
    let reader = Reader { leaves_out: Some(RefCell::default()) };
    let bytes = reader.message(&descriptor, json, &Path::ROOT, 0)?;
    Ok((bytes.into(), reader.leaves_out.map(RefCell::into_inner).unwrap_or_default()))
}

/// Packs JSON that names its type under `@type`.
pub fn any_from_json(json: &Value) -> Result<Any, JsonError> {
    let encoded = Reader { leaves_out: None }.any(json, &Path::ROOT, 0)?;
    Any::decode(encoded.as_slice()).map_err(|_| mismatch(&Path::ROOT, "an Any", json))
}

/// How unknown fields are taken.
struct Reader {
    /// Those that were left out; `None`: they are errors.
    leaves_out: Option<RefCell<Vec<JsonError>>>,
}

impl Reader {
    fn message(&self, descriptor: &MessageDescriptor, json: &Value, path: &Path<'_>, depth: usize) -> Result<Vec<u8>, JsonError> {
        if depth > MAX_DEPTH {
            return Err(JsonError { path: path.to_string(), problem: Problem::TooDeep });
        }
        if has_own_form(descriptor.full_name()) {
            return self.own_form(descriptor, json, path, depth);
        }
        self.fields(descriptor, object(json, path)?.iter(), path, depth)
    }

    fn unknown(&self, error: JsonError) -> Result<(), JsonError> {
        let Some(left_out) = &self.leaves_out else { return Err(error) };
        let mut left_out = left_out.borrow_mut();
        if left_out.len() < MAX_LEFT_OUT {
            left_out.push(error);
        }
        Ok(())
    }

    fn fields<'j>(
        &self,
        descriptor: &MessageDescriptor,
        given: impl Iterator<Item = (&'j String, &'j Value)>,
        path: &Path<'_>,
        depth: usize,
    ) -> Result<Vec<u8>, JsonError> {
        let mut found: Vec<(FieldDescriptor, &Value)> = Vec::new();
        for (key, value) in given {
            let Some(field) = descriptor.get_field_by_name(key).or_else(|| descriptor.get_field_by_json_name(key)) else {
                let problem = Problem::UnknownField { field: key.clone(), message: descriptor.full_name().to_owned() };
                self.unknown(JsonError { path: path.to_string(), problem })?;
                continue;
            };
            if !value.is_null() || takes_null(&field) {
                found.push((field, value));
            }
        }
        found.sort_by_key(|(field, _)| field.number());
        for (i, (field, _)) in found.iter().enumerate() {
            let excluded = found[..i].iter().find(|(other, _)| {
                let oneof = other.containing_oneof();
                other == field || (oneof.is_some() && oneof == field.containing_oneof())
            });
            if let Some((other, _)) = excluded {
                let problem = Problem::Conflict(other.name().to_owned(), field.name().to_owned());
                return Err(JsonError { path: path.to_string(), problem });
            }
        }
        let mut out = Vec::new();
        for (field, value) in found {
            self.encode_field(&field, value, &path.field(field.name()), depth, &mut out)?;
        }
        Ok(out)
    }

    fn encode_field(
        &self,
        field: &FieldDescriptor,
        json: &Value,
        path: &Path<'_>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let (number, kind) = (field.number(), field.kind());
        if let (true, Kind::Message(entry)) = (field.is_map(), &kind) {
            let (key_field, value_field) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            for (key, value) in object(json, path)? {
                let path = path.key(key);
                let mut encoded = Vec::new();
                let json_key = if matches!(key_field.kind(), Kind::Bool) { Value::Bool(key == "true") } else { Value::from(key.as_str()) };
                self.element(&key_field.kind(), &json_key, &path, depth)?.put_unless_default(1, &mut encoded);
                self.element(&value_field.kind(), value, &path, depth + 1)?.put_unless_default(2, &mut encoded);
                Element::Bytes(encoded).put(number, out);
            }
        } else if field.is_list() {
            let items = json.as_array().ok_or_else(|| mismatch(path, "a list", json))?;
            let mut packed = Vec::new();
            for (i, item) in items.iter().enumerate() {
                let item = self.element(&kind, item, &path.index(i), depth)?;
                if field.is_packed() { item.put_value(&mut packed) } else { item.put(number, out) }
            }
            if !packed.is_empty() {
                Element::Bytes(packed).put(number, out);
            }
        } else {
            let value = self.element(&kind, json, path, depth)?;
            if field.supports_presence() { value.put(number, out) } else { value.put_unless_default(number, out) }
        }
        Ok(())
    }

    fn element(&self, kind: &Kind, json: &Value, path: &Path<'_>, depth: usize) -> Result<Element, JsonError> {
        let signed = |min: i64, max: i64| integer(json, i128::from(min), i128::from(max), path).map(|v| v as i64);
        let unsigned = |max: u64| integer(json, 0, i128::from(max), path).map(|v| v as u64);
        Ok(match kind {
            Kind::Double => Element::Fixed64(float(json, path)?.to_bits()),
            Kind::Float => Element::Fixed32((float(json, path)? as f32).to_bits()),
            Kind::Int32 => Element::Varint(signed(i32::MIN.into(), i32::MAX.into())? as u64),
            Kind::Int64 => Element::Varint(signed(i64::MIN, i64::MAX)? as u64),
            Kind::Uint32 => Element::Varint(unsigned(u32::MAX.into())?),
            Kind::Uint64 => Element::Varint(unsigned(u64::MAX)?),
            Kind::Sint32 => Element::Varint(zigzag(signed(i32::MIN.into(), i32::MAX.into())?)),
            Kind::Sint64 => Element::Varint(zigzag(signed(i64::MIN, i64::MAX)?)),
            Kind::Fixed32 => Element::Fixed32(unsigned(u32::MAX.into())? as u32),
            Kind::Fixed64 => Element::Fixed64(unsigned(u64::MAX)?),
            Kind::Sfixed32 => Element::Fixed32(signed(i32::MIN.into(), i32::MAX.into())? as u32),
            Kind::Sfixed64 => Element::Fixed64(signed(i64::MIN, i64::MAX)? as u64),
            Kind::Bool => Element::Varint(json.as_bool().ok_or_else(|| mismatch(path, "true or false", json))?.into()),
            Kind::String => Element::Bytes(text(json, path)?.as_bytes().to_vec()),
            Kind::Bytes => Element::Bytes(base64(json, path)?),
            Kind::Enum(descriptor) => Element::Varint(match json {
                Value::Null if descriptor.full_name() == "google.protobuf.NullValue" => 0,
                Value::String(name) => {
                    let value = descriptor.get_value_by_name(name);
                    value.ok_or_else(|| mismatch(path, &format!("a value of {}", descriptor.full_name()), json))?.number() as i64 as u64
                }
                _ => signed(i32::MIN.into(), i32::MAX.into())? as u64,
            }),
            Kind::Message(descriptor) => Element::Bytes(self.message(descriptor, json, path, depth + 1)?),
        })
    }

    fn own_form(&self, descriptor: &MessageDescriptor, json: &Value, path: &Path<'_>, depth: usize) -> Result<Vec<u8>, JsonError> {
        let name = descriptor.name();
        match name {
            "Any" => self.any(json, path, depth),
            "Empty" if object(json, path)?.is_empty() => Ok(Vec::new()),
            "Duration" => {
                let text = text(json, path)?;
                let parsed = text.parse::<prost_types::Duration>().ok().filter(|_| text.ends_with('s'));
                Ok(parsed.ok_or_else(|| mismatch(path, "a duration such as \"1.5s\"", json))?.encode_to_vec())
            }
            "Timestamp" => {
                let parsed = text(json, path)?.parse::<prost_types::Timestamp>();
                Ok(parsed.map_err(|_| mismatch(path, "a time such as \"2026-01-31T23:59:59Z\"", json))?.encode_to_vec())
            }
            "FieldMask" => {
                let paths = text(json, path)?.split(',').filter(|p| !p.is_empty()).map(snake_case).collect();
                Ok(prost_types::FieldMask { paths }.encode_to_vec())
            }
            "Struct" => Ok(structure(object(json, path)?).encode_to_vec()),
            "ListValue" => Ok(list(json.as_array().ok_or_else(|| mismatch(path, "a list", json))?).encode_to_vec()),
            "Value" => Ok(value(json).encode_to_vec()),
            name if is_wrapper(name) => {
                let mut out = Vec::new();
                if let Some(field) = descriptor.get_field(1) {
                    self.element(&field.kind(), json, path, depth)?.put_unless_default(1, &mut out);
                }
                Ok(out)
            }
            _ => Err(mismatch(path, &format!("a {name}"), json)),
        }
    }

    fn any(&self, json: &Value, path: &Path<'_>, depth: usize) -> Result<Vec<u8>, JsonError> {
        let given = object(json, path)?;
        if given.is_empty() {
            return Ok(Vec::new());
        }
        let type_url = given.get("@type").ok_or_else(|| mismatch(path, "an object with @type", json))?;
        let type_url = text(type_url, &path.field("@type"))?;
        let value = match given.get("value_base64") {
            Some(opaque) => base64(opaque, &path.field("value_base64"))?,
            None => {
                let descriptor = known_type(type_url, path)?;
                let inner = path.unpacked(descriptor.full_name());
                if has_own_form(descriptor.full_name()) {
                    let value = given.get("value").unwrap_or(&Value::Null);
                    self.own_form(&descriptor, value, &inner, depth + 1)?
                } else if depth > MAX_DEPTH {
                    return Err(JsonError { path: path.to_string(), problem: Problem::TooDeep });
                } else {
                    self.fields(&descriptor, given.iter().filter(|(key, _)| *key != "@type"), &inner, depth + 1)?
                }
            }
        };
        Ok(Any { type_url: type_url.to_owned(), value: value.into() }.encode_to_vec())
    }
}

/// Nesting that protobuf decoders accept.
const MAX_DEPTH: usize = 100;

/// Of fields that are left out, so many are named.
const MAX_LEFT_OUT: usize = 16;

/// Both alphabets of base64 are proto JSON, with padding or without.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

fn takes_null(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(m) => m.full_name() == "google.protobuf.Value" && !field.is_list(),
        Kind::Enum(e) => e.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}

/// One encoded value without its tag.
enum Element {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(Vec<u8>),
}

impl Element {
    fn put(&self, number: u32, out: &mut Vec<u8>) {
        let wire_type = match self {
            Element::Varint(_) => WireType::Varint,
            Element::Fixed32(_) => WireType::ThirtyTwoBit,
            Element::Fixed64(_) => WireType::SixtyFourBit,
            Element::Bytes(_) => WireType::LengthDelimited,
        };
        encode_key(number, wire_type, out);
        self.put_value(out);
    }

    fn put_value(&self, out: &mut Vec<u8>) {
        match self {
            Element::Varint(v) => encode_varint(*v, out),
            Element::Fixed32(v) => out.put_u32_le(*v),
            Element::Fixed64(v) => out.put_u64_le(*v),
            Element::Bytes(v) => {
                encode_varint(v.len() as u64, out);
                out.put_slice(v);
            }
        }
    }

    fn put_unless_default(&self, number: u32, out: &mut Vec<u8>) {
        let default = match self {
            Element::Varint(v) | Element::Fixed64(v) => *v == 0,
            Element::Fixed32(v) => *v == 0,
            Element::Bytes(v) => v.is_empty(),
        };
        if !default {
            self.put(number, out);
        }
    }
}

fn value(json: &Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match json {
        Value::Null => Kind::NullValue(0),
        Value::Bool(v) => Kind::BoolValue(*v),
        Value::Number(v) => Kind::NumberValue(v.as_f64().unwrap_or(f64::NAN)),
        Value::String(v) => Kind::StringValue(v.clone()),
        Value::Array(v) => Kind::ListValue(list(v)),
        Value::Object(v) => Kind::StructValue(structure(v)),
    };
    prost_types::Value { kind: Some(kind) }
}

fn structure(json: &Map<String, Value>) -> prost_types::Struct {
    prost_types::Struct { fields: json.iter().map(|(k, v)| (k.clone(), value(v))).collect() }
}

fn list(json: &[Value]) -> prost_types::ListValue {
    prost_types::ListValue { values: json.iter().map(value).collect() }
}

fn known_type(name: &str, path: &Path<'_>) -> Result<MessageDescriptor, JsonError> {
    descriptors::message(name).ok_or_else(|| JsonError { path: path.to_string(), problem: Problem::UnknownType(name.to_owned()) })
}

fn object<'j>(json: &'j Value, path: &Path<'_>) -> Result<&'j Map<String, Value>, JsonError> {
    json.as_object().ok_or_else(|| mismatch(path, "an object", json))
}

fn text<'j>(json: &'j Value, path: &Path<'_>) -> Result<&'j str, JsonError> {
    json.as_str().ok_or_else(|| mismatch(path, "a string", json))
}

fn base64(json: &Value, path: &Path<'_>) -> Result<Vec<u8>, JsonError> {
    let given = text(json, path)?;
    let alphabet = if given.contains(['-', '_']) { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    GeneralPurpose::new(alphabet, LENIENT).decode(given).map_err(|_| mismatch(path, "base64", json))
}

/// A number, or one as text; whole floats such as `3.0` and `1e3` count.
fn integer(json: &Value, min: i128, max: i128, path: &Path<'_>) -> Result<i128, JsonError> {
    let number = match json {
        Value::Number(n) => n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from)).or_else(|| whole(n.as_f64()?)),
        Value::String(s) => s.parse().ok().or_else(|| whole(s.parse().ok()?)),
        _ => None,
    };
    number.filter(|n| (min..=max).contains(n)).ok_or_else(|| mismatch(path, &format!("a whole number from {min} to {max}"), json))
}

fn whole(number: f64) -> Option<i128> {
    (number.fract() == 0.0).then_some(number as i128)
}

fn float(json: &Value, path: &Path<'_>) -> Result<f64, JsonError> {
    let number = match json {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => s.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| mismatch(path, "a number", json))
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn snake_case(camel: &str) -> String {
    let mut snake = String::with_capacity(camel.len() + 4);
    for c in camel.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

fn mismatch(path: &Path<'_>, expected: &str, found: &Value) -> JsonError {
    let mut found = found.to_string();
    if let Some((end, _)) = found.char_indices().nth(60) {
        found.truncate(end);
        found.push_str("...");
    }
    JsonError { path: path.to_string(), problem: Problem::Mismatch { expected: expected.to_owned(), found } }
}
