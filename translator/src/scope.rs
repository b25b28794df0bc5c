//! [`Scope`]: which services, routes and rules a class sees.
//!
//! A gateway sees everything that is exported to its namespace. A sidecar sees what its Sidecar object imports; without
//! one, everything that is exported to it. What is imported by namespace is looked up there, so that a narrow scope costs
//! what it sees and not what there is. A list that came out as before keeps its pointer.

mod imports;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use pilotfish_model::mesh::Mesh;
use pilotfish_model::name::{Host, Kind, ObjectId, Str, Visibility, selects};
use pilotfish_model::service::{Protocol, Registry, Service};
use pilotfish_model::sidecar::{EgressListener, OutboundPolicy, Sidecar};
use pilotfish_model::virtual_service::{HttpRoute, VirtualService};

use crate::facts::ScopeFacts;
use crate::naming::Direction;
use crate::policy::{Found, MergedRule, RuleIndex};
use crate::world::by_age::service_order;
use crate::world::{Rules, World};
use imports::{Imports, is_visible};

pub(crate) use imports::{sees_routes, sees_service};

/// What a class sees.
#[derive(Default)]
pub struct Scope {
    /// Its Sidecar, if one applies.
    pub sidecar: Option<Arc<Sidecar>>,
    /// One per egress listener of the Sidecar; exactly one without a Sidecar, for a gateway as well.
    pub egress: Vec<EgressScope>,
    /// All services seen, oldest first, one per host: what clusters and endpoints are made for. A service may have fewer
    /// ports here than in the mesh, where an egress listener names a port.
    pub services: Arc<[Arc<Service>]>,
    /// The rules for them, in the same order.
    pub found: Arc<[Found]>,
    /// Destinations of routes that no egress listener imports, whether they exist or not, sorted.
    pub(crate) outside: Vec<Host>,
    /// Where in `services` they are.
    by_host: Arc<ByHost>,
    pub(crate) rules: RuleIndex,
}

/// Where in a list of services a host is.
pub(crate) type ByHost = HashMap<Host, u32>;

/// What is seen through one egress listener.
#[derive(Clone)]
pub struct EgressScope {
    /// Its listener; `None` for the implicit one that sees everything.
    pub listener: Option<EgressListener>,
    /// Services: those that are for the class's namespace only, those that are exported to it by name, all others; oldest first.
    pub services: Arc<[Arc<Service>]>,
    /// VirtualServices of the mesh gateway (or, for a gateway class, all visible ones) in the same order, delegates merged.
    pub virtual_services: Arc<[Arc<Rules>]>,
}

impl Scope {
    /// Computes what `class` sees. `before`: what such a class saw in an earlier world.
    pub fn of(world: &World, class: &ScopeFacts, before: Option<&Scope>) -> Scope {
        let sidecar = if class.is_sidecar() { sidecar_for(&world.mesh, class) } else { None };
        let seen = |at: usize| before.and_then(|b| b.egress.get(at));
        let egress: Vec<EgressScope> = match &sidecar {
            Some(s) if !s.egress.is_empty() => {
                s.egress.iter().enumerate().map(|(at, l)| EgressScope::through(l, world, class, seen(at))).collect()
            }
            _ => vec![EgressScope::everything(world, class, seen(0))],
        };
        let outside = outside(&egress, &class.namespace);
        let services = match all_services(&egress, &outside, world, class) {
            Ok(list) => list,
            Err(list) => kept(before.map(|b| &b.services), list),
        };
        let mut outside: Vec<Host> = outside.into_iter().cloned().collect();
        outside.sort();
        outside.dedup();
        let same_services = before.filter(|b| Arc::ptr_eq(&b.services, &services));
        let by_host = match same_services {
            Some(b) => b.by_host.clone(),
            None if Arc::ptr_eq(&services, world.services_by_age()) => world.by_host(by_host),
            None => Arc::new(by_host(&services)),
        };
        let found = match same_services {
            Some(b) if b.rules.is_same(&world.rules) => b.found.clone(),
            known => look_up(world, class, &services, known),
        };
        Scope { sidecar, services, found, outside, by_host, rules: world.rules.clone(), egress }
    }

    /// A visible service by host.
    pub fn service(&self, host: &Host) -> Option<&Arc<Service>> {
        self.index(host).map(|i| &self.services[i])
    }

    /// Where in the list of services a host is.
    pub fn index(&self, host: &Host) -> Option<usize> {
        self.by_host.get(host).map(|i| *i as usize)
    }

    /// The rule for outbound traffic to a service.
    pub fn rule(&self, world: &World, class: &ScopeFacts, service: &Service) -> Option<Arc<MergedRule>> {
        match self.index(&service.host) {
            Some(i) if self.services[i].namespace == service.namespace => self.found[i].rule.clone(),
            _ => world.rules.lookup(&world.mesh.config.root_namespace, class, service, Direction::Outbound).rule,
        }
    }

    /// What happens to unknown outbound traffic, where the Sidecar says so.
    pub fn outbound_policy(&self) -> Option<&OutboundPolicy> {
        self.sidecar.as_ref()?.outbound_policy.as_ref()
    }
}

/// The list, or the one before if they are equal.
pub(crate) fn kept<T: PartialEq + Eq>(before: Option<&Arc<[Arc<T>]>>, list: Vec<Arc<T>>) -> Arc<[Arc<T>]> {
    match before {
        Some(before) if **before == *list => before.clone(),
        _ => list.into(),
    }
}

/// The list with what is meant for the client before what is meant for everybody; what is alike keeps its order.
fn nearest_first<T>(list: Vec<Arc<T>>, rank: impl Fn(&T) -> u8) -> Vec<Arc<T>> {
    let mut list = list;
    list.sort_by_key(|t| rank(t));
    list
}

/// How far what is seen comes from: what is the namespace's own and not for everybody, what is exported to it by name, the rest.
fn distance(visibility: &Visibility, namespace: &str, client: &str) -> u8 {
    match visibility {
        Visibility::Public => 2,
        _ if namespace == client => 0,
        _ => 1,
    }
}

/// What of a list counts, [nearest first](nearest_first); the very list if all of it does and is in order.
fn some_of<T: PartialEq + Eq>(
    before: Option<&Arc<[Arc<T>]>>,
    list: &Arc<[Arc<T>]>,
    counts: impl Fn(&T) -> bool,
    rank: impl Fn(&T) -> u8,
) -> Arc<[Arc<T>]> {
    match before {
        Some(before) if **before == **list => before.clone(),
        _ if list.iter().all(|t| counts(t)) && list.is_sorted_by_key(|t| rank(t)) => list.clone(),
        _ => kept(before, nearest_first(list.iter().filter(|t| counts(t)).cloned().collect(), rank)),
    }
}

fn by_host(services: &[Arc<Service>]) -> ByHost {
    services.iter().zip(0..).map(|(s, i)| (s.host.clone(), i)).collect()
}

/// The rules of each service. `before`: of the same services.
fn look_up(world: &World, class: &ScopeFacts, services: &[Arc<Service>], before: Option<&Scope>) -> Arc<[Found]> {
    let root = &world.mesh.config.root_namespace;
    let same = |b: &Scope, namespace: &Str| b.rules.is_same_in(&world.rules, namespace);
    let before = before.filter(|b| same(b, &class.namespace) && same(b, root));
    let mut last: Option<(&Str, bool)> = None;
    let mut differs = before.is_none();
    let found: Vec<Found> = services
        .iter()
        .enumerate()
        .map(|(i, service)| {
            if let Some(before) = before {
                let unchanged = match last {
                    Some((namespace, same)) if namespace == &service.namespace => same,
                    _ => same(before, &service.namespace),
                };
                last = Some((&service.namespace, unchanged));
                if unchanged {
                    return before.found[i].clone();
                }
            }
            let found = world.rules.lookup(root, class, service, Direction::Outbound);
            differs |= before.is_some_and(|b| b.found[i] != found);
            found
        })
        .collect();
    match before {
        Some(before) if !differs => before.found.clone(),
        _ => found.into(),
    }
}

impl EgressScope {
    fn everything(world: &World, class: &ScopeFacts, before: Option<&EgressScope>) -> EgressScope {
        let visible = |s: &Service| s.visibility.allows(&s.namespace, &class.namespace);
        let services = some_of(before.map(|b| &b.services), world.services_by_age(), visible, |s| service_rank(class, s));
        EgressScope {
            listener: None,
            // Of a gateway no listener is made from services.
            services: match world.hosts_are_unique() || class.is_router() {
                true => services,
                false => kept(before.map(|b| &b.services), one_namespace_per_host(services.to_vec(), class)),
            },
            virtual_services: some_of(
                before.map(|b| &b.virtual_services),
                world.routes_by_age(),
                |r| is_visible(world, class, r),
                |r| rules_rank(world, class, r),
            ),
        }
    }

    fn through(listener: &EgressListener, world: &World, class: &ScopeFacts, before: Option<&EgressScope>) -> EgressScope {
        let imports = Imports::new(&listener.hosts, &class.namespace);
        let port = own_port(listener);
        let services = nearest_first(imports.services(world), |s| service_rank(class, s));
        let services = services.into_iter().filter_map(|s| with_port(&s, port));
        let routes = nearest_first(imports.routes(world, class), |r| rules_rank(world, class, r));
        EgressScope {
            listener: Some(listener.clone()),
            services: kept(before.map(|b| &b.services), one_namespace_per_host(services.collect(), class)),
            virtual_services: kept(before.map(|b| &b.virtual_services), routes),
        }
    }
}

fn service_rank(class: &ScopeFacts, service: &Service) -> u8 {
    distance(&service.visibility, &service.namespace, &class.namespace)
}

fn rules_rank(world: &World, class: &ScopeFacts, rules: &Rules) -> u8 {
    distance(&rules.visibility_in(world.mesh_config()), &rules.meta.namespace, &class.namespace)
}

/// The port that services of a listener must have. A proxy takes requests for all ports.
fn own_port(listener: &EgressListener) -> Option<u16> {
    let port = listener.port.as_ref().filter(|p| p.protocol != Protocol::HttpProxy);
    port.map(|p| p.number).filter(|p| *p != 0)
}

/// The service with only that port, if a port is asked for; `None` if it does not have it.
fn with_port(service: &Arc<Service>, port: Option<u16>) -> Option<Arc<Service>> {
    match port {
        None => Some(service.clone()),
        Some(port) => with_ports(service, |number| number == port),
    }
}

/// The service with only those ports; `None` if it has none of them.
fn with_ports(service: &Arc<Service>, wanted: impl Fn(u16) -> bool) -> Option<Arc<Service>> {
    let ports: Vec<_> = service.ports.iter().filter(|p| wanted(p.port)).cloned().collect();
    match ports.len() {
        0 => None,
        n if n == service.ports.len() => Some(service.clone()),
        _ => Some(Arc::new(Service { ports, ..(**service).clone() })),
    }
}

fn rank(service: &Service, class: &ScopeFacts) -> (bool, bool) {
    (service.namespace != class.namespace, service.registry != Registry::Kubernetes)
}

/// Of services with one host those of one namespace: the client's own, then where Kubernetes has it, then the oldest's.
fn one_namespace_per_host(services: Vec<Arc<Service>>, class: &ScopeFacts) -> Vec<Arc<Service>> {
    let mut best: HashMap<&Host, &Arc<Service>> = HashMap::with_capacity(services.len());
    let mut doubled = false;
    for service in &services {
        let entry = best.entry(&service.host).or_insert(service);
        doubled |= entry.namespace != service.namespace;
        if rank(service, class) < rank(entry, class) {
            *entry = service;
        }
    }
    if !doubled {
        drop(best);
        return services;
    }
    services.iter().filter(|s| best.get(&s.host).is_some_and(|best| best.namespace == s.namespace)).cloned().collect()
}

/// The service that a route means by a host: its namespace's own, whoever that is for, else the best of those that it may see.
fn best_of(world: &World, class: &ScopeFacts, host: &Host) -> Option<Arc<Service>> {
    let seen = |s: &Service| s.namespace == class.namespace || s.visibility.allows(&s.namespace, &class.namespace);
    world.services_of(host).iter().filter(|s| seen(s)).min_by_key(|s| rank(s, class)).cloned()
}

/// Destinations that routes name and no listener imports. A scope that sees everything has none.
fn outside<'a>(egress: &'a [EgressScope], namespace: &str) -> Vec<&'a Host> {
    if let [EgressScope { listener: None, .. }] = egress {
        return Vec::new();
    }
    let seen: HashSet<&Host> = egress.iter().flat_map(|e| e.services.iter().map(|s| &s.host)).collect();
    let named = egress.iter().flat_map(|e| &*e.virtual_services).flat_map(|v| destinations_from(v, Some(namespace)));
    named.map(|(host, _)| host).filter(|host| !seen.contains(host)).collect()
}

/// The union of what the egress listeners see, and the destinations of their routes: a route may lead out of the scope.
/// `Ok`: the very list of the only listener.
fn all_services(
    egress: &[EgressScope],
    outside: &[&Host],
    world: &World,
    class: &ScopeFacts,
) -> Result<Arc<[Arc<Service>]>, Vec<Arc<Service>>> {
    let mut union = Union::default();
    if let [EgressScope { listener: None, services, .. }] = egress {
        if world.hosts_are_unique() {
            return Ok(services.clone());
        }
        services.iter().for_each(|s| union.add(s));
        return Err(union.list);
    }
    // Where listeners see services with some ports only, routes may add others.
    let partly = egress.iter().any(|e| e.listener.as_ref().is_some_and(|l| own_port(l).is_some()));
    let outside: HashSet<&Host> = outside.iter().copied().collect();
    for scope in egress {
        scope.services.iter().for_each(|s| union.add(s));
        let port = scope.listener.as_ref().and_then(own_port);
        for rules in &*scope.virtual_services {
            let mut wanted: BTreeMap<&Host, Vec<Option<u16>>> = BTreeMap::new();
            for (host, port) in destinations_from(rules, Some(&class.namespace)).filter(|(host, _)| partly || outside.contains(host)) {
                wanted.entry(host).or_default().push(port);
            }
            for (host, ports) in wanted {
                let found = best_of(world, class, host).and_then(|service| match port {
                    None if !ports.contains(&None) => with_ports(&service, |number| ports.contains(&Some(number))),
                    port => with_port(&service, port),
                });
                found.iter().for_each(|s| union.add(s));
            }
        }
    }
    Err(union.list)
}

/// Services, one per host: the first, but Kubernetes before others. Others that are like it add their ports.
#[derive(Default)]
struct Union {
    list: Vec<Arc<Service>>,
    at: HashMap<Host, usize>,
}

impl Union {
    fn add(&mut self, service: &Arc<Service>) {
        let Some(known) = self.at.get(&service.host).map(|i| &mut self.list[*i]) else {
            self.at.insert(service.host.clone(), self.list.len());
            self.list.push(service.clone());
            return;
        };
        match (known.registry, service.registry) {
            (Registry::Kubernetes, Registry::External) => {}
            (Registry::External, Registry::Kubernetes) => *known = service.clone(),
            _ if known.takes_ports_of(service) => *known = with_ports_of(known, service),
            _ => {}
        }
    }
}

fn with_ports_of(into: &Arc<Service>, from: &Arc<Service>) -> Arc<Service> {
    let missing: Vec<_> = from.ports.iter().filter(|p| into.port(p.port).is_none()).cloned().collect();
    if missing.is_empty() {
        return into.clone();
    }
    let mut merged = (**into).clone();
    merged.ports.extend(missing);
    Arc::new(merged)
}

/// Every destination that a VirtualService names.
pub fn destinations(route: &VirtualService) -> impl Iterator<Item = (&Host, Option<u16>)> + '_ {
    destinations_from(route, None)
}

/// The same without those of HTTP rules that are for clients of other namespaces only.
pub(crate) fn destinations_from<'a>(
    route: &'a VirtualService,
    client: Option<&str>,
) -> impl Iterator<Item = (&'a Host, Option<u16>)> + use<'a> {
    let is_for = |rule: &HttpRoute| {
        let fits = |namespace: &Str| client.is_none_or(|client| **namespace == *client);
        rule.matches.is_empty() || rule.matches.iter().any(|m| m.source_namespace.as_ref().is_none_or(fits))
    };
    let http: Vec<&HttpRoute> = route.http.iter().filter(|r| is_for(r)).collect();
    let http = http.into_iter().flat_map(|r| r.route.iter().map(|d| &d.destination).chain(r.mirrors.iter().map(|m| &m.destination)));
    let l4 = route.tls.iter().flat_map(|r| &r.route).chain(route.tcp.iter().flat_map(|r| &r.route));
    http.chain(l4.map(|d| &d.destination)).map(|d| (&d.host, d.port))
}

/// The Sidecar of a workload: one that selects it, else its namespace's, else the root namespace's. The oldest wins.
pub(crate) fn sidecar_for(mesh: &Mesh, class: &ScopeFacts) -> Option<Arc<Sidecar>> {
    let oldest = |namespace: &str, fits: &dyn Fn(&Sidecar) -> bool| {
        Mesh::in_namespace(&mesh.sidecars, namespace)
            .filter(|s| fits(s))
            .min_by(|a, b| a.meta.age_order().cmp(&b.meta.age_order()))
            .cloned()
    };
    let selecting = |s: &Sidecar| s.selector.as_ref().is_some_and(|sel| !sel.is_empty() && selects(sel, &class.labels));
    let general = |s: &Sidecar| s.selector.as_ref().is_none_or(BTreeMap::is_empty);
    oldest(&class.namespace, &selecting)
        .or_else(|| oldest(&class.namespace, &general))
        .or_else(|| oldest(&mesh.config.root_namespace, &general))
}

/// A Sidecar's identity.
pub(crate) fn sidecar_object(sidecar: &Sidecar) -> ObjectId {
    sidecar.meta.id(Kind::Sidecar)
}

/// Services of an import, in the order of age, each once.
fn in_order(mut services: Vec<Arc<Service>>) -> Vec<Arc<Service>> {
    services.sort_by(|a, b| service_order(a, b));
    services.dedup_by(|a, b| Arc::ptr_eq(a, b));
    services
}
