//! The shared parity scenarios, if they are there: every input is read, converted and joined without a complaint that the
//! scenario does not intend.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pilotfish_controller::source::file::Scan;
use pilotfish_controller::source::{FileSource, SourceEvent};
use pilotfish_controller::{Index, Settings, load_mesh_config};
use pilotfish_model::diagnostic::Severity;

fn scenarios() -> Option<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/parity/scenarios");
    let mut found: Vec<_> = std::fs::read_dir(folder).ok()?.filter_map(|e| Some(e.ok()?.path())).collect();
    found.sort();
    Some(found)
}

#[test]
fn every_scenario_is_understood() {
    let Some(scenarios) = scenarios() else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "the shared scenarios are missing");
        println!("SKIPPED: no shared scenarios here");
        return;
    };
    assert!(scenarios.len() > 50);
    let mut complaints = Vec::new();
    for scenario in &scenarios {
        let mesh_config = std::fs::read_to_string(scenario.join("mesh.yaml")).unwrap_or_default();
        let mesh_config = load_mesh_config(&mesh_config).unwrap_or_else(|e| panic!("{}: {e}", scenario.display()));
        let mut source = FileSource::new(vec![scenario.join("input.yaml")]).unwrap();
        let mut index = Index::new(Settings { mesh_config: Arc::new(mesh_config), ..Settings::default() });
        for event in source.scan(Scan::Full) {
            match event {
                SourceEvent::Apply(object, _) => index.apply(object),
                SourceEvent::Delete(id) => index.delete(&id),
            }
        }
        let (mesh, _) = index.publish().unwrap_or_else(|| panic!("{} gives an empty mesh", scenario.display()));
        assert_eq!(index.publish().map(|(_, c)| c), None, "{}: nothing changes by itself", scenario.display());
        assert!(!mesh.services.is_empty() || !mesh.workloads.is_empty(), "{}", scenario.display());
        let name = scenario.file_name().unwrap().to_string_lossy();
        complaints.extend(source.problems().iter().filter(|p| p.severity == Severity::Error).map(|p| format!("{name}: {p}")));
        let snapshot = index.snapshot();
        complaints.extend(snapshot.diagnostics.iter().filter(|d| d.severity == Severity::Error).map(|d| format!("{name}: {d}")));
    }
    assert_eq!(complaints, Vec::<String>::new());
}
