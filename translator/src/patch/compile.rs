//! EnvoyFilters made ready: values are read by Envoy's descriptors once per object, not once per resource.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use pilotfish_envoy::Sources;
use pilotfish_envoy::json::from_json_lenient;
use pilotfish_model::attachment::{Attached, Attachment};
use pilotfish_model::envoy_filter::{ApplyTo, EnvoyFilter, Patch};
use pilotfish_model::matching::Search;
use pilotfish_model::mesh::ObjectKey;
use pilotfish_model::name::{Kind, Meta, ObjectId, Str};
use pilotfish_model::{ContentHash, Diagnostic, Mesh};
use prost::Message;

use super::extension;
use crate::unit::sources;

/// Metadata key of the version of a proxy.
pub(super) const VERSION: &str = "ISTIO_VERSION";

/// All of a mesh.
#[derive(Clone, Default)]
pub(crate) struct PatchIndex {
    pub(super) filters: OrdMap<ObjectKey, Arc<Compiled>>,
    /// Keys of metadata by which proxies are told apart.
    keys: Arc<BTreeSet<Str>>,
}

/// One object.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(super) object: Arc<EnvoyFilter>,
    /// Those that can be applied, in order.
    pub(super) patches: Vec<Arc<Ready>>,
    diagnostics: Vec<Diagnostic>,
}

/// One patch.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) object: ObjectId,
    pub(super) patch: Patch,
    version: Option<Search>,
    /// Encoded message of the type that `apply_to` says; empty where nothing is put in.
    value: Bytes,
    /// Extension that the value needs, as clients list it.
    pub(super) extension: Option<Str>,
    pub(super) hash: ContentHash,
}

impl Attached for Compiled {
    fn meta(&self) -> &Meta {
        &self.object.meta
    }

    fn attachment(&self) -> &Attachment {
        &self.object.attachment
    }
}

impl PatchIndex {
    /// Reads all objects.
    pub(crate) fn new(mesh: &Mesh) -> Self {
        let mut index = PatchIndex::default();
        index.put(mesh, mesh.envoy_filters.keys());
        index
    }

    /// Those of a later mesh, which differ in these objects at most.
    pub(crate) fn next<'a>(&self, mesh: &Mesh, changed: impl Iterator<Item = &'a ObjectId>) -> Self {
        let changed: Vec<ObjectKey> = changed.map(ObjectKey::of).collect();
        let mut index = self.clone();
        index.put(mesh, changed.iter());
        index
    }

    fn put<'a>(&mut self, mesh: &Mesh, changed: impl Iterator<Item = &'a ObjectKey>) {
        let mut any = false;
        for key in changed {
            any = true;
            match mesh.envoy_filters.get(key) {
                None => drop(self.filters.remove(key)),
                Some(new) if self.filters.get(key).is_some_and(|old| old.object == *new) => {}
                Some(new) => drop(self.filters.insert(key.clone(), Arc::new(Compiled::new(new)))),
            }
        }
        if any {
            let patches = self.filters.values().flat_map(|f| &f.patches);
            let keys = patches.flat_map(|p| p.version.iter().map(|_| VERSION.into()).chain(p.patch.proxy.metadata.keys().cloned()));
            self.keys = Arc::new(keys.collect());
        }
    }

    /// Keys of metadata by which proxies are told apart.
    pub(crate) fn keys(&self) -> &Arc<BTreeSet<Str>> {
        &self.keys
    }

    /// Nothing can differ.
    pub(crate) fn is_same(&self, other: &PatchIndex) -> bool {
        self.filters.ptr_eq(&other.filters)
    }

    /// What is wrong with values.
    pub(crate) fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.filters.values().flat_map(|f| &f.diagnostics)
    }
}

impl Compiled {
    fn new(object: &Arc<EnvoyFilter>) -> Self {
        let id = object.meta.id(Kind::EnvoyFilter);
        let mut diagnostics = Vec::new();
        let patches = object.patches.iter().filter_map(|patch| Ready::new(&id, patch, &mut diagnostics).map(Arc::new)).collect();
        Compiled { object: object.clone(), patches, diagnostics }
    }
}

impl Ready {
    pub(super) fn new(object: &ObjectId, patch: &Patch, diagnostics: &mut Vec<Diagnostic>) -> Option<Self> {
        let field = || format!("spec.configPatches[{}].patch.value", patch.index);
        let value = match &patch.value {
            None => Bytes::new(),
            Some(json) => match read(patch.apply_to, json) {
                Ok((value, left_out)) => {
                    diagnostics.extend(left_out.into_iter().map(|what| Diagnostic::warning(object, field(), what)));
                    value
                }
                Err(why) => {
                    diagnostics.push(Diagnostic::error(object, field(), why));
                    return None;
                }
            },
        };
        Some(Ready {
            object: object.clone(),
            version: patch.proxy.version.as_ref().and_then(|v| v.search()),
            extension: extension::needed(patch, &value),
            hash: ContentHash::of(&(object, patch)),
            value,
            patch: patch.clone(),
        })
    }

    /// What is put in. It was read as this type before; nothing where nothing is put in.
    pub(super) fn value<M: Message + Default>(&self) -> M {
        M::decode(self.value.clone()).unwrap_or_default()
    }

    /// The same, encoded.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.value
    }

    /// The object, as resources name what they are made of.
    pub(super) fn source(&self) -> Sources {
        sources([&self.object])
    }

    /// Whether a proxy gets it, by what its metadata say.
    pub(super) fn is_for(&self, texts: &pilotfish_model::Labels) -> bool {
        let version = match (&self.patch.proxy.version, &self.version) {
            (None, _) => true,
            (Some(_), Some(search)) => texts.get(VERSION).is_some_and(|v| !v.is_empty() && search.finds(v)),
            (Some(_), None) => false,
        };
        version && self.patch.proxy.metadata.iter().all(|(key, value)| texts.get(key) == Some(value))
    }
}

/// Full name of the message that is patched.
pub(super) fn type_name(apply_to: ApplyTo) -> &'static str {
    match apply_to {
        ApplyTo::Listener => "envoy.config.listener.v3.Listener",
        ApplyTo::ListenerFilter => "envoy.config.listener.v3.ListenerFilter",
        ApplyTo::FilterChain => "envoy.config.listener.v3.FilterChain",
        ApplyTo::NetworkFilter => "envoy.config.listener.v3.Filter",
        ApplyTo::HttpFilter => "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
        ApplyTo::RouteConfiguration => "envoy.config.route.v3.RouteConfiguration",
        ApplyTo::VirtualHost => "envoy.config.route.v3.VirtualHost",
        ApplyTo::HttpRoute => "envoy.config.route.v3.Route",
        ApplyTo::Cluster => "envoy.config.cluster.v3.Cluster",
        ApplyTo::ExtensionConfig => "envoy.config.core.v3.TypedExtensionConfig",
    }
}

/// The encoded message, and what was left out of it.
fn read(apply_to: ApplyTo, json: &str) -> Result<(Bytes, Vec<String>), String> {
    let json: serde_json::Value = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let (bytes, left_out) = from_json_lenient(type_name(apply_to), &json).map_err(|e| e.to_string())?;
    Ok((bytes, left_out.iter().map(ToString::to_string).collect()))
}
