//! [`Desired`]: what the status of an object should say, and how that becomes a document to apply.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::condition::{Condition, Observed, Type, text, wanted_hash};

/// What is wanted of an object's status. What is `None` is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// See [`Type::Accepted`].
    pub accepted: Option<Condition>,
    /// See [`Type::Reconciled`]; `None` also while it is not known.
    pub reconciled: Option<Condition>,
    /// Addresses by host that a ServiceEntry is to have.
    pub addresses: Option<Vec<(String, IpAddr)>>,
}

/// How what is there differs from what should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Difference {
    None,
    /// In numbers of proxies only.
    Counts,
    /// In something that a user should know.
    Conditions,
    /// In addresses, which traffic needs.
    Addresses,
}

impl Desired {
    fn conditions(&self) -> [(Type, Option<&Condition>); 2] {
        [(Type::Accepted, self.accepted.as_ref()), (Type::Reconciled, self.reconciled.as_ref())]
    }

    pub(super) fn difference(&self, observed: &Observed) -> Difference {
        if self.addresses.as_ref().is_some_and(|a| wanted_hash(a) != observed.addresses) {
            return Difference::Addresses;
        }
        let of = |(kind, condition): (Type, Option<&Condition>)| {
            let Some(condition) = condition else { return Difference::None };
            let wanted = condition.mark(kind);
            match observed.marks[kind as usize] {
                Some(mark) if mark == wanted => Difference::None,
                Some(mark) if mark.coarse == wanted.coarse => Difference::Counts,
                _ => Difference::Conditions,
            }
        };
        self.conditions().into_iter().map(of).max().unwrap_or(Difference::None)
    }

    /// The document that makes the status of `current` say so; `None` if it does. Conditions of others stay as they are, in
    /// their places. A condition whose status is the same keeps its time of transition.
    pub(super) fn document(&self, current: &Value, wall: &str) -> Option<Value> {
        if self.difference(&Observed::of(current)) == Difference::None {
            return None;
        }
        let mut conditions: Vec<Value> = Vec::new();
        let known = current.pointer("/status/conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut wanted = self.conditions();
        for condition in known {
            let Some((kind, slot)) = wanted.iter_mut().find(|(kind, _)| kind.as_str() == text(condition, "type")) else {
                conditions.push(condition.clone());
                continue;
            };
            match slot.take() {
                Some(new) => conditions.push(written(*kind, new, Some(condition), wall)),
                // Left as it is, or a second one of its type.
                None if self.conditions()[*kind as usize].1.is_none() => conditions.push(condition.clone()),
                None => {}
            }
        }
        conditions.extend(wanted.into_iter().filter_map(|(kind, new)| Some(written(kind, new?, None, wall))));
        let mut status = json!({});
        if !conditions.is_empty() {
            status["conditions"] = conditions.into();
        }
        if let Some(accepted) = &self.accepted {
            status["observedGeneration"] = accepted.generation.into();
        }
        if let Some(addresses) = self.addresses.as_ref().filter(|a| !a.is_empty()) {
            status["addresses"] = addresses.iter().map(|(host, ip)| json!({"value": ip.to_string(), "host": host})).collect();
        }
        let metadata = |field: &str| current.get("metadata").map_or("", |m| text(m, field));
        Some(json!({
            "apiVersion": text(current, "apiVersion"), "kind": text(current, "kind"),
            "metadata": {"name": metadata("name"), "namespace": metadata("namespace"), "resourceVersion": metadata("resourceVersion")},
            "status": status,
        }))
    }
}

fn written(kind: Type, new: &Condition, old: Option<&Value>, wall: &str) -> Value {
    let since = old.filter(|o| text(o, "status") == new.state.as_str()).map(|o| text(o, "lastTransitionTime")).filter(|t| !t.is_empty());
    json!({
        "type": kind.as_str(), "status": new.state.as_str(), "reason": new.reason, "message": new.message,
        "observedGeneration": new.generation, "lastTransitionTime": since.unwrap_or(wall),
    })
}
