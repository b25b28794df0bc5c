//! Whatever happens to a mesh, in whatever portions a scope hears of it: what it ends up with is what a translation from
//! nothing gives, for every type.
//!
//! The meshes are the shared scenarios, their objects come, go, and change in random places. A scope hears of changes late,
//! merged and twice, as debouncing by scope makes it; meanwhile it may be brought up to a world that is ahead of its change
//! set. The random numbers are seeded by the round, so a failure repeats. `INCREMENTAL_ROUNDS` runs more of them.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod damage;
mod scenario;

use std::path::Path;
use std::sync::Arc;

use damage::damage;
use pilotfish_controller::Index;
use pilotfish_controller::object::{Decoded, Object, decode};
use pilotfish_envoy::{Snapshot, TypeUrl};
use pilotfish_model::{ChangeSet, Proxy};
use pilotfish_testkit::{Random, skip};
use pilotfish_translator::{Endpoints, Own, ProxyClass, Translator, View, World, classify, reclassifies, snapshot};
use serde_json::Value;

const STEPS: usize = 12;

#[test]
fn an_increment_ends_where_a_new_start_does() {
    let Some(shared) = skip::shared("incremental") else { return };
    let rounds: u64 = std::env::var("INCREMENTAL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let only = std::env::var("INCREMENTAL_SCENARIO").unwrap_or_default();
    let scenarios = scenario::all(&shared);
    let mut compared = 0;
    for (i, scenario) in scenarios.iter().enumerate().filter(|(_, s)| s.to_string_lossy().contains(&only)) {
        for round in 0..rounds {
            compared += run(scenario, Random(round * 1000 + i as u64));
        }
    }
    assert!(compared > scenarios.len() || !only.is_empty(), "hardly anything was compared");
}

/// One proxy as a server would hold it.
struct Held {
    proxy: Proxy,
    class: ProxyClass,
    /// What it has not heard of yet.
    pending: ChangeSet,
    /// What it heard of last.
    heard: ChangeSet,
    view: Arc<View>,
    endpoints: Arc<Endpoints>,
    own: Arc<Own>,
}

impl Held {
    fn new(translator: &Translator, world: &Arc<World>, proxy: Proxy) -> Self {
        let class = classify(world, &proxy);
        let view = translator.view(world, class.scope(), None);
        let endpoints = translator.endpoints(world, &view, None, None);
        let own = translator.own(world, &class, &view, None);
        let (pending, heard) = Default::default();
        Held { proxy, class, pending, heard, view, endpoints, own }
    }

    /// Brings it up to `world` as far as `changes` say that it is concerned.
    fn hear(&mut self, translator: &Translator, world: &Arc<World>, changes: &ChangeSet) {
        if reclassifies(changes, &self.proxy) {
            let class = classify(world, &self.proxy);
            if class != self.class {
                *self = Held { heard: changes.clone(), ..Held::new(translator, world, self.proxy.clone()) };
                return;
            }
        }
        let before = self.view.clone();
        if before.touched_by(world, changes) {
            self.view = translator.view(world, self.class.scope(), Some((&before, changes)));
        }
        let same = Arc::ptr_eq(&before, &self.view);
        if !same || !changes.endpoints.is_empty() {
            let changed = same.then_some(&changes.endpoints);
            self.endpoints = translator.endpoints(world, &self.view, Some(&self.endpoints), changed);
        }
        if !same || self.own.touched_by(world, changes) {
            self.own = translator.own(world, &self.class, &self.view, Some((&self.own, changes)));
        }
        self.heard = changes.clone();
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::from_layers(self.view.layers(), self.endpoints.layer(), self.own.layers())
    }
}

fn run(scenario: &Path, mut random: Random) -> usize {
    let name = format!("{} seed {}", scenario.file_name().unwrap().to_string_lossy(), random.0);
    let mut index = scenario::index(scenario);
    let documents = scenario::documents(scenario);
    for document in &documents {
        // A third of the objects comes later.
        if random.below(3) > 0 {
            apply(&mut index, document.clone());
        }
    }
    let Some((mesh, _)) = index.publish() else { return 0 };
    let mut world = Arc::new(World::new(mesh.clone()));
    let translator = Translator::default();
    let proxies = scenario::proxies(scenario, &mesh).into_iter();
    let mut held: Vec<Held> = proxies.map(|p| Held::new(&translator, &world, p)).collect();
    let mut compared = 0;
    for step in 0..STEPS {
        for _ in 0..=random.below(3) {
            edit(&mut index, &documents, &mut random);
        }
        if let Some((mesh, mut changes)) = index.publish() {
            let next = world.next(mesh, &changes);
            changes.classes |= !next.same_keys(&world);
            world = Arc::new(next);
            held.iter_mut().for_each(|h| h.pending.merge(changes.clone()));
        }
        for h in &mut held {
            match random.below(4) {
                // Later.
                0 if step + 1 < STEPS => continue,
                // What it heard before comes again, and endpoints ahead of the rest.
                1 => {
                    let heard = h.heard.clone();
                    h.hear(&translator, &world, &heard);
                    let endpoints = ChangeSet { endpoints: h.pending.endpoints.clone(), ..ChangeSet::default() };
                    h.hear(&translator, &world, &endpoints);
                }
                _ => {}
            }
            let pending = std::mem::take(&mut h.pending);
            h.hear(&translator, &world, &pending);
            let expected = snapshot(&World::new(world.mesh.clone()), &classify(&world, &h.proxy));
            compared += 1;
            assert_same(&h.snapshot(), &expected, &format!("{name} step {step} {:?} after {pending:?}", h.class));
        }
    }
    compared
}

fn assert_same(actual: &Snapshot, expected: &Snapshot, what: &str) {
    for type_url in TypeUrl::ALL {
        let (actual, expected) = (actual.get(type_url), expected.get(type_url));
        if actual == expected {
            continue;
        }
        let names = |set: &pilotfish_envoy::ResourceSet, other: &pilotfish_envoy::ResourceSet| -> Vec<String> {
            set.iter().filter(|r| other.get(r.name()) != Some(*r)).map(|r| r.name().to_string()).collect()
        };
        panic!("{what}: {type_url}: has {:?}, should have {:?}", names(actual, expected), names(expected, actual));
    }
}

fn apply(index: &mut Index, document: Value) {
    if let Ok(Decoded::Object(object)) = decode(document) {
        index.apply(Arc::<Object>::from(object));
    }
}

fn edit(index: &mut Index, documents: &[Value], random: &mut Random) {
    let mut document = documents[random.below(documents.len())].clone();
    match random.below(4) {
        0 => {
            if let Ok(Decoded::Object(object)) = decode(document) {
                index.delete(&object.id);
            }
        }
        1 => apply(index, document),
        _ => {
            for _ in 0..=random.below(2) {
                damage(&mut document, random, 0);
            }
            apply(index, document);
        }
    }
}
