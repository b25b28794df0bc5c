//! Wall time beside the instruction counts of `translate.rs`: one line per bench, name and microseconds (the best of 30).

#![allow(missing_docs, clippy::expect_used)]

mod mesh;

use std::sync::Arc;
use std::time::Instant;

use pilotfish_translator::World;

fn main() {
    // `cargo test --benches` runs this too: once is enough there.
    let rounds = if std::env::args().any(|a| a == "--bench") { 30 } else { 1 };
    for services in [100, 1000] {
        let world = World::new(Arc::new(mesh::mesh(services)));
        let class = mesh::class(&world);
        let once = || {
            let start = Instant::now();
            let snapshot = std::hint::black_box(pilotfish_translator::snapshot(&world, &class));
            let elapsed = start.elapsed();
            assert!(snapshot.get(pilotfish_envoy::TypeUrl::Cluster).len() > services, "the bench translates nothing");
            elapsed
        };
        let best = (0..rounds).map(|_| once()).min().expect("at least one round");
        println!("translate_and_encode/services_{services}\t{}", best.as_micros());
    }
}
