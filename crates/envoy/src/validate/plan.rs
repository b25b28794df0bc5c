//! The rules of all messages, compiled: for each message only the fields that can break a rule, here or further in.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::LazyLock;

use prost_reflect::{DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::check::Check;
use super::glance::Glance;
use super::rules::{self, FieldRules, Limits};
use super::sound::Sound;
use super::walk::broken_default;
use crate::descriptors;
use crate::hashed::Hashed;

/// What type URLs begin with.
const URL: &str = "type.googleapis.com/";

/// The plans of all messages.
pub(super) struct Plans {
    messages: Vec<MessagePlan>,
    /// One per message.
    pub(super) glances: Vec<Glance>,
    /// By the hash of their names.
    by_name: HashMap<u64, usize, BuildHasherDefault<Hashed>>,
    /// By the hash of the type URLs that everybody writes.
    by_url: HashMap<u64, usize, BuildHasherDefault<Hashed>>,
    pub(super) sound: Sound,
    /// Rules in the descriptors that nothing here implements.
    #[cfg_attr(not(test), allow(dead_code))]
    pub(super) unknown: Vec<String>,
}

/// What to check in one message.
#[derive(Default)]
pub(super) struct MessagePlan {
    pub(super) name: String,
    /// By number.
    pub(super) fields: Vec<FieldPlan>,
    pub(super) required_oneofs: Vec<OneofPlan>,
    /// Which fields break a rule by not being there, or by how often they are.
    pub(super) counted: Vec<usize>,
}

/// A oneof of which one field must be set.
pub(super) struct OneofPlan {
    pub(super) name: String,
    /// Field numbers.
    pub(super) members: Vec<u32>,
}

/// What to check in one field.
pub(super) struct FieldPlan {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) value: ValuePlan,
    /// Set for maps; then `value` is of the map's values.
    pub(super) key: Option<ValuePlan>,
    pub(super) limits: Limits,
    /// Must be present.
    pub(super) required: bool,
    /// A scalar without presence: its default is checked if it is absent.
    pub(super) implicit: bool,
    /// What its default breaks.
    pub(super) broken_default: Option<String>,
    pub(super) is_list: bool,
}

/// What to check in one value.
pub(super) struct ValuePlan {
    pub(super) content: Content,
    pub(super) check: Option<Check>,
}

/// How to read a value.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Content {
    Scalar(ScalarKind),
    /// A message that holds one scalar.
    Wrapper(ScalarKind),
    Duration,
    Any,
    /// A message by its plan.
    Message(usize),
    /// A message without rules, not looked into.
    Opaque,
}

/// Wire form and meaning of a scalar.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum ScalarKind {
    Signed,
    Unsigned,
    Zigzag,
    Bool,
    Float,
    Double,
    Fixed { bits: u8, signed: bool },
    Text,
    Bytes,
}

impl Plans {
    /// Compiled on first use, in about as long as the descriptors take to decode.
    pub(super) fn get() -> &'static Plans {
        static PLANS: LazyLock<Plans> = LazyLock::new(Plans::compile);
        &PLANS
    }

    pub(super) fn by_name(&self, full_name: &str) -> Option<usize> {
        let index = *self.by_name.get(&xxh3_64(full_name.as_bytes()))?;
        self.messages.get(index).filter(|m| m.name == full_name).map(|_| index)
    }

    /// Knows the usual form of URLs only.
    pub(super) fn by_url(&self, type_url: &[u8]) -> Option<usize> {
        let index = *self.by_url.get(&xxh3_64(type_url))?;
        self.messages.get(index).filter(|m| type_url.strip_prefix(URL.as_bytes()) == Some(m.name.as_bytes())).map(|_| index)
    }

    pub(super) fn message(&self, index: usize) -> Option<&MessagePlan> {
        self.messages.get(index)
    }

    fn compile() -> Plans {
        // The plans are all that validation needs, so the descriptors go again.
        let pool = descriptors::decode();
        let descriptors: Vec<MessageDescriptor> = pool.all_messages().filter(|m| !m.is_map_entry()).collect();
        let by_name = descriptors.iter().enumerate().map(|(i, m)| (m.full_name().to_owned(), i)).collect();
        let mut compiler = Compiler {
            rules: pool.get_extension_by_name("validate.rules"),
            oneof_required: pool.get_extension_by_name("validate.required"),
            skips: ["validate.disabled", "validate.ignored"].into_iter().filter_map(|name| pool.get_extension_by_name(name)).collect(),
            by_name,
            unknown: Vec::new(),
        };
        let mut messages: Vec<MessagePlan> = descriptors.iter().map(|m| compiler.message(m)).collect();
        prune(&mut messages);
        messages.iter_mut().for_each(MessagePlan::note_absences);
        let by_name = messages.iter().enumerate().map(|(i, m)| (xxh3_64(m.name.as_bytes()), i)).collect();
        let by_url = messages.iter().enumerate().map(|(i, m)| (xxh3_64([URL, &m.name].concat().as_bytes()), i)).collect();
        let glances = messages.iter().map(Glance::of).collect();
        Plans { messages, glances, by_name, by_url, sound: Sound::default(), unknown: compiler.unknown }
    }
}

impl MessagePlan {
    /// Index into `fields`. `from`: where to begin, as encoders write fields in the order of their numbers.
    pub(super) fn position(&self, number: u32, from: usize) -> Option<usize> {
        let ahead = self.fields.get(from..).unwrap_or_default();
        if ahead.first().is_some_and(|f| f.number <= number) {
            let steps = ahead.iter().take_while(|f| f.number < number).count();
            return ahead.get(steps).filter(|f| f.number == number).map(|_| from + steps);
        }
        self.fields.binary_search_by_key(&number, |f| f.number).ok()
    }

    /// Works out once what an absent field breaks.
    fn note_absences(&mut self) {
        for field in self.fields.iter_mut().filter(|f| f.implicit && !f.required) {
            field.broken_default = broken_default(field);
        }
        let counted = |f: &FieldPlan| f.required || f.broken_default.is_some() || f.limited();
        self.counted = (0..self.fields.len()).filter(|i| counted(&self.fields[*i])).collect();
    }

    fn has_rules(&self, needed: &[bool]) -> bool {
        !self.required_oneofs.is_empty() || self.fields.iter().any(|f| f.matters(needed))
    }
}

impl FieldPlan {
    fn limited(&self) -> bool {
        let Limits { count, unique, .. } = &self.limits;
        count.exact.is_some() || count.min.is_some() || count.max.is_some() || *unique
    }

    fn matters(&self, needed: &[bool]) -> bool {
        self.required || self.limited() || self.value.matters(needed) || self.key.as_ref().is_some_and(|key| key.matters(needed))
    }
}

impl ValuePlan {
    fn matters(&self, needed: &[bool]) -> bool {
        let deeper = match self.content {
            Content::Any => true,
            Content::Message(index) => needed.get(index).copied().unwrap_or_default(),
            _ => false,
        };
        self.check.is_some() || deeper
    }
}

/// Drops what no rule can be reached from, so that the walk steps over it.
fn prune(messages: &mut [MessagePlan]) {
    let mut needed = vec![false; messages.len()];
    loop {
        let next: Vec<bool> = messages.iter().map(|m| m.has_rules(&needed)).collect();
        if next == needed {
            break;
        }
        needed = next;
    }
    for message in messages {
        let MessagePlan { fields, required_oneofs, .. } = message;
        fields.retain(|f| f.matters(&needed) || required_oneofs.iter().any(|o| o.members.contains(&f.number)));
        for field in fields {
            if matches!(field.value.content, Content::Message(_)) && !field.value.matters(&needed) {
                field.value.content = Content::Opaque;
            }
        }
    }
}

struct Compiler {
    rules: Option<ExtensionDescriptor>,
    oneof_required: Option<ExtensionDescriptor>,
    skips: Vec<ExtensionDescriptor>,
    by_name: HashMap<String, usize>,
    unknown: Vec<String>,
}

impl Compiler {
    fn message(&mut self, descriptor: &MessageDescriptor) -> MessagePlan {
        let mut plan = MessagePlan { name: descriptor.full_name().to_owned(), ..Default::default() };
        let options = descriptor.options();
        if self.skips.iter().any(|skip| is_true(&options, skip)) {
            return plan;
        }
        plan.fields = descriptor.fields().map(|field| self.field(&field)).collect();
        plan.fields.sort_by_key(|f| f.number);
        for oneof in descriptor.oneofs() {
            if self.oneof_required.as_ref().is_some_and(|required| is_true(&oneof.options(), required)) {
                let members = oneof.fields().map(|f| f.number()).collect();
                plan.required_oneofs.push(OneofPlan { name: oneof.name().to_owned(), members });
            }
        }
        plan
    }

    fn field(&mut self, field: &FieldDescriptor) -> FieldPlan {
        let mut rules = self.rules_of(field);
        let kind = field.kind();
        let (value, key) = match kind.as_message().filter(|_| field.is_map()) {
            Some(entry) => {
                let keys = rules.keys.take().map(|r| *r).unwrap_or_default();
                let values = rules.values.take().map(|r| *r).unwrap_or_default();
                let key = self.value(&entry.map_entry_key_field().kind(), keys);
                (self.value(&entry.map_entry_value_field().kind(), values), Some(key))
            }
            None if field.is_list() => {
                let items = rules.items.take().map(|r| *r).unwrap_or_default();
                (self.value(&kind, items), None)
            }
            None => {
                let own = FieldRules { check: rules.check.take(), skip: rules.skip, ..Default::default() };
                (self.value(&kind, own), None)
            }
        };
        FieldPlan {
            number: field.number(),
            name: field.name().to_owned(),
            value,
            key,
            limits: rules.limits,
            // In a oneof, only the field that was chosen is checked, and that one is present.
            required: rules.required && field.containing_oneof().is_none(),
            implicit: !field.supports_presence() && !field.is_list() && !field.is_map(),
            is_list: field.is_list(),
            broken_default: None,
        }
    }

    fn rules_of(&mut self, field: &FieldDescriptor) -> FieldRules {
        let options = field.options();
        let Some(extension) = self.rules.clone().filter(|rules| options.has_extension(rules)) else {
            return FieldRules::default();
        };
        let mut unknown = Vec::new();
        let compiled = match options.get_extension(&extension).as_message() {
            Some(rules) => rules::compile(rules, &field.kind(), &mut unknown),
            None => FieldRules::default(),
        };
        self.unknown.extend(unknown.into_iter().map(|rule| format!("{}: {rule}", field.full_name())));
        compiled
    }

    fn value(&self, kind: &Kind, rules: FieldRules) -> ValuePlan {
        let content = match kind {
            Kind::Message(_) if rules.skip => Content::Opaque,
            Kind::Message(m) => match m.full_name().strip_prefix("google.protobuf.") {
                Some("Any") => Content::Any,
                Some("Duration") => Content::Duration,
                Some(name) if name.ends_with("Value") && m.fields().len() == 1 => match m.get_field(1).map(|f| scalar_kind(&f.kind())) {
                    Some(Some(scalar)) => Content::Wrapper(scalar),
                    _ => Content::Opaque,
                },
                Some(_) => Content::Opaque,
                None => self.by_name.get(m.full_name()).map_or(Content::Opaque, |index| Content::Message(*index)),
            },
            scalar => scalar_kind(scalar).map_or(Content::Opaque, Content::Scalar),
        };
        ValuePlan { content, check: rules.check }
    }
}

fn is_true(options: &DynamicMessage, extension: &ExtensionDescriptor) -> bool {
    options.has_extension(extension) && options.get_extension(extension).as_ref() == &Value::Bool(true)
}

fn scalar_kind(kind: &Kind) -> Option<ScalarKind> {
    Some(match kind {
        Kind::Double => ScalarKind::Double,
        Kind::Float => ScalarKind::Float,
        Kind::Int32 | Kind::Int64 | Kind::Enum(_) => ScalarKind::Signed,
        Kind::Uint32 | Kind::Uint64 => ScalarKind::Unsigned,
        Kind::Sint32 | Kind::Sint64 => ScalarKind::Zigzag,
        Kind::Fixed32 => ScalarKind::Fixed { bits: 32, signed: false },
        Kind::Fixed64 => ScalarKind::Fixed { bits: 64, signed: false },
        Kind::Sfixed32 => ScalarKind::Fixed { bits: 32, signed: true },
        Kind::Sfixed64 => ScalarKind::Fixed { bits: 64, signed: true },
        Kind::Bool => ScalarKind::Bool,
        Kind::String => ScalarKind::Text,
        Kind::Bytes => ScalarKind::Bytes,
        Kind::Message(_) => return None,
    })
}

/// Whether a list or map of this size is within its limits.
pub(super) fn broken_size(limits: &Limits, count: u64) -> Option<String> {
    if limits.ignore_empty && count == 0 { None } else { limits.count.broken(count, "item") }
}
