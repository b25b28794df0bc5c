//! Length-delimited fields, written by hand.

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Writes a field.
pub(crate) fn put(tag: u32, payload: &[u8], out: &mut Vec<u8>) {
    open(tag, payload.len(), out);
    out.put_slice(payload);
}

/// Begins a field whose payload has `len` bytes.
pub(crate) fn open(tag: u32, len: usize, out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

/// Length of a field with a payload of `len` bytes, tag (below 16) included.
pub(crate) fn len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}
