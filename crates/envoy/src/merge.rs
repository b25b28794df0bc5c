//! Merging encoded messages field by field, as descriptors say what each field is. Enter at [`merge`] and [`merge_any`].
//!
//! Fields that both set: of scalars the second wins, messages merge, lists grow (or are replaced), and entries of maps are
//! replaced by key. Durations and packed messages are values and not merged inside. What only one sets stays. Of a oneof the
//! member that the second sets is the one that is left. The outcome is canonical if both inputs are: fields by number, map
//! entries by key.

use std::collections::{BTreeMap, BTreeSet};

use bytes::BufMut;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

use crate::descriptors;
use crate::pb::google::protobuf::Any;

/// Nesting that protobuf decoders accept.
const MAX_DEPTH: usize = 100;

/// What becomes of lists that both messages have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lists {
    /// The second is added to the first.
    Append,
    /// The second replaces the first.
    Replace,
}

/// Why messages do not merge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Nothing is known by this name.
    #[error("unknown message type {0:?}")]
    UnknownType(String),
    /// They are of different types.
    #[error("{patch} does not go into {target}")]
    OtherType {
        /// Full name of the first.
        target: String,
        /// Full name of the second.
        patch: String,
    },
    /// The bytes are no such message.
    #[error("does not decode")]
    Malformed,
    /// Deeper than any decoder accepts.
    #[error("nested too deeply")]
    TooDeep,
}

/// Merges `patch` into `target`, both encoded messages of the named type (or type URL).
pub fn merge(type_name: &str, target: &[u8], patch: &[u8], lists: Lists) -> Result<Vec<u8>, MergeError> {
    let name = descriptors::type_name(type_name);
    let descriptor = descriptors::message(name).ok_or_else(|| MergeError::UnknownType(name.to_owned()))?;
    let mut out = Vec::with_capacity(target.len() + patch.len());
    message(&descriptor, target, patch, lists, 0, &mut out)?;
    Ok(out)
}

/// Merges what is packed, if both are of one type.
pub fn merge_any(target: &Any, patch: &Any, lists: Lists) -> Result<Any, MergeError> {
    let (into, from) = (descriptors::type_name(&target.type_url), descriptors::type_name(&patch.type_url));
    if into != from {
        return Err(MergeError::OtherType { target: into.to_owned(), patch: from.to_owned() });
    }
    let value = merge(into, &target.value, &patch.value, lists)?;
    Ok(Any { type_url: target.type_url.clone(), value: value.into() })
}

/// One field as it lies on the wire.
#[derive(Clone, Copy)]
struct Raw<'b> {
    /// With its tag.
    whole: &'b [u8],
    /// Without its tag.
    value: &'b [u8],
    wire_type: WireType,
}

impl<'b> Raw<'b> {
    /// What is inside a length-delimited field.
    fn content(&self) -> Result<&'b [u8], MergeError> {
        if self.wire_type != WireType::LengthDelimited {
            return Err(MergeError::Malformed);
        }
        let mut rest = self.value;
        decode_varint(&mut rest).map_err(|_| MergeError::Malformed)?;
        Ok(rest)
    }
}

type Fields<'b> = BTreeMap<u32, Vec<Raw<'b>>>;

fn fields(mut bytes: &[u8]) -> Result<Fields<'_>, MergeError> {
    let mut found = Fields::new();
    while !bytes.is_empty() {
        let whole = bytes;
        let (number, wire_type) = decode_key(&mut bytes).map_err(|_| MergeError::Malformed)?;
        let value = bytes;
        skip_field(wire_type, number, &mut bytes, DecodeContext::default()).map_err(|_| MergeError::Malformed)?;
        let without_rest = |from: &'_ [u8]| from.len() - bytes.len();
        let raw = Raw { whole: &whole[..without_rest(whole)], value: &value[..without_rest(value)], wire_type };
        found.entry(number).or_default().push(raw);
    }
    Ok(found)
}

fn message(
    descriptor: &MessageDescriptor,
    target: &[u8],
    patch: &[u8],
    lists: Lists,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), MergeError> {
    if depth > MAX_DEPTH {
        return Err(MergeError::TooDeep);
    }
    let (mut target, mut patch) = (fields(target)?, fields(patch)?);
    for number in patch.keys() {
        let oneof = descriptor.get_field(*number).and_then(|f| f.containing_oneof());
        for other in oneof.iter().flat_map(|o| o.fields()).filter(|f| f.number() != *number) {
            target.remove(&other.number());
        }
    }
    let numbers: BTreeSet<u32> = target.keys().chain(patch.keys()).copied().collect();
    for number in numbers {
        let old = target.remove(&number).unwrap_or_default();
        let new = patch.remove(&number).unwrap_or_default();
        match descriptor.get_field(number) {
            Some(field) if !old.is_empty() && !new.is_empty() => both(&field, &old, &new, lists, depth, out)?,
            None | Some(_) => old.iter().chain(&new).for_each(|raw| out.put_slice(raw.whole)),
        }
    }
    Ok(())
}

fn both(
    field: &FieldDescriptor,
    old: &[Raw<'_>],
    new: &[Raw<'_>],
    lists: Lists,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), MergeError> {
    let put_all = |list: &[Raw<'_>], out: &mut Vec<u8>| list.iter().for_each(|raw| out.put_slice(raw.whole));
    if field.is_map() {
        map(old, new, out)
    } else if field.is_list() && lists == Lists::Replace {
        put_all(new, out);
        Ok(())
    } else if field.is_packed() {
        packed(field.number(), old.iter().chain(new), out)
    } else if field.is_list() {
        put_all(old, out);
        put_all(new, out);
        Ok(())
    } else {
        match field.kind() {
            Kind::Message(inner) if !is_value(&inner) => {
                let mut merged = Vec::new();
                message(&inner, &joined(old)?, &joined(new)?, lists, depth + 1, &mut merged)?;
                put_bytes(field.number(), &merged, out);
            }
            _ => put_all(&new[new.len() - 1..], out),
        }
        Ok(())
    }
}

/// Replaced as a whole: its fields mean nothing alone.
fn is_value(message: &MessageDescriptor) -> bool {
    matches!(message.full_name(), "google.protobuf.Duration" | "google.protobuf.Timestamp" | "google.protobuf.Any")
}

/// A message that comes in pieces is the sum of them.
fn joined(pieces: &[Raw<'_>]) -> Result<Vec<u8>, MergeError> {
    let mut whole = Vec::new();
    for piece in pieces {
        whole.put_slice(piece.content()?);
    }
    Ok(whole)
}

fn packed<'a>(number: u32, items: impl Iterator<Item = &'a Raw<'a>>, out: &mut Vec<u8>) -> Result<(), MergeError> {
    let mut values = Vec::new();
    for item in items {
        values.put_slice(if item.wire_type == WireType::LengthDelimited { item.content()? } else { item.value });
    }
    put_bytes(number, &values, out);
    Ok(())
}

fn map(old: &[Raw<'_>], new: &[Raw<'_>], out: &mut Vec<u8>) -> Result<(), MergeError> {
    let mut entries: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
    for entry in old.iter().chain(new) {
        // An entry without key is that of the default key.
        let key = fields(entry.content()?)?.remove(&1).and_then(|k| k.last().copied());
        let key = match key {
            Some(key) if key.wire_type == WireType::LengthDelimited => key.content()?,
            Some(key) => key.value,
            None => &[],
        };
        entries.insert(key, entry.whole);
    }
    entries.values().for_each(|whole| out.put_slice(whole));
    Ok(())
}

fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use serde_json::{Value, json};

    use super::*;
    use crate::json::{from_json, message_to_json};
    use crate::pb::envoy::config::cluster::v3::Cluster;

    const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

    /// Merges two messages given as JSON.
    fn merged(type_name: &str, target: Value, patch: Value, lists: Lists) -> Value {
        let bytes = |json| from_json(type_name, &json).unwrap();
        let merged = merge(type_name, &bytes(target), &bytes(patch), lists).unwrap();
        message_to_json(type_name, &merged)
    }

    #[test]
    fn what_is_set_wins_and_the_rest_stays() {
        let target = json!({"name": "a", "alt_stat_name": "b", "connect_timeout": "1.5s", "lb_policy": "RANDOM", "common_lb_config": {}});
        let patch = json!({
            "alt_stat_name": "c", "connect_timeout": "2s", "common_lb_config": {"healthy_panic_threshold": {"value": 5}},
            "per_connection_buffer_limit_bytes": 0,
        });
        let expected = json!({
            "name": "a", "alt_stat_name": "c", "connect_timeout": "2s", "lb_policy": "RANDOM", "per_connection_buffer_limit_bytes": 0,
            "common_lb_config": {"healthy_panic_threshold": {"value": 5}},
        });
        assert_eq!(merged(CLUSTER, target, patch, Lists::Append), expected);
    }

    #[test]
    fn lists_grow_or_are_replaced() {
        let limits = |n: u32| json!({"circuit_breakers": {"thresholds": [{"max_connections": n}]}});
        assert_eq!(
            merged(CLUSTER, limits(1), limits(2), Lists::Append),
            json!({"circuit_breakers": {"thresholds": [{"max_connections": 1}, {"max_connections": 2}]}})
        );
        assert_eq!(merged(CLUSTER, limits(1), limits(2), Lists::Replace), limits(2));
        assert_eq!(merged(CLUSTER, limits(1), json!({}), Lists::Replace), limits(1));
        // Packed on the wire.
        let codes = |list: &[u32]| json!({"retriable_status_codes": list});
        let retry = "envoy.config.route.v3.RetryPolicy";
        assert_eq!(merged(retry, codes(&[500]), codes(&[503, 504]), Lists::Append), codes(&[500, 503, 504]));
    }

    #[test]
    fn maps_are_replaced_by_key() {
        let metadata = |m: Value| json!({"metadata": {"filter_metadata": m}});
        let (target, patch) = (json!({"a": {"x": 1, "y": 2}, "b": {"z": 3}}), json!({"a": {"x": 4}, "c": {}}));
        let expected = json!({"a": {"x": 4}, "b": {"z": 3}, "c": {}});
        assert_eq!(merged(CLUSTER, metadata(target), metadata(patch), Lists::Append), metadata(expected));
    }

    #[test]
    fn one_member_of_a_oneof_is_left() {
        let route = "envoy.config.route.v3.Route";
        let redirect = json!({"redirect": {"path_redirect": "/a"}});
        let target = json!({"name": "r", "route": {"cluster": "c", "timeout": "1s"}});
        assert_eq!(merged(route, target.clone(), redirect, Lists::Append), json!({"name": "r", "redirect": {"path_redirect": "/a"}}));
        assert_eq!(
            merged(route, target, json!({"route": {"cluster_header": "x"}}), Lists::Append),
            json!({"name": "r", "route": {"cluster_header": "x", "timeout": "1s"}})
        );
    }

    #[test]
    fn the_outcome_is_what_the_typed_message_encodes_to() {
        let target = json!({"name": "a", "metadata": {"filter_metadata": {"b": {"k": true}, "aa": {}}}, "connect_timeout": "1s"});
        let patch = json!({"type": "STATIC", "metadata": {"filter_metadata": {"a": {"l": [1, "x"]}}}, "lb_policy": "MAGLEV"});
        let bytes = |json| from_json(CLUSTER, &json).unwrap();
        let merged = merge(CLUSTER, &bytes(target), &bytes(patch), Lists::Append).unwrap();
        assert_eq!(Cluster::decode(merged.as_slice()).unwrap().encode_to_vec(), merged);
    }

    #[test]
    fn other_types_and_broken_bytes_do_not_merge() {
        let any = |name: &str| Any { type_url: format!("type.googleapis.com/{name}"), ..Any::default() };
        let other = merge_any(&any(CLUSTER), &any("envoy.config.route.v3.Route"), Lists::Append);
        assert_eq!(other, Err(MergeError::OtherType { target: CLUSTER.to_owned(), patch: "envoy.config.route.v3.Route".to_owned() }));
        assert_eq!(merge_any(&any("no.Such"), &any("no.Such"), Lists::Append), Err(MergeError::UnknownType("no.Such".to_owned())));
        assert_eq!(merge(CLUSTER, &[0xff], &[], Lists::Append), Err(MergeError::Malformed));
        // A message within itself.
        let nested = (0..200).fold(Vec::new(), |inner, _| {
            let mut outer = Vec::new();
            put_bytes(3, &inner, &mut outer);
            outer
        });
        let predicate = "envoy.config.listener.v3.ListenerFilterChainMatchPredicate";
        assert_eq!(merge(predicate, &nested, &nested, Lists::Append), Err(MergeError::TooDeep));
    }
}
