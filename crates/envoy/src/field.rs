//! Length-delimited fields, written by hand.

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Writes a field.
pub fn put(tag: u32, payload: &[u8], out: &mut Vec<u8>) {
    open(tag, payload.len(), out);
    out.put_slice(payload);
}

/// Begins a field whose payload has `len` bytes.
pub fn open(tag: u32, len: usize, out: &mut Vec<u8>) {
    match (tag, u8::try_from(len)) {
        // Nearly always both take one byte.
        (..16, Ok(len @ ..0x80)) => out.extend_from_slice(&[(tag << 3) as u8 | WireType::LengthDelimited as u8, len]),
        _ => {
            encode_key(tag, WireType::LengthDelimited, out);
            encode_varint(len as u64, out);
        }
    }
}

/// Writes a text unless it is empty, which is the default.
pub fn text(tag: u32, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        put(tag, text.as_bytes(), out);
    }
}

/// Writes a number (tag below 16) unless it is 0, which is the default.
pub fn number(tag: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        out.push((tag << 3) as u8);
        encode_varint(value, out);
    }
}

/// Writes a number in a message of its own, if there is one.
pub fn wrapped(tag: u32, value: Option<u32>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        open(tag, len_of_number(value.into()), out);
        number(1, value.into(), out);
    }
}

/// Length of what [`number`] writes.
pub fn len_of_number(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(value) }
}

/// Length of what [`wrapped`] writes.
pub fn len_of_wrapped(value: Option<u32>) -> usize {
    value.map_or(0, |value| len(len_of_number(value.into())))
}

/// Length of what [`text`] writes.
pub fn len_of_text(text: &str) -> usize {
    if text.is_empty() { 0 } else { len(text.len()) }
}

/// Length of a field with a payload of `len` bytes, tag (below 16) included.
pub fn len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}
