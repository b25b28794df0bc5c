//! Instruction counts of translation (callgrind: repeatable on one machine type): all of 1,000 services for one class from
//! nothing, and what single changes cost afterwards.

#![allow(missing_docs, clippy::expect_used)]

mod mesh;

use std::hint::black_box;
use std::sync::Arc;

use gungraun::{library_benchmark, library_benchmark_group, main};
use pilotfish_envoy::Snapshot;
use pilotfish_model::{ChangeSet, Proxy};
use pilotfish_translator::{Endpoints, Own, ProxyClass, Translator, View, World, snapshot};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One scope as a server holds it, and what happens to it.
struct Step {
    translator: Translator,
    world: World,
    class: ProxyClass,
    view: Arc<View>,
    endpoints: Arc<Endpoints>,
    next: World,
    changes: ChangeSet,
}

fn from_nothing(services: usize) -> (World, ProxyClass) {
    // Envoy's validation rules are compiled once in a process.
    let small = World::new(Arc::new(mesh::mesh(20, false)));
    drop(snapshot(&small, &mesh::class(&small, "ns0", "a")));
    let world = World::new(Arc::new(mesh::mesh(services, false)));
    let class = mesh::class(&world, "ns0", "a");
    (world, class)
}

fn step(services: usize, isolated: bool, edit: fn(&World) -> (World, ChangeSet)) -> Step {
    let world = World::new(Arc::new(mesh::mesh(services, isolated)));
    let translator = Translator::default();
    let class = mesh::class(&world, "ns0", "a");
    let view = translator.view(&world, class.scope(), None);
    let endpoints = translator.endpoints(&world, &view, None, None);
    let (next, changes) = edit(&world);
    Step { translator, world, class, view, endpoints, next, changes }
}

fn route_edit_in(services: usize, isolated: bool) -> Step {
    step(services, isolated, mesh::route_edit)
}

fn service_add_in(services: usize, isolated: bool) -> Step {
    step(services, isolated, mesh::service_add)
}

fn service_change_in(services: usize, isolated: bool) -> Step {
    step(services, isolated, mesh::service_change)
}

fn endpoint_change_in(services: usize, isolated: bool) -> Step {
    step(services, isolated, mesh::endpoint_change)
}

/// What the change leaves to be made.
fn advanced(s: Step) -> (Arc<View>, Arc<Endpoints>, Step) {
    let view = s.translator.view(&s.next, s.class.scope(), Some((&s.view, &s.changes)));
    let endpoints = s.translator.endpoints(&s.next, &view, Some(&s.endpoints), None);
    (black_box(view), black_box(endpoints), s)
}

// What is made, and the input, go back out so that dropping them is not counted.

#[library_benchmark]
#[bench::services_100(args = (100), setup = from_nothing)]
#[bench::services_1000(args = (1000), setup = from_nothing)]
fn translate_and_encode(input: (World, ProxyClass)) -> (Snapshot, (World, ProxyClass)) {
    (black_box(snapshot(&input.0, &input.1)), input)
}

#[library_benchmark]
#[bench::visible_1000(args = (1000, false), setup = route_edit_in)]
#[bench::isolated_1000(args = (1000, true), setup = route_edit_in)]
#[bench::isolated_5000(args = (5000, true), setup = route_edit_in)]
fn route_edit(s: Step) -> (Arc<View>, Arc<Endpoints>, Step) {
    advanced(s)
}

#[library_benchmark]
#[bench::visible_1000(args = (1000, false), setup = service_add_in)]
#[bench::isolated_1000(args = (1000, true), setup = service_add_in)]
#[bench::isolated_5000(args = (5000, true), setup = service_add_in)]
fn service_add(s: Step) -> (Arc<View>, Arc<Endpoints>, Step) {
    advanced(s)
}

#[library_benchmark]
#[bench::visible_1000(args = (1000, false), setup = service_change_in)]
#[bench::isolated_1000(args = (1000, true), setup = service_change_in)]
fn service_change(s: Step) -> (Arc<View>, Arc<Endpoints>, Step) {
    advanced(s)
}

#[library_benchmark]
#[bench::visible_1000(args = (1000, false), setup = endpoint_change_in)]
#[bench::isolated_1000(args = (1000, true), setup = endpoint_change_in)]
#[bench::isolated_5000(args = (5000, true), setup = endpoint_change_in)]
fn endpoint_change(s: Step) -> (Arc<Endpoints>, Step) {
    (black_box(s.translator.endpoints(&s.next, &s.view, Some(&s.endpoints), Some(&s.changes.endpoints))), s)
}

#[library_benchmark]
#[bench::visible_1000(args = (1000, false), setup = route_edit_in)]
fn scope_of_another_namespace(s: Step) -> (Arc<View>, Arc<Endpoints>, Step) {
    let class = mesh::class(&s.world, "ns1", "a");
    let view = s.translator.view(&s.world, class.scope(), None);
    let endpoints = s.translator.endpoints(&s.world, &view, None, None);
    (black_box(view), black_box(endpoints), s)
}

#[library_benchmark]
#[bench::visible_1000(args = (1000, false), setup = route_edit_in)]
fn another_class_of_the_scope(s: Step) -> (Arc<Own>, Step) {
    let class = mesh::class(&s.world, "ns0", "b");
    (black_box(s.translator.own(&s.world, &class, &s.view, None)), s)
}

fn known_class(services: usize, isolated: bool) -> (Step, Proxy, ProxyClass) {
    let step = route_edit_in(services, isolated);
    let proxy = mesh::proxy("ns0", "a");
    let class = step.translator.classify(&step.world, &proxy);
    (step, proxy, class)
}

// A second proxy of a class: what it costs to find that out.
#[library_benchmark]
#[bench::isolated_5000(args = (5000, true), setup = known_class)]
fn class_lookup(s: (Step, Proxy, ProxyClass)) -> (ProxyClass, (Step, Proxy, ProxyClass)) {
    let (step, proxy, _) = &s;
    (black_box(step.translator.classify(&step.world, proxy)), s)
}

// What a change that concerns nobody costs each scope.
#[library_benchmark]
#[bench::isolated_5000(args = (5000, true), setup = route_edit_in)]
fn change_elsewhere(s: Step) -> (bool, Step) {
    let mut changes = ChangeSet::default();
    changes.objects.extend(s.changes.objects.iter().map(|o| pilotfish_model::ObjectId::new(o.kind, "ns1", "svc1")));
    (black_box(s.view.touched_by(&s.next, &changes)), s)
}

library_benchmark_group!(
    name = translation,
    benchmarks = [
        translate_and_encode,
        route_edit,
        service_add,
        service_change,
        endpoint_change,
        scope_of_another_namespace,
        another_class_of_the_scope,
        class_lookup,
        change_elsewhere
    ]
);
main!(library_benchmark_groups = translation);
