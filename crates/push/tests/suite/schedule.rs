//! [`Schedule`]: what starts when, in tables; then any events against a model with one list.

use std::num::NonZeroUsize;

use pilotfish_push::{Job, Schedule, Urgency};
use proptest::prelude::*;
use tokio::time::Instant;

use crate::{Clock, Log, ms};

type Jobs = Schedule<u8, u8, Log>;
type Started = Job<u8, u8, Log>;

fn schedule(limit: usize) -> Jobs {
    Jobs::new(NonZeroUsize::new(limit).unwrap())
}

#[test]
fn the_more_urgent_first_and_then_in_order() {
    let now = Instant::now();
    let mut jobs = schedule(9);
    use Urgency::{Config, EndpointAdd, EndpointRemoval, Unconfigured};
    for (key, urgency) in [(0, Config), (1, EndpointAdd), (2, Unconfigured), (3, EndpointRemoval), (4, Config), (5, Unconfigured)] {
        jobs.submit(key, 0, urgency, Log::default(), now, now);
    }
    assert_eq!(jobs.queued().collect::<Vec<_>>(), [(Config, 2), (EndpointAdd, 1), (EndpointRemoval, 1), (Unconfigured, 2)]);
    let order: Vec<u8> = std::iter::from_fn(|| jobs.next(now)).map(|job| job.key).collect();
    assert_eq!(order, [2, 5, 3, 1, 0, 4]);
}

#[test]
fn what_waits_for_one_key_is_one_job() {
    let clock = Clock::new();
    let mut jobs = schedule(9);
    jobs.submit(1, 7, Urgency::Config, Log(vec![1]), clock.at(3), clock.at(5));
    jobs.submit(2, 7, Urgency::EndpointAdd, Log(vec![2]), clock.at(6), clock.at(6));
    jobs.submit(1, 8, Urgency::EndpointRemoval, Log(vec![3]), clock.at(1), clock.at(7));
    jobs.submit(1, 7, Urgency::EndpointAdd, Log(vec![4]), clock.at(8), clock.at(8));
    assert_eq!((jobs.len(), jobs.oldest(clock.at(15))), (2, Some(ms(10))));
    let expected = Started {
        key: 1,
        group: 7,
        change: Log(vec![1, 3, 4]),
        since: clock.at(1),
        queued_at: clock.at(5),
        urgency: Urgency::EndpointRemoval,
        count: 3,
    };
    assert_eq!(jobs.next(clock.at(9)), Some(expected));
    assert_eq!((jobs.len(), jobs.oldest(clock.at(15)), jobs.in_flight()), (1, Some(ms(9)), 1));
}

#[test]
fn what_comes_while_a_job_is_in_flight_starts_after_it() {
    let now = Instant::now();
    let mut jobs = schedule(9);
    jobs.submit(1, 0, Urgency::Config, Log(vec![1]), now, now);
    jobs.next(now).unwrap();
    jobs.submit(1, 0, Urgency::Unconfigured, Log(vec![2]), now, now);
    jobs.submit(1, 0, Urgency::Config, Log(vec![3]), now, now);
    assert_eq!((jobs.next(now), jobs.ready(), jobs.len(), jobs.oldest(now)), (None, false, 1, None));
    jobs.done(&1, ms(1));
    let again = jobs.next(now).unwrap();
    assert_eq!((again.change, again.urgency, again.count), (Log(vec![2, 3]), Urgency::Unconfigured, 2));
    jobs.done(&1, ms(1));
    assert_eq!((jobs.next(now), jobs.len(), jobs.in_flight(), jobs.groups()), (None, 0, 0, 0));
}

#[test]
fn no_more_in_flight_than_the_limit() {
    let now = Instant::now();
    let mut jobs = schedule(2);
    for key in 0..3 {
        jobs.submit(key, 0, Urgency::Config, Log::default(), now, now);
    }
    assert!(jobs.next(now).is_some() && jobs.next(now).is_some() && jobs.next(now).is_none());
    jobs.done(&0, ms(1));
    // Neither done twice nor done unasked frees a place.
    jobs.done(&0, ms(1));
    jobs.done(&2, ms(1));
    assert!(jobs.next(now).is_some() && jobs.next(now).is_none());
}

#[test]
fn what_waits_can_be_taken_back() {
    let now = Instant::now();
    let mut jobs = schedule(1);
    for key in 0..3 {
        jobs.submit(key, key, Urgency::Config, Log(vec![u32::from(key)]), now, now);
    }
    assert_eq!(jobs.next(now).unwrap().key, 0);
    jobs.submit(0, 0, Urgency::Config, Log(vec![9]), now, now);
    assert_eq!([jobs.remove(&1), jobs.remove(&1), jobs.remove(&0), jobs.remove(&0)], [Some(Log(vec![1])), None, Some(Log(vec![9])), None]);
    jobs.done(&0, ms(1));
    assert_eq!(jobs.next(now).unwrap().key, 2);
    jobs.done(&2, ms(1));
    assert_eq!((jobs.len(), jobs.in_flight(), jobs.groups()), (0, 0, 0));
}

#[test]
fn groups_that_are_idle_are_forgotten() {
    let now = Instant::now();
    let mut jobs: Schedule<u32, u32, ()> = Schedule::new(NonZeroUsize::new(4).unwrap());
    let submit = |jobs: &mut Schedule<u32, u32, ()>, n| jobs.submit(n, n, Urgency::Config, (), now, now);
    // Something waits all the time, so that the class is never empty, and all groups are new.
    for n in 0..10 {
        submit(&mut jobs, n);
    }
    for n in 10..10_000 {
        submit(&mut jobs, n);
        let job = jobs.next(now).unwrap();
        jobs.done(&job.key, ms(1));
        assert!((10..64).contains(&jobs.groups()), "{}", jobs.groups());
    }
}

// === The model: everything that waits in one list ===

#[derive(Clone, Debug)]
enum Event {
    Pass(u64),
    Submit { key: u8, group: u8, urgency: Urgency, age: u64 },
    Next,
    Done { which: prop::sample::Index, cost: u64 },
    Remove { key: u8 },
}

fn event() -> impl Strategy<Value = Event> {
    let submit = (0u8..8, 0u8..3, prop::sample::select(Urgency::ALL.to_vec()), 0u64..50)
        .prop_map(|(key, group, urgency, age)| Event::Submit { key, group, urgency, age });
    prop_oneof![
        3 => (0u64..300).prop_map(Event::Pass),
        8 => submit,
        8 => Just(Event::Next),
        6 => (any::<prop::sample::Index>(), 0u64..30).prop_map(|(which, cost)| Event::Done { which, cost }),
        1 => (0u8..8).prop_map(|key| Event::Remove { key }),
    ]
}

#[derive(Default)]
struct Model {
    /// In the order in which they were first submitted.
    waiting: Vec<Started>,
    in_flight: Vec<u8>,
    starts: u64,
    /// The starts at which each class had its last, or became able to start.
    last: [u64; 4],
}

impl Model {
    fn could_start(&self, urgency: Urgency) -> impl Iterator<Item = &Started> {
        self.waiting.iter().filter(move |job| job.urgency == urgency && !self.in_flight.contains(&job.key))
    }

    /// Runs an action and notes which classes became able to start by it.
    fn act<T>(&mut self, act: impl FnOnce(&mut Model) -> T) -> T {
        let before = Urgency::ALL.map(|urgency| self.could_start(urgency).next().is_some());
        let result = act(self);
        for urgency in Urgency::ALL {
            if !before[urgency as usize] && self.could_start(urgency).next().is_some() {
                self.last[urgency as usize] = self.starts;
            }
        }
        result
    }

    fn submit(&mut self, new: Started) {
        self.act(|model| match model.waiting.iter_mut().find(|job| job.key == new.key) {
            Some(job) => {
                job.change.0.extend(new.change.0);
                job.since = job.since.min(new.since);
                job.urgency = job.urgency.max(new.urgency);
                job.count += 1;
            }
            None => model.waiting.push(new),
        });
    }

    fn done(&mut self, key: u8) {
        self.act(|model| model.in_flight.retain(|k| *k != key));
    }

    /// Which class goes next.
    fn class(&self, now: Instant) -> Option<Urgency> {
        let able: Vec<Urgency> = Urgency::ALL.into_iter().filter(|urgency| self.could_start(*urgency).next().is_some()).collect();
        let (top, lower) = able.split_last()?;
        let overdue = lower.iter().filter(|urgency| {
            let oldest = self.could_start(**urgency).next().unwrap().queued_at;
            now - oldest >= Jobs::AGE && self.starts - self.last[**urgency as usize] >= Jobs::SHARE - 1
        });
        Some(*overdue.min_by_key(|urgency| self.last[**urgency as usize]).unwrap_or(top))
    }

    fn next(&mut self, limit: usize, now: Instant, started: Option<Started>) {
        let class = self.class(now).filter(|_| self.in_flight.len() < limit);
        let Some(started) = started else { return assert_eq!(class, None) };
        assert_eq!(Some(started.urgency), class);
        // The first of its group in its class, and exactly what was submitted.
        let first = self.could_start(started.urgency).find(|job| job.group == started.group);
        assert_eq!(Some(&started), first);
        self.waiting.retain(|job| job.key != started.key);
        self.in_flight.push(started.key);
        self.starts += 1;
        self.last[started.urgency as usize] = self.starts;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn any_events_go_as_in_the_model(limit in 1usize..4, events in prop::collection::vec(event(), 1..200)) {
        let clock = Clock::new();
        let mut jobs = schedule(limit);
        let mut model = Model::default();
        let (mut now, mut next) = (0, 0);
        for event in events {
            match event {
                Event::Pass(time) => now += time,
                Event::Submit { key, group, urgency, age } => {
                    let (since, queued_at) = (clock.ago(now, age), clock.at(now));
                    model.submit(Started { key, group, change: Log(vec![next]), since, queued_at, urgency, count: 1 });
                    jobs.submit(key, group, urgency, Log(vec![next]), since, queued_at);
                    next += 1;
                }
                Event::Next => model.next(limit, clock.at(now), jobs.next(clock.at(now))),
                Event::Done { which, cost } => {
                    if !model.in_flight.is_empty() {
                        let key = *which.get(&model.in_flight);
                        jobs.done(&key, ms(cost));
                        model.done(key);
                    }
                }
                Event::Remove { key } => {
                    let known = model.waiting.iter().find(|job| job.key == key).map(|job| job.change.clone());
                    prop_assert_eq!(jobs.remove(&key), known);
                    model.waiting.retain(|job| job.key != key);
                }
            }
            prop_assert_eq!((jobs.len(), jobs.in_flight()), (model.waiting.len(), model.in_flight.len()));
            let alone = model.in_flight.iter().filter(|key| model.waiting.iter().all(|job| job.key != **key)).count();
            prop_assert_eq!(jobs.known(), model.waiting.len() + alone);
            let oldest = Urgency::ALL.into_iter().filter_map(|u| model.could_start(u).next()).map(|job| job.queued_at).min();
            prop_assert_eq!(jobs.oldest(clock.at(now)), oldest.map(|oldest| clock.at(now) - oldest));
        }
        // Nothing is lost: what still waits comes out.
        while !model.waiting.is_empty() || !model.in_flight.is_empty() {
            model.next(limit, clock.at(now), jobs.next(clock.at(now)));
            if let Some(key) = model.in_flight.first().copied() {
                jobs.done(&key, ms(1));
                model.done(key);
            }
        }
        prop_assert_eq!((jobs.len(), jobs.in_flight(), jobs.groups()), (0, 0, 0));
    }
}
