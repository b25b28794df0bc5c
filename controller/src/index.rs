//! [`Index`]: the synchronous core. It takes objects, joins them and publishes a mesh when something differs.
//!
//! ```text
//! Service ──────────────┐                        ┌─> services
//! EndpointSlice ─> Pod ─┼─> join, per service ───┼─> endpoints
//! WorkloadEntry ────────┤          per workload ─┼─> workloads
//! ServiceEntry ─────────┘   Node, Namespace ─────┘
//! VirtualService, DestinationRule, Gateway, ... ───> one to one
//! ```
//!
//! Every kind takes the same way: [`Index::apply`] converts, compares with the last good [`Fact`] and marks what depends
//! on it; [`Index::publish`] recomputes what is marked and nothing else. No client, no clock, no I/O.

mod difference;
mod endpoints;
mod join;
mod listing;
mod relations;
mod usage;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use pilotfish_model::endpoint::Workload;
use pilotfish_model::mesh::{Mesh, WorkloadInstance};
use pilotfish_model::mesh_config::MeshNetworks;
use pilotfish_model::name::Str;
use pilotfish_model::request_authentication::JwksSource;
use pilotfish_model::{ChangeSet, ContentHash, Diagnostic, Kind, MeshConfig, ObjectId};

pub(crate) use self::difference::{endpoint_change, place};
use self::join::Dirty;
use self::listing::{Entry, Listing};
use self::relations::Relations;
use crate::convert::{Context, Converted, Fact, convert};
use crate::mesh_config::{Layer, merge};
use crate::object::{DecodeError, Object};
use crate::status::Observed;
use crate::strings::Strings;

/// What holds for the whole index.
#[derive(Clone, Debug)]
pub struct Settings {
    /// DNS suffix of the cluster.
    pub domain: Str,
    /// Name of the cluster that the objects belong to.
    pub cluster_id: Str,
    /// The mesh's settings.
    pub mesh_config: Arc<MeshConfig>,
    /// The revision of this control plane. Empty: objects of all revisions are its own.
    pub revision: Str,
    /// ConfigMaps that hold settings of the mesh, the weightier one later. Without any of them, `mesh_config` holds.
    pub config_maps: Vec<ObjectId>,
    /// What a file says of the settings, which weighs more than any ConfigMap.
    pub mesh_file: Layer,
    /// Networks that a ConfigMap names. Nothing reads them yet.
    pub networks: Arc<MeshNetworks>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            domain: "cluster.local".into(),
            cluster_id: pilotfish_model::mesh_config::DEFAULT_CLUSTER_ID.into(),
            mesh_config: Arc::default(),
            revision: Str::default(),
            config_maps: Vec::new(),
            mesh_file: Layer::default(),
            networks: Arc::default(),
        }
    }
}

/// How much was done, and how much was spared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Objects that were given.
    pub applied: u64,
    /// Of these, the ones that changed nothing that matters.
    pub suppressed: u64,
    /// Of these, the ones with errors, whose last good form stays.
    pub rejected: u64,
    /// Services whose join was computed.
    pub services_joined: u64,
    /// Workloads whose join was computed.
    pub workloads_joined: u64,
    /// Meshes that were published.
    pub published: u64,
}

/// What readers get: the mesh, and what debug listings show beside it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The mesh.
    pub mesh: Arc<Mesh>,
    /// Istio's objects in Kubernetes form, as accepted: JSON.
    pub objects: OrdMap<ObjectId, Str>,
    /// What the API server has as status of objects that get one written. Objects of files are not among them.
    pub statuses: OrdMap<ObjectId, Arc<Observed>>,
    /// What is wrong with objects, ordered by object.
    pub diagnostics: Arc<Vec<Diagnostic>>,
    /// Differs whenever objects or diagnostics do.
    pub revision: u64,
    /// Counters.
    pub stats: Stats,
}

/// An object, understood: what the index takes in. Sources make it, so that the index only joins.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Which.
    pub id: ObjectId,
    /// What it says; `None`: nothing valid, so that its last good form stays.
    pub fact: Option<Fact>,
    /// Errors if there is no fact, else warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// The whole as JSON, for listings.
    pub raw: Option<Str>,
    /// What the API server has as its status. None of its business is the mesh's: no fact follows from it.
    pub status: Option<Arc<Observed>>,
}

impl Input {
    /// Understands an object.
    pub fn of(object: &Object, context: &Context) -> Input {
        let Converted { fact, diagnostics } = convert(object, context);
        Input { id: object.id.clone(), fact, diagnostics, raw: object.raw.clone(), status: None }
    }

    /// An object that cannot even be decoded.
    pub fn refused(id: ObjectId, error: &DecodeError) -> Input {
        let diagnostic = Diagnostic::error(&id, error.field.clone(), error.message.clone());
        Input { diagnostics: vec![diagnostic], ..Input::empty(id) }
    }

    /// Nothing but which object it is.
    pub(crate) fn empty(id: ObjectId) -> Input {
        Input { id, fact: None, diagnostics: Vec::new(), raw: None, status: None }
    }
}

/// See the module's documentation.
pub struct Index {
    settings: Settings,
    context: Context,
    /// The last good form of each object.
    facts: BTreeMap<ObjectId, Fact>,
    listing: Listing,
    relations: Relations,
    dirty: Dirty,
    /// What endpoints of a Pod or WorkloadEntry share.
    workloads: BTreeMap<ObjectId, Arc<Workload>>,
    /// What is in the mesh of each Pod and WorkloadEntry.
    instances: BTreeMap<ObjectId, Arc<WorkloadInstance>>,
    /// The mesh may refer to other Secrets than before.
    credentials_changed: bool,
    /// Objects of kinds that are not translated yet.
    untranslated: BTreeMap<ObjectId, ContentHash>,
    mesh: Mesh,
    published: Arc<Mesh>,
    changes: ChangeSet,
    stats: Stats,
}

impl Index {
    /// An index of nothing.
    pub fn new(settings: Settings) -> Self {
        let context = Context {
            domain: settings.domain.clone(),
            strings: Strings::default(),
            revision: settings.revision.clone(),
            config_maps: settings.config_maps.clone().into(),
        };
        let mesh = Mesh { config: settings.mesh_config.clone(), domain: settings.domain.clone(), ..Mesh::default() };
        Index {
            context,
            settings,
            facts: BTreeMap::new(),
            listing: Listing::default(),
            relations: Relations::default(),
            dirty: Dirty::default(),
            workloads: BTreeMap::new(),
            instances: BTreeMap::new(),
            credentials_changed: false,
            untranslated: BTreeMap::new(),
            published: Arc::new(mesh.clone()),
            mesh,
            changes: ChangeSet::default(),
            stats: Stats::default(),
        }
    }

    /// Adds or replaces an object. One that does not convert leaves its last good form in place.
    pub fn apply(&mut self, object: Arc<Object>) {
        self.put(Input::of(&object, &self.context));
    }

    /// Adds or replaces an object that is understood already.
    pub fn put(&mut self, input: Input) {
        self.stats.applied += 1;
        let Input { id, fact, diagnostics, raw, status } = input;
        // Listings show the newest form even where nothing that matters changed, but nothing that is broken.
        let raw = if fact.is_some() { raw } else { self.listing.raw(&id) };
        self.listing.set(&id, Entry { raw, status, diagnostics }, self.sees(&id.namespace));
        let Some(fact) = fact else {
            self.stats.rejected += 1;
            return;
        };
        match self.facts.get(&id) {
            Some(old) if *old == fact => self.stats.suppressed += 1,
            _ => {
                let old = self.facts.insert(id.clone(), fact);
                self.changed(&id, old);
            }
        }
    }

    /// Removes an object.
    pub fn delete(&mut self, id: &ObjectId) {
        self.listing.set(id, Entry::default(), true);
        if let Some(old) = self.facts.remove(id) {
            self.changed(id, Some(old));
        }
    }

    /// Replaces all objects of a kind, as after a relist.
    /// Those that `stays` says of are left alone.
    pub fn reset(&mut self, kind: Kind, objects: Vec<Input>, stays: impl Fn(&ObjectId) -> bool) {
        let keep: BTreeSet<&ObjectId> = objects.iter().map(|o| &o.id).collect();
        let gone: BTreeSet<ObjectId> =
            self.ids(kind, None).chain(self.listing.ids(kind, None)).filter(|id| !keep.contains(id) && !stays(id)).cloned().collect();
        gone.iter().for_each(|id| self.delete(id));
        objects.into_iter().for_each(|o| self.put(o));
    }

    /// Replaces the mesh's settings.
    pub fn set_mesh_config(&mut self, config: Arc<MeshConfig>) {
        if *config == *self.settings.mesh_config {
            self.stats.suppressed += 1;
            return;
        }
        let selectors = self.settings.mesh_config.discovery_selectors != config.discovery_selectors;
        self.settings.mesh_config = config.clone();
        if selectors {
            for namespace in self.listing.namespaces() {
                let shown = self.sees(&namespace);
                self.listing.set_shown(&namespace, shown);
            }
        }
        self.mesh.config = config;
        self.changes.everything = true;
        self.mark_everything();
    }

    /// Replaces what a file says of the mesh's settings.
    pub fn set_mesh_file(&mut self, layer: Layer) {
        self.settings.mesh_file = layer;
        self.merge_settings(None);
    }

    /// Brings together what ConfigMaps and a file say of the mesh's settings; who is to blame if that makes no sense.
    fn merge_settings(&mut self, cause: Option<&ObjectId>) {
        let facts = self.settings.config_maps.iter().filter_map(|id| match self.facts.get(id) {
            Some(Fact::Settings(fact)) => Some(&**fact),
            _ => None,
        });
        let networks = facts.clone().filter_map(|f| f.networks.as_ref()).next_back().cloned().unwrap_or_default();
        let merged = merge(facts.map(|f| &f.mesh).chain([&self.settings.mesh_file]));
        if *self.settings.networks != networks {
            self.settings.networks = Arc::new(networks);
        }
        match (merged, cause) {
            (Ok(config), _) => {
                let features = self.settings.mesh_config.features.clone();
                self.set_mesh_config(Arc::new(MeshConfig { features, ..config }));
            }
            (Err(e), Some(id)) => {
                let message = format!("together with the other settings: {}: {}", e.field, e.message);
                let entry = Entry { diagnostics: vec![Diagnostic::error(id, "data.mesh", message)], ..self.listing.get(id) };
                self.listing.set(id, entry, true);
            }
            // Layers are valid by themselves, and a file is looked at before it comes here.
            (Err(_), None) => {}
        }
    }

    /// Takes in keys of tokens. Objects that refer to them count as changed.
    pub fn set_keys(&mut self, keys: BTreeMap<JwksSource, Option<Str>>) {
        let mut changed = BTreeSet::new();
        for (source, keys) in keys {
            if self.mesh.jwks.get(&source) == keys.as_ref() {
                continue;
            }
            match keys {
                Some(keys) => drop(self.mesh.jwks.insert(source.clone(), keys)),
                None => drop(self.mesh.jwks.remove(&source)),
            }
            changed.insert(source);
        }
        if changed.is_empty() {
            return;
        }
        let objects = self.mesh.request_authentications.iter();
        let referring = objects.filter(|(_, a)| a.sources().any(|s| changed.contains(s)));
        let ids = referring.map(|(key, _)| ObjectId::new(Kind::RequestAuthentication, key.namespace.clone(), key.name.clone()));
        self.changes.objects.extend(ids);
    }

    /// What holds for the whole index, as it is now.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// An object as it was taken in, in its last good form.
    pub(crate) fn get(&self, id: &ObjectId) -> Option<Input> {
        let fact = self.facts.get(id)?.clone();
        let Entry { raw, status, diagnostics } = self.listing.get(id);
        Some(Input { id: id.clone(), fact: Some(fact), diagnostics, raw, status })
    }

    /// Recomputes what is marked. `None` if that gives the very mesh that was published last.
    pub fn publish(&mut self) -> Option<(Arc<Mesh>, ChangeSet)> {
        self.join();
        if self.changes.is_empty() {
            return None;
        }
        self.stats.published += 1;
        self.published = Arc::new(self.mesh.clone());
        Some((self.published.clone(), std::mem::take(&mut self.changes)))
    }

    /// The mesh that was published last, and what listings show beside it.
    pub fn snapshot(&mut self) -> Snapshot {
        let (objects, statuses, diagnostics, revision) = self.listing.snapshot();
        Snapshot { mesh: self.published.clone(), objects, statuses, diagnostics, revision, stats: self.stats }
    }

    /// What is wrong with one object.
    pub fn diagnostics_of(&self, id: &ObjectId) -> &[Diagnostic] {
        self.listing.diagnostics(id)
    }

    /// How much is marked to be recomputed.
    pub fn pending(&self) -> usize {
        self.dirty.len()
    }

    /// What objects must be converted with.
    pub fn context(&self) -> Context {
        self.context.clone()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Objects of a kind, of one namespace or of all.
    fn ids<'a>(&'a self, kind: Kind, namespace: Option<&'a str>) -> impl Iterator<Item = &'a ObjectId> + use<'a> {
        let first = ObjectId::new(kind, namespace.unwrap_or_default(), "");
        self.facts.range(first..).map(|(id, _)| id).take_while(move |id| id.kind == kind && namespace.is_none_or(|ns| &*id.namespace == ns))
    }

    /// An object's fact, unless its namespace is not part of the mesh.
    fn fact(&self, id: &ObjectId) -> Option<&Fact> {
        self.facts.get(id).filter(|_| self.sees(&id.namespace))
    }

    /// Whether a namespace is part of the mesh.
    fn sees(&self, namespace: &str) -> bool {
        let selectors = &self.settings.mesh_config.discovery_selectors;
        if selectors.is_empty() || namespace.is_empty() {
            return true;
        }
        let none = Default::default();
        let labels = match self.facts.get(&ObjectId::new(Kind::Namespace, "", namespace)) {
            Some(Fact::Namespace(info, _)) => &info.labels,
            _ => &none,
        };
        selectors.iter().any(|s| s.matches(labels))
    }
}

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
