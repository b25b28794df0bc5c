//! [`Windows`]: what is due when, in tables; then any events against a model that looks at every scope.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotfish_push::{Batch, Timing, Windows};
use proptest::prelude::*;
use tokio::time::Instant;

use crate::{Clock, Log, ms};

const TIMING: Timing = Timing { quiet: ms_const(100), ceiling: ms_const(1_000) };

const fn ms_const(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What one run of events did: (taken at, key, changes).
type Taken = Vec<(i64, &'static str, Vec<u32>)>;

/// Adds a change at each of (millisecond, key) and takes each batch when it is due, with rebuilds that cost so much.
fn run(cost: Option<u64>, timing: Timing, events: &[(u64, &'static str)]) -> Taken {
    let clock = Clock::new();
    let mut windows = Windows::default();
    let mut taken = Taken::new();
    let mut take_until = |windows: &mut Windows<&'static str, Log>, end: Option<u64>| {
        while let Some(due) = windows.due().filter(|due| end.is_none_or(|end| *due <= clock.at(end))) {
            let (key, batch) = windows.take(due).unwrap();
            assert_eq!(batch.count, batch.change.0.len());
            if let Some(cost) = cost {
                windows.spent(&key, ms(cost));
            }
            taken.push((clock.ms(due), key, batch.change.0));
        }
    };
    for (i, (at, key)) in events.iter().enumerate() {
        if i > 0 && events[i - 1].0 < *at {
            take_until(&mut windows, Some(*at));
        }
        windows.add(key, Log(vec![i as u32]), timing, clock.at(*at), clock.at(*at));
    }
    take_until(&mut windows, None);
    taken
}

fn every(step: u64, until: u64, key: &'static str) -> Vec<(u64, &'static str)> {
    (0..until / step).map(|i| (i * step, key)).collect()
}

fn times(taken: &Taken, wanted: &str) -> Vec<i64> {
    taken.iter().filter(|(_, key, _)| *key == wanted).map(|(at, _, _)| *at).collect()
}

#[test]
fn the_first_after_quiet_goes_at_once() {
    let expected = vec![(0, "a", vec![0]), (300, "a", vec![1]), (900, "a", vec![2])];
    assert_eq!(run(Some(50), TIMING, &[(0, "a"), (300, "a"), (900, "a")]), expected);
}

#[test]
fn later_ones_wait_for_quiet() {
    assert_eq!(run(Some(50), TIMING, &[(0, "a"), (10, "a"), (50, "a"), (120, "a")]), [(0, "a", vec![0]), (220, "a", vec![1, 2, 3])]);
}

#[test]
fn a_batch_is_not_quiet_itself() {
    // The second batch went at 150; a change at 200 is within its quiet time.
    let expected = [(0, "a", vec![0]), (150, "a", vec![1]), (300, "a", vec![2])];
    assert_eq!(run(Some(50), TIMING, &[(0, "a"), (50, "a"), (200, "a")]), expected);
}

#[test]
fn none_waits_longer_than_the_ceiling() {
    assert_eq!(times(&run(Some(50), TIMING, &every(20, 4_000, "a")), "a"), [0, 1_020, 2_020, 3_020, 4_020]);
}

#[test]
fn cheap_rebuilds_wait_little_and_dear_ones_no_longer_than_configured() {
    let events = [(0, "a"), (1, "a"), (2, "a"), (500, "a"), (510, "a")];
    // A floor of 1 ms, ten times the cost, or what is configured.
    let waits = |cost| times(&run(cost, TIMING, &events), "a");
    assert_eq!(waits(None), [0, 1, 2, 500, 510]);
    assert_eq!(waits(Some(0)), [0, 1, 2, 500, 510]);
    assert_eq!(waits(Some(2)), [0, 22, 500, 530]);
    assert_eq!(waits(Some(60)), [0, 102, 500, 610]);
    let short = Timing { quiet: Duration::ZERO, ceiling: Duration::ZERO };
    assert_eq!(times(&run(Some(60), short, &events), "a"), [0, 1, 2, 500, 510]);
}

#[test]
fn a_scope_under_steady_change_is_rebuilt_for_a_tenth_of_the_time_at_most() {
    for (cost, step) in [(1, 1), (2, 1), (5, 3), (3, 50), (9, 89), (9, 90)] {
        let rebuilds = run(Some(cost), Timing::default(), &every(step, 10_000, "a")).len() as u64;
        assert!(rebuilds * cost <= 10_000 / 10 + cost, "{rebuilds} rebuilds of {cost} ms in 10 s");
    }
}

#[test]
fn a_busy_scope_delays_only_itself() {
    let mut events = every(1, 3_000, "busy");
    events.extend(every(500, 3_000, "calm"));
    events.sort();
    let taken = run(Some(30), TIMING, &events);
    assert_eq!(times(&taken, "calm"), [0, 500, 1_000, 1_500, 2_000, 2_500]);
    assert_eq!(times(&taken, "busy"), [0, 601, 1_201, 1_801, 2_401, 3_001]);
}

#[test]
fn the_ceiling_and_the_age_count_from_the_event() {
    let clock = Clock::new();
    let mut windows = Windows::default();
    windows.add("a", Log(vec![0]), TIMING, clock.at(0), clock.at(0));
    windows.take(clock.at(0)).unwrap();
    windows.spent(&"a", ms(1_000));
    // It was 950 of its 1000 ms on the way.
    windows.add("a", Log(vec![1]), TIMING, clock.ago(10, 10), clock.at(10));
    windows.add("a", Log(vec![2]), TIMING, clock.ago(20, 950), clock.at(20));
    assert_eq!(windows.due().map(|due| clock.ms(due)), Some(70));
    let expected = Batch { change: Log(vec![1, 2]), since: clock.ago(20, 950), queued_at: clock.at(10), count: 2 };
    assert_eq!(windows.take(clock.at(69)), None);
    assert_eq!(windows.take(clock.at(70)), Some(("a", expected)));
}

#[test]
fn a_rise_of_cost_counts_at_once_and_a_fall_by_and_by() {
    let clock = Clock::new();
    let mut windows = Windows::default();
    let mut now = 0;
    let mut quiet_after = |cost| {
        now += 10_000;
        windows.add("a", Log(vec![0]), Timing::default(), clock.at(now), clock.at(now));
        windows.take(clock.at(now)).unwrap();
        windows.spent(&"a", Duration::from_micros(cost));
        windows.add("a", Log(vec![0]), Timing::default(), clock.at(now), clock.at(now));
        let due = windows.due().unwrap();
        windows.take(due).unwrap();
        (due - clock.at(now)).as_micros()
    };
    assert_eq!([1_000, 8_000, 4_000, 4_000, 100].map(&mut quiet_after), [10_000, 80_000, 70_000, 62_500, 47_125]);
}

#[test]
fn idle_scopes_are_forgotten() {
    let clock = Clock::new();
    let mut windows = Windows::default();
    for i in 0..100_000 {
        windows.add(i, Log(vec![0]), TIMING, clock.at(i), clock.at(i));
        windows.take(clock.at(i)).unwrap();
        assert!(windows.known() <= 60_001);
    }
    windows.add(0, Log(vec![0]), TIMING, clock.at(200_000), clock.at(200_000));
    assert_eq!((windows.known(), windows.len()), (1, 1));
}

#[test]
fn waiting_forever_is_possible() {
    let clock = Clock::new();
    let mut windows = Windows::default();
    let forever = Timing { quiet: Duration::MAX, ceiling: Duration::MAX };
    for now in [0, 1] {
        windows.add("a", Log(vec![0]), forever, clock.at(now), clock.at(now));
        windows.flush(clock.at(now)).unwrap();
        windows.spent(&"a", Duration::MAX / 8);
    }
    windows.add("a", Log(vec![0]), forever, clock.at(2), clock.at(2));
    assert_eq!(windows.take(clock.at(100_000_000)), None);
    assert!(windows.flush(clock.at(100_000_000)).is_some());
}

// === The model: every scope looked at, nothing clever ===

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Add { key: u8, quiet: u64, ceiling: u64, age: u64 },
    Spent { key: u8, cost: u64 },
    Take,
    TakeAllWhenDue(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let add = (0u8..4, prop::sample::select(vec![2u64, 100]), prop::sample::select(vec![5u64, 150, 1_000]), 0u64..200)
        .prop_map(|(key, quiet, ceiling, age)| Event::Add { key, quiet, ceiling, age: age.saturating_sub(100) });
    prop_oneof![
        4 => (0u64..40).prop_map(Event::Pass),
        1 => (50u64..300).prop_map(Event::Pass),
        1 => (59_000u64..62_000).prop_map(Event::Pass),
        10 => add,
        2 => (0u8..4, 0u64..20).prop_map(|(key, cost)| Event::Spent { key, cost }),
        3 => Just(Event::Take),
        6 => (0u64..120).prop_map(Event::TakeAllWhenDue),
    ]
}

#[derive(Default)]
struct Scope {
    changes: Vec<Change>,
    taken: Option<u64>,
    remember: u64,
    cost: Option<Duration>,
}

struct Change {
    id: u32,
    since: Instant,
    added: u64,
    at_once: bool,
    quiet: Duration,
    deadline: Instant,
}

impl Scope {
    fn due(&self, clock: Clock) -> Option<Instant> {
        let (first, last) = (self.changes.first()?, self.changes.last()?);
        if first.at_once {
            return Some(clock.at(first.added));
        }
        let quiet = self.changes.iter().map(|c| c.quiet).min()?;
        let deadline = self.changes.iter().map(|c| c.deadline).min()?;
        Some((clock.at(last.added) + quiet).min(deadline))
    }
}

struct Model {
    clock: Clock,
    now: u64,
    scopes: BTreeMap<u8, Scope>,
    next: u32,
}

impl Model {
    fn add(&mut self, key: u8, timing: Timing, since: Instant) -> u32 {
        let (clock, now, id) = (self.clock, self.now, self.next);
        self.next += 1;
        let scope = self.scopes.entry(key).or_default();
        if scope.changes.is_empty() && scope.taken.is_some_and(|taken| now >= taken + scope.remember) {
            *scope = Scope::default();
        }
        let Timing { quiet, ceiling } = timing.adapted(scope.cost);
        let at_once = scope.changes.is_empty() && scope.taken.is_none_or(|taken| clock.at(now) >= clock.at(taken) + quiet);
        scope.changes.push(Change { id, since, added: now, at_once, quiet, deadline: since + ceiling });
        id
    }

    fn due(&self) -> Option<Instant> {
        self.scopes.values().filter_map(|scope| scope.due(self.clock)).min()
    }

    /// Checks a batch that was taken now, and takes it here too.
    fn taken(&mut self, key: u8, batch: &Batch<Log>) {
        let due = self.due();
        let scope = self.scopes.get_mut(&key).unwrap();
        assert_eq!(scope.due(self.clock), due, "the first due goes first");
        let changes = std::mem::take(&mut scope.changes);
        let expected = Batch {
            change: Log(changes.iter().map(|c| c.id).collect()),
            since: changes.iter().map(|c| c.since).min().unwrap(),
            queued_at: self.clock.at(changes[0].added),
            count: changes.len(),
        };
        assert_eq!(*batch, expected);
        scope.taken = Some(self.now);
        scope.remember = 60_000;
    }

    fn take(&mut self, windows: &mut Windows<u8, Log>) -> bool {
        let now = self.clock.at(self.now);
        let due = self.due().is_some_and(|due| due <= now);
        match windows.take(now) {
            Some((key, batch)) => {
                assert!(due);
                self.taken(key, &batch);
            }
            None => assert!(!due),
        }
        due
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn any_events_go_as_in_the_model(events in prop::collection::vec(event(), 1..120)) {
        let clock = Clock::new();
        let mut windows = Windows::default();
        let mut model = Model { clock, now: 0, scopes: BTreeMap::new(), next: 0 };
        for event in events {
            match event {
                Event::Pass(time) => model.now += time,
                Event::Add { key, quiet, ceiling, age } => {
                    let timing = Timing { quiet: ms(quiet), ceiling: ms(ceiling) };
                    let since = clock.ago(model.now, age);
                    let id = model.add(key, timing, since);
                    windows.add(key, Log(vec![id]), timing, since, clock.at(model.now));
                    // The promise itself: whatever else waits, it goes at its ceiling.
                    let due = model.scopes[&key].due(clock).unwrap();
                    prop_assert!(due <= (since + timing.ceiling).max(clock.at(model.now)));
                }
                Event::Spent { key, cost } => {
                    windows.spent(&key, ms(cost));
                    if let Some(scope) = model.scopes.get_mut(&key) {
                        let cost = ms(cost);
                        scope.cost = Some(scope.cost.map_or(cost, |old| cost.max((old * 3 + cost) / 4)));
                    }
                }
                Event::Take => {
                    model.take(&mut windows);
                }
                Event::TakeAllWhenDue(time) => {
                    let end = model.now + time;
                    for now in model.now..=end {
                        model.now = now;
                        while model.take(&mut windows) {}
                    }
                }
            }
            prop_assert_eq!(windows.due(), model.due());
            prop_assert_eq!(windows.len(), model.scopes.values().filter(|s| !s.changes.is_empty()).count());
            prop_assert!(windows.known() <= 4);
        }
        while let Some((key, batch)) = windows.flush(clock.at(model.now)) {
            model.taken(key, &batch);
        }
        prop_assert!(model.due().is_none(), "nothing is lost");
    }
}
