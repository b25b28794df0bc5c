//! Where connections go that are not routed by HTTP: `tls` and `tcp` rules of VirtualServices, answered with what a filter
//! chain needs. Enter at [`service_port`] for outbound listeners, at [`gateway_server`] for gateways.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilotfish_model::gateway::GatewayServer;
use pilotfish_model::name::{Host, Kind, Labels, ObjectId, Str, selects};
use pilotfish_model::service::{Service, ServicePort};
use pilotfish_model::virtual_service::{Destination, GatewayRef, L4Match, TcpDestination, VirtualService};

use crate::context::Context;
use crate::facts::ScopeFacts;
use crate::gateway::MergedServer;
use crate::naming::{self, Direction};
use crate::world::Rules;

/// One filter chain's worth: what to match at run time, and where to go then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct L4Route {
    /// Where it comes from; `None`: the service itself, no rule says otherwise.
    pub source: Option<L4Source>,
    /// Server names to match, as written; empty: any.
    pub sni_hosts: Vec<Host>,
    /// Addresses to match instead of the service's own; empty: the service's own.
    pub destination_subnets: Vec<Str>,
    /// Where to, weights as written. Never empty.
    pub destinations: Vec<L4Destination>,
}

/// The VirtualService behind a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct L4Source {
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
}

impl L4Source {
    /// The object.
    pub fn object(&self) -> ObjectId {
        ObjectId::new(Kind::VirtualService, self.namespace.clone(), self.name.clone())
    }

    /// Its path in the API, for metadata.
    pub fn config_path(&self) -> String {
        super::config_path(&self.namespace, &self.name)
    }
}

/// One weighted destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct L4Destination {
    /// Cluster name.
    pub cluster: Str,
    /// Host as the rule names it.
    pub host: Host,
    /// Port of the cluster.
    pub port: u16,
    /// Subset; may be empty.
    pub subset: Str,
    /// Relative weight.
    pub weight: u32,
    /// The service, if the class sees it: for stat names and DestinationRules.
    pub service: Option<Arc<Service>>,
}

impl L4Route {
    /// What statistics call a chain with several destinations: the rule's name and namespace. `None` with one.
    pub fn weighted_stat_prefix(&self) -> Option<String> {
        let source = self.source.as_ref().filter(|_| self.destinations.len() > 1)?;
        Some(format!("{}.{}", source.name, source.namespace))
    }

    /// Destinations that count: where there are several, those without weight get nothing.
    pub fn weighted(&self) -> impl Iterator<Item = &L4Destination> {
        let several = self.destinations.len() > 1;
        self.destinations.iter().filter(move |d| !several || d.weight > 0)
    }
}

/// Rules of the mesh gateway by host, made once per listener generation, so that asking for a service is cheap.
pub struct L4Rules {
    exact: BTreeMap<Host, Vec<usize>>,
    wildcard: Vec<(Host, usize)>,
    rules: Vec<Arc<Rules>>,
}

impl L4Rules {
    /// Keeps those that have `tls` or `tcp` rules. Takes them in order, oldest first (an egress scope's
    /// `virtual_services`).
    pub fn new<'a>(virtual_services: impl IntoIterator<Item = &'a Arc<Rules>>) -> Self {
        let mut rules = L4Rules { exact: BTreeMap::new(), wildcard: Vec::new(), rules: Vec::new() };
        for v in virtual_services.into_iter().filter(|v| v.is_l4()) {
            let index = rules.rules.len();
            for host in &v.hosts {
                if host.is_wildcard() {
                    rules.wildcard.push((host.clone(), index));
                } else {
                    rules.exact.entry(host.clone()).or_default().push(index);
                }
            }
            rules.rules.push(v.clone());
        }
        rules
    }

    /// Rules that speak for a host, oldest first.
    pub fn of_host(&self, host: &Host) -> Vec<&Arc<Rules>> {
        let mut found: BTreeSet<usize> = self.wildcard.iter().filter(|(h, _)| h.overlaps(host)).map(|(_, i)| *i).collect();
        if host.is_wildcard() {
            found.extend(self.exact.iter().filter(|(h, _)| host.covers(h)).flat_map(|(_, i)| i));
        } else {
            found.extend(self.exact.get(host).into_iter().flatten());
        }
        found.into_iter().map(|i| &self.rules[i]).collect()
    }
}

/// Routes for connections to `port` of `service` out of a sidecar, in order. `listen_port` is the port listened on (0 for
/// Unix sockets); it differs from the service's where an egress listener has a port of its own.
///
/// TLS ports follow `tls` rules, all others `tcp` rules. The last route, where no rule takes everything, is the service's
/// own cluster (`source: None`); for TLS ports it exists only if no rule applies at all.
pub fn service_port(context: &Context<'_>, rules: &L4Rules, service: &Arc<Service>, port: &ServicePort, listen_port: u16) -> Vec<L4Route> {
    let matching = rules.of_host(&service.host);
    let place = Place { class: context.class, gateway: &GatewayRef::Mesh, port: listen_port };
    if port.protocol.is_tls() {
        let routes = tls_routes(context, &matching, &place);
        return if routes.is_empty() { vec![own_cluster(service, listen_port)] } else { routes };
    }
    let (mut routes, complete) = tcp_routes(context, &matching, &place);
    if !complete {
        routes.push(own_cluster(service, listen_port));
    }
    routes
}

/// Routes of a gateway server that is not routed by HTTP. TLS that stays closed follows `tls` rules (one route per match,
/// server names in each); everything else the first `tcp` rule that fits (one route at most). `taken`: server names that rules
/// of servers on the same listener have already, which Envoy does not take twice.
pub fn gateway_server(context: &Context<'_>, server: &MergedServer, taken: &mut BTreeSet<Host>) -> Vec<L4Route> {
    let gateway = server.gateway_ref();
    let place = Place { class: context.class, gateway: &gateway, port: server.server().port };
    let all = context.scope.egress.iter().flat_map(|e| &*e.virtual_services);
    let matching: Vec<&Arc<Rules>> = all.filter(|v| v.gateways.contains(&gateway) && serves(server.server(), v)).collect();
    if crate::gateway::is_passthrough(server.server()) {
        let mut routes = Vec::new();
        for (v, rule, condition) in tls_matches(&matching).filter(|(_, _, c)| place.gateway_accepts(&c.l4)) {
            if condition.sni_hosts.iter().all(|h| !taken.contains(h)) {
                taken.extend(condition.sni_hosts.iter().cloned());
                routes.extend(route(context, v, &rule.route, place.port, condition.sni_hosts.clone(), Vec::new()));
            }
        }
        return routes;
    }
    let fits = |matches: &[L4Match]| matches.is_empty() || matches.iter().any(|m| place.gateway_accepts(m));
    let first = matching.iter().flat_map(|v| v.tcp.iter().map(move |r| (v, r))).find(|(_, r)| fits(&r.matches));
    first.and_then(|(v, r)| route(context, v, &r.route, place.port, Vec::new(), Vec::new())).into_iter().collect()
}

/// Whether a server's hosts let a VirtualService in.
pub(crate) fn serves(server: &GatewayServer, v: &VirtualService) -> bool {
    server
        .hosts
        .iter()
        .any(|h| h.namespace.as_ref().is_none_or(|ns| *ns == v.meta.namespace) && v.hosts.iter().any(|host| h.host.overlaps(host)))
}

/// What conditions that are known beforehand are compared with.
struct Place<'a> {
    class: &'a ScopeFacts,
    gateway: &'a GatewayRef,
    port: u16,
}

impl Place<'_> {
    fn accepts(&self, condition: &L4Match) -> bool {
        self.gateway_accepts(condition) && source_accepts(self.class, &condition.source_labels, condition.source_namespace.as_ref())
    }

    fn gateway_accepts(&self, condition: &L4Match) -> bool {
        condition.port.is_none_or(|p| p == self.port) && (condition.gateways.is_empty() || condition.gateways.contains(self.gateway))
    }
}

/// Whether a rule is for clients such as this one.
pub(super) fn source_accepts(class: &ScopeFacts, labels: &Labels, namespace: Option<&Str>) -> bool {
    selects(labels, &class.labels) && namespace.is_none_or(|n| n.is_empty() || *n == class.namespace)
}

type TlsCondition<'a> = (&'a Arc<Rules>, &'a pilotfish_model::virtual_service::TlsRoute, &'a pilotfish_model::virtual_service::TlsMatch);

fn tls_matches<'a>(rules: &'a [&'a Arc<Rules>]) -> impl Iterator<Item = TlsCondition<'a>> {
    rules.iter().flat_map(|v| v.tls.iter().flat_map(move |r| r.matches.iter().map(move |m| (*v, r, m))))
}

/// Of conditions that look alike at run time only the first can ever be met.
fn tls_routes(context: &Context<'_>, rules: &[&Arc<Rules>], place: &Place<'_>) -> Vec<L4Route> {
    let mut seen = BTreeSet::new();
    let mut routes = Vec::new();
    for (v, rule, condition) in tls_matches(rules).filter(|(_, _, c)| place.accepts(&c.l4)) {
        if seen.insert((&condition.sni_hosts, &condition.l4.destination_subnets)) {
            let subnets = if place.port > 0 { condition.l4.destination_subnets.clone() } else { Vec::new() };
            routes.extend(route(context, v, &rule.route, place.port, condition.sni_hosts.clone(), subnets));
        }
    }
    routes
}

/// The routes, and whether the last one takes everything.
fn tcp_routes(context: &Context<'_>, rules: &[&Arc<Rules>], place: &Place<'_>) -> (Vec<L4Route>, bool) {
    let mut routes = Vec::new();
    for (v, rule) in rules.iter().flat_map(|v| v.tcp.iter().map(move |r| (*v, r))) {
        let accepted: Vec<&L4Match> = rule.matches.iter().filter(|m| place.accepts(m)).collect();
        let open = accepted.iter().position(|m| m.destination_subnets.is_empty() || place.port == 0);
        if rule.matches.is_empty() || open.is_some() {
            routes.extend(route(context, v, &rule.route, place.port, Vec::new(), Vec::new()));
            return (routes, true);
        }
        let subnets: Vec<Str> = accepted.iter().flat_map(|m| m.destination_subnets.iter().cloned()).collect();
        if !subnets.is_empty() {
            routes.extend(route(context, v, &rule.route, place.port, Vec::new(), subnets));
        }
    }
    (routes, false)
}

fn route(
    context: &Context<'_>,
    v: &VirtualService,
    to: &[TcpDestination],
    listen_port: u16,
    sni_hosts: Vec<Host>,
    destination_subnets: Vec<Str>,
) -> Option<L4Route> {
    let destinations: Vec<L4Destination> = to.iter().map(|d| destination(context, d, listen_port)).collect();
    let source = Some(L4Source { namespace: v.meta.namespace.clone(), name: v.meta.name.clone() });
    (!destinations.is_empty()).then_some(L4Route { source, sni_hosts, destination_subnets, destinations })
}

fn destination(context: &Context<'_>, to: &TcpDestination, listen_port: u16) -> L4Destination {
    let service = context.scope.service(&to.destination.host);
    let port = destination_port(&to.destination, service.map(|s| &**s), listen_port);
    let cluster_host = destination_host(&to.destination, service.map(|s| &**s));
    L4Destination {
        cluster: naming::cluster(Direction::Outbound, port, &to.destination.subset, cluster_host.as_str()).into(),
        host: to.destination.host.clone(),
        port,
        subset: to.destination.subset.clone(),
        weight: to.weight,
        service: service.cloned(),
    }
}

/// The port a destination means: the one it names, the only one of its service, else the one the client asked for.
pub(super) fn destination_port(destination: &Destination, service: Option<&Service>, listen_port: u16) -> u16 {
    match (destination.port, service.map(|s| s.ports.as_slice())) {
        (Some(port), _) => port,
        (None, Some([only])) => only.port,
        _ => listen_port,
    }
}

/// The host of a destination's cluster. An alias has none of its own: what it stands for has.
pub(super) fn destination_host<'a>(destination: &'a Destination, service: Option<&'a Service>) -> &'a Host {
    service.and_then(|s| s.external_name.as_ref()).unwrap_or(&destination.host)
}

/// The service's own cluster. A listener on another port than the service's leads to its only port.
fn own_cluster(service: &Arc<Service>, listen_port: u16) -> L4Route {
    let port = if let [only] = service.ports.as_slice() { only.port } else { listen_port };
    let destination = L4Destination {
        cluster: naming::cluster(Direction::Outbound, port, "", service.host.as_str()).into(),
        host: service.host.clone(),
        port,
        subset: Str::default(),
        weight: 0,
        service: Some(service.clone()),
    };
    L4Route { source: None, sni_hosts: Vec::new(), destination_subnets: Vec::new(), destinations: vec![destination] }
}
