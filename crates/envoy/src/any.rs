//! Packing messages into `google.protobuf.Any`.

use prost::{Message, Name};

use crate::pb::google::protobuf::Any;

/// Packs a message under its canonical type URL (`type.googleapis.com/` and the full name).
pub fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: type_url::<M>(), value: message.encode_to_vec().into() }
}

/// The canonical type URL of a message.
pub fn type_url<M: Name>() -> String {
    ["type.googleapis.com/", &M::full_name()].concat()
}

/// Unpacks an Any of the expected type; `None` if it is of another type or broken.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Option<M> {
    let name = any.type_url.rsplit_once('/').map_or(any.type_url.as_str(), |(_, name)| name);
    if name == M::full_name() { M::decode(any.value.clone()).ok() } else { None }
}
