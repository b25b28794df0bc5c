//! Reads the `validate.rules` option of a field into [`Check`]s.

use prost_reflect::{DynamicMessage, Kind, Value};
use regex::Regex;

use super::check::{Bound, BytesRules, Check, Choice, EnumRules, Format, Length, Range, TextRules};

/// The rules of one field, or of the items, keys or values in it.
#[derive(Default)]
pub(super) struct FieldRules {
    pub(super) required: bool,
    pub(super) skip: bool,
    pub(super) check: Option<Check>,
    pub(super) limits: Limits,
    pub(super) items: Option<Box<FieldRules>>,
    pub(super) keys: Option<Box<FieldRules>>,
    pub(super) values: Option<Box<FieldRules>>,
}

/// Rules of the size of a list or map.
#[derive(Default)]
pub(super) struct Limits {
    pub(super) count: Length,
    pub(super) unique: bool,
    pub(super) ignore_empty: bool,
}

/// Compiles a `validate.FieldRules`. `kind` is of the field, of an item, or of a map's key or value. What this code does
/// not implement is listed in `unknown`.
pub(super) fn compile(rules: &DynamicMessage, kind: &Kind, unknown: &mut Vec<String>) -> FieldRules {
    let mut compiled = FieldRules::default();
    for (family, value) in rules.fields() {
        let Some(options) = value.as_message() else { continue };
        let mut reader = Reader { family: family.name(), unknown };
        match family.name() {
            "message" => reader.each(options, |name, value| match name {
                "required" => set(&mut compiled.required, value.as_bool()),
                "skip" => set(&mut compiled.skip, value.as_bool()),
                _ => false,
            }),
            "float" | "double" => compiled.check = Some(Check::Float(reader.range(options, float))),
            "bool" => reader.each(options, |name, value| name == "const" && put(&mut compiled.check, value.as_bool().map(Check::Bool))),
            "string" => compiled.check = Some(Check::Text(Box::new(reader.text(options)))),
            "bytes" => compiled.check = Some(Check::Bytes(reader.bytes(options))),
            "enum" => compiled.check = Some(Check::Enum(reader.enumeration(options, kind))),
            "duration" => {
                compiled.required = options.get_field_by_name("required").and_then(|v| v.as_bool()).unwrap_or_default();
                compiled.check = Some(Check::Duration(reader.range(options, nanoseconds)));
            }
            "any" => {
                let mut choice = Choice::default();
                reader.each(options, |name, value| match name {
                    "required" => set(&mut compiled.required, value.as_bool()),
                    _ => choose(&mut choice, name, value, string),
                });
                compiled.check = Some(Check::TypeUrl(choice));
            }
            "repeated" | "map" => reader.collection(options, kind, &mut compiled),
            name if name.contains("int") || name.contains("fixed") => compiled.check = Some(Check::Int(reader.range(options, integer))),
            _ => reader.each(options, |_, _| false),
        }
    }
    compiled
}

struct Reader<'a> {
    family: &'a str,
    unknown: &'a mut Vec<String>,
}

impl Reader<'_> {
    /// Calls `take` for each option that is set; one that it does not take becomes unknown.
    fn each(&mut self, options: &DynamicMessage, mut take: impl FnMut(&str, &Value) -> bool) {
        for (field, value) in options.fields() {
            if !take(field.name(), value) {
                self.unknown.push(format!("{}.{}", self.family, field.name()));
            }
        }
    }

    fn range<T: Copy>(&mut self, options: &DynamicMessage, read: fn(&Value) -> Option<T>) -> Range<T> {
        let mut range = Range::default();
        let bound = |value: &Value, inclusive| read(value).map(|at| Bound { at, inclusive });
        self.each(options, |name, value| match name {
            "gt" => put(&mut range.lower, bound(value, false)),
            "gte" => put(&mut range.lower, bound(value, true)),
            "lt" => put(&mut range.upper, bound(value, false)),
            "lte" => put(&mut range.upper, bound(value, true)),
            "ignore_empty" => set(&mut range.ignore_empty, value.as_bool()),
            // Of durations; read by the caller.
            "required" => true,
            _ => choose(&mut range.choice, name, value, read),
        });
        range
    }

    fn text(&mut self, options: &DynamicMessage) -> TextRules {
        let strict = options.get_field_by_name("strict").and_then(|v| v.as_bool()).unwrap_or(true);
        let mut rules = TextRules::default();
        self.each(options, |name, value| match name {
            "len" => put(&mut rules.chars.exact, value.as_u64()),
            "min_len" => put(&mut rules.chars.min, value.as_u64()),
            "max_len" => put(&mut rules.chars.max, value.as_u64()),
            "len_bytes" => put(&mut rules.bytes.exact, value.as_u64()),
            "min_bytes" => put(&mut rules.bytes.min, value.as_u64()),
            "max_bytes" => put(&mut rules.bytes.max, value.as_u64()),
            "pattern" => put(&mut rules.pattern, value.as_str().and_then(|p| Regex::new(p).ok())),
            "prefix" => put(&mut rules.prefix, string(value)),
            "suffix" => put(&mut rules.suffix, string(value)),
            "contains" => put(&mut rules.contains, string(value)),
            "not_contains" => put(&mut rules.not_contains, string(value)),
            "ip" => put(&mut rules.format, Some(Format::Ip)),
            "ipv4" => put(&mut rules.format, Some(Format::Ipv4)),
            "ipv6" => put(&mut rules.format, Some(Format::Ipv6)),
            "well_known_regex" => {
                let format = match (value.as_enum_number(), strict) {
                    (Some(1), true) => Some(Format::HeaderName),
                    (Some(2), true) => Some(Format::HeaderValue),
                    (Some(1 | 2), false) => Some(Format::Loose),
                    _ => None,
                };
                put(&mut rules.format, format)
            }
            "strict" => true,
            "ignore_empty" => set(&mut rules.ignore_empty, value.as_bool()),
            _ => choose(&mut rules.choice, name, value, string),
        });
        rules
    }

    fn bytes(&mut self, options: &DynamicMessage) -> BytesRules {
        let mut rules = BytesRules::default();
        let bytes = |value: &Value| value.as_bytes().map(|b| b.to_vec());
        self.each(options, |name, value| match name {
            "len" => put(&mut rules.len.exact, value.as_u64()),
            "min_len" => put(&mut rules.len.min, value.as_u64()),
            "max_len" => put(&mut rules.len.max, value.as_u64()),
            "prefix" => set(&mut rules.prefix, bytes(value)),
            "suffix" => set(&mut rules.suffix, bytes(value)),
            "ignore_empty" => set(&mut rules.ignore_empty, value.as_bool()),
            _ => choose(&mut rules.choice, name, value, bytes),
        });
        rules
    }

    fn enumeration(&mut self, options: &DynamicMessage, kind: &Kind) -> EnumRules {
        let mut rules = EnumRules::default();
        self.each(options, |name, value| match name {
            "defined_only" => {
                let descriptor = kind.as_enum().filter(|_| value.as_bool() == Some(true));
                rules.defined = descriptor.map(|d| {
                    let mut numbers: Vec<i128> = d.values().map(|v| v.number().into()).collect();
                    numbers.sort_unstable();
                    numbers
                });
                true
            }
            _ => choose(&mut rules.choice, name, value, integer),
        });
        rules
    }

    fn collection(&mut self, options: &DynamicMessage, kind: &Kind, compiled: &mut FieldRules) {
        let entry = kind.as_message().filter(|m| m.is_map_entry());
        let (key, value_kind) = match entry {
            Some(entry) => (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind()),
            None => (kind.clone(), kind.clone()),
        };
        let mut nested = Vec::new();
        let limits = &mut compiled.limits;
        self.each(options, |name, value| {
            let mut inner = |kind: &Kind| value.as_message().map(|rules| Box::new(compile(rules, kind, &mut nested)));
            match name {
                "min_items" | "min_pairs" => put(&mut limits.count.min, value.as_u64()),
                "max_items" | "max_pairs" => put(&mut limits.count.max, value.as_u64()),
                "unique" => set(&mut limits.unique, value.as_bool()),
                "ignore_empty" => set(&mut limits.ignore_empty, value.as_bool()),
                "items" => put(&mut compiled.items, inner(kind)),
                "keys" => put(&mut compiled.keys, inner(&key)),
                "values" => put(&mut compiled.values, inner(&value_kind)),
                _ => false,
            }
        });
        self.unknown.append(&mut nested);
    }
}

fn choose<T>(choice: &mut Choice<T>, name: &str, value: &Value, read: impl Fn(&Value) -> Option<T>) -> bool {
    let list = || value.as_list().and_then(|items| items.iter().map(&read).collect::<Option<Vec<T>>>());
    match name {
        "const" => put(&mut choice.exactly, read(value)),
        "in" => set(&mut choice.one_of, list()),
        "not_in" => set(&mut choice.none_of, list()),
        _ => false,
    }
}

/// False if there is nothing to store: then the option has a form that this code does not know.
fn put<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    *slot = value;
    slot.is_some()
}

fn set<T>(slot: &mut T, value: Option<T>) -> bool {
    value.is_some_and(|value| {
        *slot = value;
        true
    })
}

fn string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn integer(value: &Value) -> Option<i128> {
    match *value {
        Value::I32(v) | Value::EnumNumber(v) => Some(v.into()),
        Value::I64(v) => Some(v.into()),
        Value::U32(v) => Some(v.into()),
        Value::U64(v) => Some(v.into()),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match *value {
        Value::F32(v) => Some(v.into()),
        Value::F64(v) => Some(v),
        _ => None,
    }
}

fn nanoseconds(value: &Value) -> Option<i128> {
    let part = |number| value.as_message()?.get_field_by_number(number).and_then(|part| integer(&part));
    Some(part(1)? * 1_000_000_000 + part(2)?)
}
