//! Checks messages against the `validate.rules` options of their descriptors, as Envoy does before it accepts a resource:
//! a resource that fails here would be rejected by every proxy. Enter at [`validate_any`].
//!
//! The rules of all messages are compiled once into a plan; a check then walks the encoded bytes beside the plan and
//! allocates only to report. It descends into messages, lists, maps and every Any of a known type. A field that the bytes
//! hold twice, as no encoder writes it, is checked at each occurrence. What is packed in an Any and was found sound is not walked
//! again wherever else it occurs. A first look, which knows the usual rules only, and remembers what it saw lately, spares most
//! messages the walk.

mod check;
mod glance;
mod lately;
mod plan;
mod rules;
mod sound;
mod walk;
mod wire;

use std::fmt;

use prost::{Message, Name};

use crate::descriptors;
use crate::pb::google::protobuf::Any;
use plan::Plans;
use walk::Walk;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, such as `filter_chains[0].filters[1].typed_config<HttpConnectionManager>.stat_prefix`; empty for the
    /// message itself.
    pub path: String,
    /// What the rule demands, such as `must have at least 1 character`.
    pub rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{}{separator}{}", self.path, self.rule)
    }
}

/// Compiles the rules, which the first check does otherwise: some 30 ms that no client should wait for.
pub fn prepare() {
    Plans::get();
}

/// Checks a packed message. An unknown type is a violation at the top, and skipped further in.
pub fn validate_any(any: &Any) -> Result<(), Vec<Violation>> {
    validate(&any.type_url, &any.value)
}

/// Checks a message. Takes it encoded: prefer [`validate_any`] where it already is.
pub fn validate_message<M: Message + Name>(message: &M) -> Result<(), Vec<Violation>> {
    validate(&M::full_name(), &message.encode_to_vec())
}

/// Checks an encoded message; `type_name` may be a type URL.
pub fn validate(type_name: &str, bytes: &[u8]) -> Result<(), Vec<Violation>> {
    let name = descriptors::type_name(type_name);
    let plans = Plans::get();
    let Some(plan) = plans.by_name(name) else {
        return Err(vec![Violation { path: String::new(), rule: format!("has the unknown type {name:?}") }]);
    };
    let is_sound = plans.is_surely_sound(plan, bytes);
    if is_sound && !cfg!(debug_assertions) {
        return Ok(());
    }
    let violations = Walk::new(plans).run(plan, bytes);
    debug_assert!(!is_sound || violations.is_empty(), "{name}: sound at first sight, but {violations:?}");
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

#[cfg(test)]
mod tests;
