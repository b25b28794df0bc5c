//! YAML and JSON documents, strictly.
//!
//! One parser reads both, since JSON is YAML. Scalars follow YAML 1.2: `yes` and `on` are text, not booleans as kubectl's
//! older rules have it; where a boolean is wanted they are refused with the field's name, so nothing changes its meaning
//! silently. A duplicate key is an error; merge keys (`<<`) are applied. Depth and aliases are bounded by the parser.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a text is not a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line of the text, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// A document's text within its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// Line of the file that it starts on, from 1.
    pub first_line: usize,
    /// The text.
    pub text: &'a str,
}

/// Splits at `---` lines, by text, so that a broken document spoils no other. Documents of nothing but space and comments
/// are left out. The line break before a marker is part of the marker, as for Helm and others that split by text: a block of
/// text that a document ends with has none at its end.
pub fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut offset) = (0, 1, 0usize);
    let mut add = |text: &'_ str, range: std::ops::Range<usize>, first_line| {
        let part = &text[range.clone()];
        let blank =
            |l: &str| matches!(l.trim_start(), "") || l.trim_start().starts_with('#') || l.starts_with('%') || l.trim_end() == "...";
        if !part.lines().all(blank) {
            documents.push((range, first_line));
        }
    };
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        if bare == "---" || (bare.starts_with("---") && bare[3..].starts_with([' ', '\t'])) {
            let end = text[start..offset].strip_suffix('\n').map_or(offset, |t| start + t.strip_suffix('\r').unwrap_or(t).len());
            add(text, start..end, first_line);
            // What follows the marker on its own line belongs to the next document.
            start = offset + if bare == "---" { line.len() } else { 3 };
            first_line = number + if bare == "---" { 2 } else { 1 };
        }
        offset += line.len();
    }
    add(text, start..text.len(), first_line);
    documents.into_iter().map(|(range, first_line)| Document { first_line, text: &text[range] }).collect()
}

/// Reads one document; an empty one is null.
pub fn parse(text: &str) -> Result<Value, SyntaxError> {
    if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
        return Ok(Value::Null);
    }
    if let Some(line) = too_deep(text) {
        return Err(SyntaxError { line, message: "brackets are nested too deeply".into() });
    }
    let strict: Result<Strict, _> = yaml_serde::from_str(text);
    strict.map(|s| s.0).map_err(|e| SyntaxError {
        // Errors at the very end name the line after the last; point at the last one that exists.
        line: e.location().map_or(1, |l| l.line()).clamp(1, text.lines().count() + 1),
        message: without_location(&e.to_string()),
    })
}

/// The parser refuses deep nesting only after work that is quadratic in the depth of brackets, so they are counted first.
/// Brackets inside texts count too; the bound leaves room for them.
fn too_deep(text: &str) -> Option<usize> {
    const MAX_OPEN: usize = 5_000;
    let mut open = 0usize;
    for (i, line) in text.lines().enumerate() {
        for b in line.bytes() {
            match b {
                b'[' | b'{' if open == MAX_OPEN => return Some(i + 1),
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
        }
    }
    None
}

/// The line on which the field of that path (as `serde_path_to_error` writes it) begins, or its nearest existing parent.
pub fn line_of(text: &str, path: &str) -> Option<usize> {
    let segments = split_path(path);
    (0..=segments.len()).rev().find_map(|n| {
        let deserializer = yaml_serde::Deserializer::from_str(text);
        let error = Probe(&segments[..n]).deserialize(deserializer).err()?;
        error.to_string().contains(PROBE).then(|| error.location().map(|l| l.line())).flatten()
    })
}

const PROBE: &str = "pilotfish-probe";

/// The parser appends " at line 3 column 4", which is said elsewhere. What stands before, the path, is kept.
fn without_location(message: &str) -> String {
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message[..end].to_owned()
}

fn split_path(path: &str) -> Vec<String> {
    let mut segments = Vec::new();
    for part in path.split('.').filter(|p| !p.is_empty()) {
        let (name, rest) = part.split_once('[').unwrap_or((part, ""));
        if !name.is_empty() {
            segments.push(name.to_owned());
        }
        segments.extend(rest.split(['[', ']']).filter(|i| !i.is_empty()).map(str::to_owned));
    }
    segments
}

/// Walks down a path and fails on purpose when it arrives: the parser's error then carries the position.
struct Probe<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PROBE)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((wanted, rest)) = self.0.split_first() else { return Err(A::Error::custom(PROBE)) };
        while let Some(key) = map.next_key_seed(Key { wanted, last: rest.is_empty() })? {
            if key { map.next_value_seed(Probe(rest))? } else { map.next_value::<IgnoredAny>().map(|_| ())? }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((wanted, rest)) = self.0.split_first() else { return Err(A::Error::custom(PROBE)) };
        let wanted: usize = wanted.parse().map_err(A::Error::custom)?;
        for _ in 0..wanted {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        seq.next_element_seed(Probe(rest)).map(|_| ())
    }
    // Scalars fall back to serde's "invalid type, expected <PROBE>", which is what is wanted.
}

/// A key of a mapping: whether it is the wanted one. Fails on purpose when it is the last of the path. The error must come
/// from inside the visitor, since the parser adds the position there.
struct Key<'a> {
    wanted: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<bool, D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key of plain text")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        let hit = key == self.wanted;
        if hit && self.last { Err(E::custom(PROBE)) } else { Ok(hit) }
    }
}

/// A JSON value that refuses duplicate keys and applies merge keys.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }
    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(n.into())
    }
    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(n.into())
    }
    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<Value, E> {
        Number::from_f64(n).map(Value::Number).ok_or_else(|| E::custom("numbers must be finite"))
    }
    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(Value::String(s.to_owned()))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let (mut map, mut merged) = (Map::new(), Vec::new());
        while let Some(key) = access.next_key_seed(NewKey(&map))? {
            let Strict(value) = access.next_value()?;
            match (key.as_str(), value) {
                ("<<", Value::Object(base)) => merged.push(base),
                ("<<", Value::Array(list)) => {
                    for base in list {
                        let Value::Object(base) = base else { return Err(A::Error::custom("a merge key takes mappings only")) };
                        merged.push(base);
                    }
                }
                ("<<", _) => return Err(A::Error::custom("a merge key takes mappings only")),
                (_, value) => {
                    map.insert(key, value);
                }
            }
        }
        for base in merged {
            for (key, value) in base {
                map.entry(key).or_insert(value);
            }
        }
        Ok(Value::Object(map))
    }
}

/// A key that the mapping does not have yet.
struct NewKey<'a>(&'a Map<String, Value>);

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<String, D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for NewKey<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key of plain text")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
        if self.0.contains_key(key) { Err(E::custom(format!("duplicate key {key:?}"))) } else { Ok(key.to_owned()) }
    }
}

#[cfg(test)]
#[path = "yaml/tests.rs"]
mod tests;
