//! Listeners of gateways: one per port and address of the Gateway servers that the proxy serves.

use std::collections::BTreeSet;
use std::sync::Arc;

use pilotfish_model::name::{Host, ObjectId, Str};
use pilotfish_model::service::{Protocol, Resolution};
use pilotfish_model::tls::ServerTlsMode;

use super::hcm::Http;
use super::network_filters::TcpProxy;
use super::outbound::{passed_on, route_proxy};
use super::spec::{ChainSpec, Content, ListenerSpec, Matching, Role, Tls};
use super::stat_prefix;
use crate::context::Context;
use crate::extensions::TRANSPORT_QUIC;
use crate::gateway::{self, MergedPort, MergedServer, ServerKind};
use crate::naming::{self, Direction};
use crate::route::l4;
use crate::tls::{self, GatewayTls};

/// What sidecars offer when they route by mesh names through a gateway.
const MESH_ALPN: &[&str] = &["istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// All of a gateway. A port that nothing could be served on is not opened.
pub(super) fn listeners(context: &Context<'_>) -> Vec<ListenerSpec> {
    let ports = gateway::merged(context).ports;
    ports.iter().flat_map(|port| listener(context, port).into_iter().chain(over_quic(context, port))).collect()
}

/// HTTP/3 beside a listener of HTTPS: the same servers with the same routes, told apart by the same names.
fn over_quic(context: &Context<'_>, port: &MergedPort) -> Option<ListenerSpec> {
    let class = context.class;
    if !port.http3 || !class.has_extension(TRANSPORT_QUIC) || (class.settings.unprivileged_pod && port.port < 1024) {
        return None;
    }
    let bind: Str = port.bind.clone().unwrap_or_else(|| class.wildcard_ip().into());
    let name = format!("udp_{}", naming::listener(&bind, port.port));
    let stat_prefix = stat_prefix::outbound(&name);
    let one = |server: &MergedServer| {
        let settings = server.server().tls.as_ref().filter(|_| server.route_name.is_some())?;
        let input = GatewayTls::of(context.config(), &class.unit, settings).over_quic();
        tls::gateway(&input)?;
        let own = Some(&*server.server().name).filter(|n| !n.is_empty());
        let mut chain = http(server, own.unwrap_or(&stat_prefix), Some(Tls::Gateway(Box::new(input))))?;
        if let Content::Http(http) = &mut chain.content {
            http.http3 = true;
        }
        Some(chain)
    };
    let chains: Vec<ChainSpec> = port.servers.iter().filter_map(one).collect();
    let second = (port.bind.is_none() && class.dual_stack).then_some("::");
    (!chains.is_empty()).then(|| ListenerSpec {
        name,
        binds: std::iter::once(bind).chain(second.map(Arc::from)).collect(),
        port: port.port,
        role: Role::Quic,
        bind_to_port: true,
        exact_balance: false,
        chains,
        fallback: None,
        sources: port.servers.iter().map(MergedServer::object).collect(),
    })
}

fn listener(context: &Context<'_>, port: &MergedPort) -> Option<ListenerSpec> {
    let class = context.class;
    // Without rights the proxy cannot open such a port, and the listener would only be refused.
    if class.settings.unprivileged_pod && port.port < 1024 {
        return None;
    }
    let bind: Str = port.bind.clone().unwrap_or_else(|| class.wildcard_ip().into());
    let name = naming::listener(&bind, port.port);
    let stat_prefix = stat_prefix::outbound(&name);
    let mut sources: BTreeSet<ObjectId> = port.servers.iter().map(MergedServer::object).collect();
    let clear = port.servers.iter().any(|s| s.kind() != ServerKind::Tls);
    let mut taken = BTreeSet::new();
    let mut chains: Vec<ChainSpec> = Vec::new();
    for server in &port.servers {
        let own: Vec<ChainSpec> = match server.kind() {
            ServerKind::Http => http(server, &stat_prefix, None).into_iter().collect(),
            ServerKind::Tcp => bytes(context, server, None, &mut sources),
            ServerKind::Tls => secured(context, server, &stat_prefix, &mut sources, &mut taken),
        };
        // Envoy refuses two chains for the same connections. Requests in clear text share one, with the routes of all.
        for chain in own {
            if !clear || !chains.iter().any(|c| c.matching.is_same(&chain.matching)) {
                chains.push(chain);
            }
        }
    }
    if chains.is_empty() {
        return None;
    }
    let topology = class.proxy_config.gateway_topology.as_ref();
    let second = (port.bind.is_none() && class.dual_stack).then_some("::");
    Some(ListenerSpec {
        name,
        binds: std::iter::once(bind).chain(second.map(Arc::from)).collect(),
        port: port.port,
        role: Role::Gateway {
            proxy_protocol: topology.is_some_and(|t| t.proxy_protocol.is_some()),
            tls: port.servers.iter().any(|s| s.kind() == ServerKind::Tls),
        },
        bind_to_port: true,
        exact_balance: class.settings.outbound_exact_balance,
        chains,
        fallback: None,
        sources,
    })
}

fn chain(matching: Matching, tls: Option<Tls>, content: Content) -> ChainSpec {
    ChainSpec { name: Str::default(), matching, tls, content, config: None, handshake_limit: true }
}

fn http(server: &MergedServer, stat_prefix: &str, tls: Option<Tls>) -> Option<ChainSpec> {
    let http =
        Http { grpc_web: server.server().protocol == Protocol::GrpcWeb, ..Http::rds(stat_prefix.to_owned(), server.route_name.clone()?) };
    Some(chain(by_name(server), tls, Content::Http(http)))
}

fn by_name(server: &MergedServer) -> Matching {
    names(server.sni_hosts.iter().map(|h| h.as_str()))
}

/// A name for everything is no condition.
fn names<'a>(hosts: impl Iterator<Item = &'a str>) -> Matching {
    let server_names: Vec<Str> = hosts.map(Str::from).collect();
    let all = server_names.iter().any(|n| &**n == "*");
    Matching { server_names: if all { Vec::new() } else { server_names }, ..Matching::default() }
}

/// Chains of a server with TLS. Where no certificate is named the server is left out: it must not fall back to clear text.
fn secured(
    context: &Context<'_>,
    server: &MergedServer,
    stat_prefix: &str,
    sources: &mut BTreeSet<ObjectId>,
    taken: &mut BTreeSet<Host>,
) -> Vec<ChainSpec> {
    let Some(settings) = &server.server().tls else { return Vec::new() };
    match settings.mode {
        ServerTlsMode::AutoPassthrough => return auto_passthrough(context, server),
        ServerTlsMode::Passthrough => return passthrough(context, server, sources, taken),
        _ => {}
    }
    let input = GatewayTls::of(context.config(), &context.class.unit, settings);
    if tls::gateway(&input).is_none() {
        return Vec::new();
    }
    if server.route_name.is_some() {
        // A server that has a name has it in statistics as well.
        let own = Some(&*server.server().name).filter(|n| !n.is_empty());
        return http(server, own.unwrap_or(stat_prefix), Some(Tls::Gateway(Box::new(input)))).into_iter().collect();
    }
    bytes(context, server, Some(Tls::Gateway(Box::new(input))), sources)
}

/// Bytes, in clear text or after their TLS ended here.
fn bytes(context: &Context<'_>, server: &MergedServer, tls: Option<Tls>, sources: &mut BTreeSet<ObjectId>) -> Vec<ChainSpec> {
    let protocol = server.server().protocol;
    let mesh = server.server().tls.as_ref().is_some_and(|t| t.mode == ServerTlsMode::IstioMutual);
    let to = l4::gateway_server(context, server, &mut BTreeSet::new());
    sources.extend(to.iter().filter_map(|r| r.source.as_ref()).map(l4::L4Source::object));
    to.iter()
        .map(|route| {
            let proxy = TcpProxy {
                exchange_metadata: mesh,
                ..route_proxy(context, route, protocol, (server.server().port, &server.server().port_name))
            };
            chain(by_name(server), tls.clone(), Content::Tcp(proxy))
        })
        .collect()
}

fn passthrough(
    context: &Context<'_>,
    server: &MergedServer,
    sources: &mut BTreeSet<ObjectId>,
    taken: &mut BTreeSet<Host>,
) -> Vec<ChainSpec> {
    let protocol = server.server().protocol;
    let routes = l4::gateway_server(context, server, taken);
    sources.extend(routes.iter().filter_map(|r| r.source.as_ref()).map(l4::L4Source::object));
    let one = |route: &l4::L4Route| {
        let proxy = route_proxy(context, route, protocol, (server.server().port, &server.server().port_name));
        chain(names(route.sni_hosts.iter().map(|h| h.as_str())), None, Content::Tcp(proxy))
    };
    routes.iter().map(one).collect()
}

/// A chain for every service port and subset that the server's hosts let through, by the names that sidecars write.
fn auto_passthrough(context: &Context<'_>, server: &MergedServer) -> Vec<ChainSpec> {
    let served = |s: &pilotfish_model::Service| {
        server.server().hosts.iter().any(|h| h.namespace.as_ref().is_none_or(|ns| *ns == s.namespace) && h.host.covers(&s.host))
    };
    let mut chains = Vec::new();
    for service in context.scope.services.iter().filter(|s| s.resolution != Resolution::Alias && !s.mesh_external && served(s)) {
        let rule = context.rule(service);
        let subsets = rule.iter().flat_map(|r| r.subsets.iter().map(|s| &*s.name));
        let subsets: Vec<&str> = std::iter::once("").chain(subsets).collect();
        for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
            for subset in &subsets {
                let name: Str = naming::sni(Direction::Outbound, port.port, subset, service.host.as_str()).into();
                let matching = Matching { server_names: vec![name.clone()], alpn: MESH_ALPN.to_vec(), ..Matching::default() };
                chains.push(chain(matching, None, Content::Tcp(passed_on(context, service, port, subset, name))));
            }
        }
    }
    chains
}
