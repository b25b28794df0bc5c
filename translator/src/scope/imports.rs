//! The `hosts` of an egress listener, ready to ask.

use std::collections::BTreeSet;
use std::sync::Arc;

use pilotfish_model::mesh::Mesh;
use pilotfish_model::name::Host;
use pilotfish_model::service::Service;
use pilotfish_model::sidecar::{EgressHost, EgressNamespace, Sidecar};
use pilotfish_model::virtual_service::GatewayRef;

use super::in_order;
use crate::facts::ScopeFacts;
use crate::world::by_age::rules_order;
use crate::world::{Rules, World};

pub(super) struct Imports<'a> {
    own: &'a str,
    hosts: &'a [EgressHost],
}

impl<'a> Imports<'a> {
    pub(super) fn new(hosts: &'a [EgressHost], own: &'a str) -> Self {
        Imports { own, hosts }
    }

    /// Services, exported to the importer's namespace, oldest first.
    pub(super) fn services(&self, world: &World) -> Vec<Arc<Service>> {
        let wanted = |s: &&Arc<Service>| s.visibility.allows(&s.namespace, self.own) && self.service(s);
        if self.anywhere().any(|e| e.host.is_wildcard()) {
            return world.services_by_age().iter().filter(wanted).cloned().collect();
        }
        let named = self.namespaces();
        let by_namespace = named.iter().flat_map(|ns| world.mesh.services_in(ns));
        let by_host = self.anywhere().flat_map(|e| world.services_of(&e.host));
        let all = by_namespace.chain(by_host).flat_map(|s| std::iter::once(s).chain(&s.twins));
        in_order(all.filter(wanted).cloned().collect())
    }

    /// VirtualServices that the class may use, oldest first.
    pub(super) fn routes(&self, world: &World, class: &ScopeFacts) -> Vec<Arc<Rules>> {
        let wanted = |r: &&Arc<Rules>| is_visible(world, class, r) && self.rules(r);
        if self.anywhere().next().is_some() {
            return world.routes_by_age().iter().filter(wanted).cloned().collect();
        }
        let of = |namespace: &'a str| Mesh::in_namespace(&world.routes, namespace);
        let mut routes: Vec<Arc<Rules>> = self.namespaces().into_iter().flat_map(of).filter(wanted).cloned().collect();
        routes.sort_by(|a, b| rules_order(a, b));
        routes
    }

    /// Entries for all namespaces.
    fn anywhere(&self) -> impl Iterator<Item = &'a EgressHost> {
        self.hosts.iter().filter(|e| !e.exclude && e.namespace == EgressNamespace::Any)
    }

    /// Namespaces that entries are for.
    fn namespaces(&self) -> BTreeSet<&'a str> {
        let named = self.hosts.iter().filter(|e| !e.exclude).filter_map(|e| match &e.namespace {
            EgressNamespace::Own => Some(self.own),
            EgressNamespace::Named(n) => Some(&**n),
            EgressNamespace::Any | EgressNamespace::Nothing => None,
        });
        named.collect()
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
    fn rules(&self, rules: &Rules) -> bool {
        let namespace = &rules.meta.namespace;
        let overlaps = |imported: &Host, host: &Host| imported.covers(host) || (host.is_wildcard() && host.covers(imported));
        rules.hosts.iter().any(|host| self.imports(namespace, |imported| overlaps(imported, host)))
    }
}

/// Whether a service is exported to the class and imported by its Sidecar.
pub(crate) fn sees_service(class: &ScopeFacts, sidecar: Option<&Sidecar>, service: &Service) -> bool {
    let is_visible = service.all().any(|s| s.visibility.allows(&s.namespace, &class.namespace));
    is_visible && imported(sidecar, class, |imports| imports.service(service))
}

/// The same for a VirtualService.
pub(crate) fn sees_routes(world: &World, class: &ScopeFacts, sidecar: Option<&Sidecar>, rules: &Rules) -> bool {
    is_visible(world, class, rules) && imported(sidecar, class, |imports| imports.rules(rules))
}

fn imported(sidecar: Option<&Sidecar>, class: &ScopeFacts, by: impl Fn(&Imports<'_>) -> bool) -> bool {
    match sidecar {
        Some(s) if !s.egress.is_empty() => s.egress.iter().any(|l| by(&Imports::new(&l.hosts, &class.namespace))),
        _ => true,
    }
}

/// Routes that the class may use: for sidecars those of the mesh gateway.
pub(super) fn is_visible(world: &World, class: &ScopeFacts, rules: &Rules) -> bool {
    if rules.hosts.is_empty() || !(class.is_router() || rules.gateways.contains(&GatewayRef::Mesh)) {
        return false;
    }
    rules.visibility_in(world.mesh_config()).allows(&rules.meta.namespace, &class.namespace)
}
