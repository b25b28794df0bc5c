//! Filter chains of one service port.

use std::sync::Arc;

use ipnet::IpNet;
use pilotfish_model::destination_rule::{HashKey, LbAlgorithm, LoadBalancer};
use pilotfish_model::name::{Host, ObjectId, Str};
use pilotfish_model::service::{Protocol, Registry, Resolution, Service, ServicePort};

use super::chain;
use crate::cluster::{NameCache, cache_of};
use crate::context::Context;
use crate::listener::network_filters::{Reading, TcpPolicy, TcpProxy, TcpTarget};
use crate::listener::spec::{ChainSpec, Content, Matching};
use crate::listener::stat_prefix::StatName;
use crate::policy::MergedRule;
use crate::route::domains;
use crate::route::l4::{self, L4Destination, L4Route, L4Rules, L4Source};

/// What tells connections to one service port from others on the same listener.
pub(super) struct Target<'a> {
    pub service: &'a Arc<Service>,
    pub port: &'a ServicePort,
    /// Port that is listened on.
    pub listen_port: u16,
    /// Range that connections are meant for; `None`: the listener's address says it.
    pub range: Option<IpNet>,
    /// The listener's address does not tell the service.
    pub shared_address: bool,
}

/// Chains for connections that are not read as HTTP, and the rules behind them.
pub(super) fn tcp(context: &Context<'_>, rules: &L4Rules, target: &Target<'_>) -> (Vec<ChainSpec>, Vec<ObjectId>) {
    let tls = target.port.protocol.is_tls();
    let routes = l4::service_port(context, rules, target.service, target.port, target.listen_port);
    let sources = routes.iter().filter_map(|r| r.source.as_ref()).map(L4Source::object).collect();
    (routes.iter().map(|route| one(context, target, route, tls)).collect(), sources)
}

fn one(context: &Context<'_>, target: &Target<'_>, route: &L4Route, tls: bool) -> ChainSpec {
    let own_name = tls && route.source.is_none() && (target.shared_address || target.range.is_some());
    let server_names: Vec<Str> = match (own_name, tls) {
        (true, _) => own_names(context, target.service),
        (false, true) => route.sni_hosts.iter().map(|h| h.as_str().into()).collect(),
        (false, false) => Vec::new(),
    };
    let any_name = server_names.iter().any(|n| &**n == "*");
    let ranges = if route.destination_subnets.is_empty() {
        target.range.into_iter().collect()
    } else {
        route.destination_subnets.iter().filter_map(|s| range(s)).collect()
    };
    let matching = Matching { ranges, server_names: if any_name { Vec::new() } else { server_names }, ..Matching::default() };
    // A rule for some addresses only is not what most connections of the listener follow, so it is not named.
    let named = tls || route.destination_subnets.is_empty();
    let config = route.source.as_ref().filter(|_| named).map(|s| s.config_path().into());
    ChainSpec {
        config,
        ..chain(matching, Content::Tcp(proxy(context, route, target.port.protocol, (target.listen_port, &target.port.name))))
    }
}

/// The names of a service by which TLS asks for it: its own, and those of its aliases with their short forms.
fn own_names(context: &Context<'_>, service: &Service) -> Vec<Str> {
    let aliases = context.world.aliases.of(&service.host).iter();
    let absolute = context.config().features.absolute_domains;
    let of_alias =
        |alias: &Host| std::iter::once(alias.to_string()).chain(domains::alternatives(alias, &context.class.dns_domain, absolute));
    std::iter::once(service.host.to_string()).chain(aliases.flat_map(of_alias)).map(Str::from).collect()
}

/// An address or a range, as users write them; the wide-open range is no condition.
fn range(text: &str) -> Option<IpNet> {
    let net = text.parse().or_else(|_| text.parse().map(|ip: std::net::IpAddr| IpNet::from(ip))).ok()?;
    (!net.addr().is_unspecified()).then_some(net)
}

/// The proxy filter for a route. `port`: number and name of the port that is listened on.
pub(in crate::listener) fn proxy(context: &Context<'_>, route: &L4Route, protocol: Protocol, port: (u16, &str)) -> TcpProxy {
    let first = &route.destinations[0];
    let weighted: Vec<(Str, u32)> = route.weighted().map(|d| (d.cluster.clone(), d.weight)).collect();
    let (stat_prefix, target) = match (route.weighted_stat_prefix(), route.destinations.as_slice()) {
        (Some(name), _) => (Str::from(name), TcpTarget::Weighted(weighted)),
        (None, _) => (stat_name(context, route, first, port), TcpTarget::Cluster(first.cluster.clone())),
    };
    TcpProxy {
        stat_prefix,
        target,
        policy: policy(context, route),
        observed: true,
        unread: false,
        reading: Reading::of(protocol),
        exchange_metadata: false,
        by_name: by_name(context, route, protocol),
    }
}

/// Where the name that TLS asks for is kept, if it says where to.
fn by_name(context: &Context<'_>, route: &L4Route, protocol: Protocol) -> Option<(NameCache, u16)> {
    let [to] = route.destinations.as_slice() else { return None };
    let service = to.service.as_ref().filter(|s| s.resolution == Resolution::DynamicDns && protocol == Protocol::Tls)?;
    // Gateways connect to no such names.
    (!context.class.is_router()).then(|| (cache_of(context.common(), &service.host), to.port))
}

/// Of a rule's destination, by the port that is listened on; of a service without rule, by its own, which has no name here.
fn stat_name(context: &Context<'_>, route: &L4Route, to: &L4Destination, listened: (u16, &str)) -> Str {
    let Some(service) = &to.service else { return to.cluster.clone() };
    let kubernetes = Some(service).filter(|s| s.registry == Registry::Kubernetes);
    let (port, port_name) = if route.source.is_some() { listened } else { (to.port, "") };
    let name = StatName {
        pattern: &context.config().outbound_cluster_stat_name,
        host: &to.host,
        name: kubernetes.map_or(to.host.as_str(), |s| &s.name),
        namespace: kubernetes.map_or("", |s| &s.namespace),
        subset: &to.subset,
        port,
        target_port: 0,
        port_name,
    };
    name.resolve().map_or_else(|| to.cluster.clone(), Into::into)
}

/// What the DestinationRule of the (first) destination says about connections.
fn policy(context: &Context<'_>, route: &L4Route) -> TcpPolicy {
    let to = &route.destinations[0];
    // One listener serves all destinations of a rule, so only one of its own can have its say.
    let subset = if route.destinations.len() == 1 { &*to.subset } else { "" };
    let Some(rule) = to.service.as_ref().and_then(|s| context.rule(s)) else { return TcpPolicy::default() };
    let tunnel = if subset.is_empty() { rule.policy.tunnel.clone() } else { rule.subset(subset).and_then(|s| s.policy.tunnel.clone()) };
    TcpPolicy { tunnel, ..of_rule(&rule, subset) }
}

/// Limits of connections are the host's: a listener cannot tell the ports and subsets that follow it.
fn of_rule(rule: &MergedRule, subset: &str) -> TcpPolicy {
    let pool = rule.policy.connection_pool.as_ref();
    let own = rule.subset(subset).and_then(|s| s.policy.load_balancer.as_ref());
    TcpPolicy {
        idle_timeout: pool.and_then(|p| p.tcp_idle_timeout),
        max_duration: pool.and_then(|p| p.max_connection_duration),
        hash_source_ip: own.or(rule.policy.load_balancer.as_ref()).is_some_and(hashes_source_ip),
        tunnel: None,
    }
}

/// The proxy filter of a gateway for connections that it passes on as they are, by the name of a cluster. Policies are no concern of
/// such connections: nothing of them can be read.
pub(in crate::listener) fn passed_on(context: &Context<'_>, service: &Service, port: &ServicePort, subset: &str, cluster: Str) -> TcpProxy {
    let kubernetes = service.registry == Registry::Kubernetes;
    let name = StatName {
        pattern: &context.config().outbound_cluster_stat_name,
        host: &service.host,
        name: if kubernetes { &service.name } else { service.host.as_str() },
        namespace: if kubernetes { &service.namespace } else { "" },
        subset,
        port: port.port,
        target_port: 0,
        port_name: &port.name,
    };
    TcpProxy {
        stat_prefix: name.resolve().map_or_else(|| cluster.clone(), Into::into),
        policy: context.rule(service).map(|rule| of_rule(&rule, subset)).unwrap_or_default(),
        reading: Reading::of(port.protocol),
        unread: true,
        ..TcpProxy::to_cluster(cluster)
    }
}

fn hashes_source_ip(balancer: &LoadBalancer) -> bool {
    matches!(&balancer.algorithm, Some(LbAlgorithm::ConsistentHash(hash)) if hash.key == HashKey::SourceIp)
}
