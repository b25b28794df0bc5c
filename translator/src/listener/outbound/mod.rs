//! Listeners for what the workload opens: one that takes all captured connections, one per destination, and the HTTP proxy.

mod chains;
mod entries;
mod services;
mod virtual_outbound;

use std::sync::Arc;

use pilotfish_model::name::Str;
use pilotfish_model::proxy::Interception;
use pilotfish_model::service::Resolution;
use pilotfish_model::sidecar::OutboundMode;

use super::hcm::Http;
use super::network_filters::TcpProxy;
use super::spec::{ChainSpec, Content, ListenerSpec, Matching, Role};
use super::stat_prefix;
use crate::cluster::{NameCache, cache_of};
use crate::context::Context;
use crate::naming::{self, Direction};
use crate::route::names::HTTP_PROXY;
use crate::scope::EgressScope;

pub(super) use chains::{passed_on, proxy as route_proxy};
pub(super) use virtual_outbound::dynamic_dns_routes;

/// All of a sidecar.
pub(super) fn listeners(context: &Context<'_>) -> Vec<ListenerSpec> {
    let catch_all = catch_all(context);
    let mut specs = Vec::new();
    if context.class.interception != Interception::None {
        specs.push(virtual_outbound::listener(context, catch_all.clone()));
    }
    specs.extend(services::listeners(context, &catch_all));
    specs.extend(http_proxy(context));
    specs
}

/// What happens to connections to the unknown.
pub fn traffic_mode(context: &Context<'_>) -> OutboundMode {
    context.scope.outbound_policy().map_or(context.config().outbound_traffic_policy.mode, |p| p.mode)
}

/// Where connections to the unknown go.
fn catch_all(context: &Context<'_>) -> TcpProxy {
    let policy = context.scope.outbound_policy();
    if let Some((host, port, subset)) =
        policy.and_then(|p| p.egress_proxy.as_ref()).filter(|_| traffic_mode(context) != OutboundMode::RegistryOnly)
    {
        let cluster: Str = naming::cluster(Direction::Outbound, *port, subset, host.as_str()).into();
        return TcpProxy { stat_prefix: cluster.clone(), ..TcpProxy::to_cluster(cluster) };
    }
    match traffic_mode(context) {
        OutboundMode::RegistryOnly => TcpProxy::to_cluster(naming::BLACK_HOLE),
        OutboundMode::AllowAny | OutboundMode::AllowAnyDynamicDns => TcpProxy::to_cluster(naming::PASSTHROUGH),
    }
}

/// The explicit HTTP proxy, where a port for it is set.
fn http_proxy(context: &Context<'_>) -> Option<ListenerSpec> {
    let class = context.class;
    let port = class.settings.http_proxy_port.unwrap_or(context.config().proxy_http_port);
    if port == 0 {
        return None;
    }
    let binds = localhosts(context);
    let name = naming::listener(&binds[0], port);
    let mut caches: Vec<NameCache> = context.scope.egress.iter().flat_map(|e| caches(context, e)).map(|(_, cache)| cache).collect();
    caches.sort();
    caches.dedup();
    let http = Http { absolute_url: true, caches, ..Http::rds(stat_prefix::outbound(&name), HTTP_PROXY.into()) };
    Some(ListenerSpec {
        name,
        binds,
        port,
        role: Role::Outbound,
        bind_to_port: true,
        exact_balance: class.settings.outbound_exact_balance,
        chains: vec![chain(Matching::default(), Content::Http(http))],
        fallback: None,
        sources: Default::default(),
    })
}

/// Where names are kept that requests bring, with the ports that read requests.
fn caches(context: &Context<'_>, scope: &EgressScope) -> Vec<(u16, NameCache)> {
    let mut found = Vec::new();
    for service in scope.services.iter().filter(|s| s.resolution == Resolution::DynamicDns) {
        let cache = cache_of(context.common(), &service.host);
        found.extend(service.ports.iter().filter(|p| p.protocol.is_http()).map(|p| (p.port, cache.clone())));
    }
    found
}

fn chain(matching: Matching, content: Content) -> ChainSpec {
    ChainSpec { name: Str::default(), matching, tls: None, content, config: None, handshake_limit: true }
}

/// Addresses that stand for all, of each family that the proxy has.
fn wildcards(context: &Context<'_>) -> Vec<Str> {
    let class = context.class;
    let first = class.wildcard_ip();
    let second = (class.ipv4 && class.ipv6).then_some("::");
    std::iter::once(first).chain(second).map(Arc::from).collect()
}

/// Loopback addresses, of each family that the proxy has.
fn localhosts(context: &Context<'_>) -> Vec<Str> {
    let class = context.class;
    let first = class.localhost_ip();
    let second = (class.ipv4 && class.ipv6).then_some("::1");
    std::iter::once(first).chain(second).map(Arc::from).collect()
}
