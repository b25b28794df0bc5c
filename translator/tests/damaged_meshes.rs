//! Damaged variants of the shared scenarios: keys dropped, values swapped for odd ones. Whatever the index still accepts must
//! translate for Istio and plain proxies without a panic, into resources that pass Envoy's own validation rules.
//!
//! The random numbers are seeded by the round, so a failure repeats. `DAMAGE_ROUNDS` runs more of them.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod damage;
mod scenario;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use damage::damage;
use pilotfish_controller::object::{Decoded, decode};
use pilotfish_envoy::{TypeUrl, validate};
use pilotfish_model::Mesh;
use pilotfish_model::proxy::Flavour;
use pilotfish_testkit::{Random, skip};
use pilotfish_translator::{World, classify, snapshot};

#[test]
fn what_is_accepted_translates_into_what_envoy_accepts() {
    let Some(shared) = skip::shared("damaged_meshes") else { return };
    let rounds: u64 = std::env::var("DAMAGE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let scenarios = scenario::all(&shared);
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
    let mut translated = 0;
    for proxy in scenario::proxies(scenario, &mesh) {
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
            // Istio's agent completes what it is given for modules.
            if type_url == TypeUrl::ExtensionConfig && proxy.flavour == Flavour::Istio {
                continue;
            }
            for resource in set.iter() {
                if let Err(v) = validate::validate_any(&resource.to_any()) {
                    failures.push(format!("{name}: {} {:?} {} {}: {v:?}", proxy.name, proxy.flavour, type_url.short(), resource.name()));
                }
            }
        }
    }
    translated
}

fn damaged(scenario: &Path, random: &mut Random) -> Arc<Mesh> {
    let mut index = scenario::index(scenario);
    for mut value in scenario::documents(scenario) {
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
