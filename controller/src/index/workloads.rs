//! Pods and WorkloadEntries: what is known of each, and the services that it serves.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use pilotfish_model::endpoint::{EndpointAddress, Workload};
use pilotfish_model::mesh::{ServiceKey, ServiceTarget, WorkloadInstance};
use pilotfish_model::name::{Labels, Str, selects};
use pilotfish_model::service::{Registry, Resolution};
use pilotfish_model::{Kind, Locality, ObjectId, Service};

use super::Index;
use super::endpoints::workload_entry_port;
use crate::convert::{Fact, PodFact, TargetPort, WorkloadFact};

impl Index {
    /// What endpoints of a Pod or WorkloadEntry share.
    pub(super) fn workload(&self, id: &ObjectId) -> Option<&Arc<Workload>> {
        self.workloads.get(id)
    }

    /// Recomputes what endpoints of a workload share.
    pub(super) fn refresh_workload(&mut self, id: &ObjectId) {
        let new = match self.fact(id) {
            Some(Fact::Pod(p)) if !p.ips.is_empty() && self.is_needed(id, p) => Some(self.pod_workload(id, p)),
            Some(Fact::WorkloadEntry(w)) => Some(Workload { is_entry: true, ..self.outside_workload(w) }),
            _ => None,
        };
        match new {
            // The old one is kept where nothing changed: comparing its sharers stays a pointer comparison.
            Some(new) if self.workloads.get(id).is_some_and(|old| **old == new) => {}
            Some(new) => drop(self.workloads.insert(id.clone(), Arc::new(new))),
            None => drop(self.workloads.remove(id)),
        }
    }

    /// Most Pods of a cluster may be none of the mesh's business: they serve nothing and have no proxy.
    fn is_needed(&self, id: &ObjectId, p: &PodFact) -> bool {
        let labels = &p.template.labels;
        p.template.proxied
            || self.relations.slices_of_pod.get(id).next().is_some()
            || self.relations.maybe_selecting(&id.namespace, labels).any(|object| match self.facts.get(object) {
                Some(Fact::Service(s)) => selects(&s.service.selector, labels),
                Some(Fact::ServiceEntry(e)) => e.selector.as_ref().is_some_and(|s| selects(s, labels)),
                _ => false,
            })
            || p.ips.iter().any(|ip| self.relations.entries_at.get(ip).next().is_some())
    }

    fn pod_workload(&self, id: &ObjectId, p: &PodFact) -> Workload {
        let node = match self.fact(&ObjectId::new(Kind::Node, "", p.node.clone())) {
            Some(Fact::Node(n)) => n.locality.clone(),
            _ => Locality::default(),
        };
        let t = &*p.template;
        let locality = t.locality.clone().unwrap_or(node);
        let network = t.network.clone().unwrap_or_else(|| self.default_network());
        Workload {
            labels: self.registry_labels(t.labels.clone(), &p.node, &locality, &network),
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            is_entry: false,
            workload_name: t.workload_name.clone(),
            service_account: self.spiffe(&id.namespace, &t.account),
            locality,
            network,
            cluster_id: self.settings.cluster_id.clone(),
            node: p.node.clone(),
            mtls: t.mtls,
            hostname: p.hostname.clone(),
            subdomain: t.subdomain.clone(),
        }
    }

    pub(super) fn outside_workload(&self, w: &WorkloadFact) -> Workload {
        Workload {
            labels: self.registry_labels(w.labels.clone(), "", &w.locality, &w.network),
            namespace: w.namespace.clone(),
            name: w.name.clone(),
            workload_name: w.name.clone(),
            service_account: if w.account.is_empty() { Str::default() } else { self.spiffe(&w.namespace, &w.account) },
            locality: w.locality.clone(),
            network: w.network.clone(),
            cluster_id: self.settings.cluster_id.clone(),
            mtls: w.mtls,
            ..Workload::default()
        }
    }

    /// The SPIFFE name of a service account, in the trust domain as it is now.
    pub(super) fn spiffe(&self, namespace: &str, account: &str) -> Str {
        let name = format!("spiffe://{}/ns/{namespace}/sa/{account}", self.settings.mesh_config.trust_domain);
        self.context.strings.share(&name)
    }

    /// A workload's labels and those that the registry knows.
    pub(super) fn registry_labels(&self, mut labels: Labels, node: &str, locality: &Locality, network: &Str) -> Labels {
        let known = [
            ("topology.kubernetes.io/region", &locality.region),
            ("topology.kubernetes.io/zone", &locality.zone),
            ("topology.istio.io/subzone", &locality.sub_zone),
        ];
        labels.extend(known.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.into(), v.clone())));
        if !node.is_empty() {
            labels.insert("kubernetes.io/hostname".into(), node.into());
        }
        labels.insert("topology.istio.io/cluster".into(), self.settings.cluster_id.clone());
        labels.insert("topology.istio.io/network".into(), network.clone());
        labels
    }

    /// The network of what does not say: the label of the root namespace.
    pub(super) fn default_network(&self) -> Str {
        match self.facts.get(&ObjectId::new(Kind::Namespace, "", self.settings.mesh_config.root_namespace.clone())) {
            Some(Fact::Namespace(info, _)) => info.labels.get("topology.istio.io/network").cloned().unwrap_or_default(),
            _ => Str::default(),
        }
    }

    /// Recomputes what a workload serves, and puts it under its addresses.
    pub(super) fn join_workload(&mut self, id: &ObjectId) {
        self.stats.workloads_joined += 1;
        let new = self.workload(id).and_then(|workload| {
            let (ips, labels) = match self.fact(id)? {
                Fact::Pod(p) => (p.ips.clone(), &p.template.labels),
                Fact::WorkloadEntry(w) => match w.address {
                    Some(EndpointAddress::Ip(ip)) => (vec![ip], &w.labels),
                    _ => return None,
                },
                _ => return None,
            };
            let targets = self.targets(id, &ips, labels);
            Some(Arc::new(WorkloadInstance { workload: workload.clone(), ips, targets }))
        });
        let old = match &new {
            Some(new) => self.instances.insert(id.clone(), new.clone()),
            None => self.instances.remove(id),
        };
        if old == new {
            return;
        }
        self.changes.objects.insert(id.clone());
        let ips: BTreeSet<IpAddr> = [&old, &new].into_iter().flatten().flat_map(|w| w.ips.iter().copied()).collect();
        self.changes.workloads.extend(ips.iter().copied());
        for ip in ips {
            let here: Vec<_> = self.relations.workloads_at.get(&ip).filter_map(|id| self.instances.get(id)).cloned().collect();
            if here.is_empty() {
                self.mesh.workloads.remove(&ip);
            } else {
                self.mesh.workloads.insert(ip, Arc::new(here));
            }
        }
    }

    /// The service ports that a workload serves: by selectors, by slices where no selector selects it, and by inline
    /// endpoints of ServiceEntries at its addresses.
    fn targets(&self, id: &ObjectId, ips: &[IpAddr], labels: &Labels) -> Vec<ServiceTarget> {
        let namespace = &id.namespace;
        let mut found: Vec<(&Service, u16, u16)> = Vec::new();
        let selecting: Vec<&Service> = self
            .relations
            .maybe_selecting(namespace, labels)
            .flat_map(|object| self.services_of(object))
            .filter(|s| selects(&s.selector, labels) && self.may_select(s.registry, id.kind))
            .collect();
        for service in selecting.iter().filter(|s| s.registry == Registry::Kubernetes) {
            self.kubernetes_targets(id, service, &mut found);
        }
        if found.is_empty() {
            let slices = self.relations.slices_of_pod.get(id).filter_map(|s| match self.fact(s)? {
                Fact::EndpointSlice(slice) => Some(self.kubernetes_key(&s.namespace, slice.service.as_ref()?)),
                _ => None,
            });
            for key in slices.collect::<BTreeSet<_>>() {
                if let Some(service) = self.mesh.services.get(&key) {
                    self.kubernetes_targets(id, service, &mut found);
                }
            }
        }
        for service in selecting.iter().filter(|s| s.registry == Registry::External) {
            let map = match self.fact(id) {
                Some(Fact::WorkloadEntry(w)) => Some(&w.ports),
                _ => None,
            };
            let target = |p: &pilotfish_model::ServicePort| map.and_then(|m| m.get(&p.name)).copied().or(p.target_port).unwrap_or(p.port);
            found.extend(service.ports.iter().map(|p| (*service, p.port, target(p))));
        }
        self.inline_targets(namespace, ips, &mut found);
        // Stable: the ports of a service keep the order in which it names them.
        found.sort_by(|(a, ..), (b, ..)| (a.created, &a.host, &a.namespace).cmp(&(b.created, &b.host, &b.namespace)));
        let mut seen = BTreeSet::new();
        found.retain(|(s, port, target)| seen.insert((&s.host, *port, *target)));
        found.into_iter().map(|(s, port, target_port)| ServiceTarget { service: ServiceKey::of(s), port, target_port }).collect()
    }

    /// Services of Kubernetes are for Pods and ServiceEntries for WorkloadEntries, unless the mesh says otherwise.
    fn may_select(&self, registry: Registry, kind: Kind) -> bool {
        let features = &self.settings.mesh_config.features;
        match (registry, kind) {
            (Registry::Kubernetes, Kind::WorkloadEntry) => features.services_select_entries,
            (Registry::External, Kind::Pod) => features.entries_select_pods,
            _ => true,
        }
    }

    /// The services in the mesh that stand for an object.
    fn services_of(&self, object: &ObjectId) -> impl Iterator<Item = &Service> {
        let list = match self.fact(object) {
            Some(Fact::Service(s)) => std::slice::from_ref(&s.service),
            Some(Fact::ServiceEntry(e)) => e.services.as_slice(),
            _ => &[],
        };
        list.iter().filter_map(|s| self.mesh.services.get(&ServiceKey::of(s))).flat_map(|s| s.all()).filter(|s| s.source == *object)
    }

    fn kubernetes_targets<'a>(&'a self, id: &ObjectId, service: &'a Service, found: &mut Vec<(&'a Service, u16, u16)>) {
        let Some(Fact::Service(fact)) = self.fact(&service.source) else { return };
        if service.resolution == Resolution::Alias {
            return;
        }
        for (port, target) in service.ports.iter().zip(&fact.targets) {
            let number = match (self.fact(id), target) {
                (Some(Fact::Pod(_)), TargetPort::Number(n)) => Some(*n),
                (Some(Fact::Pod(p)), TargetPort::Name(name)) => p.template.ports.iter().find(|(n, _)| n == name).map(|(_, n)| *n),
                (Some(Fact::WorkloadEntry(w)), target) => workload_entry_port(w, &port.name, target),
                _ => None,
            };
            found.extend(number.map(|n| (service, port.port, n)));
        }
    }

    fn inline_targets<'a>(&'a self, namespace: &Str, ips: &[IpAddr], found: &mut Vec<(&'a Service, u16, u16)>) {
        for entry in ips.iter().flat_map(|ip| self.relations.entries_at.get(ip)).filter(|e| e.namespace == *namespace) {
            let Some(Fact::ServiceEntry(e)) = self.fact(entry) else { continue };
            let here = |w: &&WorkloadFact| matches!(w.address, Some(EndpointAddress::Ip(ip)) if ips.contains(&ip));
            for service in self.services_of(entry) {
                for w in e.endpoints.iter().filter(here) {
                    let target = |p: &pilotfish_model::ServicePort| w.ports.get(&p.name).copied().or(p.target_port).unwrap_or(p.port);
                    found.extend(service.ports.iter().map(|p| (service, p.port, target(p))));
                }
            }
        }
    }

    /// Pods that slices of a Service mention.
    pub(super) fn pods_of_slices(&self, namespace: &Str, service: &Str) -> Vec<ObjectId> {
        let slices = self.relations.slices.get(&(namespace.clone(), service.clone()));
        let facts = slices.filter_map(|s| self.facts.get(s)).filter_map(|fact| match fact {
            Fact::EndpointSlice(s) => Some(s),
            _ => None,
        });
        facts.flat_map(|s| s.endpoints.iter().filter_map(|e| e.pod.clone())).collect()
    }
}
