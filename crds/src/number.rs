//! [`Num`]: a number that proto JSON also accepts as text.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// A number, written as `5` or as `"5"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Num<T>(pub T);

/// What a [`Num`] may hold: the conversions from what a decoder finds. `None` is out of range.
pub trait Number: FromStr + Sized {
    /// From a whole number.
    fn from_i128(n: i128) -> Option<Self>;
    /// From any number.
    fn from_f64(n: f64) -> Option<Self>;
    /// What a schema says about it: type, format, bounds.
    fn schema() -> Schema;
}

macro_rules! whole {
    ($($t:ty: $schema:tt)*) => {$(
        impl Number for $t {
            fn from_i128(n: i128) -> Option<Self> {
                n.try_into().ok()
            }
            fn from_f64(n: f64) -> Option<Self> {
                (n.fract() == 0.0 && n.abs() < 9e15).then(|| Self::from_i128(n as i128)).flatten()
            }
            fn schema() -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}
whole! {
    u16: {"type": "integer", "minimum": 0, "maximum": u16::MAX}
    u32: {"type": "integer", "minimum": 0, "maximum": u32::MAX}
    u64: {"type": "integer", "minimum": 0}
    i32: {"type": "integer", "format": "int32"}
    i64: {"type": "integer", "format": "int64"}
}

impl Number for f64 {
    fn from_i128(n: i128) -> Option<Self> {
        Some(n as f64)
    }
    fn from_f64(n: f64) -> Option<Self> {
        n.is_finite().then_some(n)
    }
    fn schema() -> Schema {
        json_schema!({"type": "number"})
    }
}

struct NumVisitor<T>(PhantomData<T>);

impl<T: Number> Visitor<'_> for NumVisitor<T> {
    type Value = Num<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number ({})", std::any::type_name::<T>())
    }
    fn visit_u64<E: Error>(self, n: u64) -> Result<Num<T>, E> {
        T::from_i128(n.into()).map(Num).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(n), &self))
    }
    fn visit_i64<E: Error>(self, n: i64) -> Result<Num<T>, E> {
        T::from_i128(n.into()).map(Num).ok_or_else(|| E::invalid_value(Unexpected::Signed(n), &self))
    }
    fn visit_f64<E: Error>(self, n: f64) -> Result<Num<T>, E> {
        T::from_f64(n).map(Num).ok_or_else(|| E::invalid_value(Unexpected::Float(n), &self))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Num<T>, E> {
        text.parse().map(Num).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de, T: Number> Deserialize<'de> for Num<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(NumVisitor(PhantomData))
    }
}

/// The text form is for sources that are no API server: a schema must name one type, and it is that of the reference.
impl<T: Number> JsonSchema for Num<T> {
    fn schema_name() -> Cow<'static, str> {
        std::any::type_name::<Self>().into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        T::schema()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_may_be_text() {
        let parse = |text| serde_json::from_str::<Num<u32>>(text).map(|n| n.0).ok();
        assert_eq!(
            [parse("5"), parse("\"5\""), parse("5.0"), parse("-1"), parse("5000000000"), parse("\"x\""), parse("true")],
            [Some(5), Some(5), Some(5), None, None, None, None]
        );
        assert_eq!(serde_json::from_str::<Num<f64>>("0.5").unwrap(), Num(0.5));
    }
}
