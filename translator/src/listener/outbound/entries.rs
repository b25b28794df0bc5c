//! Listeners under construction: services that share an address and port share a listener.

use std::collections::{BTreeMap, BTreeSet};

use pilotfish_model::name::{ObjectId, Str};

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
    pub sources: BTreeSet<ObjectId>,
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
        let new = || Entry { kind, binds, bind_to_port, chains: Vec::new(), sources: BTreeSet::new(), locked: false };
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

    /// Takes note of the objects behind a listener, unless it is closed.
    pub(super) fn note(&mut self, place: &(Str, u16), sources: impl IntoIterator<Item = ObjectId>) {
        if let Some(entry) = self.by_place.get_mut(place).filter(|e| !e.locked) {
            entry.sources.extend(sources);
        }
    }

    pub(super) fn into_iter(self) -> impl Iterator<Item = ((Str, u16), Entry)> {
        self.by_place.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::hcm::Http;
    use crate::listener::network_filters::TcpProxy;
    use crate::listener::spec::{Content, Matching, PLAIN_HTTP_ALPN};

    fn http(routes: &str) -> ChainSpec {
        let matching = Matching { transport: "raw_buffer", alpn: PLAIN_HTTP_ALPN.to_vec(), ..Matching::default() };
        super::super::chain(matching, Content::Http(Http::rds("stat;".into(), routes.into())))
    }

    fn tcp(cluster: &str) -> ChainSpec {
        super::super::chain(Matching::default(), Content::Tcp(TcpProxy::to_cluster(cluster)))
    }

    fn merged(services: &[(Kind, Vec<ChainSpec>)]) -> (Kind, Vec<ChainSpec>) {
        let mut entries = Entries::default();
        for (kind, chains) in services {
            entries.add(("0.0.0.0".into(), 80), vec!["0.0.0.0".into()], false, *kind, chains.clone());
        }
        let entry = entries.into_iter().next().unwrap().1;
        (entry.kind, entry.chains)
    }

    #[test]
    fn services_of_one_port_share_a_listener() {
        use Kind::{Auto, Http, Tcp};
        for (services, expected) in [
            // The first of its kind keeps the connections.
            (vec![(Http, vec![http("80")]), (Http, vec![http("80")])], (Http, vec![http("80")])),
            (vec![(Tcp, vec![tcp("a")]), (Tcp, vec![tcp("b")])], (Tcp, vec![tcp("a")])),
            // Different kinds live side by side.
            (vec![(Http, vec![http("80")]), (Tcp, vec![tcp("a")])], (Auto, vec![http("80"), tcp("a")])),
            (vec![(Tcp, vec![tcp("a")]), (Http, vec![http("80")])], (Auto, vec![tcp("a"), http("80")])),
            // What looks at its connections takes the place of what does not.
            (vec![(Http, vec![http("80")]), (Auto, vec![tcp("a"), http("80")])], (Auto, vec![tcp("a"), http("80")])),
            (vec![(Auto, vec![tcp("a"), http("80")]), (Http, vec![http("80")])], (Auto, vec![tcp("a"), http("80")])),
        ] {
            assert_eq!(merged(&services), expected);
        }
    }

    #[test]
    fn a_locked_listener_takes_nothing_more() {
        let mut entries = Entries::default();
        let place = (Str::from("0.0.0.0"), 80);
        entries.add(place.clone(), Vec::new(), false, Kind::Http, vec![http("80")]);
        entries.lock();
        entries.add(place.clone(), Vec::new(), false, Kind::Tcp, vec![tcp("a")]);
        assert_eq!(entries.into_iter().next().unwrap().1.chains, [http("80")]);
    }
}
