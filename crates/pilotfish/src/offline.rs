//! `pilotfish translate`: what proxies would get, without serving.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use pilotfish_controller::mesh_config::merge;
use pilotfish_controller::run::{Options, read_files};
use pilotfish_controller::{Cluster, Layer, Settings};
use pilotfish_envoy::{Snapshot, TypeUrl, json};
use pilotfish_model::diagnostic::Severity;
use pilotfish_model::proxy::Node;
use pilotfish_model::{Diagnostic, Kind, MeshConfig, ObjectId, Proxy};
use pilotfish_translator::World;
use pilotfish_translator::diagnose::{Workloads, findings};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cli::{AnalyzeArgs, MeshArgs, TranslateArgs};
use crate::environment;
use crate::manifests::BAD_DATA;

/// Reads the mesh configuration; nothing where no file is named.
pub fn mesh_config(path: Option<&Path>) -> anyhow::Result<Layer> {
    let Some(path) = path else { return Ok(Layer::default()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Layer::parse(&text).with_context(|| format!("cannot use {}", path.display()))
}

/// Controller options for the mesh that the command line names.
pub fn controller_options(args: &MeshArgs) -> anyhow::Result<Options> {
    let mesh_file = mesh_config(args.mesh_config.as_deref())?;
    let (features, _) = environment::features(&args.features, &environment::of_process())?;
    let settings = Settings {
        domain: args.domain.as_str().into(),
        cluster_id: args.cluster_id.as_str().into(),
        mesh_config: Arc::new(MeshConfig { features, ..merge([&mesh_file])? }),
        revision: args.revision.as_str().into(),
        config_maps: config_maps(args),
        mesh_file,
        ..Settings::default()
    };
    let cluster = match &args.kubeconfig {
        Some(path) => Some(Cluster::Kubeconfig(path.clone())),
        None if args.config_dir.is_empty() => Cluster::around(),
        None => None,
    };
    Ok(Options { cluster, audit: args.audit_interval, ..Options::new(args.config_dir.clone(), settings) })
}

/// ConfigMaps with settings of the mesh, named as the reference names them.
fn config_maps(args: &MeshArgs) -> Vec<ObjectId> {
    let own = match args.revision.as_str() {
        "" | "default" => "istio".to_owned(),
        revision => format!("istio-{revision}"),
    };
    let names = [args.shared_mesh_config.as_str(), &own];
    names.into_iter().filter(|n| !n.is_empty()).map(|n| ObjectId::new(Kind::ConfigMap, args.namespace.as_str(), n)).collect()
}

#[derive(Deserialize)]
struct ProxyEntry {
    name: String,
    node: Node,
}

/// Writes one file per proxy.
pub fn main(args: &TranslateArgs) -> anyhow::Result<()> {
    let (mesh, state) = read_files(&controller_options(&args.mesh)?)?;
    let world = World::new(mesh.clone());
    let text = std::fs::read_to_string(&args.proxies).with_context(|| format!("cannot read {}", args.proxies.display()))?;
    let proxies: Vec<ProxyEntry> = yaml_serde::from_str(&text).with_context(|| format!("cannot use {}", args.proxies.display()))?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let mut applied = Vec::new();
    for entry in proxies {
        let proxy = Proxy::parse(entry.node, &mesh.config.root_namespace, &mesh.domain).with_context(|| format!("proxy {}", entry.name))?;
        let class = pilotfish_translator::classify(&world, &proxy);
        let (snapshot, patches) = pilotfish_translator::snapshot_with_patches(&world, &class);
        let dump = dump(&snapshot);
        // What matches nothing here may be for proxies that were not asked for.
        applied.extend(patches.into_iter().filter(|p| p.error.is_some()));
        let path = args.out.join(format!("{}.json", entry.name));
        std::fs::write(&path, format!("{dump:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    state.problems.iter().for_each(|p| eprintln!("{p}"));
    state.snapshot.diagnostics.iter().for_each(|d| eprintln!("{d}"));
    world.patch_diagnostics().for_each(|d| eprintln!("{d}"));
    pilotfish_translator::patch_diagnostics(applied).iter().for_each(|d| eprintln!("{d}"));
    Ok(())
}

/// Prints what is wrong with files and objects, and which objects have no effect.
pub fn analyze(args: &AnalyzeArgs) -> anyhow::Result<ExitCode> {
    let (mesh, state) = read_files(&controller_options(&args.mesh)?)?;
    let world = World::new(mesh.clone());
    let between = findings(&world, &Workloads::of(&mesh), state.snapshot.objects.keys());
    let mut all: Vec<&Diagnostic> = state.snapshot.diagnostics.iter().chain(between.values().flatten()).collect();
    all.sort_by_key(|d| (&d.object, &d.field));
    state.problems.iter().for_each(|p| println!("error: {p}"));
    for diagnostic in all {
        let severity = match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        println!("{severity}: {diagnostic}");
    }
    Ok(if state.has_errors() { ExitCode::from(BAD_DATA) } else { ExitCode::SUCCESS })
}

/// Resources as proto JSON, by type and name.
fn dump(snapshot: &Snapshot) -> Value {
    let mut types = Map::new();
    for type_url in [TypeUrl::Cluster, TypeUrl::Endpoint, TypeUrl::Listener, TypeUrl::Route, TypeUrl::ExtensionConfig, TypeUrl::NameTable] {
        let set = snapshot.get(type_url);
        if set.is_empty() && matches!(type_url, TypeUrl::NameTable) {
            continue;
        }
        let resources = set.iter().map(|r| {
            let name = if r.name().is_empty() { "nametable" } else { r.name() };
            let mut value = json::to_json(&r.to_any());
            // The type is said by the key it stands under.
            if let Some(fields) = value.as_object_mut() {
                fields.remove("@type");
            }
            (name.to_owned(), value)
        });
        types.insert(type_url.short().to_uppercase(), resources.collect());
    }
    Value::Object(types)
}
