//! Listeners under construction: services that share an address and port share a listener.

use std::collections::{BTreeMap, BTreeSet};

use pilotfish_model::name::{ObjectId, Str};
use pilotfish_model::service::Protocol;

use crate::listener::spec::ChainSpec;

/// One listener.
#[derive(Debug)]
pub(super) struct Entry {
    pub binds: Vec<Str>,
    pub bind_to_port: bool,
    pub chains: Vec<ChainSpec>,
    pub sources: BTreeSet<ObjectId>,
    /// What it gets; [`Protocol::Auto`]: it looks.
    protocol: Protocol,
    locked: bool,
}

/// All listeners by address and port.
#[derive(Default)]
pub(super) struct Entries {
    by_place: BTreeMap<(Str, u16), Entry>,
}

/// One service port that wants to be listened for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub binds: Vec<Str>,
    pub bind_to_port: bool,
    /// Of the service port.
    pub protocol: Protocol,
    pub chains: Vec<ChainSpec>,
}

impl Entries {
    /// Closes all that exist: what follows comes from a broader egress listener, and the narrower ones said it all.
    pub(super) fn lock(&mut self) {
        self.by_place.values_mut().for_each(|e| e.locked = true);
    }

    /// True if chains of that protocol on that listener would change nothing; spares making them.
    pub(super) fn is_served(&self, place: &(Str, u16), protocol: Protocol) -> bool {
        self.by_place.get(place).is_some_and(|e| match e.protocol {
            _ if e.locked => true,
            Protocol::Auto => !protocol.is_tcp(),
            known => known.is_http() && protocol.is_http(),
        })
    }

    /// Adds a service port. What was there first keeps its connections; only chains that nothing there answers are added.
    /// `looks`: what looks like HTTP is told from the rest, whatever the port says.
    pub(super) fn add(&mut self, place: (Str, u16), wanted: Wanted, looks: bool) {
        let Wanted { binds, bind_to_port, protocol, chains } = wanted;
        let own = if looks { Protocol::Auto } else { protocol };
        if self.is_served(&place, protocol) {
            return;
        }
        let new = || Entry { protocol: own, binds, bind_to_port, chains: Vec::new(), sources: BTreeSet::new(), locked: false };
        let entry = match self.by_place.entry(place) {
            std::collections::btree_map::Entry::Vacant(vacant) => vacant.insert(new()),
            std::collections::btree_map::Entry::Occupied(occupied) => {
                let entry = occupied.into_mut();
                // Their servers speak first, so nobody can look at what clients say.
                let speaks_first = |p: Protocol| matches!(p, Protocol::Mongo | Protocol::Mysql);
                if entry.protocol != protocol && (speaks_first(entry.protocol) || speaks_first(protocol)) {
                    return;
                }
                match (entry.protocol, protocol) {
                    (known, Protocol::Auto) if known.is_http() => *entry = new(),
                    (known, other) if known.is_tcp() && other.is_tcp() => {}
                    _ => entry.protocol = Protocol::Auto,
                }
                entry
            }
        };
        for chain in chains {
            if !entry.chains.iter().any(|c| c.matching.is_same(&chain.matching)) {
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

    fn wanted(protocol: Protocol, chains: Vec<ChainSpec>) -> Wanted {
        Wanted { binds: vec!["0.0.0.0".into()], bind_to_port: false, protocol, chains }
    }

    fn merged(services: &[(Protocol, bool, Vec<ChainSpec>)]) -> (Protocol, Vec<ChainSpec>) {
        let mut entries = Entries::default();
        for (protocol, looks, chains) in services {
            entries.add(("0.0.0.0".into(), 80), wanted(*protocol, chains.clone()), *looks);
        }
        let entry = entries.into_iter().next().unwrap().1;
        (entry.protocol, entry.chains)
    }

    #[test]
    fn services_of_one_port_share_a_listener() {
        use Protocol::{Auto, Http, Mongo, Tcp};
        let (h, t, n) = (http("80"), tcp("a"), http("named"));
        for (services, expected) in [
            // The first of its kind keeps the connections.
            (vec![(Http, true, vec![h.clone()]), (Http, true, vec![n.clone()])], (Auto, vec![h.clone()])),
            (vec![(Tcp, false, vec![t.clone()]), (Tcp, false, vec![tcp("b")])], (Tcp, vec![t.clone()])),
            // Different kinds live side by side.
            (vec![(Http, true, vec![h.clone()]), (Tcp, false, vec![t.clone()])], (Auto, vec![h.clone(), t.clone()])),
            (vec![(Tcp, false, vec![t.clone()]), (Http, true, vec![h.clone()])], (Auto, vec![t.clone(), h.clone()])),
            // Where somebody looks already, another one who wants to look finds nothing to do.
            (vec![(Http, true, vec![h.clone()]), (Auto, true, vec![t.clone(), n.clone()])], (Auto, vec![h.clone()])),
            (vec![(Auto, true, vec![t.clone(), h.clone()]), (Http, true, vec![n.clone()])], (Auto, vec![t.clone(), h.clone()])),
            // Where nobody does, it takes the place of what is sure to get HTTP.
            (vec![(Http, false, vec![h.clone()]), (Auto, true, vec![t.clone(), n.clone()])], (Auto, vec![t.clone(), n.clone()])),
            // Servers that speak first share with their own kind only.
            (vec![(Mongo, false, vec![t.clone()]), (Tcp, false, vec![tcp("b")]), (Http, true, vec![h.clone()])], (Mongo, vec![t.clone()])),
            (vec![(Http, true, vec![h.clone()]), (Mongo, false, vec![t.clone()])], (Auto, vec![h.clone()])),
        ] {
            assert_eq!(merged(&services), expected);
        }
    }

    #[test]
    fn a_locked_listener_takes_nothing_more() {
        let mut entries = Entries::default();
        let place = (Str::from("0.0.0.0"), 80);
        entries.add(place.clone(), wanted(Protocol::Http, vec![http("80")]), true);
        entries.lock();
        entries.add(place.clone(), wanted(Protocol::Tcp, vec![tcp("a")]), false);
        assert_eq!(entries.into_iter().next().unwrap().1.chains, [http("80")]);
    }
}
