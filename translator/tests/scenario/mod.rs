//! The shared scenarios as input.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pilotfish_controller::source::yaml;
use pilotfish_controller::{Index, Settings, load_mesh_config};
use pilotfish_model::proxy::Node;
use pilotfish_model::{Mesh, Proxy};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Entry {
    node: Node,
}

pub(crate) fn all(shared: &Path) -> Vec<PathBuf> {
    let mut all: Vec<_> = std::fs::read_dir(shared.join("parity/scenarios")).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

/// An index with the scenario's mesh settings and no objects.
pub(crate) fn index(scenario: &Path) -> Index {
    let mesh_config = std::fs::read_to_string(scenario.join("mesh.yaml")).unwrap_or_default();
    Index::new(Settings { mesh_config: Arc::new(load_mesh_config(&mesh_config).unwrap()), ..Settings::default() })
}

pub(crate) fn documents(scenario: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(scenario.join("input.yaml")).unwrap();
    yaml::split(&text).into_iter().map(|d| yaml::parse(d.text).unwrap()).collect()
}

/// The scenario's proxies, each as an Istio proxy and as a plain Envoy.
pub(crate) fn proxies(scenario: &Path, mesh: &Mesh) -> Vec<Proxy> {
    let text = std::fs::read_to_string(scenario.join("proxies.yaml")).unwrap();
    let entries: Vec<Entry> = yaml_serde::from_str(&text).unwrap();
    let nodes = entries.into_iter().flat_map(|entry| {
        let mut plain = entry.node.clone();
        (plain.metadata.istio_version, plain.metadata.istio_proxy_sha) = (None, None);
        [entry.node, plain]
    });
    nodes.filter_map(|node| Proxy::parse(node, &mesh.config.root_namespace, &mesh.domain).ok()).collect()
}
