//! Instruction counts of translating and encoding 1,000 services for one class (callgrind: repeatable on one machine type).

#![allow(missing_docs, clippy::expect_used)]

mod mesh;

use gungraun::{library_benchmark, library_benchmark_group, main};
use pilotfish_envoy::Snapshot;
use pilotfish_model::Mesh;
use pilotfish_translator::{ProxyClass, translate};

fn setup(services: usize) -> (Mesh, ProxyClass) {
    let mesh = mesh::mesh(services);
    let class = mesh::class(&mesh);
    (mesh, class)
}

#[library_benchmark]
#[bench::services_100(args = (100), setup = setup)]
#[bench::services_1000(args = (1000), setup = setup)]
fn translate_and_encode(input: (Mesh, ProxyClass)) -> (Snapshot, (Mesh, ProxyClass)) {
    // The input goes back out so that dropping it is not counted.
    (std::hint::black_box(translate(&input.0, &input.1)), input)
}

library_benchmark_group!(name = translation, benchmarks = translate_and_encode);
main!(library_benchmark_groups = translation);
