//! One listener per destination: shared by port where HTTP tells the service, by address where only that does.

use std::sync::Arc;

use pilotfish_model::endpoint::{Endpoint, EndpointAddress};
use pilotfish_model::name::Str;
use pilotfish_model::proxy::Interception;
use pilotfish_model::service::{Address, Protocol, Registry, Resolution, Service, ServicePort};
use pilotfish_model::sidecar::{CaptureMode, EgressListener, ListenerPort};

use super::chains::{self, Target};
use super::entries::{Entries, Entry, Wanted};
use super::{chain, localhosts, wildcards};
use crate::addresses::{self, Place};
use crate::cluster::NameCache;
use crate::context::Context;
use crate::listener::hcm::Http;
use crate::listener::network_filters::TcpProxy;
use crate::listener::spec::{ChainSpec, Content, ListenerSpec, Matching, PASSTHROUGH_CHAIN, Role, plain_http};
use crate::listener::stat_prefix;
use crate::naming;
use crate::route::l4::L4Rules;
use crate::route::names;
use crate::scope::EgressScope;

pub(super) fn listeners(context: &Context<'_>, catch_all: &TcpProxy) -> Vec<ListenerSpec> {
    let mut entries = Entries::default();
    let wildcards = wildcards(context);
    for scope in &context.scope.egress {
        let egress = Egress::of(context, scope, &wildcards);
        match scope.listener.as_ref().and_then(|l| l.port.as_ref().map(|p| (l, p))) {
            Some((listener, port)) => egress.own_port(&mut entries, listener, port),
            None => {
                entries.lock();
                egress.all_ports(&mut entries);
            }
        }
    }
    let exact_balance = context.class.settings.outbound_exact_balance;
    entries.into_iter().map(|(place, entry)| spec(place, entry, catch_all, exact_balance)).collect()
}

/// One egress listener while its services are gone through.
struct Egress<'a> {
    context: &'a Context<'a>,
    scope: &'a EgressScope,
    rules: L4Rules,
    wildcards: &'a [Str],
    /// Addresses that the user or the lack of capture asks for, the main one first; none: those of services.
    binds: Vec<Str>,
    bind_to_port: bool,
    /// Where names are kept that requests bring, with their ports.
    caches: Vec<(u16, NameCache)>,
}

impl<'a> Egress<'a> {
    fn of(context: &'a Context<'a>, scope: &'a EgressScope, wildcards: &'a [Str]) -> Self {
        let listener = scope.listener.as_ref();
        let own = listener.and_then(|l| l.bind.clone()).filter(|b| !b.is_empty());
        // Nothing is captured that goes to a Unix socket.
        let opened = |l: &EgressListener| l.capture == CaptureMode::None || own.as_ref().is_some_and(|b| b.starts_with("unix://"));
        let bind_to_port = context.class.interception == Interception::None || listener.is_some_and(opened);
        let binds = match own {
            Some(own) => vec![own],
            None if bind_to_port => localhosts(context),
            None => Vec::new(),
        };
        let rules = L4Rules::new(&*scope.virtual_services);
        Egress { context, scope, rules, wildcards, binds, bind_to_port, caches: super::caches(context, scope) }
    }

    /// A listener with a port of its own takes everything that its hosts import, whatever their ports are.
    fn own_port(&self, entries: &mut Entries, listener: &EgressListener, port: &ListenerPort) {
        if !self.can_bind(port.number) {
            return;
        }
        let routes = names::of_egress_port(port, listener.bind.as_deref());
        let port = ServicePort { name: port.name.clone(), port: port.number, protocol: port.protocol, target_port: None };
        for service in self.scope.services.iter().filter(|s| s.resolution != Resolution::Alias) {
            self.add(entries, service, &port, &self.binds, routes.clone());
        }
    }

    fn all_ports(&self, entries: &mut Entries) {
        for service in self.scope.services.iter().filter(|s| s.resolution != Resolution::Alias) {
            for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp && self.can_bind(p.port)) {
                let routes = names::of_service_port(service, port);
                match self.pods(service, port) {
                    Some(pods) => {
                        for pod in pods {
                            self.add(entries, service, port, &pod, routes.clone());
                        }
                    }
                    None => self.add(entries, service, port, &self.binds, routes),
                }
            }
        }
    }

    /// Addresses of the endpoints, where clients choose among them: services without an address whose connections cannot
    /// be told apart otherwise. The workload's own is left out. `None`: the service has one listener.
    fn pods(&self, service: &Service, port: &ServicePort) -> Option<Vec<Vec<Str>>> {
        let chosen = service.resolution == Resolution::Passthrough && (port.protocol.is_tcp() || port.protocol == Protocol::Auto);
        if !self.binds.is_empty() || !chosen || !addresses::is_bare(self.context.class, service) {
            return None;
        }
        let endpoints: Vec<&Endpoint> = self.context.mesh.endpoints_of(service).iter().filter(|e| e.answers_for(port)).collect();
        if endpoints.is_empty() && service.registry == Registry::External && service.selector.is_empty() {
            return None;
        }
        let own = self.context.class.own_ip.as_ref();
        let others = endpoints.into_iter().filter_map(|e| match e.address {
            EndpointAddress::Ip(ip) if Some(&ip) != own => {
                Some(std::iter::once(ip).chain(e.additional_addresses.iter().copied()).map(|ip| ip.to_string().into()).collect())
            }
            _ => None,
        });
        Some(others.collect())
    }

    fn can_bind(&self, port: u16) -> bool {
        !(self.bind_to_port && self.context.class.settings.unprivileged_pod && port < 1024)
    }

    /// Ports of the proxy itself must not be taken by a listener for all addresses.
    fn is_reserved(&self, bind: Option<&Str>, port: u16, http: bool) -> bool {
        let wide = match bind {
            Some(bind) => *bind == self.wildcards[0],
            None => http,
        };
        let config = self.context.config();
        let own = [config.proxy_listen_port, config.proxy_inbound_listen_port];
        wide && (own.contains(&port) || self.context.class.settings.reserved_ports.contains(&port))
    }

    fn add(&self, entries: &mut Entries, service: &Arc<Service>, port: &ServicePort, binds: &[Str], routes: Option<Str>) {
        if port.protocol.is_http() {
            if !self.is_reserved(binds.first(), port.port, true) {
                self.add_http(entries, port, binds, routes);
            }
            return;
        }
        if self.is_reserved(binds.first(), port.port, false) {
            return;
        }
        let places = if binds.is_empty() { addresses::places(self.context.class, service) } else { vec![Place::default()] };
        for Place { address: target, more } in places {
            let binds: Vec<Str> = match target {
                _ if !binds.is_empty() => binds.to_vec(),
                Some(address @ Address::Ip(_)) => std::iter::once(address).chain(more).map(|a| a.to_string().into()).collect(),
                _ => self.wildcards.to_vec(),
            };
            self.add_bytes(entries, service, port, binds, target, routes.clone());
        }
    }

    fn add_http(&self, entries: &mut Entries, port: &ServicePort, binds: &[Str], routes: Option<Str>) {
        let binds = if binds.is_empty() { self.wildcards.to_vec() } else { binds.to_vec() };
        let place = (binds[0].clone(), port.port);
        if let (Some(routes), false) = (routes, entries.is_served(&place, port.protocol)) {
            let looks = self.looks(&place, port);
            let chains = vec![self.http_chain(&place, port, routes)];
            entries.add(place, Wanted { binds, bind_to_port: self.bind_to_port, protocol: port.protocol, chains }, looks);
        }
    }

    fn add_bytes(
        &self,
        entries: &mut Entries,
        service: &Arc<Service>,
        port: &ServicePort,
        binds: Vec<Str>,
        address: Option<Address>,
        routes: Option<Str>,
    ) {
        let place = (binds[0].clone(), port.port);
        if entries.is_served(&place, port.protocol) {
            return;
        }
        let range = match address {
            Some(Address::Net(net)) => Some(net),
            _ => None,
        };
        let shared_address = self.wildcards.contains(&place.0) && addresses::is_bare(self.context.class, service);
        let target = Target { service, port, listen_port: port.port, range, shared_address };
        let (mut chains, rules) = chains::tcp(self.context, &self.rules, &target);
        // On an address that others share, requests name their service, as on all HTTP ports.
        let routes = if self.wildcards.contains(&place.0) { names::of_wildcard_port(port) } else { routes };
        if let Some(routes) = routes.filter(|_| port.protocol == Protocol::Auto) {
            chains.push(self.http_chain(&place, port, routes));
        }
        let wanted = Wanted { binds, bind_to_port: self.bind_to_port, protocol: port.protocol, chains };
        entries.add(place.clone(), wanted, port.protocol == Protocol::Auto);
        entries.note(&place, rules.into_iter().chain([service.source.clone()]));
    }

    /// A listener on all addresses may get anything that is captured, so only what looks like HTTP is read as HTTP. One on an
    /// address of its own for HTTP gets nothing else, and neither does a proxy.
    fn looks(&self, place: &(Str, u16), port: &ServicePort) -> bool {
        port.protocol == Protocol::Auto || (port.protocol != Protocol::HttpProxy && place.0 == self.wildcards[0])
    }

    fn http_chain(&self, place: &(Str, u16), port: &ServicePort, routes: Str) -> ChainSpec {
        let matching = match self.looks(place, port) {
            true => Matching { transport: "raw_buffer", alpn: plain_http(&self.context.config().features).to_vec(), ..Matching::default() },
            false => Matching::default(),
        };
        let http = Http {
            grpc_web: port.protocol == Protocol::GrpcWeb,
            absolute_url: port.protocol == Protocol::HttpProxy,
            caches: self.caches.iter().filter(|(number, _)| *number == place.1).map(|(_, cache)| cache.clone()).collect(),
            ..Http::rds(stat_prefix::outbound(&naming::listener(&place.0, place.1)), routes)
        };
        chain(matching, Content::Http(http))
    }
}

fn spec((bind, port): (Str, u16), entry: Entry, catch_all: &TcpProxy, exact_balance: bool) -> ListenerSpec {
    let (open, mut chains): (Vec<ChainSpec>, Vec<ChainSpec>) = entry.chains.into_iter().partition(|c| c.matching.is_open());
    let mut open = open.into_iter();
    // A lone chain needs no fallback beside it; of several, the one for everything is the fallback.
    let fallback = match open.next() {
        Some(chain) if chains.is_empty() => {
            chains.push(chain);
            None
        }
        Some(chain) => Some(chain),
        None => Some(passthrough(catch_all)),
    };
    ListenerSpec {
        name: naming::listener(&bind, port),
        binds: entry.binds,
        port,
        role: Role::Outbound,
        bind_to_port: entry.bind_to_port,
        exact_balance,
        chains,
        fallback,
        sources: entry.sources,
    }
}

/// Connections that a listener got because of its port or address only.
fn passthrough(catch_all: &TcpProxy) -> ChainSpec {
    let content = Content::Tcp(catch_all.clone());
    ChainSpec { name: PASSTHROUGH_CHAIN.into(), handshake_limit: false, ..chain(Matching::default(), content) }
}
