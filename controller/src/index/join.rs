//! What depends on what, and the recomputation of what is marked.

use std::collections::BTreeSet;
use std::sync::Arc;

use pilotfish_model::endpoint::Endpoint;
use pilotfish_model::mesh::{ObjectKey, ServiceKey};
use pilotfish_model::name::{Labels, Str, Visibility, selects};
use pilotfish_model::service::Registry;
use pilotfish_model::{ContentHash, Kind, ObjectId, Service};

use super::difference::{endpoint_change, place, reaches_service};
use super::relations::Claim;
use super::{Index, usage};
use crate::convert::{Fact, SliceFact};

/// What has to be recomputed.
#[derive(Default)]
pub(super) struct Dirty {
    /// Objects that go into the mesh as they are.
    plain: BTreeSet<ObjectId>,
    /// Services, with their endpoints.
    services: BTreeSet<ServiceKey>,
    /// Pods and WorkloadEntries.
    workloads: BTreeSet<ObjectId>,
    /// Secrets, which are kept while somebody refers to them.
    secrets: BTreeSet<ObjectId>,
}

impl Dirty {
    /// How much there is to do.
    pub(super) fn len(&self) -> usize {
        self.plain.len() + self.services.len() + self.workloads.len() + self.secrets.len()
    }
}

impl Index {
    /// Takes note that the fact of `id` is not `old` any more.
    pub(super) fn changed(&mut self, id: &ObjectId, old: Option<Fact>) {
        let new = self.facts.get(id).cloned();
        if let Some(old) = &old {
            // Dependants of the old form are found before its relations go.
            self.mark(id, old);
            self.relations.set(id, old, false);
        }
        if let Some(new) = &new {
            if let Some((namespace, key)) = self.relations.set(id, new, true) {
                self.label_all(&namespace, &key);
            }
            self.mark(id, new);
        }
        match (&old, &new) {
            (Some(Fact::EndpointSlice(a)), Some(Fact::EndpointSlice(b))) => self.mark_membership(Some(a), Some(b)),
            (Some(Fact::EndpointSlice(a)), _) | (_, Some(Fact::EndpointSlice(a))) => self.mark_membership(Some(a), None),
            _ => {}
        }
        if matches!((&old, &new), (Some(Fact::Settings(_)), _) | (_, Some(Fact::Settings(_)))) {
            self.merge_settings(Some(id));
        }
        self.set_credentials(id, old.as_ref(), new.as_ref());
    }

    /// Notes all workloads of a namespace by a label, which is done once for each namespace and key.
    fn label_all(&mut self, namespace: &Str, key: &Str) {
        for kind in [Kind::Pod, Kind::WorkloadEntry] {
            let ids: Vec<_> = self.ids(kind, Some(namespace)).cloned().collect();
            for id in ids {
                match self.facts.get(&id) {
                    Some(Fact::Pod(p)) => self.relations.label(&id, key, &p.template.labels),
                    Some(Fact::WorkloadEntry(w)) => self.relations.label(&id, key, &w.labels),
                    _ => {}
                }
            }
        }
    }

    /// Pods that entered or left a slice: only these may serve other services than before.
    fn mark_membership(&mut self, a: Option<&Arc<SliceFact>>, b: Option<&Arc<SliceFact>>) {
        let pods = |s: Option<&Arc<SliceFact>>| -> BTreeSet<ObjectId> {
            s.into_iter().flat_map(|s| s.endpoints.iter().filter_map(|e| e.pod.clone())).collect()
        };
        self.dirty.workloads.extend(pods(a).symmetric_difference(&pods(b)).cloned());
    }

    fn mark(&mut self, id: &ObjectId, fact: &Fact) {
        match fact {
            Fact::Namespace(..) => self.mark_namespace(&id.name),
            Fact::Node(_) => {
                self.dirty.plain.insert(id.clone());
                let pods: Vec<_> = self.relations.pods_on.get(&id.name).cloned().collect();
                for pod in pods {
                    self.mark_pod(&pod);
                    if let Some(Fact::Pod(p)) = self.facts.get(&pod).cloned() {
                        self.mark_selecting(&pod.namespace, &p.template.labels, false);
                    }
                }
            }
            Fact::Service(s) => {
                self.dirty.services.insert(ServiceKey::of(&s.service));
                self.mark_selected(&s.service.namespace, &s.service.selector);
                // Its slices may have others than those that it selects.
                let members: Vec<_> = self.pods_of_slices(&s.service.namespace, &s.service.name);
                self.dirty.workloads.extend(members);
            }
            Fact::EndpointSlice(s) => {
                if let Some(service) = &s.service {
                    let key = self.kubernetes_key(&id.namespace, service);
                    self.dirty.services.insert(key);
                }
            }
            Fact::Pod(p) => {
                self.mark_pod(id);
                self.mark_selecting(&id.namespace, &p.template.labels, false);
            }
            Fact::ServiceEntry(e) => {
                self.dirty.services.extend(e.services.iter().map(ServiceKey::of));
                if let Some(selector) = &e.selector {
                    self.mark_selected(&id.namespace, selector);
                }
                for endpoint in &e.endpoints {
                    if let Some(pilotfish_model::endpoint::EndpointAddress::Ip(ip)) = endpoint.address {
                        self.dirty.workloads.extend(self.relations.workloads_at.get(&ip).cloned());
                    }
                }
            }
            Fact::WorkloadEntry(w) => {
                self.dirty.workloads.insert(id.clone());
                self.mark_selecting(&id.namespace, &w.labels, true);
            }
            Fact::Secret(_) => {
                self.dirty.secrets.insert(id.clone());
            }
            _ => {
                self.dirty.plain.insert(id.clone());
            }
        }
    }

    /// A Pod and the services of the slices that mention it.
    fn mark_pod(&mut self, id: &ObjectId) {
        self.dirty.workloads.insert(id.clone());
        let slices: Vec<_> = self.relations.slices_of_pod.get(id).cloned().collect();
        for slice in slices {
            if let Some(Fact::EndpointSlice(s)) = self.facts.get(&slice)
                && let Some(service) = &s.service
            {
                let key = self.kubernetes_key(&slice.namespace, service);
                self.dirty.services.insert(key);
            }
        }
    }

    /// Services of a namespace whose selector selects a workload. Slices say it for Kubernetes Services and Pods.
    fn mark_selecting(&mut self, namespace: &Str, labels: &Labels, kubernetes: bool) {
        let mut found = Vec::new();
        for id in self.relations.maybe_selecting(namespace, labels) {
            match self.facts.get(id) {
                Some(Fact::Service(s)) if kubernetes && selects(&s.service.selector, labels) => found.push(ServiceKey::of(&s.service)),
                Some(Fact::ServiceEntry(e)) if e.selector.as_ref().is_some_and(|s| selects(s, labels)) => {
                    found.extend(e.services.iter().map(ServiceKey::of));
                }
                _ => {}
            }
        }
        self.dirty.services.extend(found);
    }

    /// Workloads of a namespace that a selector selects.
    fn mark_selected(&mut self, namespace: &Str, selector: &Labels) {
        let selected = self.relations.maybe_selected(namespace, selector).filter(|id| match self.facts.get(*id) {
            Some(Fact::Pod(p)) => selects(selector, &p.template.labels),
            Some(Fact::WorkloadEntry(w)) => selects(selector, &w.labels),
            _ => false,
        });
        self.dirty.workloads.extend(selected.cloned());
    }

    /// A namespace's labels decide whether its objects count at all, its annotation how its services prefer endpoints, and
    /// the root namespace's labels on which network everything is.
    fn mark_namespace(&mut self, namespace: &str) {
        self.dirty.plain.insert(ObjectId::new(Kind::Namespace, "", namespace));
        let shown = self.sees(namespace);
        self.listing.set_shown(namespace, shown);
        if namespace == &*self.settings.mesh_config.root_namespace {
            self.mark_everything();
            return;
        }
        let ids: Vec<_> = Kind::ALL.iter().flat_map(|k| self.ids(*k, Some(namespace))).cloned().collect();
        self.mark_all(ids);
    }

    /// Everything, after the mesh's settings changed.
    pub(super) fn mark_everything(&mut self) {
        let ids: Vec<_> = self.facts.keys().cloned().collect();
        self.dirty.services.extend(self.relations.claims.keys().cloned());
        self.mark_all(ids);
    }

    fn mark_all(&mut self, ids: Vec<ObjectId>) {
        for id in ids {
            match self.facts.get(&id) {
                Some(Fact::Service(s)) => drop(self.dirty.services.insert(ServiceKey::of(&s.service))),
                Some(Fact::ServiceEntry(e)) => self.dirty.services.extend(e.services.iter().map(ServiceKey::of)),
                Some(Fact::Pod(_) | Fact::WorkloadEntry(_)) => drop(self.dirty.workloads.insert(id)),
                Some(Fact::Secret(_)) => drop(self.dirty.secrets.insert(id)),
                Some(Fact::EndpointSlice(_)) | None => {}
                Some(fact) => {
                    // Whether it is part of the mesh decides whether its references count.
                    let credentials = credentials(Some(fact));
                    self.credentials_changed |= !credentials.is_empty();
                    let referred = credentials.iter().flat_map(|name| self.relations.secrets.get(name));
                    self.dirty.secrets.extend(referred.cloned());
                    self.dirty.plain.insert(id);
                }
            }
        }
    }

    /// The key of a Kubernetes Service.
    pub(super) fn kubernetes_key(&self, namespace: &Str, name: &str) -> ServiceKey {
        let host = pilotfish_model::Host::new(&format!("{name}.{namespace}.svc.{}", self.settings.domain));
        ServiceKey { namespace: namespace.clone(), host }
    }

    /// Recomputes all that is marked. Services come before workloads, which look at them.
    pub(super) fn join(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        for id in &dirty.plain {
            self.put_plain(id);
        }
        // Endpoints share what is known of a workload, so that comes first.
        for id in &dirty.workloads {
            self.refresh_workload(id);
        }
        for key in &dirty.services {
            self.join_service(key);
        }
        for id in &dirty.workloads {
            self.join_workload(id);
        }
        for id in &dirty.secrets {
            self.put_secret(id);
        }
    }

    /// What a claim would be if it were the only one.
    fn claimed(&self, claim: &Claim) -> Option<Service> {
        let (service, visibility, distribution, accounts) = match self.fact(&claim.id)? {
            Fact::Service(s) => (&s.service, &s.visibility, s.traffic_distribution, s.accounts.as_slice()),
            Fact::ServiceEntry(e) => (e.services.get(claim.host)?, &e.visibility, e.traffic_distribution, &[][..]),
            _ => return None,
        };
        let mut service = self.with_defaults(service, visibility.clone(), distribution);
        service.service_accounts.extend(accounts.iter().map(|a| self.spiffe(&claim.id.namespace, a)));
        Some(service)
    }

    /// The service that has a host: the first claim's, with what later ones say, and the endpoints of all.
    fn claimant(&self, key: &ServiceKey) -> Option<(Service, Vec<Endpoint>)> {
        let mut claims = self.relations.claims.get(key);
        let (mut service, mut endpoints) = claims.find_map(|claim| {
            let service = self.claimed(claim)?;
            let endpoints = self.endpoints(&service, claim);
            Some((service, endpoints))
        })?;
        for claim in claims {
            // An object that names a host twice says the same twice.
            let Some(twin) = self.claimed(claim).filter(|twin| service.all().all(|s| s.source != twin.source)) else { continue };
            endpoints.extend(self.endpoints(&twin, claim));
            service.twins.push(Arc::new(twin));
        }
        if !service.twins.is_empty() {
            endpoints.sort_by(|a, b| place(a).cmp(&place(b)));
        }
        Some((service, endpoints))
    }

    fn join_service(&mut self, key: &ServiceKey) {
        self.stats.services_joined += 1;
        let (new, endpoints) = self.claimant(key).map_or((None, Vec::new()), |(service, endpoints)| (Some(Arc::new(service)), endpoints));
        let before = self.mesh.endpoints.get(key).map_or(&[][..], |e| e.as_slice());
        let change = endpoint_change(before, &endpoints);
        let reaches = change.is_some() && new.as_ref().is_some_and(|s| reaches_service(s, before, &endpoints));
        let old = self.mesh.services.get(key);
        if old != new.as_ref() {
            usage::replace(&mut self.mesh.usage, old.map(|s| &**s), new.as_deref());
            let sources = [old, new.as_ref()].into_iter().flatten().flat_map(|s| s.all().map(|s| &s.source));
            self.changes.objects.extend(sources.cloned());
            self.changes.services.insert(key.clone());
            match new {
                Some(service) => drop(self.mesh.services.insert(key.clone(), service)),
                None => drop(self.mesh.services.remove(key)),
            }
        } else if reaches {
            self.changes.services.insert(key.clone());
        }
        if let Some(change) = change {
            // A service may be joined twice before it is published; the more urgent change counts.
            let known = self.changes.endpoints.entry(key.clone()).or_insert(change);
            *known = change.max(*known);
            if endpoints.is_empty() {
                self.mesh.endpoints.remove(key);
            } else {
                self.mesh.endpoints.insert(key.clone(), Arc::new(endpoints));
            }
        }
    }

    fn with_defaults(
        &self,
        service: &Service,
        visibility: Option<Visibility>,
        distribution: Option<pilotfish_model::service::TrafficDistribution>,
    ) -> Service {
        let mesh_default = || Visibility::parse(&self.settings.mesh_config.default_service_export_to, &service.namespace);
        let namespace = match self.facts.get(&ObjectId::new(Kind::Namespace, "", service.namespace.clone())) {
            Some(Fact::Namespace(_, distribution)) => *distribution,
            _ => None,
        };
        let visibility = visibility.or_else(mesh_default).unwrap_or_default();
        let visibility = match &self.settings.mesh_config.service_entry_visibility {
            Some(bound) if service.registry == Registry::External => {
                bound.bound(&service.namespace, self.labels_of_namespace(&service.namespace), visibility)
            }
            _ => visibility,
        };
        Service {
            visibility,
            traffic_distribution: distribution.or(namespace).unwrap_or_default(),
            persistent_session: self.settings.mesh_config.features.keeps_sessions(&service.labels),
            ..service.clone()
        }
    }

    fn labels_of_namespace(&self, namespace: &Str) -> &Labels {
        static NONE: Labels = Labels::new();
        match self.facts.get(&ObjectId::new(Kind::Namespace, "", namespace.clone())) {
            Some(Fact::Namespace(info, _)) => &info.labels,
            _ => &NONE,
        }
    }

    /// An object that goes into the mesh as it is. That it is marked means that it differs, but for visibility.
    fn put_plain(&mut self, id: &ObjectId) {
        let fact = self.fact(id).cloned();
        let at = ObjectKey::of(id);
        /// Puts or removes a value; whether anything differs.
        macro_rules! put {
            ($map:ident, $key:expr, $variant:pat => $value:expr) => {{
                let new = match fact {
                    Some($variant) => Some($value),
                    _ => None,
                };
                let old = self.mesh.$map.get(&$key);
                let differs = old != new.as_ref();
                if differs {
                    usage::replace(&mut self.mesh.usage, old.map(|x| &**x), new.as_deref());
                }
                match new {
                    Some(new) if differs => drop(self.mesh.$map.insert($key, new)),
                    None if differs => drop(self.mesh.$map.remove(&$key)),
                    _ => {}
                }
                differs
            }};
        }
        let differs = match id.kind {
            Kind::Namespace => put!(namespaces, id.name.clone(), Fact::Namespace(info, _) => info),
            Kind::Node => put!(nodes, id.name.clone(), Fact::Node(node) => Arc::new(node.locality.clone())),
            Kind::VirtualService => put!(virtual_services, at, Fact::VirtualService(x) => x),
            Kind::DestinationRule => put!(destination_rules, at, Fact::DestinationRule(x) => x),
            Kind::Gateway => put!(gateways, at, Fact::Gateway(x) => x),
            Kind::Sidecar => put!(sidecars, at, Fact::Sidecar(x) => x),
            Kind::PeerAuthentication => put!(peer_authentications, at, Fact::PeerAuthentication(x) => x),
            Kind::RequestAuthentication => put!(request_authentications, at, Fact::RequestAuthentication(x) => x),
            Kind::AuthorizationPolicy => put!(authorization_policies, at, Fact::AuthorizationPolicy(x) => x),
            Kind::Telemetry => put!(telemetries, at, Fact::Telemetry(x) => x),
            Kind::EnvoyFilter => put!(envoy_filters, at, Fact::EnvoyFilter(x) => x),
            Kind::WasmPlugin => put!(wasm_plugins, at, Fact::WasmPlugin(x) => x),
            Kind::TrafficExtension => put!(traffic_extensions, at, Fact::TrafficExtension(x) => x),
            // Settings are merged at once, and Secrets have their own way.
            Kind::ConfigMap | Kind::Secret => false,
            _ => {
                let new = match fact {
                    Some(Fact::Other(hash)) => Some(hash),
                    _ => None,
                };
                self.set_untranslated(id, new)
            }
        };
        if differs {
            self.changes.objects.insert(id.clone());
        }
    }

    /// Kinds without translation only leave the trace that they changed.
    fn set_untranslated(&mut self, id: &ObjectId, new: Option<ContentHash>) -> bool {
        let old = match new {
            Some(hash) => self.untranslated.insert(id.clone(), hash),
            None => self.untranslated.remove(id),
        };
        old != new
    }

    fn put_secret(&mut self, id: &ObjectId) {
        let at = ObjectKey::of(id);
        let new = match self.fact(id) {
            Some(Fact::Secret(secret)) if self.is_referred(&id.name) => Some(secret.clone()),
            _ => None,
        };
        if self.mesh.secrets.get(&at) == new.as_ref() {
            return;
        }
        match new {
            Some(secret) => drop(self.mesh.secrets.insert(at, secret)),
            None => drop(self.mesh.secrets.remove(&at)),
        }
        self.changes.objects.insert(id.clone());
    }

    /// Notes who refers to Secrets of a name. In which namespace a name is looked up depends on the proxy, so Secrets of
    /// that name are kept in all.
    fn set_credentials(&mut self, id: &ObjectId, old: Option<&Fact>, new: Option<&Fact>) {
        let (old, new) = (credentials(old), credentials(new));
        for name in new.symmetric_difference(&old) {
            self.relations.referrers.set(name.clone(), id.clone(), new.contains(name));
            self.dirty.secrets.extend(self.relations.secrets.get(name).cloned());
            self.credentials_changed = true;
        }
    }

    /// Whether an object of the mesh refers to Secrets of a name.
    fn is_referred(&self, name: &Str) -> bool {
        self.relations.referrers.get(name).any(|id| self.sees(&id.namespace))
    }

    /// Names of Secrets that objects of the mesh refer to, if they may be others than at the last call.
    pub(crate) fn new_credentials(&mut self) -> Option<BTreeSet<Str>> {
        let changed = std::mem::take(&mut self.credentials_changed);
        changed.then(|| self.relations.referrers.keys().filter(|name| self.is_referred(name)).cloned().collect())
    }
}

/// Names of Secrets that a fact refers to; of those for TLS, each with the variant that holds only the roots.
fn credentials(fact: Option<&Fact>) -> BTreeSet<Str> {
    let mut names = BTreeSet::new();
    let mut add = |name: &Str| {
        let name = name.rsplit('/').next().unwrap_or_default();
        if !name.is_empty() {
            names.insert(Str::from(name));
            names.insert(format!("{}-cacert", name.strip_suffix("-cacert").unwrap_or(name)).into());
        }
    };
    match fact {
        Some(Fact::Gateway(g)) => {
            for tls in g.servers.iter().filter_map(|s| s.tls.as_ref()) {
                tls.credential_names.iter().chain([&tls.ca_cert_credential_name]).for_each(&mut add);
            }
        }
        Some(Fact::DestinationRule(d)) => {
            for policy in std::iter::once(&d.policy).chain(d.subsets.iter().map(|s| &s.policy)) {
                let ports = policy.ports.values().filter_map(|p| p.tls.as_ref());
                policy.tls.iter().chain(ports).for_each(|t| add(&t.credential_name));
            }
        }
        Some(Fact::WasmPlugin(e) | Fact::TrafficExtension(e)) => names.extend(e.pull_secret().cloned()),
        _ => {}
    }
    names
}
