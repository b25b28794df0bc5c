//! Listener filters: they look at a connection before a filter chain is chosen. Looking costs time (a protocol in which the
//! server speaks first waits for the timeout), so they are switched off for ports that do not need them.

use std::collections::BTreeMap;

use pilotfish_envoy::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use pilotfish_envoy::pb::envoy::config::listener::v3::{ListenerFilter, ListenerFilterChainMatchPredicate};
use pilotfish_envoy::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use pilotfish_envoy::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use pilotfish_envoy::pb::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
use pilotfish_envoy::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use pilotfish_envoy::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use pilotfish_envoy::pb::envoy::r#type::v3::Int32Range;

use super::pack::listener_filter;
use super::spec::ChainSpec;
use crate::extensions as names;

/// Mark of connections whose client's address is kept, as the agent's routing rules know it.
const ORIGINAL_SRC_MARK: u32 = 1337;

/// Where an inspector runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Inspect {
    /// Nowhere.
    Never,
    /// On all ports.
    Always,
    /// On all ports but these.
    AllBut(Vec<u16>),
    /// On these ports only.
    Only(Vec<u16>),
}

/// The same where clients of ports without a chain are never waited for: what does not ask is named, a port 0 standing for all
/// others.
pub(super) fn inspect_but(chains: &[ChainSpec], asks: impl Fn(&ChainSpec) -> bool) -> Inspect {
    let mut ports: BTreeMap<u16, bool> = BTreeMap::new();
    for chain in chains {
        *ports.entry(chain.matching.destination_port.unwrap_or_default()).or_default() |= asks(chain);
    }
    let off: Vec<u16> = ports.iter().filter(|(_, on)| !**on).map(|(port, _)| *port).collect();
    match (off.len() == ports.len(), off.is_empty()) {
        (true, _) => Inspect::Never,
        (false, true) => Inspect::Always,
        (false, false) => Inspect::AllBut(off),
    }
}

/// Ports on which one of the chains asks for it. Chains without a port stand for all other ports.
pub(super) fn inspect(chains: &[ChainSpec], asks: impl Fn(&ChainSpec) -> bool) -> Inspect {
    let mut ports: BTreeMap<Option<u16>, bool> = BTreeMap::new();
    for chain in chains {
        *ports.entry(chain.matching.destination_port).or_default() |= asks(chain);
    }
    let default = ports.remove(&None).unwrap_or_default();
    let of = |wanted: bool| ports.iter().filter(|(_, on)| **on == wanted).filter_map(|(p, _)| *p).collect::<Vec<u16>>();
    let (on, off) = (of(true), of(false));
    match (default, on.is_empty(), off.is_empty()) {
        (false, true, _) => Inspect::Never,
        (false, false, _) => Inspect::Only(on),
        (true, _, true) => Inspect::Always,
        (true, _, false) => Inspect::AllBut(off),
    }
}

fn switched(filter: ListenerFilter, inspect: &Inspect) -> Option<ListenerFilter> {
    let filter_disabled = match inspect {
        Inspect::Never => return None,
        Inspect::Always => None,
        Inspect::AllBut(ports) => Some(on_ports(ports)),
        Inspect::Only(ports) => Some(ListenerFilterChainMatchPredicate { rule: Some(Rule::NotMatch(Box::new(on_ports(ports)))) }),
    };
    Some(ListenerFilter { filter_disabled, ..filter })
}

fn on_ports(ports: &[u16]) -> ListenerFilterChainMatchPredicate {
    let one = |port: u16| {
        let range = Int32Range { start: i32::from(port), end: i32::from(port) + 1 };
        ListenerFilterChainMatchPredicate { rule: Some(Rule::DestinationPortRange(range)) }
    };
    match ports {
        [only] => one(*only),
        many => {
            let rules = many.iter().map(|p| one(*p)).collect();
            ListenerFilterChainMatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) }
        }
    }
}

pub(super) fn tls_inspector(inspect: &Inspect) -> Option<ListenerFilter> {
    // Most handshakes fit; the buffer grows for those that do not.
    let config = TlsInspector { initial_read_buffer_size: Some(512), ..Default::default() };
    switched(listener_filter(names::TLS_INSPECTOR, &config), inspect)
}

pub(super) fn http_inspector(inspect: &Inspect) -> Option<ListenerFilter> {
    switched(listener_filter(names::HTTP_INSPECTOR, &HttpInspector {}), inspect)
}

pub(super) fn original_dst() -> ListenerFilter {
    listener_filter(names::ORIGINAL_DST, &OriginalDst {})
}

pub(super) fn original_src() -> ListenerFilter {
    listener_filter(names::ORIGINAL_SRC, &OriginalSrc { mark: ORIGINAL_SRC_MARK, ..Default::default() })
}

pub(super) fn proxy_protocol() -> ListenerFilter {
    listener_filter(names::PROXY_PROTOCOL, &ProxyProtocol::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::network_filters::TcpProxy;
    use crate::listener::spec::{Content, Matching};

    fn chain(destination_port: Option<u16>, transport: &'static str) -> ChainSpec {
        ChainSpec {
            name: "".into(),
            matching: Matching { destination_port, transport, ..Matching::default() },
            tls: None,
            content: Content::Tcp(TcpProxy::black_hole()),
            config: None,
            handshake_limit: false,
        }
    }

    #[test]
    fn an_inspector_runs_where_a_chain_asks_for_it() {
        let asks = |c: &ChainSpec| c.matching.transport == "tls";
        let of = |chains: &[(Option<u16>, &'static str)]| {
            let chains: Vec<ChainSpec> = chains.iter().map(|(port, transport)| chain(*port, transport)).collect();
            inspect(&chains, asks)
        };
        assert_eq!(of(&[(None, ""), (Some(80), "raw_buffer")]), Inspect::Never);
        assert_eq!(of(&[(None, "tls"), (None, ""), (Some(80), "tls"), (Some(80), "")]), Inspect::Always);
        assert_eq!(of(&[(None, "tls"), (Some(81), ""), (Some(80), ""), (Some(82), "tls")]), Inspect::AllBut(vec![80, 81]));
        assert_eq!(of(&[(None, ""), (Some(80), "tls"), (Some(81), "")]), Inspect::Only(vec![80]));
    }

    #[test]
    fn where_most_ports_do_not_ask_each_of_them_is_named() {
        let asks = |c: &ChainSpec| c.matching.transport == "raw_buffer";
        let of = |chains: &[(Option<u16>, &'static str)]| {
            let chains: Vec<ChainSpec> = chains.iter().map(|(port, transport)| chain(*port, transport)).collect();
            inspect_but(&chains, asks)
        };
        assert_eq!(of(&[(None, "tls"), (Some(80), "tls")]), Inspect::Never);
        assert_eq!(of(&[(None, "raw_buffer"), (Some(80), "raw_buffer"), (Some(80), "tls")]), Inspect::Always);
        assert_eq!(of(&[(None, "raw_buffer"), (Some(81), "tls"), (Some(80), "raw_buffer")]), Inspect::AllBut(vec![81]));
        assert_eq!(of(&[(None, "tls"), (Some(15006), ""), (Some(80), "raw_buffer")]), Inspect::AllBut(vec![0, 15006]));
    }

    #[test]
    fn ports_are_ranges_without_their_end() {
        let range =
            |port| ListenerFilterChainMatchPredicate { rule: Some(Rule::DestinationPortRange(Int32Range { start: port, end: port + 1 })) };
        assert_eq!(on_ports(&[80]), range(80));
        let set = MatchSet { rules: vec![range(80), range(81)] };
        assert_eq!(on_ports(&[80, 81]), ListenerFilterChainMatchPredicate { rule: Some(Rule::OrMatch(set)) });
    }
}
