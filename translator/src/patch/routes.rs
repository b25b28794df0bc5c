//! Patches of route configurations, their virtual hosts and routes.

use pilotfish_envoy::pb::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost, route::Action};
use pilotfish_model::envoy_filter::{ApplyTo, HostMatch, Matching, Operation, PatchContext, RouteAction, RouteMatch, RoutesMatch};

use super::compile::Ready;
use super::run::Run;
use super::set::PortNames;
use super::{cluster, list, merge};

/// Applies all patches of a configuration, which keeps its name.
pub(super) fn patch(run: &Run<'_>, mut routes: RouteConfiguration) -> RouteConfiguration {
    let name = routes.name.clone();
    for (at, ready) in run.of_kind(ApplyTo::RouteConfiguration).filter(|(_, p)| is_of(run.context, run.ports, p, &name)) {
        if let Some(lists) = merge::lists(ready.patch.operation) {
            run.note(at, merge::into(&mut routes, ready, lists));
        }
    }
    let hosts = std::mem::take(&mut routes.virtual_hosts);
    routes.virtual_hosts = hosts.into_iter().filter_map(|host| virtual_host(run, &name, host)).collect();
    for (at, ready) in run.of_kind(ApplyTo::VirtualHost).filter(|(_, p)| p.patch.operation == Operation::Add) {
        if is_of(run.context, run.ports, ready, &name) {
            routes.virtual_hosts.push(ready.value());
            run.applied(at);
        }
    }
    RouteConfiguration { name, ..routes }
}

fn virtual_host(run: &Run<'_>, configuration: &str, mut host: VirtualHost) -> Option<VirtualHost> {
    for (at, ready) in run.of_kind(ApplyTo::VirtualHost) {
        if !is_of(run.context, run.ports, ready, configuration) || !is_host(ready, &host) {
            continue;
        }
        match (ready.patch.operation, merge::lists(ready.patch.operation)) {
            (Operation::Remove, _) => {
                run.applied(at);
                return None;
            }
            (Operation::Replace, _) => {
                host = ready.value();
                run.applied(at);
            }
            (_, Some(lists)) => run.note(at, merge::into(&mut host, ready, lists)),
            _ => {}
        }
    }
    let of_host = |(_, p): &(usize, &Ready)| is_of(run.context, run.ports, p, configuration);
    let routes = std::mem::take(&mut host.routes);
    let of_routes: Vec<(usize, &Ready)> = run.of_kind(ApplyTo::HttpRoute).filter(of_host).filter(|(_, p)| is_host(p, &host)).collect();
    host.routes = routes.into_iter().filter_map(|route| merged(run, &of_routes, route)).collect();
    for (at, ready) in of_routes {
        let operation = ready.patch.operation;
        let is_wanted = |r: &Route| is_route(ready, r);
        let found: Option<&dyn Fn(&Route) -> bool> = if route_match(ready).is_some() { Some(&is_wanted) } else { None };
        let insertion = matches!(operation, Operation::Add | Operation::InsertBefore | Operation::InsertAfter | Operation::InsertFirst);
        // Even what goes first is only for hosts that have the route.
        let missing = operation == Operation::InsertFirst && found.is_some_and(|found| !host.routes.iter().any(found));
        if insertion && !missing && list::apply(&mut host.routes, operation, found, || ready.value()) {
            run.applied(at);
        }
    }
    Some(host)
}

fn merged(run: &Run<'_>, patches: &[(usize, &Ready)], mut route: Route) -> Option<Route> {
    for (at, ready) in patches {
        if !is_route(ready, &route) {
            continue;
        }
        match (ready.patch.operation, merge::lists(ready.patch.operation)) {
            (Operation::Remove, _) => {
                run.applied(*at);
                return None;
            }
            (_, Some(lists)) => run.note(*at, merge::into(&mut route, ready, lists)),
            _ => {}
        }
    }
    Some(route)
}

fn routes_match(ready: &Ready) -> Option<&RoutesMatch> {
    match &ready.patch.matching {
        Some(Matching::Routes(m)) => Some(m),
        _ => None,
    }
}

fn route_match(ready: &Ready) -> Option<&RouteMatch> {
    routes_match(ready)?.host.as_ref()?.route.as_ref()
}

/// Whether a patch is of a configuration of that name.
pub(super) fn is_of(context: PatchContext, ports: &PortNames, ready: &Ready, name: &str) -> bool {
    let Some(wanted) = routes_match(ready) else { return true };
    if !wanted.name.is_empty() && *wanted.name != *name {
        return false;
    }
    if context != PatchContext::Gateway {
        let port = || cluster::inbound_port(name).or_else(|| name.parse().ok()).unwrap_or(0);
        return wanted.port == 0 || wanted.port == port();
    }
    let own = GatewayRoute::parse(name).unwrap_or_default();
    let listens = || match ports.get(&own.port) {
        Some(ports) => ports.iter().any(|p| u32::from(*p) == wanted.port),
        None => u32::from(own.port) == wanted.port,
    };
    (wanted.port_name.is_empty() || *wanted.port_name == *own.port_name)
        && (wanted.gateway.is_empty() || *wanted.gateway == *own.gateway)
        && (wanted.port == 0 || listens())
}

/// What the name of a gateway's route configuration says. Those of clear-text HTTP are of no single Gateway.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GatewayRoute {
    pub(super) port: u16,
    port_name: String,
    /// `namespace/name`.
    gateway: String,
}

impl GatewayRoute {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            ["http", port, ..] => Some(GatewayRoute { port: port.parse().ok()?, ..GatewayRoute::default() }),
            ["https", port, port_name, gateway, namespace, ..] => Some(GatewayRoute {
                port: port.parse().ok()?,
                port_name: (*port_name).to_owned(),
                gateway: format!("{namespace}/{gateway}"),
            }),
            _ => None,
        }
    }
}

fn is_host(ready: &Ready, host: &VirtualHost) -> bool {
    let Some(HostMatch { name, domain, .. }) = routes_match(ready).and_then(|m| m.host.as_ref()) else { return true };
    (name.is_empty() || **name == *host.name) && (domain.is_empty() || host.domains.iter().any(|d| **d == **domain))
}

fn is_route(ready: &Ready, route: &Route) -> bool {
    let Some(RouteMatch { name, action }) = route_match(ready) else { return true };
    let does = || match &route.action {
        Some(Action::Route(_)) => *action == Some(RouteAction::Route),
        Some(Action::Redirect(_)) => *action == Some(RouteAction::Redirect),
        Some(Action::DirectResponse(_)) => *action == Some(RouteAction::DirectResponse),
        _ => true,
    };
    (name.is_empty() || **name == *route.name) && (action.is_none() || does())
}
