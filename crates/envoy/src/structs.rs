//! [`Struct`] and [`Metadata`]: structures without a schema, as they go over the wire.
//!
//! Every endpoint and cluster carries some, and hardly anything of ours reads them again. So they are encoded where they are
//! made, and copied from then on; maps of maps would cost more than the rest of an endpoint. Keys are in order, and the last
//! of several equal ones counts, as in a map.

use std::collections::BTreeMap;

use prost::Message;
use prost::encoding;

use crate::field::{self, put};
use crate::raw::encoded;

/// An encoded `google.protobuf.Struct`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Struct(Vec<u8>);

/// An encoded `envoy.config.core.v3.Metadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Metadata(pub(crate) Vec<u8>);

/// An encoded `google.protobuf.Value`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value(Vec<u8>);

/// Begins an entry of a map that is field 1, and the key in it.
const ENTRY: u8 = 1 << 3 | 2;
// Field numbers of `Value`.
const NULL: u32 = 1;
const NUMBER: u32 = 2;
const TEXT: u32 = 3;
const BOOL: u32 = 4;
const STRUCT: u32 = 5;
const LIST: u32 = 6;

impl Value {
    /// Nothing.
    pub fn null() -> Self {
        Value(vec![(NULL << 3) as u8, 0])
    }

    /// Yes or no.
    pub fn boolean(value: bool) -> Self {
        Value(vec![(BOOL << 3) as u8, value.into()])
    }

    /// A number.
    pub fn number(value: f64) -> Self {
        let mut out = Vec::with_capacity(9);
        encoding::double::encode(NUMBER, &value, &mut out);
        Value(out)
    }

    /// A text.
    pub fn text(value: &str) -> Self {
        Value(single(TEXT, value.as_bytes()))
    }

    /// A list.
    pub fn list(values: impl IntoIterator<Item = Value>) -> Self {
        let mut items = Vec::new();
        values.into_iter().for_each(|v| put(1, &v.0, &mut items));
        Value(single(LIST, &items))
    }

    /// A structure of these fields.
    pub fn object<K: AsRef<str>>(fields: impl IntoIterator<Item = (K, Value)>) -> Self {
        Value(single(STRUCT, &Struct::new(fields).0))
    }

    /// A structure of these texts, by fields in order.
    pub fn texts(fields: &[(&str, &str)]) -> Self {
        let len = texts_len(fields);
        let mut out = Vec::with_capacity(field::len(len));
        field::open(STRUCT, len, &mut out);
        put_texts(fields, &mut out);
        Value(out)
    }
}

impl Struct {
    /// Of these fields.
    pub fn new<K: AsRef<str>>(fields: impl IntoIterator<Item = (K, Value)>) -> Self {
        Struct(map(fields.into_iter().map(|(k, v)| (k, v.0)).collect()))
    }

    /// Of these texts, by fields in order.
    pub fn texts(fields: &[(&str, &str)]) -> Self {
        let mut out = Vec::with_capacity(texts_len(fields));
        put_texts(fields, &mut out);
        Struct(out)
    }

    /// To read.
    pub fn decoded(&self) -> prost_types::Struct {
        prost_types::Struct::decode(self.0.as_slice()).unwrap_or_default()
    }
}

impl From<&prost_types::Struct> for Struct {
    fn from(value: &prost_types::Struct) -> Self {
        Struct(value.encode_to_vec())
    }
}

/// What of `envoy.config.core.v3.Metadata` is read.
#[derive(Clone, PartialEq, Message)]
struct Filters {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, prost_types::Struct>,
}

impl Metadata {
    /// `filter_metadata` of these filters.
    pub fn new<K: AsRef<str>>(filters: impl IntoIterator<Item = (K, Struct)>) -> Self {
        Metadata(map(filters.into_iter().map(|(k, v)| (k, v.0)).collect()))
    }

    /// `filter_metadata` of these filters, in order, with these texts by fields in order: what each endpoint has, in one go.
    pub fn texts(filters: &FilterTexts<'_>) -> Self {
        let mut out = Vec::with_capacity(filters_len(filters));
        put_filters(filters, &mut out);
        Metadata(out)
    }

    /// Nothing, with room for so many bytes.
    pub fn with_capacity(room: usize) -> Self {
        Metadata(Vec::with_capacity(room))
    }

    /// Adds what another has, of filters that come after these.
    pub fn append(&mut self, other: &Metadata) {
        self.0.extend_from_slice(&other.0);
    }

    /// Adds these filters, as [`Metadata::texts`] takes them, which come after those that there are.
    pub fn append_texts(&mut self, filters: &FilterTexts<'_>) {
        put_filters(filters, &mut self.0);
    }

    /// Whether it surely breaks no rule: filters have names. False says nothing.
    pub(crate) fn is_surely_sound(&self) -> bool {
        let mut rest = self.0.as_slice();
        while let [ENTRY, len @ ..0x80, more @ ..] | [ENTRY, len, 1, more @ ..] = rest {
            // Of two bytes whose second is 1, the first is the length, up to 255.
            let Some((entry, behind)) = more.split_at_checked(usize::from(*len)) else { return false };
            let [ENTRY, key_len @ 1..0x80, entry @ ..] = entry else { return false };
            if !entry.get(..usize::from(*key_len)).is_some_and(<[u8]>::is_ascii) {
                return false;
            }
            rest = behind;
        }
        rest.is_empty()
    }

    /// `filter_metadata`, to read.
    pub fn filters(&self) -> BTreeMap<String, prost_types::Struct> {
        Filters::decode(self.0.as_slice()).unwrap_or_default().filter_metadata
    }
}

/// A map as field 1: its keys are texts, its values messages.
fn map<K: AsRef<str>, V: AsRef<[u8]>>(mut entries: Vec<(K, V)>) -> Vec<u8> {
    entries.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
    let len = |bytes: &[u8]| if bytes.is_empty() { 0 } else { field::len(bytes.len()) };
    let mut out = Vec::with_capacity(entries.iter().map(|(k, v)| 6 + len(k.as_ref().as_bytes()) + len(v.as_ref())).sum());
    for (at, (key, value)) in entries.iter().enumerate() {
        if entries.get(at + 1).is_some_and(|next| next.0.as_ref() == key.as_ref()) {
            continue;
        }
        let parts = [key.as_ref().as_bytes(), value.as_ref()];
        field::open(1, parts.iter().map(|p| len(p)).sum(), &mut out);
        // An empty part is a default, which is not written.
        (1..).zip(parts).filter(|(_, p)| !p.is_empty()).for_each(|(tag, part)| put(tag, part, &mut out));
    }
    out
}

/// Length of a field of a `Struct` without its tag: key, and value with one text.
fn text_len((key, text): &(&str, &str)) -> usize {
    field::len(key.len()) + field::len(field::len(text.len()))
}

fn texts_len(fields: &[(&str, &str)]) -> usize {
    fields.iter().map(|f| field::len(text_len(f))).sum()
}

fn put_texts(fields: &[(&str, &str)], out: &mut Vec<u8>) {
    for field @ (key, text) in fields {
        field::open(1, text_len(field), out);
        put(1, key.as_bytes(), out);
        field::open(2, field::len(text.len()), out);
        put(TEXT, text.as_bytes(), out);
    }
}

/// Filters with texts, as [`Metadata::texts`] takes them.
pub type FilterTexts<'a> = [(&'a str, &'a [(&'a str, &'a str)])];

fn filter_len((name, fields): &(&str, &[(&str, &str)])) -> usize {
    field::len(name.len()) + if fields.is_empty() { 0 } else { field::len(texts_len(fields)) }
}

/// Length of the metadata of these filters.
fn filters_len(filters: &FilterTexts<'_>) -> usize {
    filters.iter().map(|f| field::len(filter_len(f))).sum()
}

/// Writes the metadata of these filters.
fn put_filters(filters: &FilterTexts<'_>, out: &mut Vec<u8>) {
    for filter @ (name, fields) in filters {
        field::open(1, filter_len(filter), out);
        put(1, name.as_bytes(), out);
        if !fields.is_empty() {
            field::open(2, texts_len(fields), out);
            put_texts(fields, out);
        }
    }
}

fn single(tag: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field::len(bytes.len()));
    put(tag, bytes, &mut out);
    out
}

encoded!(Struct, Metadata);

#[cfg(test)]
mod tests {
    use prost_types::value::Kind;
    use prost_types::{ListValue, Value as Typed};

    use super::*;

    fn typed(kind: Kind) -> Typed {
        Typed { kind: Some(kind) }
    }

    fn both() -> (Struct, prost_types::Struct) {
        let inner = || [("z", Value::text("")), ("", Value::boolean(true)), ("a", Value::text("lost")), ("a", Value::text("kept"))];
        let ours = Struct::new([
            ("object", Value::object(inner())),
            ("list", Value::list([Value::number(1.5), Value::null()])),
            ("empty", Value::object::<&str>([])),
        ]);
        let text = |t: &str| typed(Kind::StringValue(t.into()));
        let inner = [("z", text("")), ("", typed(Kind::BoolValue(true))), ("a", text("kept"))];
        let of =
            |fields: &[(&str, Typed)]| prost_types::Struct { fields: fields.iter().map(|(k, v)| (k.to_string(), v.clone())).collect() };
        let list = ListValue { values: vec![typed(Kind::NumberValue(1.5)), typed(Kind::NullValue(0))] };
        let theirs = of(&[
            ("object", typed(Kind::StructValue(of(&inner)))),
            ("list", typed(Kind::ListValue(list))),
            ("empty", typed(Kind::StructValue(of(&[])))),
        ]);
        (ours, theirs)
    }

    #[test]
    fn a_structure_has_the_bytes_that_its_typed_form_has() {
        let (ours, theirs) = both();
        assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
        assert_eq!((ours.decoded(), Struct::from(&theirs)), (theirs, ours));
    }

    #[test]
    fn metadata_have_the_bytes_that_their_typed_form_has() {
        let (ours, theirs) = both();
        let typed = Filters { filter_metadata: [("b".to_owned(), theirs.clone()), ("a".to_owned(), Default::default())].into() };
        let metadata = Metadata::new([("b", ours), ("a", Struct::default())]);
        assert_eq!(metadata.encode_to_vec(), typed.encode_to_vec());
        assert_eq!(metadata.filters(), typed.filter_metadata);
    }

    #[test]
    fn texts_have_the_bytes_that_values_have() {
        let long = "x".repeat(300);
        let (one, two): (&[_], &[_]) = (&[("a", "1")], &[("a", ""), ("b", &long)]);
        let of = |fields: &[(&str, &str)]| Struct::new(fields.iter().map(|(k, t)| (k.to_owned(), Value::text(t))));
        assert_eq!((Struct::texts(one), Struct::texts(two)), (of(one), of(two)));
        assert_eq!(Value::texts(two), Value::object(two.iter().map(|(k, t)| (k.to_owned(), Value::text(t)))));
        let filters: [(&str, &[(&str, &str)]); 3] = [("f", one), ("g", &[]), (&long, two)];
        assert_eq!(Metadata::texts(&filters), Metadata::new(filters.map(|(name, fields)| (name, of(fields)))));
        assert!(Metadata::texts(&filters[..2]).is_surely_sound());
        let big = "x".repeat(190);
        assert!(Metadata::texts(&[("f", &[("k", &big)]), ("g", one)]).is_surely_sound());
        for unsure in [Metadata::texts(&filters), Metadata::texts(&[("", one)]), Metadata::texts(&[("é", one)])] {
            assert!(!unsure.is_surely_sound());
        }
        let mut appended = Metadata::texts(&filters[..1]);
        appended.append(&Metadata::texts(&filters[1..2]));
        appended.append_texts(&filters[2..]);
        assert_eq!(appended, Metadata::texts(&filters));
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let (ours, _) = both();
        let bytes = ours.encode_to_vec();
        assert_eq!(Struct::decode(bytes.as_slice()).unwrap(), ours);
        assert!(Struct::decode(&bytes[..bytes.len() - 1]).is_err());
    }
}
