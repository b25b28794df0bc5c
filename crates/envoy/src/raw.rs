//! Messages of the generated types that are kept as their encoded fields: made once, copied from then on.

use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use prost::encoding::{self, DecodeContext, WireType, encode_key, encode_varint};

use crate::field::put;

/// Makes newtypes of encoded fields messages.
macro_rules! encoded {
    ($($type:ident),+) => {$(
        impl prost::Message for $type {
            fn encode_raw(&self, out: &mut impl bytes::BufMut) {
                out.put_slice(&self.0);
            }

            fn merge_field(
                &mut self,
                tag: u32,
                wire_type: prost::encoding::WireType,
                bytes: &mut impl bytes::Buf,
                context: prost::encoding::DecodeContext,
            ) -> Result<(), prost::DecodeError> {
                let mut fields = Vec::from(std::mem::take(&mut self.0));
                let appended = crate::raw::append(&mut fields, tag, wire_type, bytes, context);
                self.0 = fields.into();
                appended
            }

            fn encoded_len(&self) -> usize {
                self.0.len()
            }

            fn clear(&mut self) {
                self.0.clear();
            }
        }
    )+};
}

pub(crate) use encoded;

/// One more field, as it lies on the wire.
pub(crate) fn append(
    out: &mut Vec<u8>,
    tag: u32,
    wire_type: WireType,
    bytes: &mut impl Buf,
    context: DecodeContext,
) -> Result<(), DecodeError> {
    match wire_type {
        WireType::LengthDelimited => {
            let mut value = Bytes::new();
            encoding::bytes::merge(wire_type, &mut value, bytes, context)?;
            put(tag, &value, out);
        }
        WireType::Varint => {
            let value = encoding::decode_varint(bytes)?;
            encode_key(tag, wire_type, out);
            encode_varint(value, out);
        }
        WireType::ThirtyTwoBit => {
            let mut value = 0;
            encoding::fixed32::merge(wire_type, &mut value, bytes, context)?;
            encode_key(tag, wire_type, out);
            out.put_u32_le(value);
        }
        WireType::SixtyFourBit => {
            let mut value = 0;
            encoding::fixed64::merge(wire_type, &mut value, bytes, context)?;
            encode_key(tag, wire_type, out);
            out.put_u64_le(value);
        }
        // No message of ours has groups: dropped, as decoders do that do not know a field.
        WireType::StartGroup | WireType::EndGroup => return encoding::skip_field(wire_type, tag, bytes, context),
    }
    Ok(())
}
