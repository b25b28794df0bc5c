//! Goldens: a folder of `testdata` is a case, named after the behaviour that it shows.
//!
//! `mesh.yaml` holds the objects, `case.yaml` the proxy's node, which resources to show (`RDS/80`, or a whole type such as
//! `EDS`), optionally a JSON pointer into them, and optionally a MeshConfig. Every resource of a case, shown or not, must
//! pass Envoy's own validation rules, and a second translation must give the same bytes.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use pilotfish_controller::run::{Options, read_files};
use pilotfish_controller::{Settings, load_mesh_config};
use pilotfish_envoy::{Snapshot, TypeUrl, json, validate};
use pilotfish_model::features::RemoteJwks;
use pilotfish_model::proxy::{Flavour, Node};
use pilotfish_model::{Features, Mesh, MeshConfig, Proxy};
use pilotfish_testkit::{Goldens, golden};
use pilotfish_translator::{World, classify, translate};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// One sentence: what the case shows.
    #[allow(dead_code, reason = "for the reader of the file")]
    about: String,
    node: Node,
    show: Vec<Show>,
    #[serde(default)]
    mesh_config: String,
    /// Switches that are on.
    #[serde(default)]
    features: Vec<String>,
    /// Diagnostics that the objects are meant to cause.
    #[serde(default)]
    diagnostics: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Show {
    /// `TYPE` or `TYPE/NAME`.
    resource: String,
    /// JSON pointer to the part that matters; the whole if empty.
    #[serde(default)]
    part: String,
}

#[test]
fn every_case_is_as_recorded() {
    for dir in golden::cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")) {
        let text = fs::read_to_string(dir.join("case.yaml")).unwrap();
        let case: Case = yaml_serde::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let (mesh, diagnostics) = load(&dir, &case);
        assert_eq!(diagnostics, case.diagnostics, "{}", dir.display());
        let proxy = Proxy::parse(case.node.clone(), &mesh.config.root_namespace, &mesh.domain).unwrap();
        let class = classify(&World::new(mesh.clone()), &proxy);
        let snapshot = translate(&mesh, &class);
        assert_eq!(snapshot, translate(&mesh, &class), "{}: translation is not deterministic", dir.display());
        assert_valid(&dir, &snapshot, proxy.flavour);
        let mut goldens = Goldens::new(&dir).inputs(&["case.yaml", "mesh.yaml"]);
        for show in &case.show {
            goldens.check(&file_name(show), &render(&dir, show, &snapshot));
        }
        goldens.finish();
    }
}

fn load(dir: &Path, case: &Case) -> (Arc<Mesh>, Vec<String>) {
    let mesh_config = Arc::new(load_mesh_config(&case.mesh_config).unwrap_or_else(|e| panic!("{}: {e}", dir.display())));
    let mesh_config = Arc::new(MeshConfig { features: features(&case.features), ..(*mesh_config).clone() });
    let settings = Settings { mesh_config, ..Settings::default() };
    let (mesh, state) = read_files(&Options::new(vec![dir.join("mesh.yaml")], settings)).unwrap();
    assert_eq!(*state.problems, [], "{}", dir.display());
    (mesh, state.snapshot.diagnostics.iter().map(ToString::to_string).collect())
}

fn features(on: &[String]) -> Features {
    let has = |name: &str| on.iter().any(|n| n == name);
    let remote_jwks = if has("remote_jwks") { RemoteJwks::Known } else { RemoteJwks::Never };
    Features {
        http3: has("http3"),
        sidecar_ingress_tls: has("sidecar_ingress_tls"),
        dual_stack: has("dual_stack"),
        several_providers: has("several_providers"),
        remote_jwks,
        ..Features::default()
    }
}

fn assert_valid(dir: &Path, snapshot: &Snapshot, flavour: Flavour) {
    // Istio's agent completes what it is given for modules; gRPC has certificates by another way than Envoy.
    let complete = |type_url: TypeUrl| match flavour {
        Flavour::Istio => type_url != TypeUrl::ExtensionConfig,
        Flavour::Grpc => !matches!(type_url, TypeUrl::Cluster | TypeUrl::Listener),
        Flavour::Plain => true,
    };
    for (type_url, set) in snapshot.iter().filter(|(t, _)| complete(*t)) {
        for resource in set.iter() {
            if let Err(violations) = validate::validate_any(&resource.to_any()) {
                panic!("{}: {type_url} {:?} breaks Envoy's rules: {violations:?}", dir.display(), resource.name());
            }
        }
    }
}

fn file_name(show: &Show) -> String {
    let text = format!("{}{}", show.resource, show.part);
    let clean: String = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' }).collect();
    format!("{clean}.json")
}

fn render(dir: &Path, show: &Show, snapshot: &Snapshot) -> String {
    let (short, name) = show.resource.split_once('/').map_or((show.resource.as_str(), None), |(t, n)| (t, Some(n)));
    let type_url = TypeUrl::ALL.into_iter().find(|t| t.short().eq_ignore_ascii_case(short));
    let set = snapshot.get(type_url.unwrap_or_else(|| panic!("{}: no type {short:?}", dir.display())));
    let value = match name {
        None => set.iter().map(|r| json::to_json(&r.to_any())).collect(),
        Some(name) => {
            let names: Vec<_> = set.iter().map(|r| r.name().to_string()).collect();
            let resource = set.get(name).unwrap_or_else(|| panic!("{}: no {short} {name:?} in {names:?}", dir.display()));
            json::to_json(&resource.to_any())
        }
    };
    let part = value.pointer(&show.part).unwrap_or_else(|| panic!("{}: nothing at {:?} in {value:#}", dir.display(), show.part));
    format!("{part:#}\n")
}
