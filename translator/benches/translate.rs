//! Instruction counts of translating and encoding 1,000 services for one class (callgrind: repeatable on one machine type).

#![allow(missing_docs, clippy::expect_used)]

mod mesh;

use std::sync::Arc;

use gungraun::{library_benchmark, library_benchmark_group, main};
use pilotfish_envoy::Snapshot;
use pilotfish_translator::{ProxyClass, World, snapshot};

fn setup(services: usize) -> (World, ProxyClass) {
    let world = World::new(Arc::new(mesh::mesh(services, false)));
    let class = mesh::class(&world, "ns0", "a");
    (world, class)
}

#[library_benchmark]
#[bench::services_100(args = (100), setup = setup)]
#[bench::services_1000(args = (1000), setup = setup)]
fn translate_and_encode(input: (World, ProxyClass)) -> (Snapshot, (World, ProxyClass)) {
    // The input goes back out so that dropping it is not counted.
    (std::hint::black_box(snapshot(&input.0, &input.1)), input)
}

library_benchmark_group!(name = translation, benchmarks = translate_and_encode);
main!(library_benchmark_groups = translation);
