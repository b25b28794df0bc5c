//! Walks encoded bytes beside a plan.

use std::collections::HashSet;

use prost::encoding::{DecodeContext, WireType, skip_field};

use super::Violation;
use super::check::Scalar;
use super::plan::{Content, FieldPlan, MessagePlan, Plans, ScalarKind, ValuePlan, broken_size};
use super::sound::Sound;
use super::wire::{FIXED32, FIXED64, Malformed, Raw, VARINT, field_key, next, read};
use crate::descriptors;
use crate::path::Path;

/// Nesting that protobuf decoders accept.
pub(super) const MAX_DEPTH: usize = 100;
/// Size in bytes from which an Any is looked up before it is walked.
const WORTH_A_LOOK: usize = 64;

/// One check of one message.
pub(super) struct Walk<'p> {
    plans: &'p Plans,
    /// How often each field of the messages on the way was seen; a stack, so that messages need no allocation each.
    counts: Vec<u32>,
    violations: Vec<Violation>,
}

impl<'p> Walk<'p> {
    pub(super) fn new(plans: &'p Plans) -> Self {
        Walk { plans, counts: Vec::new(), violations: Vec::new() }
    }

    pub(super) fn run(mut self, plan: usize, bytes: &[u8]) -> Vec<Violation> {
        self.message(plan, bytes, &Path::ROOT, 0);
        self.violations
    }

    fn message(&mut self, index: usize, bytes: &[u8], path: &Path<'_>, depth: usize) {
        let Some(plan) = self.plans.message(index) else { return };
        if depth > MAX_DEPTH {
            return self.report(path, "is nested too deeply");
        }
        let base = self.counts.len();
        self.counts.resize(base + plan.fields.len(), 0);
        match self.fields(plan, base, bytes, path, depth) {
            Ok(()) => self.absences(plan, base, bytes, path),
            Err(Malformed) => self.report(path, format!("does not decode as {}", plan.name)),
        }
        self.counts.truncate(base);
    }

    fn fields(&mut self, plan: &MessagePlan, base: usize, mut bytes: &[u8], path: &Path<'_>, depth: usize) -> Result<(), Malformed> {
        let mut at = 0;
        while !bytes.is_empty() {
            let key = field_key(&mut bytes)?;
            let Some(found) = plan.position(key.number, at) else {
                let wire_type = WireType::try_from(u64::from(key.wire_type)).map_err(|_| Malformed)?;
                skip_field(wire_type, key.number, &mut bytes, DecodeContext::default()).map_err(|_| Malformed)?;
                continue;
            };
            at = found;
            let raw = read(key.wire_type, &mut bytes)?;
            let field = &plan.fields[at];
            let seen = &mut self.counts[base + at];
            let position = *seen as usize;
            *seen += 1;
            let path = path.field(&field.name);
            if let Some(key) = &field.key {
                let Raw::Bytes(entry) = raw else { return Err(Malformed) };
                self.entry(key, &field.value, entry, &path, depth)?;
            } else if field.is_list {
                let mut next = position;
                for_each_item(field.value.content, raw, |item| {
                    let result = self.value(&field.value, item, &path.index(next), depth);
                    next += 1;
                    result
                })?;
                self.counts[base + at] = next as u32;
            } else {
                self.value(&field.value, raw, &path, depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, key: &ValuePlan, value: &ValuePlan, mut bytes: &[u8], path: &Path<'_>, depth: usize) -> Result<(), Malformed> {
        let (mut raw_key, mut raw_value) = (None, None);
        while !bytes.is_empty() {
            let (number, raw) = next(&mut bytes)?;
            match number {
                1 => raw_key = Some(raw),
                2 => raw_value = Some(raw),
                _ => {}
            }
        }
        let raw_key = raw_key.unwrap_or_else(|| absent(key.content));
        let number;
        let shown = match raw_key {
            Raw::Bytes(text) => std::str::from_utf8(text).map_err(|_| Malformed)?,
            Raw::Varint(v) | Raw::Fixed64(v) => {
                number = v.to_string();
                &number
            }
            Raw::Fixed32(v) => {
                number = v.to_string();
                &number
            }
        };
        let path = path.key(shown);
        self.value(key, raw_key, &path, depth)?;
        self.value(value, raw_value.unwrap_or_else(|| absent(value.content)), &path, depth + 1)
    }

    fn value(&mut self, plan: &ValuePlan, raw: Raw<'_>, path: &Path<'_>, depth: usize) -> Result<(), Malformed> {
        match (plan.content, raw) {
            (Content::Message(index), Raw::Bytes(bytes)) => self.message(index, bytes, path, depth + 1),
            (Content::Any, Raw::Bytes(bytes)) => self.any(plan, bytes, path, depth)?,
            (Content::Opaque, _) => {}
            (Content::Scalar(_) | Content::Wrapper(_) | Content::Duration, _) if plan.check.is_none() => {}
            (Content::Scalar(kind), raw) => self.scalar(plan, decode(kind, raw)?, path),
            (Content::Wrapper(kind), Raw::Bytes(bytes)) => self.scalar(plan, wrapped(kind, bytes)?, path),
            (Content::Duration, Raw::Bytes(bytes)) => self.scalar(plan, duration(bytes)?, path),
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn any(&mut self, plan: &ValuePlan, bytes: &[u8], path: &Path<'_>, depth: usize) -> Result<(), Malformed> {
        let part = |number| match last_field(bytes, number)? {
            Some(Raw::Bytes(part)) => Ok(part),
            None => Ok(&[][..]),
            Some(_) => Err(Malformed),
        };
        let type_url = std::str::from_utf8(part(1)?).map_err(|_| Malformed)?;
        self.scalar(plan, Scalar::Text(type_url), path);
        let key = (bytes.len() >= WORTH_A_LOOK).then(|| Sound::key(bytes, depth));
        if key.is_some_and(|key| self.plans.sound.has(key)) {
            return Ok(());
        }
        let name = descriptors::type_name(type_url);
        let Some(index) = self.plans.by_name(name) else { return Ok(()) };
        let before = self.violations.len();
        self.message(index, part(2)?, &path.unpacked(name), depth + 1);
        if let Some(key) = key.filter(|_| self.violations.len() == before) {
            self.plans.sound.put(key);
        }
        Ok(())
    }

    fn scalar(&mut self, plan: &ValuePlan, value: Scalar<'_>, path: &Path<'_>) {
        if let Some(broken) = plan.check.as_ref().and_then(|check| check.broken(value)) {
            self.report(path, broken);
        }
    }

    /// What is broken by not being there, and what only shows in the whole.
    fn absences(&mut self, plan: &MessagePlan, base: usize, bytes: &[u8], path: &Path<'_>) {
        for (at, field) in plan.counted.iter().map(|at| (*at, &plan.fields[*at])) {
            let count = self.counts[base + at];
            let broken = if count == 0 && field.required {
                Some("is required".to_owned())
            } else if count == 0 && field.implicit {
                field.broken_default.clone()
            } else {
                broken_size(&field.limits, count.into())
            };
            if let Some(broken) = broken {
                self.report(&path.field(&field.name), broken);
            }
            if field.limits.unique && count > 1 && has_duplicates(bytes, field) {
                self.report(&path.field(&field.name), "must not hold an item twice");
            }
        }
        for oneof in &plan.required_oneofs {
            let present = |number: &u32| plan.position(*number, 0).is_some_and(|at| self.counts[base + at] > 0);
            if !oneof.members.iter().any(present) {
                self.report(&path.field(&oneof.name), "is required: one of its fields must be set");
            }
        }
    }

    fn report(&mut self, path: &Path<'_>, rule: impl Into<String>) {
        self.violations.push(Violation { path: path.to_string(), rule: rule.into() });
    }
}

/// What the default value of a field breaks.
pub(super) fn broken_default(field: &FieldPlan) -> Option<String> {
    let (Content::Scalar(kind), Some(check)) = (field.value.content, &field.value.check) else { return None };
    check.broken(decode(kind, absent(field.value.content)).ok()?)
}

pub(super) fn decode(kind: ScalarKind, raw: Raw<'_>) -> Result<Scalar<'_>, Malformed> {
    Ok(match (kind, raw) {
        (ScalarKind::Signed, Raw::Varint(v)) => Scalar::Int((v as i64).into()),
        (ScalarKind::Unsigned, Raw::Varint(v)) => Scalar::Int(v.into()),
        (ScalarKind::Zigzag, Raw::Varint(v)) => Scalar::Int((((v >> 1) as i64) ^ -((v & 1) as i64)).into()),
        (ScalarKind::Bool, Raw::Varint(v)) => Scalar::Bool(v != 0),
        (ScalarKind::Float, Raw::Fixed32(v)) => Scalar::Float(f32::from_bits(v).into()),
        (ScalarKind::Double, Raw::Fixed64(v)) => Scalar::Float(f64::from_bits(v)),
        (ScalarKind::Fixed { signed: false, .. }, Raw::Fixed32(v)) => Scalar::Int(v.into()),
        (ScalarKind::Fixed { signed: true, .. }, Raw::Fixed32(v)) => Scalar::Int((v as i32).into()),
        (ScalarKind::Fixed { signed: false, .. }, Raw::Fixed64(v)) => Scalar::Int(v.into()),
        (ScalarKind::Fixed { signed: true, .. }, Raw::Fixed64(v)) => Scalar::Int((v as i64).into()),
        (ScalarKind::Text, Raw::Bytes(v)) => Scalar::Text(std::str::from_utf8(v).map_err(|_| Malformed)?),
        (ScalarKind::Bytes, Raw::Bytes(v)) => Scalar::Bytes(v),
        _ => return Err(Malformed),
    })
}

/// The scalar in a message that holds one.
pub(super) fn wrapped(kind: ScalarKind, bytes: &[u8]) -> Result<Scalar<'_>, Malformed> {
    decode(kind, last_field(bytes, 1)?.unwrap_or_else(|| absent(Content::Scalar(kind))))
}

/// In nanoseconds.
pub(super) fn duration(bytes: &[u8]) -> Result<Scalar<'static>, Malformed> {
    let part = |number| match last_field(bytes, number)? {
        Some(Raw::Varint(part)) => Ok(i128::from(part as i64)),
        None => Ok(0),
        Some(_) => Err(Malformed),
    };
    Ok(Scalar::Int(part(1)? * 1_000_000_000 + part(2)?))
}

/// The default value of a kind.
fn absent(content: Content) -> Raw<'static> {
    match content {
        Content::Scalar(ScalarKind::Float | ScalarKind::Fixed { bits: 32, .. }) => Raw::Fixed32(0),
        Content::Scalar(ScalarKind::Double | ScalarKind::Fixed { .. }) => Raw::Fixed64(0),
        Content::Scalar(ScalarKind::Signed | ScalarKind::Unsigned | ScalarKind::Zigzag | ScalarKind::Bool) => Raw::Varint(0),
        _ => Raw::Bytes(&[]),
    }
}

/// The last wins, as in every protobuf decoder.
fn last_field(mut bytes: &[u8], wanted: u32) -> Result<Option<Raw<'_>>, Malformed> {
    let mut last = None;
    while !bytes.is_empty() {
        let (number, raw) = next(&mut bytes)?;
        if number == wanted {
            last = Some(raw);
        }
    }
    Ok(last)
}

/// The items in one occurrence of a list field: one, or all that are packed into it.
fn for_each_item<'b>(content: Content, raw: Raw<'b>, mut f: impl FnMut(Raw<'b>) -> Result<(), Malformed>) -> Result<(), Malformed> {
    let wire_type = match content {
        Content::Scalar(ScalarKind::Float | ScalarKind::Fixed { bits: 32, .. }) => FIXED32,
        Content::Scalar(ScalarKind::Double | ScalarKind::Fixed { .. }) => FIXED64,
        Content::Scalar(ScalarKind::Signed | ScalarKind::Unsigned | ScalarKind::Zigzag | ScalarKind::Bool) => VARINT,
        _ => return f(raw),
    };
    let Raw::Bytes(mut packed) = raw else { return f(raw) };
    while !packed.is_empty() {
        f(read(wire_type, &mut packed)?)?;
    }
    Ok(())
}

fn has_duplicates(mut bytes: &[u8], field: &FieldPlan) -> bool {
    let mut seen = HashSet::new();
    let mut duplicate = false;
    while !bytes.is_empty() && !duplicate {
        let Ok((number, raw)) = next(&mut bytes) else { break };
        if number == field.number {
            let walked = for_each_item(field.value.content, raw, |item| {
                duplicate |= !seen.insert(item);
                Ok(())
            });
            duplicate |= walked.is_err();
        }
    }
    duplicate
}
