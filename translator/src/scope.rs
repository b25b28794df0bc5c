//! [`Scope`]: which services, routes and rules a class sees.
//!
//! A gateway sees everything that is exported to its namespace. A sidecar sees what its Sidecar object imports; without
//! one, everything that is exported to it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use pilotfish_model::mesh::Mesh;
use pilotfish_model::name::{Host, Str, Visibility, selects};
use pilotfish_model::service::{Registry, Service};
use pilotfish_model::sidecar::{EgressHost, EgressListener, EgressNamespace, OutboundPolicy, Sidecar};
use pilotfish_model::virtual_service::{GatewayRef, VirtualService};

use crate::class::ClassFacts;
use crate::naming::Direction;
use crate::policy::{MergedRule, RuleIndex};
use crate::route::delegate;

/// What a class sees.
pub struct Scope {
    /// Its Sidecar, if one applies.
    pub sidecar: Option<Arc<Sidecar>>,
    /// One per egress listener of the Sidecar; exactly one without a Sidecar, for a gateway as well.
    pub egress: Vec<EgressScope>,
    /// All services seen, oldest first, one per host: what clusters and endpoints are made for. A service may have fewer
    /// ports here than in the mesh, where an egress listener names a port.
    pub services: Vec<Arc<Service>>,
    by_host: HashMap<Host, usize>,
    rules: RuleIndex,
}

/// What is seen through one egress listener.
pub struct EgressScope {
    /// Its listener; `None` for the implicit one that sees everything.
    pub listener: Option<EgressListener>,
    /// Services, oldest first.
    pub services: Vec<Arc<Service>>,
    /// VirtualServices of the mesh gateway (or, for a gateway class, all visible ones), oldest first, delegates merged.
    pub virtual_services: Vec<Arc<VirtualService>>,
}

impl Scope {
    /// Computes what `class` sees.
    pub fn of(mesh: &Mesh, class: &ClassFacts) -> Scope {
        let sidecar = if class.is_sidecar() { sidecar_for(mesh, class) } else { None };
        let visible = visible_services(mesh, &class.namespace);
        let routes = visible_virtual_services(mesh, class);
        let egress: Vec<EgressScope> = match &sidecar {
            Some(s) if !s.egress.is_empty() => s.egress.iter().map(|l| EgressScope::through(l, class, &visible, &routes)).collect(),
            _ => vec![EgressScope { listener: None, services: visible.clone(), virtual_services: routes }],
        };
        let services = all_services(&egress, class, &visible);
        let by_host = services.iter().enumerate().map(|(i, s)| (s.host.clone(), i)).collect();
        Scope { sidecar, egress, services, by_host, rules: RuleIndex::new(mesh) }
    }

    /// A visible service by host.
    pub fn service(&self, host: &Host) -> Option<&Arc<Service>> {
        self.by_host.get(host).map(|i| &self.services[*i])
    }

    /// The rule for outbound traffic to a service.
    pub fn rule(&self, mesh: &Mesh, class: &ClassFacts, service: &Service) -> Option<Arc<MergedRule>> {
        self.rules.lookup(mesh, class, service, Direction::Outbound)
    }

    /// The rule for inbound traffic of a service: selectors of clients do not count.
    pub fn inbound_rule(&self, mesh: &Mesh, class: &ClassFacts, service: &Service) -> Option<Arc<MergedRule>> {
        self.rules.lookup(mesh, class, service, Direction::Inbound)
    }

    /// What happens to unknown outbound traffic, where the Sidecar says so.
    pub fn outbound_policy(&self) -> Option<&OutboundPolicy> {
        self.sidecar.as_ref()?.outbound_policy.as_ref()
    }
}

impl EgressScope {
    fn through(listener: &EgressListener, class: &ClassFacts, visible: &[Arc<Service>], routes: &[Arc<VirtualService>]) -> EgressScope {
        let imports = Imports::new(&listener.hosts, &class.namespace);
        let port = listener.port.as_ref().map(|p| p.number).filter(|p| *p != 0);
        let services = visible.iter().filter(|s| imports.service(s)).filter_map(|s| with_port(s, port));
        let virtual_services = routes.iter().filter(|v| v.hosts.iter().any(|h| imports.route(&v.meta.namespace, h)));
        EgressScope {
            listener: Some(listener.clone()),
            services: one_per_host(services.collect(), class),
            virtual_services: virtual_services.cloned().collect(),
        }
    }
}

/// The `hosts` of an egress listener, ready to ask.
struct Imports<'a> {
    own: &'a str,
    hosts: &'a [EgressHost],
}

impl<'a> Imports<'a> {
    fn new(hosts: &'a [EgressHost], own: &'a str) -> Self {
        Imports { own, hosts }
    }

    fn namespace(&self, entry: &EgressHost, namespace: &str) -> bool {
        match &entry.namespace {
            EgressNamespace::Any => true,
            EgressNamespace::Nothing => false,
            EgressNamespace::Own => namespace == self.own,
            EgressNamespace::Named(n) => &**n == namespace,
        }
    }

    fn imports(&self, namespace: &str, matches: impl Fn(&Host) -> bool) -> bool {
        let hit = |exclude: bool| self.hosts.iter().any(|e| e.exclude == exclude && self.namespace(e, namespace) && matches(&e.host));
        hit(false) && !hit(true)
    }

    fn service(&self, service: &Service) -> bool {
        self.imports(&service.namespace, |host| host.covers(&service.host))
    }

    /// Routes are imported by the hosts that they speak for; a wildcard route is imported if it overlaps.
    fn route(&self, namespace: &str, host: &Host) -> bool {
        self.imports(namespace, |imported| imported.covers(host) || (host.is_wildcard() && host.covers(imported)))
    }
}

/// The service with only that port, if a port is asked for; `None` if it does not have it.
fn with_port(service: &Arc<Service>, port: Option<u16>) -> Option<Arc<Service>> {
    let Some(port) = port else { return Some(service.clone()) };
    match (service.port(port), service.ports.len()) {
        (None, _) => None,
        (Some(_), 1) => Some(service.clone()),
        (Some(p), _) => Some(Arc::new(Service { ports: vec![p.clone()], ..(**service).clone() })),
    }
}

/// Services exported to a namespace, oldest first.
fn visible_services(mesh: &Mesh, namespace: &str) -> Vec<Arc<Service>> {
    let mut services: Vec<Arc<Service>> =
        mesh.services.values().filter(|s| s.visibility.allows(&s.namespace, namespace)).cloned().collect();
    services.sort_by(|a, b| (a.created, &a.name, &a.namespace, &a.host).cmp(&(b.created, &b.name, &b.namespace, &b.host)));
    services
}

/// Of services with one host: the namespace's own, then Kubernetes', then the oldest.
fn one_per_host(services: Vec<Arc<Service>>, class: &ClassFacts) -> Vec<Arc<Service>> {
    let mut best: HashMap<&Host, &Arc<Service>> = HashMap::with_capacity(services.len());
    let rank = |s: &Service| (s.namespace != class.namespace, s.registry != Registry::Kubernetes);
    for service in &services {
        let entry = best.entry(&service.host).or_insert(service);
        if rank(service) < rank(entry) {
            *entry = service;
        }
    }
    let kept: HashSet<*const Service> = best.values().map(|s| Arc::as_ptr(s)).collect();
    services.iter().filter(|s| kept.contains(&Arc::as_ptr(s))).cloned().collect()
}

/// The union of what the egress listeners see, and the destinations of their routes: a route may lead out of the scope.
fn all_services(egress: &[EgressScope], class: &ClassFacts, visible: &[Arc<Service>]) -> Vec<Arc<Service>> {
    if let [EgressScope { listener: None, services, .. }] = egress {
        return one_per_host(services.clone(), class);
    }
    let mut union: Vec<Arc<Service>> = Vec::new();
    let mut at: HashMap<(Str, Host), usize> = HashMap::new();
    let mut add = |service: &Arc<Service>| {
        let key = (service.namespace.clone(), service.host.clone());
        match at.get(&key) {
            None => {
                at.insert(key, union.len());
                union.push(service.clone());
            }
            Some(i) => union[*i] = with_ports_of(&union[*i], service),
        }
    };
    egress.iter().flat_map(|e| &e.services).for_each(&mut add);
    let seen: HashSet<Host> = egress.iter().flat_map(|e| e.services.iter().map(|s| s.host.clone())).collect();
    let candidates = one_per_host(visible.to_vec(), class);
    for (host, port) in egress.iter().flat_map(|e| &e.virtual_services).flat_map(|v| destinations(v)).filter(|(h, _)| !seen.contains(h)) {
        if let Some(service) = candidates.iter().find(|s| s.host == host)
            && let Some(service) = with_port(service, port)
        {
            add(&service);
        }
    }
    one_per_host(union, class)
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
pub fn destinations(route: &VirtualService) -> impl Iterator<Item = (Host, Option<u16>)> + '_ {
    let http = route.http.iter().flat_map(|r| {
        r.route.iter().map(|d| &d.destination).chain(r.mirrors.iter().map(|m| &m.destination)).map(|d| (d.host.clone(), d.port))
    });
    let l4 = route.tls.iter().flat_map(|r| &r.route).chain(route.tcp.iter().flat_map(|r| &r.route));
    http.chain(l4.map(|d| (d.destination.host.clone(), d.destination.port)))
}

/// A list from mesh configuration, such as `defaultVirtualServiceExportTo`, for an object of `own`.
fn default_visibility(entries: &[Str], own: &str) -> Visibility {
    Visibility::parse(entries, own).unwrap_or_default()
}

/// Routes that the class may use, oldest first, delegates merged in: for sidecars those of the mesh gateway.
fn visible_virtual_services(mesh: &Mesh, class: &ClassFacts) -> Vec<Arc<VirtualService>> {
    let mut routes: Vec<Arc<VirtualService>> = mesh
        .virtual_services
        .values()
        .filter(|v| !v.hosts.is_empty())
        .filter(|v| {
            let own = &v.meta.namespace;
            let visibility =
                v.visibility.clone().unwrap_or_else(|| default_visibility(&mesh.config.default_virtual_service_export_to, own));
            visibility.allows(own, &class.namespace)
        })
        .filter(|v| class.is_router() || v.gateways.contains(&GatewayRef::Mesh))
        .map(|v| delegate::resolve(mesh, v))
        .collect();
    routes.sort_by(|a, b| a.meta.age_order().cmp(&b.meta.age_order()));
    routes
}

/// The Sidecar of a workload: one that selects it, else its namespace's, else the root namespace's. The oldest wins.
fn sidecar_for(mesh: &Mesh, class: &ClassFacts) -> Option<Arc<Sidecar>> {
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
