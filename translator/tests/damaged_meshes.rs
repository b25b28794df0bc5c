//! Damaged variants of the shared scenarios: keys dropped, values swapped for odd ones. Whatever the index still accepts must
//! translate for Istio and plain proxies without a panic, into resources that pass Envoy's own validation rules.
//!
//! The random numbers are seeded by the round, so a failure repeats. `DAMAGE_ROUNDS` runs more of them.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod damage;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use damage::{Random, damage};
use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::source::yaml;
use pilotfish_controller::{Index, Settings, load_mesh_config};
use pilotfish_envoy::validate;
use pilotfish_model::proxy::{Flavour, Node};
use pilotfish_model::{Mesh, Proxy};
use pilotfish_testkit::skip;
use pilotfish_translator::{World, classify, snapshot};
use serde::Deserialize;

#[derive(Deserialize)]
struct Entry {
    node: Node,
}

#[test]
fn what_is_accepted_translates_into_what_envoy_accepts() {
    let Some(shared) = skip::shared("damaged_meshes") else { return };
    let rounds: u64 = std::env::var("DAMAGE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let mut scenarios: Vec<_> = std::fs::read_dir(shared.join("parity/scenarios")).unwrap().map(|e| e.unwrap().path()).collect();
    scenarios.sort();
    let mut failures = Vec::new();
    let mut translated = 0;
    for (i, scenario) in scenarios.iter().enumerate() {
        for round in 0..rounds {
            translated += check(scenario, Random(round * 1000 + i as u64), &mut failures);
        }
    }
    assert!(translated > scenarios.len(), "hardly anything was translated");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Translates one damaged variant for every proxy and flavour; how many translations that were.
fn check(scenario: &Path, mut random: Random, failures: &mut Vec<String>) -> usize {
    let seed = random.0;
    let name = format!("{} seed {seed}", scenario.file_name().unwrap().to_string_lossy());
    let mesh = damaged(scenario, &mut random);
    let world = World::new(mesh.clone());
    let proxies = std::fs::read_to_string(scenario.join("proxies.yaml")).unwrap();
    let entries: Vec<Entry> = yaml_serde::from_str(&proxies).unwrap();
    let mut translated = 0;
    for entry in entries {
        let mut plain = entry.node.clone();
        (plain.metadata.istio_version, plain.metadata.istio_proxy_sha) = (None, None);
        for node in [entry.node, plain] {
            let Ok(proxy) = Proxy::parse(node, &mesh.config.root_namespace, &mesh.domain) else { continue };
            translated += 1;
            let Ok(snapshot) = catch_unwind(AssertUnwindSafe(|| snapshot(&world, &classify(&world, &proxy)))) else {
                failures.push(format!("{name}: {} {:?} panics", proxy.name, proxy.flavour));
                continue;
            };
            // gRPC libraries are sent less than Envoy would accept.
            if proxy.flavour == Flavour::Grpc {
                continue;
            }
            for (type_url, set) in snapshot.iter() {
                for resource in set.iter() {
                    if let Err(v) = validate::validate_any(&resource.to_any()) {
                        failures.push(format!(
                            "{name}: {} {:?} {} {}: {v:?}",
                            proxy.name,
                            proxy.flavour,
                            type_url.short(),
                            resource.name()
                        ));
                    }
                }
            }
        }
    }
    translated
}

fn damaged(scenario: &Path, random: &mut Random) -> Arc<Mesh> {
    let mesh_config = std::fs::read_to_string(scenario.join("mesh.yaml")).unwrap_or_default();
    let mesh_config = Arc::new(load_mesh_config(&mesh_config).unwrap());
    let mut index = Index::new(Settings { mesh_config, ..Settings::default() });
    let text = std::fs::read_to_string(scenario.join("input.yaml")).unwrap();
    for document in yaml::split(&text) {
        let mut value = yaml::parse(document.text).unwrap();
        // Every third object is damaged, in one to three places.
        if random.below(3) == 0 {
            for _ in 0..=random.below(3) {
                damage(&mut value, random, 0);
            }
        }
        if let Ok(Decoded::Object(object)) = decode(value) {
            index.apply(Arc::from(object));
        }
    }
    index.publish().map(|(mesh, _)| mesh).unwrap_or_default()
}
