//! Merging of what is packed, and of typed messages.

use bytes::Bytes;
use pilotfish_envoy::descriptors;
use pilotfish_envoy::json::{from_json_lenient, message_to_json};
use pilotfish_envoy::merge::{Lists, MergeError, merge, merge_any};
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_envoy::pb::udpa::r#type::v1::TypedStruct;
use pilotfish_model::envoy_filter::Operation;
use prost::{Message, Name};

use super::compile::Ready;
use super::extension::{config_type, is_typed_struct};

/// What becomes of lists; `None` if the operation does not merge.
pub(super) fn lists(operation: Operation) -> Option<Lists> {
    match operation {
        Operation::Merge => Some(Lists::Append),
        Operation::MergeAndReplaceList => Some(Lists::Replace),
        _ => None,
    }
}

/// Merges a patch into the message that it is of. On failure the message stays.
pub(super) fn into<M: Message + Name + Default>(target: &mut M, patch: &Ready, lists: Lists) -> Result<(), MergeError> {
    let merged = merge(&M::full_name(), &target.encode_to_vec(), patch.bytes(), lists)?;
    *target = M::decode(merged.as_slice()).map_err(|_| MergeError::Malformed)?;
    Ok(())
}

/// Merges a config into one of the same type, in whichever form it is given.
pub(super) fn config(target: &mut Any, patch: &Any, lists: Lists) -> Result<(), MergeError> {
    let same_type = descriptors::type_name(&target.type_url) == descriptors::type_name(&patch.type_url);
    *target = match unpacked(target, patch) {
        Some(typed) if !same_type => merge_any(target, &typed, lists)?,
        _ => merge_any(target, patch, lists)?,
    };
    Ok(())
}

/// The typed form of a config that is given as a structure of the target's type.
fn unpacked(target: &Any, patch: &Any) -> Option<Any> {
    let name = descriptors::type_name(&target.type_url);
    if !is_typed_struct(descriptors::type_name(&patch.type_url)) || config_type(patch) != name {
        return None;
    }
    let structure = TypedStruct::decode(patch.value.clone()).ok()?.value?;
    let json = message_to_json("google.protobuf.Struct", &structure.encode_to_vec());
    let value: Bytes = from_json_lenient(name, &json).ok()?.0;
    Some(Any { type_url: target.type_url.clone(), value })
}
