//! The manifests in `crds/manifests` are what the types say. `cargo xtask crdgen` runs this to write them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::{env, fs, path::Path};

use pretty_assertions::assert_eq;
use serde_json::Value;

/// etcd refuses objects of 1.5 MB, and `kubectl apply` without `--server-side` keeps a copy in an annotation of 256 kB.
const LIMIT: usize = 250_000;

fn generated() -> BTreeMap<String, String> {
    let file = |crd: &Value| {
        let (group, plural) = (crd["spec"]["group"].as_str().unwrap(), crd["spec"]["names"]["plural"].as_str().unwrap());
        let text = format!("# Generated from the types in crds/src by `cargo xtask crdgen`.\n{}", yaml_serde::to_string(crd).unwrap());
        (format!("{group}_{plural}.yaml"), text)
    };
    pilotfish_crds::definitions().iter().map(file).collect()
}

#[test]
fn manifests_are_as_generated() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let found: BTreeMap<String, String> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    let generated = generated();
    if env::var_os("UPDATE_GOLDEN").is_some() {
        found.keys().filter(|name| !generated.contains_key(*name)).for_each(|name| fs::remove_file(dir.join(name)).unwrap());
        generated.iter().for_each(|(name, text)| fs::write(dir.join(name), text).unwrap());
        return;
    }
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&generated), "run `cargo xtask crdgen`");
    for (name, text) in &generated {
        assert_eq!(&found[name], text, "{name} differs: run `cargo xtask crdgen`");
    }
}

#[test]
fn a_definition_fits_into_an_annotation() {
    let sizes = pilotfish_crds::definitions().into_iter().map(|crd| (crd["metadata"]["name"].to_string(), crd.to_string().len()));
    let large: Vec<_> = sizes.filter(|(_, size)| *size > LIMIT).collect();
    assert_eq!(large, []);
}
