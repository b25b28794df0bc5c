//! ConfigMaps that hold settings of the mesh.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_model::mesh_config::MeshNetworks;

use super::Fact;
use super::fields::{Path, Scope};
use crate::mesh_config::{Layer, MeshConfigError, load_mesh_networks};
use crate::object::{MESH, MESH_NETWORKS};

/// What a ConfigMap says of the mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingsFact {
    /// Settings.
    pub mesh: Layer,
    /// Networks; `None` if it does not say.
    pub networks: Option<MeshNetworks>,
}

pub(super) fn convert(scope: &mut Scope<'_>, data: &BTreeMap<String, String>) -> Fact {
    let root = Path::root("data");
    let mut read = |key: &str, outcome: Result<(), MeshConfigError>| {
        if let Err(e) = outcome {
            let field = if e.field.is_empty() { String::new() } else { format!(", {}", e.field) };
            scope.error(&root.field(key), format!("line {}{field}: {}", e.line, e.message));
        }
    };
    let (mut mesh, mut networks) = (Layer::default(), None);
    if let Some(text) = data.get(MESH) {
        read(MESH, Layer::parse(text).map(|layer| mesh = layer));
    }
    if let Some(text) = data.get(MESH_NETWORKS) {
        read(MESH_NETWORKS, load_mesh_networks(text).map(|found| networks = Some(found)));
    }
    if !data.contains_key(MESH) {
        scope.warning(&root.field(MESH), "is missing: the ConfigMap has no settings");
    }
    Fact::Settings(Arc::new(SettingsFact { mesh, networks }))
}
