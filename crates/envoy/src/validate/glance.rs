//! A first look at encoded bytes: whether they surely break no rule.
//!
//! It decides the rules that nearly every field has, keeps no path and says nothing of what is wrong. Whatever it does not know
//! or does not like is for the walk to judge, so it may only err on one side.

use super::check::{Check, Scalar};
use super::lately::Lately;
use super::plan::{Content, FieldPlan, MessagePlan, Plans, ScalarKind, ValuePlan};
use super::walk::{MAX_DEPTH, decode, duration, wrapped};
use super::wire::{LENGTH_DELIMITED, Raw, VARINT, field_key, payload, read, varint};
use crate::descriptors;

/// Fields that one message can wait for.
const BITS: u32 = u64::BITS;

/// What a look at one message asks.
#[derive(Default)]
pub(super) struct Glance {
    /// By the number of the field. What is beyond is stepped over.
    steps: Box<[Step]>,
    /// Keys and values of the maps among the fields.
    entries: Box<[(Look, Look)]>,
    /// Bits of the fields that must be there.
    needed: u64,
    /// Bits of the fields of which one must be there, per oneof.
    one_of: Box<[u64]>,
    /// The message has rules that this does not know.
    unsure: bool,
}

/// What a look at one field asks.
#[derive(Clone, Copy, Default)]
struct Step {
    /// Set if the message waits for the field.
    bit: u64,
    look: Look,
}

#[derive(Clone, Copy, Default)]
enum Look {
    /// Nothing to see.
    #[default]
    Over,
    /// Text of so many bytes.
    Text { min: u32, max: u32 },
    /// A number as it lies in a varint.
    Varint { max: u64 },
    /// A message by its plan.
    Message(u32),
    /// A value of the field at this index: by its check, or packed.
    Value(u32),
    /// A field of a map: what its key and its value ask, at this index.
    Entry(u32),
    /// For the walk.
    Unsure,
}

impl Glance {
    pub(super) fn of(plan: &MessagePlan) -> Glance {
        let last = plan.fields.last().map_or(0, |f| f.number as usize);
        let members: Vec<u32> = plan.required_oneofs.iter().flat_map(|o| &o.members).copied().collect();
        let waits = |at: usize| plan.counted.contains(&at) || members.contains(&plan.fields[at].number);
        let awaited: Vec<usize> = (0..plan.fields.len()).filter(|at| waits(*at)).collect();
        if last > usize::from(u8::MAX) || awaited.len() > BITS as usize {
            return Glance { unsure: true, ..Glance::default() };
        }
        let mut glance = Glance { steps: vec![Step::default(); last + 1].into(), ..Glance::default() };
        let mut entries = Vec::new();
        for (at, field) in plan.fields.iter().enumerate() {
            let bit = awaited.iter().position(|i| *i == at).map_or(0, |position| 1 << position);
            let look = match &field.key {
                _ if counts(field) => Look::Unsure,
                None => Look::of(&field.value, at),
                Some(key) => {
                    entries.push((Look::of_key(key), Look::of(&field.value, at)));
                    Look::Entry(entries.len() as u32 - 1)
                }
            };
            if plan.counted.contains(&at) && must_be_there(field) {
                glance.needed |= bit;
            }
            glance.steps[field.number as usize] = Step { bit, look };
        }
        let bits = |members: &[u32]| members.iter().filter_map(|n| glance.steps.get(*n as usize)).fold(0, |all, step| all | step.bit);
        glance.entries = entries.into();
        glance.one_of = plan.required_oneofs.iter().map(|o| bits(&o.members)).collect();
        glance
    }
}

/// Rules of how often a field is there, other than that it must be.
fn counts(field: &FieldPlan) -> bool {
    let count = &field.limits.count;
    count.exact.is_some() || count.max.is_some() || count.min.is_some_and(|min| min > 1) || field.limits.unique
}

fn must_be_there(field: &FieldPlan) -> bool {
    let least = field.limits.count.min.or(field.limits.count.exact).is_some_and(|n| n > 0) && !field.limits.ignore_empty;
    field.required || field.broken_default.is_some() || least
}

impl Look {
    fn of_key(plan: &ValuePlan) -> Look {
        match (plan.content, &plan.check) {
            // The walk names values by their keys, so these must be text at least.
            (Content::Scalar(ScalarKind::Text), None) => Look::Text { min: 0, max: u32::MAX },
            // A check that only the walk can make is of no field.
            _ => Look::of(plan, usize::MAX),
        }
    }

    /// `at`: the index of the field that the value is of.
    fn of(plan: &ValuePlan, at: usize) -> Look {
        let value = Look::Value(at as u32);
        match (plan.content, &plan.check) {
            (Content::Message(index), _) => Look::Message(index as u32),
            (Content::Any, _) => value,
            (_, None) => Look::Over,
            (Content::Scalar(ScalarKind::Text), Some(check)) => check.by_len().map_or(value, |(min, max)| Look::Text { min, max }),
            (Content::Scalar(ScalarKind::Signed | ScalarKind::Unsigned), Some(check)) => {
                check.up_to().map_or(value, |max| Look::Varint { max })
            }
            _ => value,
        }
    }
}

impl Plans {
    /// Whether a message surely breaks no rule. False says nothing.
    pub(super) fn is_surely_sound(&self, index: usize, bytes: &[u8]) -> bool {
        Lately::with(|lately| Glancing { plans: self, lately }.fields_are_sound(index, bytes, 0))
    }
}

/// A look at one message.
struct Glancing<'p, 'l> {
    plans: &'p Plans,
    lately: &'l mut Lately,
}

impl Glancing<'_, '_> {
    /// A message in a message.
    fn message_is_sound(&mut self, index: usize, bytes: &[u8], depth: usize) -> bool {
        let plans = self.plans;
        self.lately.knows_or(index, bytes, depth, |lately| Glancing { plans, lately }.fields_are_sound(index, bytes, depth))
    }

    fn fields_are_sound(&mut self, index: usize, mut bytes: &[u8], depth: usize) -> bool {
        let plans = self.plans;
        let Some(glance) = plans.glances.get(index).filter(|g| !g.unsure && depth <= MAX_DEPTH) else { return false };
        let mut seen = 0;
        while !bytes.is_empty() {
            let Ok(key) = field_key(&mut bytes) else { return false };
            let step = glance.steps.get(key.number as usize).copied().unwrap_or_default();
            seen |= step.bit;
            let is_sound = match key.wire_type {
                LENGTH_DELIMITED => payload(&mut bytes).is_ok_and(|payload| match step.look {
                    Look::Over => true,
                    Look::Message(at) => self.message_is_sound(at as usize, payload, depth + 1),
                    Look::Entry(at) => self.entry_is_sound(index, glance.entries.get(at as usize), payload, depth),
                    look => self.is_sound(look, Raw::Bytes(payload), index, depth),
                }),
                VARINT => varint(&mut bytes).is_ok_and(|value| match step.look {
                    Look::Over => true,
                    Look::Varint { max } => value <= max,
                    look => self.is_sound(look, Raw::Varint(value), index, depth),
                }),
                _ => read(key.wire_type, &mut bytes).is_ok_and(|raw| self.is_sound(step.look, raw, index, depth)),
            };
            if !is_sound {
                return false;
            }
        }
        seen & glance.needed == glance.needed && glance.one_of.iter().all(|members| seen & members != 0)
    }

    /// An entry of a map in the message of this index.
    fn entry_is_sound(&mut self, index: usize, looks: Option<&(Look, Look)>, bytes: &[u8], depth: usize) -> bool {
        match (looks, parts(bytes)) {
            (Some((key, value)), Some((Some(raw_key), Some(raw)))) => {
                self.is_sound(*key, raw_key, index, depth) && self.is_sound(*value, raw, index, depth + 1)
            }
            _ => false,
        }
    }

    /// A value of a field of the message of this index.
    #[inline]
    fn is_sound(&mut self, look: Look, raw: Raw<'_>, index: usize, depth: usize) -> bool {
        match (look, raw) {
            (Look::Over, _) => true,
            (Look::Text { min, max }, Raw::Bytes(bytes)) => {
                (min as usize..=max as usize).contains(&bytes.len()) && (bytes.is_ascii() || std::str::from_utf8(bytes).is_ok())
            }
            (Look::Varint { max }, Raw::Varint(value)) => value <= max,
            (Look::Message(index), Raw::Bytes(bytes)) => self.message_is_sound(index as usize, bytes, depth + 1),
            (Look::Value(at), raw) => {
                let field = self.plans.message(index).and_then(|plan| plan.fields.get(at as usize));
                field.is_some_and(|field| self.value_is_sound(&field.value, raw, depth))
            }
            _ => false,
        }
    }

    fn value_is_sound(&mut self, plan: &ValuePlan, raw: Raw<'_>, depth: usize) -> bool {
        let value = match (plan.content, raw) {
            (Content::Message(index), Raw::Bytes(bytes)) => return self.message_is_sound(index, bytes, depth + 1),
            (Content::Any, Raw::Bytes(bytes)) => return self.any_is_sound(plan.check.as_ref(), bytes, depth),
            (Content::Opaque, _) => return true,
            (Content::Scalar(kind), raw) => decode(kind, raw),
            (Content::Wrapper(kind), Raw::Bytes(bytes)) => wrapped(kind, bytes),
            (Content::Duration, Raw::Bytes(bytes)) => duration(bytes),
            _ => return false,
        };
        value.is_ok_and(|value| plan.check.as_ref().is_none_or(|check| check.broken(value).is_none()))
    }

    fn any_is_sound(&mut self, check: Option<&Check>, bytes: &[u8], depth: usize) -> bool {
        let Some((Some(Raw::Bytes(type_url)), value)) = parts(bytes) else { return false };
        if let Some(check) = check
            && std::str::from_utf8(type_url).is_ok_and(|url| check.broken(Scalar::Text(url)).is_some())
        {
            return false;
        }
        let value = match value {
            Some(Raw::Bytes(value)) => value,
            None => &[],
            Some(_) => return false,
        };
        match self.plans.by_url(type_url) {
            Some(index) => self.message_is_sound(index, value, depth + 1),
            // What no type is known of, the walk steps over.
            None => std::str::from_utf8(type_url).is_ok_and(|url| self.plans.by_name(descriptors::type_name(url)).is_none()),
        }
    }
}

/// The fields 1 and 2: key and value of a map, type and value of an Any.
fn parts(mut bytes: &[u8]) -> Option<(Option<Raw<'_>>, Option<Raw<'_>>)> {
    let (mut first, mut second) = (None, None);
    while !bytes.is_empty() {
        let key = field_key(&mut bytes).ok()?;
        let raw = match key.wire_type {
            LENGTH_DELIMITED => Raw::Bytes(payload(&mut bytes).ok()?),
            _ => read(key.wire_type, &mut bytes).ok()?,
        };
        match key.number {
            1 => first = Some(raw),
            2 => second = Some(raw),
            _ => {}
        }
    }
    Some((first, second))
}
