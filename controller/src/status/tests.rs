//! What is written, and how rarely.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_model::{Diagnostic, Kind, ObjectId};
use pretty_assertions::assert_eq;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::api::fake::FakeApi;
use crate::lease::Leadership;
use crate::run;

const PATH: &str = "/apis/networking.istio.io/v1/namespaces/ns/virtualservices/x";

fn id() -> ObjectId {
    ObjectId::new(Kind::VirtualService, "ns", "x")
}

fn mk_object(generation: u64, conditions: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "status": {"conditions": conditions, "other": 1},
        "metadata": {"name": "x", "namespace": "ns", "generation": generation, "resourceVersion": "7"},
    })
}

fn accepted(generation: u64) -> Condition {
    Condition::new(State::True, "Accepted", String::new(), generation)
}

fn applied(applied: usize, proxies: usize) -> Applied {
    Applied { proxies, applied, ..Applied::default() }
}

fn reports(taken: Instant, of: Applied) -> Reports {
    Reports { taken, settled: true, warm: true, objects: [(id(), of)].into() }
}

#[test]
fn conditions_of_others_stay_in_their_places() {
    let foreign = json!({"type": "Theirs", "status": "True", "extra": 1});
    let ours = json!({"type": "Accepted", "status": "True", "reason": "Warnings", "message": "w", "lastTransitionTime": "then"});
    let second = json!({"type": "Accepted", "status": "False"});
    let current = mk_object(2, json!([ours, foreign, second]));
    let desired = Desired { accepted: Some(accepted(2)), reconciled: Some(applied(1, 2).condition(2)), addresses: None };
    let document = desired.document(&current, "now").unwrap();
    let first = json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "observedGeneration": 2,
        "lastTransitionTime": "then",
    });
    let last = json!({
        "type": "Reconciled", "status": "False", "reason": "Pending", "observedGeneration": 2, "lastTransitionTime": "now",
        "message": "applied on 1 of 2 proxies; 1 have not confirmed it",
    });
    let expected = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "x", "namespace": "ns", "resourceVersion": "7"},
        "status": {"conditions": [first, foreign, last], "observedGeneration": 2},
    });
    assert_eq!(document, expected);
}

#[test]
fn order_times_and_conditions_of_others_are_no_difference() {
    let desired = Desired { accepted: Some(accepted(2)), reconciled: Some(applied(2, 2).condition(2)), addresses: None };
    let mut written = desired.document(&mk_object(2, json!([])), "now").unwrap();
    written["metadata"]["generation"] = 2.into();
    let list = written["status"]["conditions"].as_array_mut().unwrap();
    list.reverse();
    list[0]["lastTransitionTime"] = "later".into();
    // Older definitions keep such numbers as texts.
    list[1]["observedGeneration"] = "2".into();
    list.insert(1, json!({"type": "Theirs", "status": "Unknown"}));
    assert_eq!(desired.document(&written, "then"), None);
}

#[test]
fn the_words_of_proxies_are_repeated_within_bounds() {
    let words = (0..5).map(|i| (format!("proxy-{i}"), "bad ".repeat(500))).collect();
    let condition = Applied { proxies: 9, applied: 4, rejected: 5, words }.condition(1);
    assert!(condition.message.starts_with("applied on 4 of 9 proxies; rejected by 5: proxy-0: bad bad "), "{}", condition.message);
    assert_eq!((condition.state, condition.reason, condition.message.len()), (State::False, "Rejected", 1024));
}

/// A writer, and the API server that it writes to.
struct World {
    writer: Writer,
    objects: BTreeMap<ObjectId, Value>,
    now: Instant,
    /// When each object was written.
    writes: BTreeMap<ObjectId, Vec<Instant>>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        World { writer: Writer::new(Limits::default(), now), objects: BTreeMap::new(), now, writes: BTreeMap::new() }
    }

    fn see(&mut self, id: &ObjectId, valid: bool) {
        let observed = Observed::of(&self.objects[id]);
        let state = if valid { State::True } else { State::False };
        let accepted = Condition::new(state, if valid { "Accepted" } else { "Invalid" }, String::new(), observed.generation);
        self.writer.see(id, observed, Some(accepted), self.now);
    }

    /// Writes what is due.
    fn write(&mut self, outcome: impl Fn(Observed) -> Outcome) -> usize {
        let mut count = 0;
        while let Some(plan) = self.writer.next(self.now) {
            let Some(object) = self.objects.get_mut(&plan.id) else {
                self.writer.done(&plan, Outcome::Gone, self.now);
                continue;
            };
            let outcome = match plan.desired.document(object, "now") {
                None => Outcome::Unchanged(Observed::of(object)),
                Some(document) => {
                    let outcome = outcome(Observed::default());
                    if outcome != Outcome::Failed {
                        count += 1;
                        object["status"] = document["status"].clone();
                        self.writes.entry(plan.id.clone()).or_default().push(self.now);
                    }
                    if matches!(outcome, Outcome::Written(_)) { Outcome::Written(Observed::of(object)) } else { outcome }
                }
            };
            self.writer.done(&plan, outcome, self.now);
        }
        count
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn whoever_reverts_everything_causes_a_write_per_ten_seconds() {
    let mut world = World::new();
    world.objects.insert(id(), mk_object(1, json!([])));
    world.see(&id(), true);
    for _ in 0..1200 {
        world.pass(Duration::from_millis(50));
        if world.write(Outcome::Written) > 0 {
            world.objects.insert(id(), mk_object(1, json!([])));
            world.see(&id(), true);
        }
    }
    assert_eq!(world.writes[&id()].len(), 6, "in a minute");
}

#[test]
fn numbers_are_written_once_they_stand_still_and_seldom_if_they_never_do() {
    let mut world = World::new();
    world.objects.insert(id(), mk_object(1, json!([])));
    world.see(&id(), true);
    assert_eq!(world.writer.counts().awaiting, 1);
    let mut run = |seconds: usize, proxies: &dyn Fn(usize) -> usize| {
        let before = world.writes.get(&id()).map_or(0, Vec::len);
        for n in 0..seconds {
            world.pass(Duration::from_secs(1));
            world.writer.report(&reports(world.now, applied(proxies(n), proxies(n))), world.now);
            world.write(Outcome::Written);
        }
        assert_eq!(world.writer.counts().awaiting, 0);
        world.writes[&id()].len() - before
    };
    assert_eq!(run(30, &|_| 10), 1);
    assert_eq!(run(1300, &|n| 11 + n), 2, "in twice ten minutes");
    assert_eq!(run(59, &|_| 20), 0);
    assert_eq!(run(600, &|_| 20), 1);
    world.writer.forget(&id());
    assert_eq!(world.writer.counts(), Counts { written: 4, ..Counts::default() });
}

#[test]
fn proxies_that_come_and_go_are_no_news() {
    let mut world = World::new();
    world.objects.insert(id(), mk_object(1, json!([])));
    world.see(&id(), true);
    for n in 0..600 {
        world.pass(Duration::from_millis(100));
        world.writer.report(&reports(world.now, applied(10 + n, 10 + n)), world.now);
        world.write(Outcome::Written);
    }
    assert_eq!(world.writes[&id()].len(), 1);
    // A refusal is.
    let refused = Applied { proxies: 10, applied: 9, rejected: 1, words: vec![("p".into(), "no".into())] };
    world.writer.report(&reports(world.now, refused), world.now);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.write(Outcome::Written), 1);
    assert_eq!(world.objects[&id()]["status"]["conditions"][1]["message"], "applied on 9 of 10 proxies; rejected by 1: p: no");
}

#[test]
fn what_proxies_said_before_a_change_is_not_about_it() {
    let mut world = World::new();
    world.objects.insert(id(), mk_object(1, json!([])));
    world.see(&id(), true);
    let reconciled = |world: &World| Observed::of(&world.objects[&id()]).marks[Type::Reconciled as usize].is_some();
    world.writer.report(&reports(world.now, applied(1, 1)), world.now);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.write(Outcome::Written), 1);
    assert!(!reconciled(&world));
    // While other things wait to be pushed, it takes longer to be sure.
    let unsettled = |now| Reports { settled: false, ..reports(now, applied(1, 1)) };
    world.writer.report(&unsettled(world.now), world.now);
    world.pass(Duration::from_secs(11));
    assert_eq!(world.write(Outcome::Written), 0);
    world.writer.report(&unsettled(world.now), world.now);
    world.pass(Duration::from_secs(1));
    assert_eq!((world.write(Outcome::Written), reconciled(&world)), (1, true));
}

#[test]
fn a_server_that_drops_fields_is_not_asked_again_and_again() {
    let mut world = World::new();
    world.objects.insert(id(), mk_object(1, json!([])));
    world.see(&id(), true);
    let mut writes = 0;
    for _ in 0..600 {
        world.pass(Duration::from_secs(1));
        while let Some(plan) = world.writer.next(world.now) {
            writes += 1;
            world.writer.done(&plan, Outcome::Written(Observed::of(&mk_object(1, json!([])))), world.now);
        }
    }
    assert_eq!(writes, 1);
}

#[test]
fn a_new_leader_keeps_the_distance_too() {
    let mut world = World::new();
    world.objects.insert(id(), mk_object(1, json!([])));
    world.writer.took_over(world.now);
    world.see(&id(), true);
    world.pass(Duration::from_millis(9900));
    assert_eq!(world.write(Outcome::Written), 0);
    world.pass(Duration::from_millis(100));
    assert_eq!(world.write(Outcome::Written), 1);
}

#[test]
fn a_kind_that_may_not_be_written_is_left_alone() {
    let mut world = World::new();
    for i in 0..100 {
        let id = ObjectId::new(Kind::VirtualService, "ns", format!("x{i}"));
        world.objects.insert(id.clone(), mk_object(1, json!([])));
        world.see(&id, true);
    }
    let mut tries = 0;
    for _ in 0..600 {
        world.pass(Duration::from_secs(1));
        while let Some(plan) = world.writer.next(world.now) {
            tries += 1;
            world.writer.done(&plan, Outcome::Forbidden, world.now);
        }
    }
    assert_eq!(tries, 2, "one every five minutes");
    assert_eq!(world.writer.counts().waiting, 100);
}

#[test]
fn all_objects_together_are_written_at_a_rate() {
    let mut world = World::new();
    for i in 0..1000 {
        let id = ObjectId::new(Kind::VirtualService, "ns", format!("x{i}"));
        world.objects.insert(id.clone(), mk_object(1, json!([])));
        world.see(&id, true);
    }
    world.pass(Duration::from_secs(5));
    assert_eq!(world.write(Outcome::Written), 20, "as many as are saved up");
    for _ in 0..100 {
        world.pass(Duration::from_millis(100));
        assert!(world.write(Outcome::Written) <= 2);
    }
    assert_eq!(world.writes.len(), 220);
    let plans: Vec<_> = (0..100)
        .filter_map(|_| {
            world.pass(Duration::from_secs(1));
            world.writer.next(world.now)
        })
        .collect();
    assert_eq!(plans.len(), Limits::default().concurrent, "under way at a time");
}

proptest! {
    /// Whatever happens, in whatever order: never more than one write of an object in ten seconds; once nothing happens any more, all
    /// say what they should, and nothing is written that would change nothing.
    #[test]
    fn writes_are_rare_and_enough(steps in prop::collection::vec((0..7u8, 0..3usize, 1..8000u64), 1..150)) {
        let mut world = World::new();
        let ids: Vec<_> = (0..3).map(|i| ObjectId::new(Kind::VirtualService, "ns", format!("x{i}"))).collect();
        let mut valid = [true; 3];
        for (what, which, pause) in steps {
            world.pass(Duration::from_millis(pause));
            let id = &ids[which];
            let generation = world.objects.get(id).map_or(0, |o| Observed::of(o).generation);
            match what {
                // A user edits, and perhaps breaks it.
                0 | 1 => {
                    let conditions = world.objects.get(id).map_or(json!([]), |o| o["status"]["conditions"].clone());
                    world.objects.insert(id.clone(), mk_object(generation + 1, conditions));
                    valid[which] = what == 0;
                    world.see(id, valid[which]);
                }
                // Somebody reverts it, or has a condition of their own.
                2 | 3 if generation > 0 => {
                    let theirs = if what == 2 { json!([]) } else { json!([{"type": "Theirs", "status": "True"}, {"type": "Accepted", "status": "False"}]) };
                    world.objects.insert(id.clone(), mk_object(generation, theirs));
                    world.see(id, valid[which]);
                }
                4 => {
                    world.objects.remove(id);
                    world.writer.forget(id);
                    // What comes under its name is another object.
                    world.writes.remove(id);
                }
                5 => {
                    let of = |id: &ObjectId| (id.clone(), applied(which, 2));
                    let reports = Reports { taken: world.now, settled: true, warm: true, objects: ids.iter().map(of).collect() };
                    world.writer.report(&reports, world.now);
                }
                _ => {}
            }
            let outcome: fn(Observed) -> Outcome = match (what, pause % 3) {
                (6, 0) => |_| Outcome::Failed,
                (6, 1) => |_| Outcome::Unknown,
                _ => Outcome::Written,
            };
            world.write(outcome);
        }
        // The API server's news of what was written in doubt.
        for (i, id) in ids.iter().enumerate() {
            if world.objects.contains_key(id) {
                world.see(id, valid[i]);
            }
        }
        for _ in 0..1200 {
            world.pass(Duration::from_secs(1));
            world.write(Outcome::Written);
        }
        for writes in world.writes.values() {
            for pair in writes.windows(2) {
                prop_assert!(pair[1] - pair[0] >= Duration::from_secs(10), "{writes:?}");
            }
        }
        prop_assert_eq!(world.writer.counts().waiting, 0);
        for (i, id) in ids.iter().enumerate() {
            let Some(object) = world.objects.get(id) else { continue };
            let said = object["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Accepted").unwrap();
            let expected = (json!(if valid[i] { "True" } else { "False" }), Observed::of(object).generation);
            prop_assert_eq!((said["status"].clone(), said["observedGeneration"].as_u64().unwrap()), expected);
        }
    }
}

/// A task over a fake API server, and what feeds it.
struct Running {
    api: FakeApi,
    state: watch::Sender<run::State>,
    reports: watch::Sender<Option<Arc<Reports>>>,
    between: watch::Sender<Between>,
}

impl Running {
    fn start() -> Self {
        let api = FakeApi::default();
        let ((state, seen), (reports, reported)) = (watch::channel(run::State::default()), watch::channel(None));
        let options = Options { conditions: true, ..Options::default() };
        let (between, found) = watch::channel(Between::default());
        let (task, _) = Task::new(api.clone(), options, seen, reported, found, Leadership::always());
        tokio::spawn(task.run());
        Running { api, state, reports, between }
    }

    /// The watch shows what the API server has.
    fn show(&self, object: &Value, findings: Vec<Diagnostic>) {
        self.state.send_modify(|state| {
            state.snapshot.statuses.insert(id(), Arc::new(Observed::of(object)));
            state.snapshot.diagnostics = Arc::new(findings);
        });
    }

    fn conditions(&self) -> Vec<(String, String, String)> {
        let object = self.api.object(PATH).unwrap();
        let text = |c: &Value, field: &str| c[field].as_str().unwrap_or_default().to_owned();
        object["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| (text(c, "type"), text(c, "reason"), text(c, "message")))
            .collect()
    }

    fn patches(&self) -> usize {
        self.api.calls().iter().filter(|c| c.method == http::Method::PATCH).count()
    }
}

#[tokio::test(start_paused = true)]
async fn findings_and_words_reach_the_object() {
    let running = Running::start();
    let object = running.api.put(PATH, mk_object(1, json!([{"type": "Theirs"}])));
    running.show(&object, vec![Diagnostic::warning(&id(), "spec.http[1]", "is never reached")]);
    running.between.send_replace(Arc::new([(id(), vec![Diagnostic::warning(&id(), "spec.hosts[0]", "has no effect")])].into()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    running.reports.send_replace(Some(Arc::new(reports(Instant::now(), applied(3, 3)))));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let theirs = ("Theirs".to_owned(), String::new(), String::new());
    let said = |kind: &str, reason: &str, message: &str| (kind.to_owned(), reason.to_owned(), message.to_owned());
    let warned = said("Accepted", "Warnings", "spec.http[1]: is never reached; spec.hosts[0]: has no effect");
    assert_eq!(running.conditions(), [theirs.clone(), warned, said("Reconciled", "Applied", "applied on 3 of 3 proxies")]);
    assert_eq!(running.patches(), 1, "news come together");
    // A new generation that is broken, while somebody else keeps writing: both are heard.
    let current = running.api.object(PATH).unwrap();
    let mut broken = current.clone();
    broken["metadata"]["generation"] = 2.into();
    let broken = running.api.put(PATH, broken);
    running.show(&broken, vec![Diagnostic::error(&id(), "spec.hosts", "must not be empty")]);
    tokio::time::sleep(Duration::from_secs(15)).await;
    let invalid = said("Accepted", "Invalid", "spec.hosts: must not be empty");
    let not_in_use = said("Reconciled", "NotAccepted", "is not in use as it is; see Accepted");
    assert_eq!(running.conditions(), [theirs, invalid, not_in_use]);
    assert_eq!(running.patches(), 2);
    // What the watch shows of our own writes is no news.
    running.show(&running.api.object(PATH).unwrap(), vec![Diagnostic::error(&id(), "spec.hosts", "must not be empty")]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(running.patches(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out() {
    let running = Running::start();
    let object = running.api.put(PATH, mk_object(1, json!([])));
    running.api.set_down(true);
    running.show(&object, Vec::new());
    tokio::time::sleep(Duration::from_secs(120)).await;
    running.api.set_down(false);
    tokio::time::sleep(Duration::from_secs(130)).await;
    assert_eq!(running.conditions()[0].0, "Accepted");
    assert_eq!(running.patches(), 1);
}
