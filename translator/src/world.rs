//! [`World`]: a mesh, and what all scopes would otherwise find out about it each for itself.
//!
//! Everything derived is kept per object or per namespace in shared maps, so that [`World::next`] costs what changed. Two
//! worlds that agree in a part share its pointer: by that a view sees that nothing it read has changed.

mod aliases;
pub(crate) mod by_age;
mod keys;

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use imbl::OrdMap;
use pilotfish_model::mesh::{ObjectKey, ServiceKey};
use pilotfish_model::name::{Host, Str};
use pilotfish_model::{ChangeSet, ContentHash, Diagnostic, Kind, Mesh, MeshConfig, Service, VirtualService};

use crate::patch::PatchIndex;
use crate::policy::RuleIndex;
use crate::route::delegate;
use crate::scope::ByHost;
pub use aliases::Aliases;
use by_age::ByAge;
pub use keys::Keys;
pub(crate) use keys::failover_key;

/// See the module.
#[derive(Clone)]
pub struct World {
    /// The mesh.
    pub mesh: Arc<Mesh>,
    pub(crate) config: ContentHash,
    pub(crate) keys: Arc<Keys>,
    pub(crate) rules: RuleIndex,
    pub(crate) patches: PatchIndex,
    pub(crate) routes: OrdMap<ObjectKey, Arc<Rules>>,
    /// Those of them that borrow rules.
    delegating: BTreeSet<ObjectKey>,
    pub(crate) accounts: OrdMap<ServiceKey, Arc<[Str]>>,
    hosts: OrdMap<Host, Arc<[Arc<Service>]>>,
    /// Services of which several objects of one namespace speak. Most meshes have none.
    twinned: BTreeSet<ServiceKey>,
    pub(crate) aliases: Arc<Aliases>,
    services_by_age: ByAge<ServiceKey, Service>,
    /// Where in that list hosts are.
    by_host: OnceLock<Arc<ByHost>>,
    routes_by_age: ByAge<ObjectKey, Rules>,
}

/// A VirtualService with the rules of its delegates in their place, and the hash of that: large objects are hashed once.
#[derive(Clone, Debug)]
pub struct Rules {
    hash: ContentHash,
    object: Arc<VirtualService>,
    /// Objects that it borrows rules of, whether they exist or not.
    pub(crate) delegates: Vec<ObjectKey>,
}

impl Rules {
    /// As the mesh has it.
    pub fn new(mesh: &Mesh, object: &Arc<VirtualService>) -> Self {
        let object_with_delegates = delegate::resolve(mesh, object);
        let delegates = object.http.iter().filter_map(|r| r.delegate.as_ref());
        Rules {
            hash: ContentHash::of(&*object_with_delegates),
            delegates: delegates.map(|d| ObjectKey { namespace: d.namespace.clone(), name: d.name.clone() }).collect(),
            object: object_with_delegates,
        }
    }

    /// Its key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { namespace: self.meta.namespace.clone(), name: self.meta.name.clone() }
    }

    /// True if connections that are not read as HTTP may follow it.
    pub fn is_l4(&self) -> bool {
        !self.tls.is_empty() || !self.tcp.is_empty()
    }
}

impl Deref for Rules {
    type Target = VirtualService;

    fn deref(&self) -> &VirtualService {
        &self.object
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for Rules {}

impl std::hash::Hash for Rules {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl World {
    /// Derives everything.
    pub fn new(mesh: Arc<Mesh>) -> World {
        let mut world = World {
            config: ContentHash::of(&*mesh.config),
            keys: Arc::new(Keys::default()),
            rules: RuleIndex::new(&mesh),
            patches: PatchIndex::new(&mesh),
            routes: OrdMap::new(),
            delegating: BTreeSet::new(),
            accounts: mesh.services.iter().map(|(key, s)| (key.clone(), accounts(&mesh, s))).collect(),
            hosts: hosts(&mesh),
            twinned: mesh.services.iter().filter(|(_, s)| !s.twins.is_empty()).map(|(key, _)| key.clone()).collect(),
            aliases: Arc::new(Aliases::new(&mesh)),
            services_by_age: ByAge::new(by_age::service_order),
            by_host: OnceLock::new(),
            routes_by_age: ByAge::new(by_age::rules_order),
            mesh,
        };
        for (key, object) in &world.mesh.virtual_services {
            let rules = Rules::new(&world.mesh, object);
            if !rules.delegates.is_empty() {
                world.delegating.insert(key.clone());
            }
            world.routes.insert(key.clone(), Arc::new(rules));
        }
        world.keys = Arc::new(Keys::of(&world.mesh, &world.rules, &world.patches));
        world
    }

    /// The world of a later mesh. `changes` must name everything in which the two meshes differ.
    pub fn next(&self, mesh: Arc<Mesh>, changes: &ChangeSet) -> World {
        if changes.everything {
            return World::new(mesh);
        }
        if changes.is_endpoints_only() {
            return World { mesh, ..self.clone() };
        }
        let of_kind = |kind| changes.objects.iter().filter(move |o| o.kind == kind);
        let mut world = World {
            config: self.config,
            keys: self.keys.clone(),
            rules: self.rules.next(&mesh, of_kind(Kind::DestinationRule).map(|o| &o.namespace).collect()),
            patches: self.patches.next(&mesh, of_kind(Kind::EnvoyFilter)),
            routes: self.routes.clone(),
            delegating: self.delegating.clone(),
            accounts: self.accounts.clone(),
            hosts: self.hosts.clone(),
            twinned: self.twinned.clone(),
            aliases: self.aliases.clone(),
            services_by_age: self.services_by_age.without(&changes.services),
            by_host: if changes.services.is_empty() { self.by_host.clone() } else { OnceLock::new() },
            routes_by_age: ByAge::new(by_age::rules_order),
            mesh,
        };
        let mut routes: BTreeSet<ObjectKey> = of_kind(Kind::VirtualService).map(ObjectKey::of).collect();
        if !routes.is_empty() {
            routes.extend(self.delegating.iter().cloned());
        }
        routes.retain(|key| world.put_routes(key));
        world.routes_by_age = self.routes_by_age.without(&routes);
        for key in &changes.services {
            world.put_service(key, self.mesh.services.get(key));
        }
        if changes.services.iter().any(|k| self.aliases.concerns(k) || world.is_alias(k)) {
            world.aliases = Arc::new(Aliases::new(&world.mesh));
        }
        let keys = Keys::of(&world.mesh, &world.rules, &world.patches);
        if keys != *self.keys {
            world.keys = Arc::new(keys);
        }
        world
    }

    /// True if proxies are told apart by the same labels and settings as before: no other class of a proxy follows.
    pub fn same_keys(&self, before: &World) -> bool {
        Arc::ptr_eq(&self.keys, &before.keys) || self.keys == before.keys
    }

    /// True if two worlds differ in endpoints at most: nobody's object has more or less of an effect.
    pub fn says_the_same(&self, other: &World) -> bool {
        let (a, b) = (&*self.mesh, &*other.mesh);
        self.config == other.config
            && a.services.ptr_eq(&b.services)
            && a.virtual_services.ptr_eq(&b.virtual_services)
            && a.destination_rules.ptr_eq(&b.destination_rules)
            && a.gateways.ptr_eq(&b.gateways)
            && a.sidecars.ptr_eq(&b.sidecars)
            && a.peer_authentications.ptr_eq(&b.peer_authentications)
            && a.request_authentications.ptr_eq(&b.request_authentications)
            && a.authorization_policies.ptr_eq(&b.authorization_policies)
            && a.telemetries.ptr_eq(&b.telemetries)
            && a.envoy_filters.ptr_eq(&b.envoy_filters)
            && a.wasm_plugins.ptr_eq(&b.wasm_plugins)
            && a.traffic_extensions.ptr_eq(&b.traffic_extensions)
            && a.secrets.ptr_eq(&b.secrets)
            && a.workloads.ptr_eq(&b.workloads)
    }

    /// What is wrong with the values of EnvoyFilters.
    pub fn patch_diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.patches.diagnostics()
    }

    /// The EnvoyFilters are those of the other world.
    pub fn same_patches(&self, other: &World) -> bool {
        self.patches.is_same(&other.patches)
    }

    /// The mesh's settings.
    pub fn mesh_config(&self) -> &MeshConfig {
        &self.mesh.config
    }

    /// Services of all namespaces, oldest first.
    pub(crate) fn services_by_age(&self) -> &Arc<[Arc<Service>]> {
        self.services_by_age.get(&self.mesh.services)
    }

    /// Where in that list hosts are.
    pub(crate) fn by_host(&self, make: impl FnOnce(&[Arc<Service>]) -> ByHost) -> Arc<ByHost> {
        self.by_host.get_or_init(|| Arc::new(make(self.services_by_age()))).clone()
    }

    /// VirtualServices of all namespaces, oldest first, delegates merged in.
    pub(crate) fn routes_by_age(&self) -> &Arc<[Arc<Rules>]> {
        self.routes_by_age.get(&self.routes)
    }

    /// Services of that host, oldest first.
    pub(crate) fn services_of(&self, host: &Host) -> &[Arc<Service>] {
        self.hosts.get(host).map_or(&[], |s| s)
    }

    /// No host has services of several namespaces, or of several objects.
    pub(crate) fn hosts_are_unique(&self) -> bool {
        self.twinned.is_empty() && self.hosts.len() == self.mesh.services.len()
    }

    /// Several objects of one namespace speak of a service.
    pub(crate) fn is_twinned(&self, service: &Service) -> bool {
        !service.twins.is_empty() || (!self.twinned.is_empty() && self.twinned.contains(&ServiceKey::of(service)))
    }

    /// Identities that a service's servers may have.
    pub(crate) fn accounts_of(&self, service: &ServiceKey) -> Arc<[Str]> {
        self.accounts.get(service).cloned().unwrap_or_default()
    }

    fn is_alias(&self, key: &ServiceKey) -> bool {
        self.mesh.services.get(key).is_some_and(|s| s.resolution == pilotfish_model::Resolution::Alias)
    }

    /// False if nothing changed.
    fn put_routes(&mut self, key: &ObjectKey) -> bool {
        let old = self.routes.get(key);
        let new = self.mesh.virtual_services.get(key).map(|object| Arc::new(Rules::new(&self.mesh, object)));
        if old.map(|o| (&**o, &o.delegates)) == new.as_ref().map(|n| (&**n, &n.delegates)) {
            return false;
        }
        self.delegating.remove(key);
        match new {
            Some(new) => {
                if !new.delegates.is_empty() {
                    self.delegating.insert(key.clone());
                }
                self.routes.insert(key.clone(), new);
            }
            None => drop(self.routes.remove(key)),
        }
        true
    }

    fn put_service(&mut self, key: &ServiceKey, old: Option<&Arc<Service>>) {
        let new = self.mesh.services.get(key).cloned();
        match &new {
            None => drop(self.accounts.remove(key)),
            Some(service) => {
                let accounts = accounts(&self.mesh, service);
                if self.accounts.get(key) != Some(&accounts) {
                    self.accounts.insert(key.clone(), accounts);
                }
            }
        }
        if old == new.as_ref() {
            return;
        }
        match new.as_ref().is_some_and(|s| !s.twins.is_empty()) {
            true => drop(self.twinned.insert(key.clone())),
            false => drop(self.twinned.remove(key)),
        }
        let mut same: Vec<Arc<Service>> = self.services_of(&key.host).iter().filter(|s| s.namespace != key.namespace).cloned().collect();
        same.extend(new);
        same.sort_by(|a, b| by_age::service_order(a, b));
        match same.is_empty() {
            true => drop(self.hosts.remove(&key.host)),
            false => drop(self.hosts.insert(key.host.clone(), same.into())),
        }
    }
}

fn hosts(mesh: &Mesh) -> OrdMap<Host, Arc<[Arc<Service>]>> {
    let mut by_host: std::collections::BTreeMap<Host, Vec<Arc<Service>>> = Default::default();
    for service in mesh.services.values() {
        by_host.entry(service.host.clone()).or_default().push(service.clone());
    }
    let sorted = by_host.into_iter().map(|(host, mut services)| {
        services.sort_by(|a, b| by_age::service_order(a, b));
        (host, Arc::from(services))
    });
    sorted.collect()
}

/// Identities that a service's servers may have, in the mesh's trust domain and its aliases, sorted.
fn accounts(mesh: &Mesh, service: &Service) -> Arc<[Str]> {
    let endpoints = mesh.endpoints_of(service).iter().map(|e| &e.workload.service_account);
    // Of several objects the youngest says who else answers for the host.
    let said = service.all().max_by(|a, b| by_age::service_order(a, b)).unwrap_or(service);
    let found: BTreeSet<&Str> = endpoints.filter(|a| !a.is_empty()).chain(&said.service_accounts).collect();
    let aliases = &mesh.config.trust_domain_aliases;
    if aliases.is_empty() {
        return found.into_iter().cloned().collect();
    }
    let mut all: BTreeSet<Str> = found.iter().map(|s| (*s).clone()).collect();
    for account in found {
        let Some((_, path)) = account.strip_prefix("spiffe://").and_then(|a| a.split_once('/')) else { continue };
        all.extend(aliases.iter().map(|domain| Str::from(format!("spiffe://{domain}/{path}"))));
    }
    all.into_iter().collect()
}
