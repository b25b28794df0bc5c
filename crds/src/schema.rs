//! What a schema says beyond the shape of a type: rules, formats and alternatives, written as attributes of the types
//! (`#[schemars(transform = rule(..))]`), so that a type and what it must fulfil stand together.
//!
//! `structural` brings the result into the form that Kubernetes takes.

mod structural;

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

pub(crate) use structural::structural;

const RULES: &str = "x-kubernetes-validations";

/// At least a millisecond, the smallest unit that proxies keep: `1h`, `1.5s`.
pub(crate) struct Duration;

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = json_schema!({"type": "string"});
        rule("duration(self) >= duration('1ms')", "must be a valid duration greater than 1ms")(&mut schema);
        schema
    }
}

/// A duration that may be zero, which switches something off. By a pattern, because it costs nothing; there are many of them.
pub(crate) struct AnyDuration;

impl JsonSchema for AnyDuration {
    fn schema_name() -> Cow<'static, str> {
        "AnyDuration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": r"^(0|([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h))+$"})
    }
}

/// An object that the API does not look into.
pub(crate) struct FreeForm;

impl JsonSchema for FreeForm {
    fn schema_name() -> Cow<'static, str> {
        "FreeForm".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    }
}

/// A condition in CEL, and what a user reads who does not fulfil it. What it costs counts against a budget of the API server,
/// times the items of all lists around it: lists with rules need a `maxItems`.
pub(crate) fn rule(rule: &'static str, message: &'static str) -> impl Fn(&mut Schema) {
    move |schema| {
        let rules = schema.ensure_object().entry(RULES).or_insert_with(|| json!([]));
        if let Value::Array(rules) = rules {
            rules.push(json!({"rule": rule, "message": message}));
        }
    }
}

/// Takes back a rule of the type, where it does not hold for this use.
pub(crate) fn without_rule(message: &'static str) -> impl Fn(&mut Schema) {
    move |schema| {
        if let Some(Value::Array(rules)) = schema.get_mut(RULES) {
            rules.retain(|rule| rule["message"] != message);
        }
    }
}

/// At most one of these fields, with spaces between. Not a rule, because the API server counts no cost for it.
pub(crate) fn at_most_one(names: &'static str) -> impl Fn(&mut Schema) {
    move |schema| {
        let each = names.split_whitespace().map(|name| json!({"required": [name]}));
        let mut choices = vec![json!({"not": {"anyOf": each.clone().collect::<Vec<_>>()}})];
        choices.extend(each);
        let object = schema.ensure_object();
        // A second group of alternatives in the same object.
        match object.remove("oneOf") {
            None => object.insert("oneOf".into(), choices.into()),
            Some(first) => object.insert("allOf".into(), json!([{"oneOf": first}, {"oneOf": choices}])),
        };
    }
}

/// Any keyword, with any value.
pub(crate) fn set(key: &'static str, value: impl Into<Value> + Clone) -> impl Fn(&mut Schema) {
    move |schema| {
        schema.insert(key.into(), value.clone().into());
    }
}

/// The same for each item of a list or each value of a map.
pub(crate) fn each(of: impl Fn(&mut Schema)) -> impl Fn(&mut Schema) {
    move |schema| {
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get_mut(key).and_then(|inner| <&mut Schema>::try_from(inner).ok()) {
                of(inner);
            }
        }
    }
}

/// No two items with the same value of this (required) field.
pub(crate) fn list_by(key: &'static str) -> impl Fn(&mut Schema) {
    move |schema| {
        schema.insert("x-kubernetes-list-type".into(), "map".into());
        schema.insert("x-kubernetes-list-map-keys".into(), json!([key]));
    }
}

/// A port that can be connected to.
pub(crate) fn port(schema: &mut Schema) {
    rule("0 < self && self <= 65535", "port must be between 1-65535")(schema);
}

/// What a policy applies to: a selector or references, not both.
pub(crate) fn one_target(schema: &mut Schema) {
    let known = |name: &str| schema.pointer(&format!("/properties/{name}")).is_some();
    let rule_of = match known("targetRef") {
        true => "(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
        false => "!has(self.selector) || !has(self.targetRefs)",
    };
    rule(rule_of, "only one of targetRefs or selector can be set")(schema);
}
