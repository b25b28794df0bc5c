//! The endpoints of one service.

use std::net::IpAddr;
use std::sync::Arc;

use pilotfish_model::endpoint::{Endpoint, EndpointAddress, Health, Workload};
use pilotfish_model::name::{CANONICAL_NAME, CANONICAL_REVISION, Labels, Str, first_label, selects};
use pilotfish_model::service::{Registry, Resolution, ServicePort};
use pilotfish_model::{ObjectId, Service};

use super::Index;
use super::difference::place;
use super::relations::Claim;
use crate::convert::{Fact, ServiceEntryFact, ServiceFact, TargetPort, WorkloadFact};

impl Index {
    /// Endpoints of a service, ordered by address and port.
    pub(super) fn endpoints(&self, service: &Service, claim: &Claim) -> Vec<Endpoint> {
        let mut found = match self.fact(&claim.id) {
            Some(Fact::Service(s)) if service.registry == Registry::Kubernetes => self.kubernetes_endpoints(service, s),
            Some(Fact::ServiceEntry(e)) => self.entry_endpoints(service, e, &claim.id),
            _ => Vec::new(),
        };
        let draining = &self.settings.mesh_config.features.draining_label;
        found.retain_mut(|e| {
            if !draining.is_empty() && e.workload.labels.get(draining).is_some_and(|v| !v.is_empty()) {
                e.health = Health::Draining;
            }
            e.health != Health::Draining || service.persistent_session
        });
        found.sort_by(|a, b| place(a).cmp(&place(b)));
        found
    }

    fn kubernetes_endpoints(&self, service: &Service, fact: &ServiceFact) -> Vec<Endpoint> {
        if service.resolution == Resolution::Alias {
            return Vec::new();
        }
        let mut found: Vec<Endpoint> = Vec::new();
        let mut bare = None;
        // What has addresses of both families is one endpoint, if clients are to choose between them.
        let both = self.settings.mesh_config.features.dual_stack && service.addresses.len() > 1;
        for id in self.relations.slices.get(&(service.namespace.clone(), service.name.clone())) {
            let Some(Fact::EndpointSlice(slice)) = self.fact(id) else { continue };
            for e in &slice.endpoints {
                if e.health == Health::Draining && !service.persistent_session {
                    continue;
                }
                let workload = match &e.pod {
                    // An endpoint whose Pod is not here yet waits for it: without it nothing is known of its identity.
                    Some(pod) => match self.workload(pod) {
                        Some(workload) => workload.clone(),
                        None => continue,
                    },
                    None => bare.get_or_insert_with(|| Arc::new(self.nobody())).clone(),
                };
                let ips = match &e.pod {
                    Some(pod) if both => self.ips_of(pod),
                    _ => &[],
                };
                let (ip, more) = match ips {
                    // The slice of the other family says the same of them.
                    [_, _, ..] if e.ip.is_ipv6() => continue,
                    [first, more @ ..] if !more.is_empty() => (*first, more),
                    _ => (e.ip, &[][..]),
                };
                for (name, port) in &slice.ports {
                    if service.ports.iter().any(|p| p.name == *name) {
                        let one = endpoint(EndpointAddress::Ip(ip), *port, name, 1, e.health, &workload);
                        found.push(Endpoint { additional_addresses: more.into(), ..one });
                    }
                }
            }
        }
        // While a slice is split in two, both hold the same endpoint; the healthier view of it counts.
        found.sort_by(|a, b| (place(a), a.health).cmp(&(place(b), b.health)));
        found.dedup_by(|a, b| place(a) == place(b));
        if !service.selector.is_empty() && self.settings.mesh_config.features.services_select_entries {
            self.add_workload_entries(service, fact, &mut found);
        }
        found
    }

    /// WorkloadEntries that a Kubernetes Service selects.
    fn add_workload_entries(&self, service: &Service, fact: &ServiceFact, found: &mut Vec<Endpoint>) {
        for id in self.relations.maybe_selected(&service.namespace, &service.selector) {
            let Some(Fact::WorkloadEntry(w)) = self.fact(id) else { continue };
            let (Some(EndpointAddress::Ip(ip)), true) = (&w.address, selects(&service.selector, &w.labels)) else { continue };
            let Some(workload) = self.workload(id) else { continue };
            for (port, target) in service.ports.iter().zip(&fact.targets) {
                if let Some(number) = workload_entry_port(w, &port.name, target) {
                    found.push(endpoint(EndpointAddress::Ip(*ip), number, &port.name, w.weight, Health::Unknown, workload));
                }
            }
        }
    }

    fn entry_endpoints(&self, service: &Service, fact: &ServiceEntryFact, id: &ObjectId) -> Vec<Endpoint> {
        let dns = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        // Of a service whose clients choose the address only those that it selects are known.
        let chosen = service.resolution == Resolution::Passthrough && fact.selector.is_none();
        if chosen || matches!(service.resolution, Resolution::DynamicDns | Resolution::Alias) {
            return Vec::new();
        }
        let mut found = Vec::new();
        let ports = |w: &WorkloadFact, workload: &Arc<Workload>, found: &mut Vec<Endpoint>| {
            let Some(address) = &w.address else { return };
            // A name can only be resolved by the proxy, and it does so for DNS services alone.
            if matches!(address, EndpointAddress::Dns(_)) && !dns {
                return;
            }
            for p in &service.ports {
                let number = match address {
                    EndpointAddress::Unix(_) => 0,
                    _ => w.ports.get(&p.name).copied().or(p.target_port).unwrap_or(p.port),
                };
                found.push(of_entry(endpoint(address.clone(), number, &p.name, w.weight, Health::Unknown, workload), p));
            }
        };
        for w in &fact.endpoints {
            let workload = Workload { mtls: w.mtls && !service.mesh_external, ..self.outside_workload(w) };
            ports(w, &Arc::new(workload), &mut found);
        }
        if let Some(selector) = &fact.selector {
            for id in self.relations.maybe_selected(&service.namespace, selector) {
                let Some(Fact::WorkloadEntry(w)) = self.fact(id) else { continue };
                if selects(selector, &w.labels)
                    && let Some(workload) = self.workload(id)
                {
                    ports(w, &external(workload, service), &mut found);
                }
            }
            if self.settings.mesh_config.features.entries_select_pods {
                self.add_selected_pods(service, selector, &mut found);
            }
        } else if fact.endpoints.is_empty() && dns && !service.host.is_wildcard() {
            let name = id.name.clone();
            let workload = Workload {
                namespace: id.namespace.clone(),
                name: name.clone(),
                workload_name: name,
                cluster_id: self.settings.cluster_id.clone(),
                ..Workload::default()
            };
            let (address, workload) = (EndpointAddress::Dns(service.host.as_str().into()), Arc::new(workload));
            for p in &service.ports {
                let port = p.target_port.unwrap_or(p.port);
                found.push(of_entry(endpoint(address.clone(), port, &p.name, 1, Health::Unknown, &workload), p));
            }
        }
        if service.mesh_external && self.settings.mesh_config.features.canonical_outside {
            found.iter_mut().for_each(|e| e.workload = Arc::new(canonical(&e.workload, service)));
        }
        // The reference makes one service of each address; their endpoints come together again under the host.
        let copies = service.addresses.len().max(1);
        found.into_iter().flat_map(|e| std::iter::repeat_n(e, copies)).collect()
    }

    fn add_selected_pods(&self, service: &Service, selector: &Labels, found: &mut Vec<Endpoint>) {
        for id in self.relations.maybe_selected(&service.namespace, selector) {
            let Some(Fact::Pod(pod)) = self.fact(id) else { continue };
            let (Some(ip), true) = (pod.ips.first(), pod.ready && selects(selector, &pod.template.labels)) else { continue };
            let Some(workload) = self.workload(id) else { continue };
            let workload = external(workload, service);
            let more = if self.settings.mesh_config.features.dual_stack { &pod.ips[1..] } else { &[] };
            for p in &service.ports {
                let port = p.target_port.unwrap_or(p.port);
                let one = endpoint(EndpointAddress::Ip(*ip), port, &p.name, 1, Health::Healthy, &workload);
                found.push(of_entry(Endpoint { additional_addresses: more.into(), ..one }, p));
            }
        }
    }

    fn ips_of(&self, pod: &ObjectId) -> &[IpAddr] {
        match self.fact(pod) {
            Some(Fact::Pod(pod)) => &pod.ips,
            _ => &[],
        }
    }

    /// An endpoint behind which no Pod is known.
    fn nobody(&self) -> Workload {
        let network = self.default_network();
        Workload {
            labels: self.registry_labels(Labels::new(), "", &Default::default(), &network),
            network,
            cluster_id: self.settings.cluster_id.clone(),
            ..Workload::default()
        }
    }
}

/// Where a WorkloadEntry serves a port of a Kubernetes Service: what its own map says of the target's name, else the
/// target's number. A named target that its map lacks is not served.
pub(super) fn workload_entry_port(w: &WorkloadFact, port_name: &Str, target: &TargetPort) -> Option<u16> {
    match target {
        TargetPort::Name(name) => w.ports.get(name).copied(),
        TargetPort::Number(number) => Some(w.ports.get(port_name).copied().unwrap_or(*number)),
    }
}

/// Outside the mesh nobody is expected to speak the mesh's TLS.
fn external(workload: &Arc<Workload>, service: &Service) -> Arc<Workload> {
    if workload.mtls && service.mesh_external { Arc::new(Workload { mtls: false, ..(**workload).clone() }) } else { workload.clone() }
}

/// What telemetry knows of servers outside of the mesh: what labels of their ServiceEntry say, else what it is called.
fn canonical(workload: &Workload, service: &Service) -> Workload {
    let said = |keys: &[&str]| first_label(&service.labels, keys).cloned();
    let name = said(&CANONICAL_NAME).unwrap_or_else(|| service.source.name.clone());
    let revision = said(&CANONICAL_REVISION);
    let mut labels = workload.labels.clone();
    labels.insert(CANONICAL_NAME[0].into(), name);
    labels.insert(CANONICAL_REVISION[0].into(), revision.unwrap_or_else(|| "latest".into()));
    Workload { namespace: service.namespace.clone(), labels, ..workload.clone() }
}

fn endpoint(address: EndpointAddress, port: u16, name: &Str, weight: u32, health: Health, workload: &Arc<Workload>) -> Endpoint {
    Endpoint {
        address,
        additional_addresses: Box::default(),
        port,
        service_port: name.clone(),
        service_port_number: 0,
        weight,
        health,
        workload: workload.clone(),
    }
}

/// One of a ServiceEntry, whose ports are told by number.
fn of_entry(endpoint: Endpoint, port: &ServicePort) -> Endpoint {
    Endpoint { service_port_number: port.port, ..endpoint }
}
