//! VirtualServices that stand behind others, belong to nobody, or lead nowhere.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use pilotfish_model::mesh::ObjectKey;
use pilotfish_model::name::{Host, Kind, ObjectId, Visibility};
use pilotfish_model::virtual_service::{Destination, GatewayRef};
use pilotfish_model::{Gateway, VirtualService};

use super::workloads::Workloads;
use super::{Report, full_name, id};
use crate::route::{delegate, l4::serves};
use crate::world::World;

pub(super) fn look(world: &World, workloads: &Workloads, report: &mut Report) {
    shadowed(world, report);
    let borrowed: BTreeSet<&ObjectKey> = world.routes.values().flat_map(|r| &r.delegates).collect();
    let subsets = Subsets::of(world);
    for (key, route) in &world.mesh.virtual_services {
        let object = id(Kind::VirtualService, &route.meta);
        if let Some(why) = workloads.unseen(&route.visibility_in(world.mesh_config()), &route.meta.namespace) {
            report.warn(&object, "spec.exportTo", format!("has no effect: {why}"));
        }
        if route.hosts.is_empty() && !borrowed.contains(key) {
            report.warn(&object, "spec.hosts", "has no effect: it has no hosts, and no VirtualService delegates to it");
        }
        if !route.hosts.is_empty() {
            gateways(world, workloads, route, &object, report);
            hosts(world, route, &object, report);
        }
        delegates(world, route, &object, report);
        for (field, to) in destinations(route) {
            destination(world, &subsets, to, |below, message| report.warn(&object, format!("{field}.{below}"), message));
        }
    }
    borrowed_in_vain(world, report);
}

// === Who it is for ===

fn gateways(world: &World, workloads: &Workloads, route: &VirtualService, object: &ObjectId, report: &mut Report) {
    for gateway in &route.gateways {
        let GatewayRef::Gateway { namespace, name } = gateway else { continue };
        let found = world.mesh.gateways.get(&ObjectKey { namespace: namespace.clone(), name: name.clone() });
        let Some(found) = found else {
            report.warn(object, "spec.gateways", format!("there is no Gateway {namespace}/{name}"));
            continue;
        };
        if !found.servers.iter().any(|server| serves(server, route)) {
            report.warn(object, "spec.hosts", format!("no server of Gateway {namespace}/{name} is for one of these hosts"));
        } else if !speaks(world, gateway, found, route) {
            report.warn(
                object,
                "spec.gateways",
                format!("no server of Gateway {namespace}/{name} is for such rules: they ask for another port or protocol, or an older VirtualService has the connections"),
            );
        } else {
            let visibility = route.visibility_in(world.mesh_config());
            let mut namespaces = workloads.selected(None, &found.selector).map(|(ns, _)| ns).peekable();
            let Some(first) = namespaces.peek().copied() else {
                report.warn(object, "spec.gateways", format!("Gateway {namespace}/{name} has no workload"));
                continue;
            };
            if !namespaces.any(|ns| visibility.allows(&route.meta.namespace, ns)) {
                let message =
                    format!("has no effect at Gateway {namespace}/{name}: it is not exported to namespace {first} of its workloads");
                report.warn(object, "spec.exportTo", message);
            }
        }
    }
}

/// Whether a server that is for it reads what its rules are about, and no older VirtualService has all of its connections.
fn speaks(world: &World, at: &GatewayRef, gateway: &Gateway, route: &VirtualService) -> bool {
    gateway.servers.iter().filter(|s| serves(s, route)).any(|server| {
        let (http, passes) = (crate::gateway::is_http(server), crate::gateway::is_passthrough(server));
        let port = |asked: Option<u16>| asked.is_none_or(|port| port == server.port);
        let any_http = || route.http.iter().any(|r| r.matches.is_empty() || r.matches.iter().any(|m| port(m.port)));
        let any_tls = || route.tls.iter().any(|r| r.matches.iter().any(|m| port(m.l4.port)));
        let takes = |v: &VirtualService| v.tcp.iter().any(|r| r.matches.is_empty() || r.matches.iter().any(|m| port(m.port)));
        let is_first = || {
            let older = |o: &Arc<VirtualService>| o.meta.age_order() < route.meta.age_order() && o.gateways.contains(at);
            !world.mesh.virtual_services.values().any(|o| older(o) && serves(server, o) && takes(o))
        };
        (http && any_http()) || (passes && any_tls()) || (!http && !passes && takes(route) && is_first())
    })
}

/// Hosts that nobody has, for sidecars.
fn hosts(world: &World, route: &VirtualService, object: &ObjectId, report: &mut Report) {
    if route.gateways.iter().any(|g| *g != GatewayRef::Mesh) {
        return;
    }
    let is_known = |host: &Host| match host.is_wildcard() {
        true => world.mesh.services.keys().any(|k| host.covers(&k.host)),
        false => !world.services_of(host).is_empty(),
    };
    for (i, host) in route.hosts.iter().enumerate().filter(|(_, h)| !is_known(h)) {
        let message = match route.http.is_empty() {
            true => format!("has no effect: there is no service {host}, and only services have connections to route"),
            false => format!("there is no service {host}: its rules are for clients that send HTTP for that name to port 80"),
        };
        report.warn(object, format!("spec.hosts[{i}]"), message);
    }
}

/// A warning for each host whose rules have no effect on sidecars, because one VirtualService speaks for a host, the oldest that a
/// client sees. What is said is only what holds for every client that sees the younger one.
fn shadowed(world: &World, report: &mut Report) {
    let for_sidecars = |v: &&Arc<VirtualService>| !v.http.is_empty() && v.gateways.contains(&GatewayRef::Mesh);
    let mut all: Vec<&Arc<VirtualService>> = world.mesh.virtual_services.values().filter(for_sidecars).collect();
    all.sort_by(|a, b| a.meta.age_order().cmp(&b.meta.age_order()));
    let mut by_host: HashMap<&Host, Vec<&Arc<VirtualService>>> = HashMap::new();
    for younger in all {
        for (i, host) in younger.hosts.iter().enumerate() {
            let older = by_host.entry(host).or_default();
            if let Some(first) = older.iter().find(|o| hides(world, o, younger)) {
                let message =
                    format!("has no effect on sidecars: the older VirtualService {} has rules for {host}", full_name(&first.meta));
                report.warn(&id(Kind::VirtualService, &younger.meta), format!("spec.hosts[{i}]"), message);
            } else if !older.iter().any(|o| Arc::ptr_eq(o, younger)) {
                older.push(younger);
            }
        }
    }
}

/// Whether every client that sees the younger one sees the older one, too.
fn hides(world: &World, older: &Arc<VirtualService>, younger: &Arc<VirtualService>) -> bool {
    let (seen, namespace) = (older.visibility_in(world.mesh_config()), &younger.meta.namespace);
    let private = *younger.visibility_in(world.mesh_config()) == Visibility::Private && seen.allows(&older.meta.namespace, namespace);
    !Arc::ptr_eq(older, younger) && (*seen == Visibility::Public || private)
}

// === Where it leads ===

fn delegates(world: &World, route: &VirtualService, object: &ObjectId, report: &mut Report) {
    for (i, rule) in route.http.iter().enumerate() {
        let Some(to) = &rule.delegate else { continue };
        let field = format!("spec.http[{i}].delegate");
        if route.hosts.is_empty() {
            report.warn(object, field, "has no effect: what is delegated to may not delegate in turn");
            continue;
        }
        let found = world.mesh.virtual_services.get(&ObjectKey { namespace: to.namespace.clone(), name: to.name.clone() });
        let why = match found {
            None => format!("there is no VirtualService {}/{}", to.namespace, to.name),
            Some(d) if !d.hosts.is_empty() => format!("VirtualService {} has hosts of its own", full_name(&d.meta)),
            Some(d) if !d.visibility_in(world.mesh_config()).allows(&d.meta.namespace, &route.meta.namespace) => {
                format!("VirtualService {} is not exported to namespace {}", full_name(&d.meta), route.meta.namespace)
            }
            Some(d) if resolves_to_nothing(world, route, i) => {
                format!("its conditions contradict those of VirtualService {}", full_name(&d.meta))
            }
            Some(_) => continue,
        };
        report.warn(object, field, format!("has no effect: {why}"));
    }
}

fn resolves_to_nothing(world: &World, route: &VirtualService, rule: usize) -> bool {
    let alone = Arc::new(VirtualService { http: vec![route.http[rule].clone()], ..route.clone() });
    delegate::resolve(&world.mesh, &alone).http.is_empty()
}

/// Rules that only VirtualServices have borrowed in which something is wrong.
fn borrowed_in_vain(world: &World, report: &mut Report) {
    let mut roots: BTreeMap<&ObjectKey, Vec<ObjectId>> = BTreeMap::new();
    for root in world.routes.values() {
        for key in &root.delegates {
            roots.entry(key).or_default().push(id(Kind::VirtualService, &root.meta));
        }
    }
    for (key, roots) in roots {
        let Some(route) = world.mesh.virtual_services.get(key).filter(|r| r.hosts.is_empty()) else { continue };
        if let Some(root) = roots.first()
            && roots.iter().all(|root| report.0.contains_key(root))
        {
            let message = format!("may have no effect: see what is said of {root}, which delegates to it");
            report.warn(&id(Kind::VirtualService, &route.meta), "", message);
        }
    }
}

/// Every destination with the path of its route.
fn destinations(route: &VirtualService) -> Vec<(String, &Destination)> {
    let mut all = Vec::new();
    for (i, rule) in route.http.iter().enumerate() {
        all.extend(rule.route.iter().enumerate().map(|(j, d)| (format!("spec.http[{i}].route[{j}].destination"), &d.destination)));
        all.extend(rule.mirrors.iter().enumerate().map(|(j, m)| (format!("spec.http[{i}].mirrors[{j}].destination"), &m.destination)));
    }
    let tls = route.tls.iter().enumerate().map(|(i, r)| (i, "tls", &r.route));
    let tcp = route.tcp.iter().enumerate().map(|(i, r)| (i, "tcp", &r.route));
    for (i, kind, targets) in tls.chain(tcp) {
        all.extend(targets.iter().enumerate().map(|(j, d)| (format!("spec.{kind}[{i}].route[{j}].destination"), &d.destination)));
    }
    all
}

fn destination(world: &World, subsets: &Subsets<'_>, to: &Destination, mut warn: impl FnMut(&str, String)) {
    let services = world.services_of(&to.host);
    if services.is_empty() {
        return warn("host", format!("there is no service {}: what is sent there fails", to.host));
    }
    if let Some(port) = to.port.filter(|port| services.iter().all(|s| s.port(*port).is_none())) {
        warn("port", format!("service {} has no port {port}: what is sent there fails", to.host));
    }
    if !to.subset.is_empty() && !subsets.has(&to.host, &to.subset) {
        warn("subset", format!("no DestinationRule has a subset {:?} of {}: what is sent there fails", &*to.subset, to.host));
    }
}

/// Subsets of all DestinationRules.
struct Subsets<'a> {
    exact: HashSet<(&'a Host, &'a str)>,
    wildcard: Vec<(&'a Host, &'a str)>,
}

impl<'a> Subsets<'a> {
    fn of(world: &'a World) -> Self {
        let rules = world.mesh.destination_rules.values();
        let all = rules.flat_map(|r| r.subsets.iter().map(move |s| (&r.host, &*s.name)));
        let (wildcard, exact): (Vec<_>, Vec<_>) = all.partition(|(host, _)| host.is_wildcard());
        Subsets { exact: exact.into_iter().collect(), wildcard }
    }

    fn has(&self, host: &Host, subset: &str) -> bool {
        self.exact.contains(&(host, subset)) || self.wildcard.iter().any(|(wide, name)| *name == subset && wide.covers(host))
    }
}
