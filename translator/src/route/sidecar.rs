//! Route configurations of a sidecar's outbound listeners: by port, by sniffed service port, of the HTTP proxy port.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use pilotfish_model::name::{Host, Str};
use pilotfish_model::service::{Protocol, Resolution, Service, ServicePort};
use pilotfish_model::virtual_service::GatewayRef;

use super::action::RouteDefaults;
use super::domains::{self, Claims};
use super::rule::{self, Place, RuleSet};
use super::session::Session;
use super::virtual_host::{RouteSource, ServiceRoute, VirtualHost};
use super::{ByRules, Configuration, HostOf, catch_all, hash, names};
use crate::addresses;
use crate::context::Context;
use crate::naming;
use crate::scope::EgressScope;
use crate::world::Rules;
use crate::world::by_age::service_order;

/// The port of rules for hosts that are no services.
const DEFAULT_PORT: u16 = 80;

/// All of a class.
pub(super) fn configurations(context: &Context<'_>, defaults: &Arc<RouteDefaults>) -> Vec<Configuration> {
    let mut resources: Vec<Configuration> = Vec::new();
    let mut made: HashSet<Str> = HashSet::new();
    for (at, egress) in context.scope.egress.iter().enumerate() {
        let view = View::new(context, egress, defaults);
        let made_of = |name, port, made: Made, first_only| Configuration {
            name,
            hosts: made.hosts,
            sources: Vec::new(),
            by_rules: Some(ByRules { egress: at, port, asked: made.asked.into(), first_only, contested: made.contested }),
        };
        match egress.listener.as_ref().and_then(|l| l.port.as_ref().map(|p| (l, p))) {
            Some((listener, port)) => {
                if let Some(name) = names::of_egress_port(port, listener.bind.as_deref())
                    && made.insert(name.clone())
                {
                    let any_port = port.protocol == Protocol::HttpProxy;
                    let port = if any_port { 0 } else { port.number };
                    resources.push(made_of(name, port, view.hosts(port), false));
                }
            }
            None => {
                for (name, wanted) in view.catch_all_names() {
                    if made.insert(name.clone()) {
                        resources.push(match wanted {
                            Wanted::Port(port) => made_of(name, port, view.hosts(port), false),
                            Wanted::Service(service, port) => {
                                let made = view.sniffed(&name, service, port);
                                made_of(name, port, made, true)
                            }
                        });
                    }
                }
            }
        }
    }
    // The proxy is opened even where no egress listener is for all ports, and waits for what it refers to.
    if is_proxy_open(context) && made.insert(names::HTTP_PROXY.into()) {
        let hosts = vec![catch_all(context).into()];
        resources.push(Configuration { name: names::HTTP_PROXY.into(), hosts, sources: Vec::new(), by_rules: None });
    }
    resources
}

fn is_proxy_open(context: &Context<'_>) -> bool {
    context.class.settings.http_proxy_port.unwrap_or(context.config().proxy_http_port) > 0
}

/// The virtual hosts of a port as they are for clients without a listener, which ask for names with a port.
pub(crate) fn of_dialled_port(
    context: &Context<'_>,
    egress: &EgressScope,
    defaults: &Arc<RouteDefaults>,
    port: u16,
) -> impl Iterator<Item = VirtualHost> {
    let view = View { with_port: true, ..View::new(context, egress, defaults) };
    view.known_hosts(port).hosts.into_iter().map(|h| h.host)
}

/// What makes a configuration.
struct Made {
    hosts: Vec<HostOf>,
    /// VirtualServices that were asked for rules, with their answer.
    asked: Vec<(usize, bool)>,
    /// Somebody did not get a name that somebody else has.
    contested: bool,
}

/// What a route configuration is asked for.
enum Wanted<'a> {
    Port(u16),
    Service(&'a Arc<Service>, u16),
}

/// Services of which the last of each host counts.
struct Several<'a> {
    last: Vec<&'a Arc<Service>>,
    all_by_port: BTreeMap<u16, Vec<&'a Arc<Service>>>,
}

/// One egress listener's services and rules, ready to ask.
struct View<'a> {
    context: &'a Context<'a>,
    defaults: &'a Arc<RouteDefaults>,
    services: &'a [Arc<Service>],
    rules: &'a [Arc<Rules>],
    by_port: BTreeMap<u16, Vec<&'a Arc<Service>>>,
    /// Where hosts have several services: the last of each, for all ports, and all services, with the ports that listeners have.
    several: Option<Several<'a>>,
    exact: HashMap<&'a Host, Vec<usize>>,
    /// The most specific first; of equal ones only the oldest rule.
    wildcard: Vec<(&'a Host, usize)>,
    attempt_count: bool,
    /// Clients ask for names with a port even where a configuration is for one port.
    with_port: bool,
}

impl<'a> View<'a> {
    fn new(context: &'a Context<'a>, egress: &'a EgressScope, defaults: &'a Arc<RouteDefaults>) -> Self {
        let mut by_port: BTreeMap<u16, Vec<&Arc<Service>>> = BTreeMap::new();
        for service in egress.services.iter().filter(|s| s.resolution != Resolution::Alias) {
            for port in &service.ports {
                by_port.entry(port.port).or_default().push(service);
            }
        }
        let several = (!context.world.hosts_are_unique()).then(|| {
            let all_by_port = by_port.clone();
            by_port.values_mut().for_each(last_per_host);
            let mut last: Vec<&Arc<Service>> = egress.services.iter().filter(|s| s.resolution != Resolution::Alias).collect();
            last_per_host(&mut last);
            Several { last, all_by_port }
        });
        // Virtual hosts stand in the order of age, where a later change puts one in as well.
        let order = |a: &&Arc<Service>, b: &&Arc<Service>| service_order(a, b);
        for services in by_port.values_mut().filter(|s| !s.is_sorted_by(|a, b| order(a, b).is_le())) {
            services.sort_by(order);
        }
        let mut exact: HashMap<&Host, Vec<usize>> = HashMap::with_capacity(egress.virtual_services.len());
        let mut wildcard: Vec<(&Host, usize)> = Vec::new();
        // Those without HTTP rules count as well: a wildcard does not speak for a host that another one is about.
        for (index, v) in egress.virtual_services.iter().enumerate() {
            for host in &v.hosts {
                if !host.is_wildcard() {
                    exact.entry(host).or_default().push(index);
                } else if wildcard.iter().all(|(h, _)| *h != host) {
                    wildcard.push((host, index));
                }
            }
        }
        wildcard.sort_by(|a, b| a.0.cmp_specific(b.0));
        let attempt_count = super::attempt_count(context);
        let (services, rules) = (&*egress.services, &*egress.virtual_services);
        View { context, defaults, services, rules, by_port, several, exact, wildcard, attempt_count, with_port: false }
    }

    /// What listeners that are made from services may refer to.
    fn catch_all_names(&self) -> Vec<(Str, Wanted<'a>)> {
        let mut wanted = Vec::new();
        let all = self.several.as_ref().map_or(&self.by_port, |s| &s.all_by_port);
        for (port, services) in all {
            let mut by_number = false;
            for service in services {
                let Some(service_port) = service.port(*port) else { continue };
                let is_shared = || addresses::places(self.context.class, service).iter().any(|place| !place.is_own());
                by_number |= service_port.protocol.is_http() || (service_port.protocol == Protocol::Auto && is_shared());
                if service_port.protocol == Protocol::Auto
                    && let Some(name) = names::of_service_port(service, service_port)
                {
                    wanted.push((name, Wanted::Service(service, *port)));
                }
            }
            if by_number {
                wanted.push((port.to_string().into(), Wanted::Port(*port)));
            }
        }
        if is_proxy_open(self.context) {
            wanted.push((names::HTTP_PROXY.into(), Wanted::Port(0)));
        }
        wanted
    }

    /// The virtual hosts for one port, or (0) for all, and one for what is unknown.
    fn hosts(&self, port: u16) -> Made {
        let mut made = self.known_hosts(port);
        if made.hosts.iter().all(|h| h.host.domains.iter().all(|d| d != "*")) {
            made.hosts.push(catch_all(self.context).into());
        }
        made
    }

    /// The same without the last.
    fn known_hosts(&self, port: u16) -> Made {
        let (mut groups, asked) = self.groups_of_rules(port);
        let mut claimed: HashSet<&Host> = HashSet::with_capacity(groups.iter().map(|g| g.services.len()).sum());
        claimed.extend(groups.iter().flat_map(|g| g.services.iter().map(|s| &s.host)));
        for service in self.at(port).filter(|s| !claimed.contains(&s.host)) {
            groups.extend(
                service
                    .ports
                    .iter()
                    .filter(|p| (port == 0 || p.port == port) && is_http(p))
                    .map(|p| self.default_group(service, p, port == 0)),
            );
        }
        let mut claims = Claims::with_capacity(groups.iter().map(|g| g.services.len() + g.hosts.len()).sum());
        for group in &groups {
            for service in &group.services {
                claims.reserve(service.host.as_str());
                if port == 0 || self.with_port {
                    claims.reserve(&naming::host_port(service.host.as_str(), group.port));
                }
            }
        }
        let mut hosts: Vec<HostOf> = Vec::with_capacity(groups.len() + 1);
        for group in groups {
            let with_port = (port == 0 || self.with_port).then_some(group.port);
            for host in &group.hosts {
                let domains = domains::of_host(host);
                hosts.extend(self.virtual_host(&mut claims, host, None, &group, domains));
            }
            for service in &group.services {
                let aliases = self.context.world.aliases.of(&service.host);
                let domains =
                    domains::of_service(self.context.class, service, aliases, with_port, self.context.config().features.absolute_domains);
                hosts.extend(self.virtual_host(&mut claims, &service.host, Some(service), &group, domains));
            }
        }
        Made { hosts, asked, contested: claims.contested() }
    }

    fn virtual_host(
        &self,
        claims: &mut Claims,
        host: &Host,
        service: Option<&Arc<Service>>,
        group: &Group<'_>,
        domains: domains::Domains,
    ) -> Option<HostOf> {
        let name = naming::host_port(host.as_str(), group.port);
        if !claims.name(&name) {
            return None;
        }
        let mut domains = claims.domains(domains);
        if group.any_port && group.port != DEFAULT_PORT {
            // Without a port a name means the default one.
            domains.retain(|d| d.contains(':'));
        }
        if domains.is_empty() {
            return None;
        }
        let host = virtual_host(self.context, self.attempt_count, name, domains, group.source.clone(), service);
        Some(HostOf { host, rules: group.rules, service: service.cloned() })
    }

    /// The virtual host of a listener on the service's own address: everything goes to it, whatever it is called.
    fn sniffed(&self, name: &str, service: &'a Arc<Service>, port: u16) -> Made {
        let mut service = service;
        if self.several.is_some() {
            let last = self.at(port).find(|s| s.host == service.host && s.port(port).is_some_and(is_http));
            let Some(last) = last else { return Made { hosts: Vec::new(), asked: Vec::new(), contested: false } };
            service = last;
        }
        let asked = self.rules_of(&service.host);
        let found = asked.iter().find_map(|index| Some((*index, self.applied(&self.rules[*index], port)?)));
        let rules = found.as_ref().map(|(index, _)| *index);
        let source = found.map_or_else(|| self.default_route(service, port), |(_, set)| RouteSource::Rules(set));
        let host = virtual_host(self.context, self.attempt_count, name.to_owned(), vec!["*".to_owned()], source, Some(service));
        let hosts = vec![HostOf { host, rules, service: Some(service.clone()) }];
        Made { hosts, asked: asked.iter().map(|index| (*index, true)).collect(), contested: false }
    }

    fn at(&self, port: u16) -> Box<dyn Iterator<Item = &'a Arc<Service>> + '_> {
        match port {
            0 if let Some(several) = &self.several => Box::new(several.last.iter().copied()),
            0 => Box::new(self.services.iter().filter(|s| s.resolution != Resolution::Alias)),
            // A slice, as it knows its length.
            port => Box::new(self.by_port.get(&port).map_or(&[][..], Vec::as_slice).iter().copied()),
        }
    }

    /// Rules that may speak for a service, oldest first. A wildcard speaks for it only if nothing more specific does.
    fn rules_of(&self, host: &Host) -> &[usize] {
        match self.exact.get(host) {
            Some(exact) => exact,
            None => self.wildcard.iter().find(|(h, _)| h.covers(host)).map_or(&[], |(_, i)| std::slice::from_ref(i)),
        }
    }

    /// VirtualServices with what they speak for on a port, oldest first.
    fn groups_of_rules(&self, port: u16) -> (Vec<Group<'a>>, Vec<(usize, bool)>) {
        let registry: HashMap<&Host, &'a Arc<Service>> = self.at(port).map(|s| (&s.host, s)).collect();
        let mut services: BTreeMap<usize, Vec<&'a Arc<Service>>> = BTreeMap::new();
        for service in self.at(port) {
            for index in self.rules_of(&service.host) {
                services.entry(*index).or_default().push(service);
            }
        }
        // Rules for hosts that are no services are reached on the default port.
        let candidates: BTreeSet<usize> =
            if port == DEFAULT_PORT { (0..self.rules.len()).collect() } else { services.keys().copied().collect() };
        let mut groups = Vec::with_capacity(candidates.len());
        let mut asked = Vec::with_capacity(candidates.len());
        for index in candidates {
            let v = &self.rules[index];
            let rules = self.applied(v, port);
            asked.push((index, rules.is_some()));
            let Some(rules) = rules else { continue };
            let covers_some = |host: &Host| host.is_wildcard() && registry.keys().any(|known| host.overlaps(known));
            let hosts: Vec<&'a Host> = v.hosts.iter().filter(|h| !registry.contains_key(h) && !covers_some(h)).collect();
            let mut by_port: BTreeMap<u16, Vec<&'a Arc<Service>>> = BTreeMap::new();
            for service in services.remove(&index).unwrap_or_default() {
                for p in service.ports.iter().filter(|p| (port == 0 || p.port == port) && is_http(p)) {
                    by_port.entry(p.port).or_default().push(service);
                }
            }
            if by_port.is_empty() && port == DEFAULT_PORT {
                by_port.insert(DEFAULT_PORT, Vec::new());
            }
            for (group_port, services) in by_port {
                let source = RouteSource::Rules(rules.clone());
                let rules = Some(index);
                groups.push(Group { port: group_port, any_port: port == 0, hosts: hosts.clone(), services, source, rules });
            }
        }
        (groups, asked)
    }

    fn applied(&self, v: &Arc<Rules>, port: u16) -> Option<Arc<RuleSet>> {
        applied(self.context, self.defaults, v, port)
    }

    fn default_group(&self, service: &'a Arc<Service>, port: &ServicePort, any_port: bool) -> Group<'a> {
        let source = self.default_route(service, port.port);
        Group { port: port.port, any_port, hosts: Vec::new(), services: vec![service], source, rules: None }
    }

    fn default_route(&self, service: &Service, port: u16) -> RouteSource {
        default_route(self.context, self.defaults, service, port)
    }
}

/// Of services with one host the last stays.
fn last_per_host(services: &mut Vec<&Arc<Service>>) {
    let mut seen: HashSet<&Host> = HashSet::with_capacity(services.len());
    services.reverse();
    services.retain(|s| seen.insert(&s.host));
    services.reverse();
}

/// The route of a service that no rule speaks of.
pub(super) fn default_route(context: &Context<'_>, defaults: &Arc<RouteDefaults>, service: &Service, port: u16) -> RouteSource {
    let hash = hash::of_service(context, service, port);
    RouteSource::Service(ServiceRoute { host: service.host.clone(), port, hash, defaults: defaults.clone() })
}

/// Virtual hosts with the same routes.
struct Group<'a> {
    port: u16,
    /// The configuration is for all ports.
    any_port: bool,
    hosts: Vec<&'a Host>,
    services: Vec<&'a Arc<Service>>,
    source: RouteSource,
    /// Which VirtualService they are from.
    rules: Option<usize>,
}

/// The rules of a VirtualService for one port, or (0) for all.
pub(super) fn applied(context: &Context<'_>, defaults: &Arc<RouteDefaults>, v: &Arc<Rules>, port: u16) -> Option<Arc<RuleSet>> {
    // A listener of one port sees services with that port only, so a destination without port means that port.
    let single_port = |host: &Host| if port == 0 { context.scope.service(host).map(|s| &**s) } else { None };
    rule::applied(context, v, &Place { gateway: &GatewayRef::Mesh, port, tls: false, http3: false, defaults, single_port })
}

/// One that one source makes the routes of.
pub(super) fn virtual_host(
    context: &Context<'_>,
    attempt_count: bool,
    name: String,
    domains: Vec<String>,
    source: RouteSource,
    service: Option<&Arc<Service>>,
) -> VirtualHost {
    let session = service.and_then(|s| Session::of(&context.config().features, context.class, s));
    let service = service.map(|s| s.source.clone());
    VirtualHost { name, domains, routes: vec![source], require_tls: false, attempt_count, service, session, catch_all_last: false }
}

/// Requests go there, as far as anybody knows.
pub(super) fn is_http(port: &ServicePort) -> bool {
    port.protocol.is_http() || port.protocol == Protocol::Auto
}
