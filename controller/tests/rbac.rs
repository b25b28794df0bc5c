//! The manifest in `controller/manifests` gives exactly the rights that are used. `cargo xtask crdgen` runs this to write it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{env, fs, path::Path};

use pretty_assertions::assert_eq;

fn generated() -> String {
    let documents = pilotfish_controller::rbac::manifests("istio-system", "pilotfish", &["istio"]);
    let text: Vec<_> = documents.iter().map(|document| yaml_serde::to_string(document).unwrap()).collect();
    format!("# Generated from controller/src/rbac.rs by `cargo xtask crdgen`.\n{}", text.join("---\n"))
}

#[test]
fn the_manifest_is_as_generated() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/rbac.yaml");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        return fs::write(path, generated()).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap_or_default(), generated(), "run `cargo xtask crdgen`");
}

#[test]
fn nothing_is_asked_for_as_a_whole() {
    let text = generated();
    assert!(!text.contains('*'), "{text}");
}
