//! What a type reads, found out by offering it everything: a schema of the mesh's settings, which have no other.

use std::collections::BTreeMap;

use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_json::{Map, Value, json};

/// The schema of `T`, of whose lists those under these fields stay empty.
pub(crate) fn of<T: DeserializeOwned>(empty: &'static [&'static str]) -> Value {
    let mut seen = Seen { empty, ..Seen::default() };
    // Each round takes a member of an enumeration that no round took before.
    loop {
        seen.is_new = false;
        if let Err(e) = T::deserialize(Probe { seen: &mut seen, pointer: String::new() }) {
            panic!("{e}");
        }
        if !seen.is_new {
            return seen.schema;
        }
    }
}

#[derive(Default)]
struct Seen {
    schema: Value,
    empty: &'static [&'static str],
    /// How many members were taken of the enumeration there.
    taken: BTreeMap<String, usize>,
    /// Another round would see something else.
    is_new: bool,
}

impl Seen {
    fn at(&mut self, pointer: &str) -> &mut Map<String, Value> {
        let mut at = &mut self.schema;
        for step in pointer.split('/').skip(1) {
            if !at.is_object() {
                *at = json!({});
            }
            at = at.as_object_mut().unwrap().entry(step).or_insert_with(|| json!({}));
        }
        if !at.is_object() {
            *at = json!({});
        }
        at.as_object_mut().unwrap()
    }
}

/// A value of any type, at a place of the schema.
struct Probe<'a> {
    seen: &'a mut Seen,
    pointer: String,
}

impl Probe<'_> {
    fn below(&mut self, step: &str) -> Probe<'_> {
        Probe { pointer: format!("{}/{step}", self.pointer), seen: self.seen }
    }

    fn leaf(self, type_name: &str) {
        self.seen.at(&self.pointer).insert("type".into(), type_name.into());
    }
}

macro_rules! scalars {
    ($($method:ident $visit:ident $value:expr, $name:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.leaf($name);
            visitor.$visit($value)
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    scalars! {
        deserialize_any visit_str "1s", "any";
        deserialize_bool visit_bool true, "boolean";
        deserialize_u8 visit_u8 1, "integer";
        deserialize_u16 visit_u16 1, "integer";
        deserialize_u32 visit_u32 1, "integer";
        deserialize_u64 visit_u64 1, "integer";
        deserialize_i8 visit_i8 1, "integer";
        deserialize_i16 visit_i16 1, "integer";
        deserialize_i32 visit_i32 1, "integer";
        deserialize_i64 visit_i64 1, "integer";
        deserialize_f32 visit_f32 1.0, "number";
        deserialize_f64 visit_f64 1.0, "number";
        deserialize_char visit_char 'x', "string";
        deserialize_str visit_str "1s", "string";
        deserialize_string visit_str "1s", "string";
        deserialize_bytes visit_bytes &[], "string";
        deserialize_byte_buf visit_bytes &[], "string";
        deserialize_identifier visit_str "1s", "string";
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf("ignored");
        visitor.visit_unit()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.leaf("empty");
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let items = if self.seen.empty.iter().any(|e| self.pointer.ends_with(e)) { 0 } else { 1 };
        visitor.visit_seq(List { probe: self, left: items })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Fields { probe: self.below("additionalProperties"), names: &["k"], is_map: true })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Fields { probe: self.below("properties"), names, is_map: false })
    }

    fn deserialize_enum<V: Visitor<'de>>(self, _: &'static str, names: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        let taken = *self.seen.taken.get(&self.pointer).unwrap_or(&0);
        let before = std::mem::take(&mut self.seen.is_new);
        let Probe { seen, pointer } = self;
        let name = names[taken.min(names.len() - 1)];
        let value = visitor.visit_enum(Member { probe: Probe { seen, pointer: pointer.clone() }, name })?;
        // What is within a member is seen to its end before the next one.
        if !seen.is_new && taken + 1 < names.len() {
            seen.taken.insert(pointer, taken + 1);
            seen.is_new = true;
        }
        seen.is_new |= before;
        Ok(value)
    }
}

struct List<'a> {
    probe: Probe<'a>,
    left: usize,
}

impl<'de> SeqAccess<'de> for List<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(self.probe.below("items")).map(Some)
    }
}

struct Fields<'a> {
    probe: Probe<'a>,
    names: &'static [&'static str],
    is_map: bool,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(name) = self.names.first() else { return Ok(None) };
        let name: StrDeserializer<'_, Error> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let (name, rest) = self.names.split_first().unwrap();
        self.names = rest;
        if self.is_map {
            return seed.deserialize(Probe { pointer: self.probe.pointer.clone(), seen: self.probe.seen });
        }
        seed.deserialize(self.probe.below(name))
    }
}

struct Member<'a> {
    probe: Probe<'a>,
    name: &'static str,
}

impl<'de, 'a> EnumAccess<'de> for Member<'a> {
    type Error = Error;
    type Variant = Member<'a>;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Member<'a>), Error> {
        let name: StrDeserializer<'_, Error> = self.name.into_deserializer();
        seed.deserialize(name).map(|v| (v, self))
    }
}

impl<'de> VariantAccess<'de> for Member<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        let values = self.probe.seen.at(&self.probe.pointer).entry("enum").or_insert_with(|| json!([]));
        let values = values.as_array_mut().unwrap();
        if !values.contains(&json!(self.name)) {
            values.push(self.name.into());
        }
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.probe.below(&format!("properties/{}", self.name)))
    }

    fn tuple_variant<V: Visitor<'de>>(mut self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.probe.below(&format!("properties/{}", self.name)).deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(mut self, names: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.probe.below(&format!("properties/{}", self.name)).deserialize_struct("", names, visitor)
    }
}
