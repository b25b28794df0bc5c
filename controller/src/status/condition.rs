//! Conditions: the table of types, and what is kept of those that an object has.

use std::net::IpAddr;

use pilotfish_model::ContentHash;
use serde_json::Value;

/// Types of conditions that are written, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// As in the Gateway API. `True`: understood and in use; with reason `Warnings`, not all as it was probably meant (rules
    /// that can never match or that stand behind another object's, deprecated fields). `False`, reason `Invalid`: not in use; the last form that was valid is.
    Accepted,
    /// As Istio's own. `True`: all connected proxies that get something made of the object have confirmed it. `False`:
    /// `Rejected`, with the words of proxies; `Pending`, some have not answered for seconds; `NotAccepted`. `Unknown`: `NoProxies`,
    /// nobody gets anything made of it. Counts are of the proxies of the replica that leads.
    Reconciled,
}

impl Type {
    /// All of them.
    pub const ALL: [Type; 2] = [Type::Accepted, Type::Reconciled];

    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Accepted => "Accepted",
            Type::Reconciled => "Reconciled",
        }
    }
}

/// A condition's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum State {
    True,
    False,
    Unknown,
}

impl State {
    /// As written.
    pub fn as_str(self) -> &'static str {
        match self {
            State::True => "True",
            State::False => "False",
            State::Unknown => "Unknown",
        }
    }
}

/// What is said of one generation of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it is so.
    pub state: State,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, for a person.
    pub message: String,
    /// Of which generation.
    pub generation: u64,
}

/// The longest message: users read them in a terminal, and every one is stored and watched.
const LONGEST: usize = 1024;

impl Condition {
    /// With a message that is cut where it gets too long.
    pub fn new(state: State, reason: &'static str, mut message: String, generation: u64) -> Self {
        if message.len() > LONGEST {
            let end = (0..=LONGEST - 3).rev().find(|i| message.is_char_boundary(*i)).unwrap_or(0);
            message.truncate(end);
            message.push_str("...");
        }
        Condition { state, reason, message, generation }
    }

    pub(super) fn mark(&self, kind: Type) -> Mark {
        Mark::of(kind, self.state.as_str(), self.reason, &self.message, Some(self.generation))
    }
}

/// A condition as hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// All of it, but for times.
    pub(super) exact: u64,
    /// Also without the numbers of proxies, which change with every one that comes or goes.
    pub(super) coarse: u64,
}

impl Mark {
    fn of(kind: Type, state: &str, reason: &str, message: &str, generation: Option<u64>) -> Mark {
        let short = |hash: ContentHash| hash.0 as u64;
        let exact = short(ContentHash::of(&(state, reason, message, generation)));
        let coarse = match kind {
            Type::Accepted => exact,
            Type::Reconciled => {
                let message: String = message.chars().filter(|c| !c.is_ascii_digit()).collect();
                short(ContentHash::of(&(state, reason, message, generation)))
            }
        };
        Mark { exact, coarse }
    }

    /// Of all conditions of a type that an object has: there should be one.
    fn of_all<'a>(kind: Type, conditions: impl Iterator<Item = &'a Value>) -> Option<Mark> {
        let marks = conditions.filter(|c| text(c, "type") == kind.as_str()).map(|c| {
            let generation = c.get("observedGeneration").and_then(number);
            Mark::of(kind, text(c, "status"), text(c, "reason"), text(c, "message"), generation)
        });
        marks.reduce(|a, b| {
            let both = ContentHash::of(&(a.exact, b.exact)).0 as u64;
            Mark { exact: both, coarse: both }
        })
    }
}

/// What is kept of the status of an object that the API server has: enough to see whether it is what it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Of the object.
    pub generation: u64,
    pub(super) marks: [Option<Mark>; 2],
    /// Of `status.addresses`; `None` if there are none.
    pub(super) addresses: Option<u64>,
}

impl Observed {
    /// Of an object as the API server sends it.
    pub fn of(object: &Value) -> Observed {
        let generation = object.pointer("/metadata/generation").and_then(number).unwrap_or_default();
        let list = |name: &str| object.get("status").and_then(|s| s.get(name)).and_then(Value::as_array).map(Vec::as_slice);
        let conditions = list("conditions").unwrap_or_default();
        let marks = Type::ALL.map(|kind| Mark::of_all(kind, conditions.iter()));
        let addresses = list("addresses").filter(|l| !l.is_empty());
        let addresses = addresses.map(|list| addresses_hash(list.iter().map(|a| (text(a, "host"), text(a, "value").to_owned()))));
        Observed { generation, marks, addresses }
    }
}

/// Of addresses with their hosts, in any order.
pub(super) fn addresses_hash<'a>(addresses: impl Iterator<Item = (&'a str, String)>) -> u64 {
    let mut all: Vec<_> = addresses.collect();
    all.sort_unstable();
    ContentHash::of(&all).0 as u64
}

/// The hash of addresses that are wanted.
pub(super) fn wanted_hash(addresses: &[(String, IpAddr)]) -> Option<u64> {
    (!addresses.is_empty()).then(|| addresses_hash(addresses.iter().map(|(host, ip)| (host.as_str(), ip.to_string()))))
}

pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Numbers that are also written as texts.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
