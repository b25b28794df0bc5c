//! A first look at encoded bytes: whether they surely break no rule.
//!
//! It decides the rules that nearly every field has, keeps no path and says nothing of what is wrong. Whatever it does not know
//! or does not like is for the walk to judge, so it may only err on one side.

use super::check::{Check, Scalar};
use super::plan::{Content, FieldPlan, MessagePlan, Plans, ScalarKind, ValuePlan};
use super::sound::Sound;
use super::walk::{MAX_DEPTH, Raw, decode, duration, field_key, read, wrapped};
use crate::descriptors;

/// Size in bytes from which an Any is looked up before it is looked into.
const WORTH_A_LOOK: usize = 192;
/// Fields that one message can wait for.
const BITS: u32 = u64::BITS;

/// What a look at one message asks.
#[derive(Default)]
pub(super) struct Glance {
    /// By the number of the field. What is beyond is stepped over.
    steps: Box<[Step]>,
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
    /// A field of a map, at this index.
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
        for (at, field) in plan.fields.iter().enumerate() {
            let bit = awaited.iter().position(|i| *i == at).map_or(0, |position| 1 << position);
            let look = if counts(field) { Look::Unsure } else { look(field, at as u32) };
            if plan.counted.contains(&at) && must_be_there(field) {
                glance.needed |= bit;
            }
            glance.steps[field.number as usize] = Step { bit, look };
        }
        let bits = |members: &[u32]| members.iter().filter_map(|n| glance.steps.get(*n as usize)).fold(0, |all, step| all | step.bit);
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

fn look(field: &FieldPlan, at: u32) -> Look {
    if field.key.is_some() {
        return Look::Entry(at);
    }
    match (field.value.content, &field.value.check) {
        (Content::Message(index), _) => Look::Message(index as u32),
        (Content::Any, _) => Look::Value(at),
        (_, None) => Look::Over,
        (Content::Scalar(ScalarKind::Text), Some(check)) => check.by_len().map_or(Look::Value(at), |(min, max)| Look::Text { min, max }),
        (Content::Scalar(ScalarKind::Signed | ScalarKind::Unsigned), Some(check)) => {
            check.up_to().map_or(Look::Value(at), |max| Look::Varint { max })
        }
        _ => Look::Value(at),
    }
}

impl Plans {
    /// Whether a message surely breaks no rule. False says nothing.
    pub(super) fn is_surely_sound(&self, index: usize, mut bytes: &[u8], depth: usize) -> bool {
        let Some((plan, glance)) = self.message(index).zip(self.glances.get(index)) else { return false };
        if glance.unsure || depth > MAX_DEPTH {
            return false;
        }
        let mut seen = 0;
        while !bytes.is_empty() {
            let Ok((number, wire_type)) = field_key(&mut bytes) else { return false };
            let Ok(raw) = read(wire_type, &mut bytes) else { return false };
            let Some(step) = glance.steps.get(number as usize) else { continue };
            seen |= step.bit;
            let sound = match (step.look, raw) {
                (Look::Over, _) => true,
                (Look::Text { min, max }, Raw::Bytes(bytes)) => {
                    (min as usize..=max as usize).contains(&bytes.len()) && (bytes.is_ascii() || std::str::from_utf8(bytes).is_ok())
                }
                (Look::Varint { max }, Raw::Varint(value)) => value <= max,
                (Look::Message(index), Raw::Bytes(bytes)) => self.is_surely_sound(index as usize, bytes, depth + 1),
                (Look::Value(at), raw) => plan.fields.get(at as usize).is_some_and(|f| self.value_is_sound(&f.value, raw, depth)),
                (Look::Entry(at), Raw::Bytes(bytes)) => plan.fields.get(at as usize).is_some_and(|f| self.entry_is_sound(f, bytes, depth)),
                _ => false,
            };
            if !sound {
                return false;
            }
        }
        seen & glance.needed == glance.needed && glance.one_of.iter().all(|members| seen & members != 0)
    }

    fn value_is_sound(&self, plan: &ValuePlan, raw: Raw<'_>, depth: usize) -> bool {
        let value = match (plan.content, raw) {
            (Content::Message(index), Raw::Bytes(bytes)) => return self.is_surely_sound(index, bytes, depth + 1),
            (Content::Any, Raw::Bytes(bytes)) => return self.any_is_sound(plan.check.as_ref(), bytes, depth),
            (Content::Opaque, _) => return true,
            (Content::Scalar(kind), raw) => decode(kind, raw),
            (Content::Wrapper(kind), Raw::Bytes(bytes)) => wrapped(kind, bytes),
            (Content::Duration, Raw::Bytes(bytes)) => duration(bytes),
            _ => return false,
        };
        value.is_ok_and(|value| plan.check.as_ref().is_none_or(|check| check.broken(value).is_none()))
    }

    fn entry_is_sound(&self, field: &FieldPlan, bytes: &[u8], depth: usize) -> bool {
        match (&field.key, parts(bytes)) {
            (Some(key), Some((Some(raw_key), Some(value)))) => {
                self.value_is_sound(key, raw_key, depth) && self.value_is_sound(&field.value, value, depth + 1)
            }
            _ => false,
        }
    }

    fn any_is_sound(&self, check: Option<&Check>, bytes: &[u8], depth: usize) -> bool {
        let Some((Some(Raw::Bytes(type_url)), value)) = parts(bytes) else { return false };
        let Ok(type_url) = std::str::from_utf8(type_url) else { return false };
        if check.is_some_and(|check| check.broken(Scalar::Text(type_url)).is_some()) {
            return false;
        }
        let key = (bytes.len() >= WORTH_A_LOOK).then(|| Sound::key(bytes, depth));
        if key.is_some_and(|key| self.sound.has(key)) {
            return true;
        }
        let value = match value {
            Some(Raw::Bytes(value)) => value,
            None => &[],
            Some(_) => return false,
        };
        let sound = self.by_name(descriptors::type_name(type_url)).is_none_or(|index| self.is_surely_sound(index, value, depth + 1));
        if let Some(key) = key.filter(|_| sound) {
            self.sound.put(key);
        }
        sound
    }
}

/// The fields 1 and 2: key and value of a map, type and value of an Any.
fn parts(mut bytes: &[u8]) -> Option<(Option<Raw<'_>>, Option<Raw<'_>>)> {
    let (mut first, mut second) = (None, None);
    while !bytes.is_empty() {
        let (number, wire_type) = field_key(&mut bytes).ok()?;
        let raw = read(wire_type, &mut bytes).ok()?;
        match number {
            1 => first = Some(raw),
            2 => second = Some(raw),
            _ => {}
        }
    }
    Some((first, second))
}
