//! [`ListenerSpec`]: a listener as data, and the pure step from there to Envoy's message.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;
use pilotfish_envoy::Value;
use pilotfish_envoy::pb::envoy::config::accesslog::v3::AccessLog;
use pilotfish_envoy::pb::envoy::config::core::v3::{CidrRange, TrafficDirection, TransportSocket, UdpSocketConfig};
use pilotfish_envoy::pb::envoy::config::listener::v3::listener::ConnectionBalanceConfig;
use pilotfish_envoy::pb::envoy::config::listener::v3::listener::connection_balance_config::{BalanceType, ExactBalance};
use pilotfish_envoy::pb::envoy::config::listener::v3::{
    AdditionalAddress, Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, QuicProtocolOptions, UdpListenerConfig,
};
use pilotfish_model::Features;
use pilotfish_model::name::{ObjectId, Str};

use super::extension::Chosen;
use super::hcm::{Http, Parts, Templates};
use super::network_filters::{TcpProxy, before_requests, metadata_exchange, tcp_filters};
use super::pack::{address, datagrams, duration};
use super::settings::{Settings, Side};
use super::{access_log, listener_filters, stats_log};
use crate::metadata;
use crate::security::{self, NetworkFilters, Security};
use crate::tls::{self, GatewayTls, InboundTls};

/// ALPN of clear-text HTTP, as the HTTP inspector finds it.
pub const PLAIN_HTTP_ALPN: &[&str] = &["http/1.1", "h2c"];

/// The same where HTTP/1.0 may come as well.
pub(super) fn plain_http(features: &Features) -> &'static [&'static str] {
    // Matched where it is refused it could not even pass as bytes.
    if features.http10 { &["http/1.0", "http/1.1", "h2c"] } else { PLAIN_HTTP_ALPN }
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerSpec {
    /// Name.
    pub name: String,
    /// Addresses, or the path of a Unix socket; the first is the main one.
    pub binds: Vec<Str>,
    /// Port; 0 for Unix sockets.
    pub port: u16,
    /// What it is for.
    pub role: Role,
    /// Opens its port, as opposed to being handed connections by another listener.
    pub bind_to_port: bool,
    /// Spread connections over threads exactly.
    pub exact_balance: bool,
    /// Chains in order.
    pub chains: Vec<ChainSpec>,
    /// Where connections go that no chain matches.
    pub fallback: Option<ChainSpec>,
    /// The objects behind it.
    pub sources: BTreeSet<ObjectId>,
}

impl ListenerSpec {
    /// Policies hold for what comes through.
    pub(crate) fn is_secured(&self) -> bool {
        self.role.side() != Side::Outbound
    }

    /// Some connections are read as HTTP.
    pub fn reads_http(&self) -> bool {
        self.chains.iter().chain(&self.fallback).any(|c| matches!(c.content, Content::Http(_)))
    }
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes captured outbound connections and hands them to the listener of their destination.
    VirtualOutbound {
        /// Captured with the client's address.
        transparent: bool,
    },
    /// Takes captured inbound connections.
    VirtualInbound {
        /// Captured with the client's address.
        transparent: bool,
    },
    /// One port of the workload, not captured.
    Inbound,
    /// One destination of outbound connections.
    Outbound,
    /// A gateway's port.
    Gateway {
        /// Connections begin with a PROXY protocol header.
        proxy_protocol: bool,
        /// The first bytes are TLS.
        tls: bool,
    },
    /// A gateway's port for HTTP/3.
    Quic,
}

impl Role {
    fn side(self) -> Side {
        match self {
            Role::VirtualInbound { .. } | Role::Inbound => Side::Inbound,
            Role::VirtualOutbound { .. } | Role::Outbound => Side::Outbound,
            Role::Gateway { .. } | Role::Quic => Side::Gateway,
        }
    }
}

/// A filter chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChainSpec {
    /// Name; may be empty.
    pub name: Str,
    /// Which connections.
    pub matching: Matching,
    /// TLS to terminate.
    pub tls: Option<Tls>,
    /// What is done with them.
    pub content: Content,
    /// Path of the object behind it, for telemetry.
    pub config: Option<Str>,
    /// Handshakes must come to an end.
    pub handshake_limit: bool,
}

/// TLS to terminate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tls {
    /// With the mesh's certificates.
    Mesh(InboundTls),
    /// As a gateway's user says.
    Gateway(Box<GatewayTls>),
}

/// What a chain does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// Requests are routed.
    Http(Http),
    /// Bytes are forwarded.
    Tcp(TcpProxy),
}

/// Which connections a chain is for. Empty parts match all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Matching {
    /// Port they were meant for.
    pub destination_port: Option<u16>,
    /// Addresses they were meant for.
    pub ranges: Vec<IpNet>,
    /// Server names of their TLS.
    pub server_names: Vec<Str>,
    /// `tls`, `raw_buffer` or empty.
    pub transport: &'static str,
    /// What they negotiate.
    pub alpn: Vec<&'static str>,
}

impl Matching {
    /// Matches everything.
    pub fn is_open(&self) -> bool {
        self == &Matching::default()
    }

    /// Matches the same connections: the order of names and addresses says nothing.
    pub fn is_same(&self, other: &Matching) -> bool {
        fn set<T: Ord>(items: impl Iterator<Item = T>) -> BTreeSet<T> {
            items.collect()
        }
        (self.destination_port, self.transport, &self.alpn) == (other.destination_port, other.transport, &other.alpn)
            && set(self.server_names.iter()) == set(other.server_names.iter())
            && set(self.ranges.iter().map(IpNet::trunc)) == set(other.ranges.iter().map(IpNet::trunc))
    }

    fn message(&self) -> FilterChainMatch {
        FilterChainMatch {
            destination_port: self.destination_port.map(Into::into),
            prefix_ranges: self.ranges.iter().map(range).collect(),
            server_names: self.server_names.iter().map(ToString::to_string).collect(),
            transport_protocol: self.transport.to_owned(),
            application_protocols: self.alpn.iter().map(|a| (*a).to_owned()).collect(),
            ..Default::default()
        }
    }
}

fn range(net: &IpNet) -> CidrRange {
    CidrRange { address_prefix: net.addr().to_string(), prefix_len: Some(net.prefix_len().into()) }
}

/// What builds listeners of one class.
pub(crate) struct Builder<'a> {
    settings: &'a Settings,
    templates: Templates<'a>,
    /// Of the client's side, and of the server's.
    connection_logs: [Vec<AccessLog>; 2],
    /// What holds for what comes in.
    security: Option<&'a Security>,
    /// Its filters of connections, once they are needed.
    secured: OnceCell<NetworkFilters>,
}

impl<'a> Builder<'a> {
    /// `parts` are of the same settings, but for what is traced.
    pub(crate) fn new(settings: &'a Settings, parts: &'a Parts, security: Option<&'a Security>) -> Self {
        let connection_logs = [Side::Outbound, Side::Inbound].map(|side| {
            let written = access_log::connections(&settings.observed(side).access_logs);
            written.into_iter().chain(stats_log::connections(settings, side)).collect()
        });
        Builder { settings, templates: Templates::new(settings, parts), connection_logs, security, secured: OnceCell::new() }
    }

    pub(crate) fn listener(&mut self, spec: &ListenerSpec) -> Listener {
        let side = spec.role.side();
        let quic = spec.role == Role::Quic;
        let place = if quic { datagrams } else { address };
        let binds: Vec<_> = spec.binds.iter().map(|b| place(b, spec.port)).collect();
        let mut binds = binds.into_iter();
        let transparent = matches!(spec.role, Role::VirtualOutbound { transparent: true } | Role::VirtualInbound { transparent: true });
        let outbound = spec.role == Role::Outbound;
        let inspected = outbound || side == Side::Inbound;
        let (listener_filters, sniffs) = self.listener_filters(spec);
        let timeout = if sniffs || side == Side::Inbound { self.settings.detection_timeout } else { Duration::ZERO };
        let own_log = spec.role != Role::Outbound;
        let exact = BalanceType::ExactBalance(ExactBalance {});
        Listener {
            name: spec.name.clone(),
            address: binds.next(),
            additional_addresses: binds.map(|a| AdditionalAddress { address: Some(a), ..Default::default() }).collect(),
            filter_chains: spec.chains.iter().map(|c| self.chain(spec, c)).collect(),
            default_filter_chain: spec.fallback.as_ref().map(|c| self.chain(spec, c)),
            use_original_dst: matches!(spec.role, Role::VirtualOutbound { .. }).then_some(true),
            listener_filters,
            listener_filters_timeout: inspected.then(|| duration(timeout)),
            continue_on_listener_filters_timeout: inspected,
            transparent: transparent.then_some(true),
            traffic_direction: if side == Side::Inbound { TrafficDirection::Inbound } else { TrafficDirection::Outbound } as i32,
            connection_balance_config: spec.exact_balance.then_some(ConnectionBalanceConfig { balance_type: Some(exact) }),
            access_log: if own_log { access_log::unmatched(&self.settings.observed(side).access_logs) } else { Vec::new() },
            // One connection per wake-up spreads them over threads.
            max_connections_to_accept_per_socket_event: self.settings.features.accepts_at_a_time.filter(|_| spec.bind_to_port && !quic),
            udp_listener_config: quic.then(|| UdpListenerConfig {
                quic_options: Some(QuicProtocolOptions::default()),
                downstream_socket_config: Some(UdpSocketConfig::default()),
                ..Default::default()
            }),
            enable_reuse_port: quic.then_some(true),
            bind_to_port: (!spec.bind_to_port).then_some(false),
            per_connection_buffer_limit_bytes: self.settings.connections.listener_per_connection_buffer_limit_bytes,
            ..Default::default()
        }
    }

    /// The filters, and whether one of them waits for a protocol.
    fn listener_filters(&self, spec: &ListenerSpec) -> (Vec<ListenerFilter>, bool) {
        // They look at first bytes of a stream, which QUIC hides.
        if spec.role == Role::Quic {
            return (Vec::new(), false);
        }
        let plain_http = |c: &ChainSpec| c.matching.alpn.contains(&"h2c");
        let all_tls = matches!(spec.role, Role::Gateway { tls: true, .. });
        let by_name = |c: &ChainSpec| matches!(&c.content, Content::Tcp(tcp) if tcp.by_name.is_some());
        let tls = |c: &ChainSpec| all_tls || c.matching.transport == "tls" || !c.matching.server_names.is_empty() || by_name(c);
        let mut http = listener_filters::inspect_but(&spec.chains, plain_http);
        if matches!(spec.role, Role::VirtualOutbound { .. }) && http != listener_filters::Inspect::Never {
            http = listener_filters::Inspect::Always;
        }
        let http = listener_filters::http_inspector(&http);
        let tls = listener_filters::tls_inspector(&listener_filters::inspect(&spec.chains, tls));
        let sniffs = http.is_some();
        let mut filters = Vec::new();
        match spec.role {
            Role::VirtualInbound { transparent } => {
                filters.push(listener_filters::original_dst());
                filters.extend(transparent.then(listener_filters::original_src));
            }
            Role::Gateway { proxy_protocol: true, .. } => filters.push(listener_filters::proxy_protocol()),
            _ => {}
        }
        filters.extend(tls.into_iter().chain(http));
        (filters, sniffs)
    }

    /// Code of users that looks at the connections of a chain: not what goes to nowhere, nor what is passed on because nothing is
    /// known of it (such chains of the client's side have names), nor what a gateway reads as HTTP.
    fn connection_plugins(&self, listener: &ListenerSpec, chain: &ChainSpec) -> Chosen {
        let left_out = match (listener.role.side(), &chain.content) {
            (_, Content::Tcp(tcp)) if !tcp.observed => true,
            (Side::Outbound, _) => !chain.name.is_empty(),
            (Side::Gateway, Content::Http(_)) => true,
            _ => false,
        };
        if left_out { Chosen::new() } else { self.settings.plugins.chosen(listener.role.side(), port_of(listener, chain), true) }
    }

    /// What a chain does. Without the filters that policies need nothing may pass.
    fn content<'c>(&self, side: Side, chain: &'c ChainSpec, nowhere: &'c Content) -> &'c Content {
        let security = self.security.filter(|_| side != Side::Outbound);
        let is_http = matches!(chain.content, Content::Http(_));
        if matches!(&chain.content, Content::Tcp(tcp) if tcp.unread) {
            return &chain.content;
        }
        if security.is_some_and(|s| !security::can_enforce(self.settings, s, is_http)) { nowhere } else { &chain.content }
    }

    fn chain(&mut self, listener: &ListenerSpec, spec: &ChainSpec) -> FilterChain {
        let side = listener.role.side();
        let plugins = self.connection_plugins(listener, spec);
        let nowhere = Content::Tcp(TcpProxy::black_hole());
        let security = self.security.filter(|_| side != Side::Outbound);
        let filters: Vec<Filter> = match self.content(side, spec, &nowhere) {
            Content::Tcp(tcp) => {
                let none = NetworkFilters::default();
                let security = security.map_or(&none, |s| self.secured.get_or_init(|| security::network_filters(s)));
                tcp_filters(self.settings, side, tcp, &plugins, &self.connection_logs[usize::from(side == Side::Inbound)], security)
            }
            Content::Http(http) => {
                if let Some(s) = security {
                    self.templates.secure(|| security::http_filters(self.settings, s));
                }
                let exchange = if side == Side::Inbound { metadata_exchange(self.settings) } else { None };
                let before = exchange.into_iter().chain(before_requests(self.settings, &plugins));
                before.chain([self.templates.connection_manager(side, port_of(listener, spec), http)]).collect()
            }
        };
        // An empty match beside the pass-through chain's name is part of what tools know.
        let matching = (!spec.matching.is_open() || &*spec.name == PASSTHROUGH_CHAIN).then(|| spec.matching.message());
        FilterChain {
            filter_chain_match: matching,
            filters,
            metadata: spec.config.as_ref().map(|path| metadata::istio([("config", Value::text(path))])),
            transport_socket: spec.tls.as_ref().and_then(socket),
            transport_socket_connect_timeout: spec.handshake_limit.then(|| duration(self.settings.features.gateway_handshake.into())),
            name: spec.name.to_string(),
            ..Default::default()
        }
    }
}

/// Port that the connections of a chain were meant for; 0: any.
fn port_of(listener: &ListenerSpec, chain: &ChainSpec) -> u16 {
    if matches!(listener.role, Role::VirtualInbound { .. }) { chain.matching.destination_port.unwrap_or(0) } else { listener.port }
}

/// Chain of connections that none of a listener's services is meant by.
pub const PASSTHROUGH_CHAIN: &str = "PassthroughFilterChain";

fn socket(tls: &Tls) -> Option<TransportSocket> {
    match tls {
        Tls::Mesh(input) => Some(tls::inbound(input)),
        Tls::Gateway(input) => tls::gateway(input),
    }
}
