//! Fields as they lie on the wire.

use prost::encoding::decode_varint;

/// The highest number of a field.
const MAX_NUMBER: u64 = (1 << 29) - 1;

// Wire types.
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const LENGTH_DELIMITED: u8 = 2;
pub(super) const FIXED32: u8 = 5;

/// The bytes are no message.
#[derive(Debug)]
pub(super) struct Malformed;

/// What a field begins with.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) number: u32,
    pub(super) wire_type: u8,
}

/// A value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Raw<'b> {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(&'b [u8]),
}

/// The key of a field.
#[inline(always)]
pub(super) fn field_key(bytes: &mut &[u8]) -> Result<Key, Malformed> {
    let key = varint(bytes)?;
    let number = key >> 3;
    if number == 0 || number > MAX_NUMBER {
        return Err(Malformed);
    }
    Ok(Key { number: number as u32, wire_type: (key & 7) as u8 })
}

/// A number of variable length: mostly one byte or two.
#[inline(always)]
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let (value, rest) = match *bytes {
        [first @ ..0x80, rest @ ..] => (u64::from(*first), rest),
        [first, second @ ..0x80, rest @ ..] => (u64::from(first & 0x7f) | u64::from(*second) << 7, rest),
        _ => return long_varint(bytes),
    };
    *bytes = rest;
    Ok(value)
}

#[cold]
fn long_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    decode_varint(bytes).map_err(|_| Malformed)
}

/// What is behind a key of the type [`LENGTH_DELIMITED`].
#[inline(always)]
pub(super) fn payload<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8], Malformed> {
    let len = usize::try_from(varint(bytes)?).map_err(|_| Malformed)?;
    let (payload, rest) = bytes.split_at_checked(len).ok_or(Malformed)?;
    *bytes = rest;
    Ok(payload)
}

/// What is behind a key of this wire type. No message of ours has groups.
pub(super) fn read<'b>(wire_type: u8, bytes: &mut &'b [u8]) -> Result<Raw<'b>, Malformed> {
    Ok(match wire_type {
        VARINT => Raw::Varint(varint(bytes)?),
        FIXED32 => Raw::Fixed32(u32::from_le_bytes(take(bytes)?)),
        FIXED64 => Raw::Fixed64(u64::from_le_bytes(take(bytes)?)),
        LENGTH_DELIMITED => Raw::Bytes(payload(bytes)?),
        _ => return Err(Malformed),
    })
}

/// The next field: its number and value.
pub(super) fn next<'b>(bytes: &mut &'b [u8]) -> Result<(u32, Raw<'b>), Malformed> {
    let key = field_key(bytes)?;
    Ok((key.number, read(key.wire_type, bytes)?))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (value, rest) = bytes.split_first_chunk::<N>().ok_or(Malformed)?;
    *bytes = rest;
    Ok(*value)
}
