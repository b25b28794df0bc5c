//! Meshes with their proxies, in which one field at a time is something else.

pub(crate) mod alter;
pub(crate) mod schema;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use pilotfish_controller::object::{Decoded, Object, decode};
use pilotfish_controller::source::yaml;
use pilotfish_controller::{Index, Settings, load_mesh_config};
use pilotfish_envoy::{Snapshot, TypeUrl, Version};
use pilotfish_model::diagnostic::Severity;
use pilotfish_model::features::RemoteJwks;
use pilotfish_model::proxy::{Flavour, Node, ProxyType};
use pilotfish_model::{ChangeSet, Features, MeshConfig, ObjectId, Proxy};
use pilotfish_translator::{Endpoints, Own, ProxyClass, Translator, View, World, classify, reclassifies};
use serde::Deserialize;
use serde_json::Value;

/// What is off unless it is asked for would hide what it reads.
fn features() -> Features {
    let remote_jwks = RemoteJwks::Known;
    Features { http3: true, sidecar_ingress_tls: true, several_providers: true, remote_jwks, ..Features::default() }
}

#[derive(Deserialize)]
struct Entry {
    node: Node,
}

/// Who gets something: a dialect and a place, such as `plain gateway`.
pub(crate) type Role = &'static str;

/// All of them.
pub(crate) const ROLES: [Role; 4] = ["sidecar", "gateway", "plain sidecar", "plain gateway"];

fn role(proxy: &Proxy) -> Option<Role> {
    match (proxy.flavour, proxy.kind) {
        (Flavour::Istio, ProxyType::Sidecar) => Some(ROLES[0]),
        (Flavour::Istio, ProxyType::Router) => Some(ROLES[1]),
        (Flavour::Plain, ProxyType::Sidecar) => Some(ROLES[2]),
        (Flavour::Plain, ProxyType::Router) => Some(ROLES[3]),
        _ => None,
    }
}

/// Names and versions of what a proxy gets, by type.
pub(crate) type Output = Vec<Vec<(Arc<str>, Version)>>;

/// One mesh, what its proxies get, and how to change it.
pub(crate) struct Bench {
    index: Index,
    pub(crate) documents: Vec<Value>,
    pub(crate) settings: Value,
    translator: Translator,
    world: Arc<World>,
    held: Vec<Held>,
}

/// What a proxy has in the mesh as it is.
struct Held {
    role: Role,
    proxy: Proxy,
    class: ProxyClass,
    view: Arc<View>,
    endpoints: Arc<Endpoints>,
    own: Arc<Own>,
    output: Output,
}

impl Bench {
    /// Of a folder with `input.yaml`, `proxies.yaml` and perhaps `mesh.yaml`; its objects as `made` makes them.
    pub(crate) fn of(folder: &Path, made: fn(&mut Value)) -> Bench {
        let settings: Value = match std::fs::read_to_string(folder.join("mesh.yaml")) {
            Ok(text) => yaml_serde::from_str(&text).unwrap(),
            Err(_) => Value::Null,
        };
        let config = mesh_config(&settings).unwrap_or_else(|| panic!("{}: bad settings", folder.display()));
        let mut index = Index::new(Settings { mesh_config: config, ..Settings::default() });
        let text = std::fs::read_to_string(folder.join("input.yaml")).unwrap();
        let mut documents: Vec<Value> = yaml::split(&text).into_iter().map(|d| yaml::parse(d.text).unwrap()).collect();
        documents.iter_mut().for_each(made);
        for document in &documents {
            if let Ok(Decoded::Object(object)) = decode(document.clone()) {
                index.apply(Arc::from(object));
            }
        }
        let text = std::fs::read_to_string(folder.join("proxies.yaml")).unwrap();
        let entries: Vec<Entry> = yaml_serde::from_str(&text).unwrap();
        let nodes = entries.into_iter().flat_map(|entry| {
            let mut plain = entry.node.clone();
            let m = &mut plain.metadata;
            (m.istio_version, m.istio_proxy_sha) = (None, None);
            // It can prove who it is.
            let files = [
                (&mut m.tls_server_cert_chain, &mut m.tls_server_key, &mut m.tls_server_root_cert),
                (&mut m.tls_client_cert_chain, &mut m.tls_client_key, &mut m.tls_client_root_cert),
            ];
            for (chain, key, roots) in files {
                (*chain, *key, *roots) = (Some("/chain".into()), Some("/key".into()), Some("/roots".into()));
            }
            [entry.node, plain]
        });
        let mesh = index.publish().map_or_else(Default::default, |(mesh, _)| mesh);
        let (translator, world) = (Translator::default(), Arc::new(World::new(mesh.clone())));
        let proxies = nodes.filter_map(|node| Proxy::parse(node, &mesh.config.root_namespace, &mesh.domain).ok());
        let held = proxies.filter_map(|proxy| Held::new(&translator, &world, proxy)).collect();
        Bench { index, documents, settings, translator, world, held }
    }

    /// Whether an object is accepted as it is in the mesh.
    pub(crate) fn accepts(&self, document: &Value) -> bool {
        object(document).is_some_and(|o| self.is_sound(&o.id))
    }

    fn is_sound(&self, id: &ObjectId) -> bool {
        self.index.diagnostics_of(id).iter().all(|d| d.severity == Severity::Warning)
    }

    /// What `look` sees in the mesh with one object altered, or its settings; `None` if that is refused or is the same mesh.
    pub(crate) fn with<T>(&mut self, change: &Change, look: impl FnOnce(&Bench, &Arc<World>, &ChangeSet) -> T) -> Option<T> {
        let id = match change {
            Change::Object { after, .. } => {
                let object = object(after)?;
                let id = object.id.clone();
                self.index.apply(object);
                Some(id)
            }
            Change::Settings(after) => {
                self.index.set_mesh_config(mesh_config(after)?);
                None
            }
        };
        let is_sound = id.is_none_or(|id| self.is_sound(&id));
        let seen = self.index.publish().filter(|_| is_sound).map(|(mesh, mut changes)| {
            let world = self.world.next(mesh, &changes);
            changes.classes |= !world.same_keys(&self.world);
            look(self, &Arc::new(world), &changes)
        });
        match change {
            Change::Object { before, .. } => self.index.apply(object(before).unwrap()),
            Change::Settings(_) => self.index.set_mesh_config(mesh_config(&self.settings).unwrap()),
        }
        self.index.publish();
        seen
    }

    /// Which of `roles` have a proxy that gets something else in that world.
    pub(crate) fn reached(&self, world: &Arc<World>, changes: &ChangeSet, roles: &BTreeSet<Role>) -> BTreeSet<Role> {
        let mut found = BTreeSet::new();
        for held in &self.held {
            if roles.contains(held.role) && !found.contains(held.role) && held.after(&self.translator, world, changes) != held.output {
                found.insert(held.role);
            }
        }
        found
    }

    /// What all proxies get in that world.
    pub(crate) fn outputs(&self, world: &Arc<World>, changes: &ChangeSet) -> Vec<Output> {
        self.held.iter().map(|held| held.after(&self.translator, world, changes)).collect()
    }

    /// What they get in the mesh as it is.
    pub(crate) fn baseline(&self) -> Vec<Output> {
        self.held.iter().map(|held| held.output.clone()).collect()
    }
}

impl Held {
    fn new(translator: &Translator, world: &Arc<World>, proxy: Proxy) -> Option<Held> {
        let (role, class) = (role(&proxy)?, classify(world, &proxy));
        let view = translator.view(world, class.scope(), None);
        let endpoints = translator.endpoints(world, &view, None, None);
        let own = translator.own(world, &class, &view, None);
        let output = output(&view, &endpoints, &own);
        Some(Held { role, proxy, class, view, endpoints, own, output })
    }

    /// What it gets after a change. That this is what a translation from nothing gives is shown elsewhere.
    fn after(&self, translator: &Translator, world: &Arc<World>, changes: &ChangeSet) -> Output {
        if reclassifies(changes, &self.proxy) && classify(world, &self.proxy) != self.class {
            return Held::new(translator, world, self.proxy.clone()).map(|h| h.output).unwrap_or_default();
        }
        let touched = self.view.touched_by(world, changes);
        let view = if touched { translator.view(world, self.class.scope(), Some((&self.view, changes))) } else { self.view.clone() };
        let same = Arc::ptr_eq(&view, &self.view);
        let (mut endpoints, mut own) = (self.endpoints.clone(), self.own.clone());
        if !same || !changes.endpoints.is_empty() {
            endpoints = translator.endpoints(world, &view, Some(&self.endpoints), same.then_some(&changes.endpoints));
        }
        if !same || self.own.touched_by(world, changes) {
            own = translator.own(world, &self.class, &view, Some((&self.own, changes)));
        }
        output(&view, &endpoints, &own)
    }
}

fn output(view: &View, endpoints: &Endpoints, own: &Own) -> Output {
    let snapshot = Snapshot::from_layers(view.layers(), endpoints.layer(), own.layers());
    TypeUrl::ALL.into_iter().map(|t| snapshot.get(t).iter().map(|r| (r.name().clone(), r.version())).collect()).collect()
}

/// What is altered, and to what.
pub(crate) enum Change<'a> {
    /// An object.
    Object { before: &'a Value, after: Value },
    /// The mesh's settings.
    Settings(Value),
}

fn object(document: &Value) -> Option<Arc<Object>> {
    match decode(document.clone()) {
        Ok(Decoded::Object(object)) => Some(Arc::from(object)),
        _ => None,
    }
}

/// Settings as a file says them; `None` if they make no sense.
pub(crate) fn mesh_config(settings: &Value) -> Option<Arc<MeshConfig>> {
    let config = load_mesh_config(&settings.to_string()).ok()?;
    Some(Arc::new(MeshConfig { features: features(), ..config }))
}
