//! Wall time beside the instruction counts of `translate.rs`: one line per bench, name and microseconds (the best of 30).
//! An argument selects the benches whose names contain it.

#![allow(missing_docs, clippy::expect_used)]

mod mesh;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pilotfish_model::ChangeSet;
use pilotfish_translator::{Translator, World, snapshot};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    for services in [100, 1000] {
        let world = World::new(Arc::new(mesh::mesh(services, false)));
        let class = mesh::class(&world, "ns0", "a");
        best(&format!("translate_and_encode/services_{services}"), || {
            let start = Instant::now();
            let snapshot = black_box(snapshot(&world, &class));
            let elapsed = start.elapsed();
            assert!(snapshot.get(pilotfish_envoy::TypeUrl::Cluster).len() > services, "the bench translates nothing");
            elapsed
        });
    }
    for (name, services, isolated) in [("visible_1000", 1000, false), ("isolated_1000", 1000, true), ("isolated_5000", 5000, true)] {
        scope(name, services, isolated);
    }
}

type Edit = fn(&World) -> (World, ChangeSet);

/// Steps of a server with one scope.
fn scope(name: &str, services: usize, isolated: bool) {
    let mesh = Arc::new(mesh::mesh(services, isolated));
    best(&format!("world/{name}"), || timed(|| World::new(mesh.clone())).1);
    let world = World::new(mesh);
    let class = mesh::class(&world, "ns0", "a");
    let translator = Translator::default();
    let view = translator.view(&world, class.scope(), None);
    let endpoints = translator.endpoints(&world, &view, None, None);
    let own = translator.own(&world, &class, &view, None);
    let quiet = ChangeSet::default();

    best(&format!("classify/{name}"), || timed(|| mesh::class(&world, "ns0", "a")).1);
    let other = mesh::class(&world, "ns1", "a");
    best(&format!("other_namespace_view/{name}"), || timed(|| translator.view(&world, other.scope(), None)).1);
    best(&format!("same_again_view/{name}"), || timed(|| translator.view(&world, class.scope(), Some((&view, &quiet)))).1);
    best(&format!("other_namespace_endpoints/{name}"), || timed(|| translator.endpoints(&world, &view, None, None)).1);
    let twin = mesh::class(&world, "ns0", "b");
    best(&format!("other_class_own/{name}"), || timed(|| translator.own(&world, &twin, &view, None)).1);

    let edits: [(&str, Edit); 3] =
        [("route_edit", mesh::route_edit), ("service_add", mesh::service_add), ("service_change", mesh::service_change)];
    for (edit, apply) in edits {
        best(&format!("{edit}_world/{name}"), || timed(|| apply(&world)).1);
        best(&format!("{edit}_view/{name}"), || {
            let (next, changes) = apply(&world);
            timed(|| translator.view(&next, class.scope(), Some((&view, &changes)))).1
        });
        let (next, changes) = apply(&world);
        let after = translator.view(&next, class.scope(), Some((&view, &changes)));
        best(&format!("{edit}_endpoints/{name}"), || timed(|| translator.endpoints(&next, &after, Some(&endpoints), None)).1);
        best(&format!("{edit}_own/{name}"), || timed(|| translator.own(&next, &class, &after, Some((&own, &changes)))).1);
        best(&format!("{edit}_touched/{name}"), || timed(|| view.touched_by(&next, &changes)).1);
        let away = translator.view(&world, other.scope(), None);
        best(&format!("{edit}_touched_elsewhere/{name}"), || timed(|| away.touched_by(&next, &changes)).1);
    }
    best(&format!("endpoint_change_world/{name}"), || timed(|| mesh::endpoint_change(&world)).1);
    best(&format!("endpoint_change/{name}"), || {
        let (next, changes) = mesh::endpoint_change(&world);
        timed(|| translator.endpoints(&next, &view, Some(&endpoints), Some(&changes.endpoints))).1
    });
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let made = black_box(work());
    (made, start.elapsed())
}

fn best(name: &str, once: impl Fn() -> Duration) {
    if std::env::args().skip(1).any(|a| !a.starts_with('-') && !name.contains(&a)) {
        return;
    }
    // `cargo test --benches` runs this too: once is enough there.
    let rounds = if std::env::args().any(|a| a == "--bench") { 30 } else { 1 };
    let best = (0..rounds).map(|_| once()).min().expect("at least one round");
    println!("{name}\t{:.1}", best.as_nanos() as f64 / 1000.0);
}
