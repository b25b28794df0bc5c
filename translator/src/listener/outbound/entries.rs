//! Listeners under construction: services that share an address and port share a listener.

use std::collections::BTreeMap;

use pilotfish_model::name::Str;

use crate::listener::spec::ChainSpec;

/// How a listener tells what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everything is HTTP.
    Http,
    /// Nothing is.
    Tcp,
    /// By looking.
    Auto,
}

/// One listener.
#[derive(Debug)]
pub(super) struct Entry {
    pub kind: Kind,
    pub binds: Vec<Str>,
    pub bind_to_port: bool,
    pub chains: Vec<ChainSpec>,
    locked: bool,
}

/// All listeners by address and port.
#[derive(Default)]
pub(super) struct Entries {
    by_place: BTreeMap<(Str, u16), Entry>,
}

impl Entries {
    /// Closes all that exist: what follows comes from a broader egress listener, and the narrower ones said it all.
    pub(super) fn lock(&mut self) {
        self.by_place.values_mut().for_each(|e| e.locked = true);
    }

    /// True if a service's chains on that listener would change nothing; spares making them.
    pub(super) fn has_http(&self, place: &(Str, u16)) -> bool {
        self.by_place.get(place).is_some_and(|e| e.locked || e.kind == Kind::Http)
    }

    /// Adds a service port. What was there first keeps its connections; only chains that nothing there answers are added.
    pub(super) fn add(&mut self, place: (Str, u16), binds: Vec<Str>, bind_to_port: bool, kind: Kind, chains: Vec<ChainSpec>) {
        let new = || Entry { kind, binds, bind_to_port, chains: Vec::new(), locked: false };
        let entry = self.by_place.entry(place).or_insert_with(new);
        if entry.locked {
            return;
        }
        match (entry.kind, kind) {
            (Kind::Http, Kind::Http) if !entry.chains.is_empty() => return,
            (Kind::Http, Kind::Auto) => entry.chains.clear(),
            (a, b) if a != b => entry.kind = Kind::Auto,
            _ => {}
        }
        if kind == Kind::Auto {
            entry.kind = Kind::Auto;
        }
        for chain in chains {
            if entry.chains.iter().all(|c| c.matching != chain.matching) {
                entry.chains.push(chain);
            }
        }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = ((Str, u16), Entry)> {
        self.by_place.into_iter()
    }
}
