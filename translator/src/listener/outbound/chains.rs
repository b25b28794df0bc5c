//! Filter chains of one service port.

use std::sync::Arc;

use ipnet::IpNet;
use pilotfish_model::destination_rule::{HashKey, LbAlgorithm, TrafficPolicy};
use pilotfish_model::name::{ObjectId, Str};
use pilotfish_model::service::{Protocol, Registry, Service, ServicePort};

use super::chain;
use crate::context::Context;
use crate::listener::network_filters::{TcpPolicy, TcpProxy, TcpTarget};
use crate::listener::spec::{ChainSpec, Content, Matching};
use crate::listener::stat_prefix::StatName;
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
        (true, _) => vec![target.service.host.as_str().into()],
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
    ChainSpec { config, ..chain(matching, Content::Tcp(proxy(context, route, target.port.protocol))) }
}

/// An address or a range, as users write them; the wide-open range is no condition.
fn range(text: &str) -> Option<IpNet> {
    let net = text.parse().or_else(|_| text.parse().map(|ip: std::net::IpAddr| IpNet::from(ip))).ok()?;
    (!net.addr().is_unspecified()).then_some(net)
}

/// The proxy filter for a route.
pub(in crate::listener) fn proxy(context: &Context<'_>, route: &L4Route, protocol: Protocol) -> TcpProxy {
    let first = &route.destinations[0];
    let weighted: Vec<(Str, u32)> = route.weighted().map(|d| (d.cluster.clone(), d.weight)).collect();
    let (stat_prefix, target) = match (route.weighted_stat_prefix(), route.destinations.as_slice()) {
        (Some(name), _) => (Str::from(name), TcpTarget::Weighted(weighted)),
        (None, _) => (stat_name(context, first), TcpTarget::Cluster(first.cluster.clone())),
    };
    TcpProxy {
        stat_prefix,
        target,
        policy: policy(context, first),
        observed: true,
        mongo: protocol == Protocol::Mongo,
        exchange_metadata: false,
    }
}

fn stat_name(context: &Context<'_>, to: &L4Destination) -> Str {
    let kubernetes = to.service.as_ref().filter(|s| s.registry == Registry::Kubernetes);
    let port_name = to.service.as_ref().and_then(|s| s.port(to.port)).map_or("", |p| &p.name);
    let name = StatName {
        pattern: &context.config().outbound_cluster_stat_name,
        host: &to.host,
        name: kubernetes.map_or(to.host.as_str(), |s| &s.name),
        namespace: kubernetes.map_or("", |s| &s.namespace),
        subset: &to.subset,
        port: to.port,
        target_port: 0,
        port_name,
    };
    name.resolve().map_or_else(|| to.cluster.clone(), Into::into)
}

/// What the DestinationRule of the (first) destination says about connections.
fn policy(context: &Context<'_>, to: &L4Destination) -> TcpPolicy {
    let Some(service) = &to.service else { return TcpPolicy::default() };
    let Some(rule) = context.rule(service) else { return TcpPolicy::default() };
    let policy = rule.policy_for(rule.subset(&to.subset), to.port);
    let pool = policy.connection_pool.as_ref();
    TcpPolicy {
        idle_timeout: pool.and_then(|p| p.tcp_idle_timeout),
        max_duration: pool.and_then(|p| p.max_connection_duration),
        hash_source_ip: hashes_source_ip(&policy),
        tunnel: policy.tunnel.clone(),
    }
}

fn hashes_source_ip(policy: &TrafficPolicy) -> bool {
    let algorithm = policy.load_balancer.as_ref().and_then(|l| l.algorithm.as_ref());
    matches!(algorithm, Some(LbAlgorithm::ConsistentHash(hash)) if hash.key == HashKey::SourceIp)
}
