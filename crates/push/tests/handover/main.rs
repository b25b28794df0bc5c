//! Where tasks hand over, under a checker that tries many interleavings (shuttle): nothing is lost, nobody sleeps on.
//!
//! The shells are compiled here a second time, against a `sync` whose locks are points where the checker may switch tasks, and
//! whose clock is an argument. What wakes tasks (tokio's `Notify` and `watch`) is taken as correct and atomic: tokio checks it with
//! loom. A lost wake-up shows as a deadlock. The locks are few and whole operations run under them, so random schedules over them
//! find in seconds what exhaustive ones over every atomic (loom) would not finish.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, missing_docs, unreachable_pub, unused_imports)]

#[path = "../../src/admission.rs"]
mod admission;
#[path = "../../src/debounce.rs"]
mod debounce;
#[path = "../../src/fair.rs"]
mod fair;
#[path = "../../src/gate.rs"]
mod gate;
#[path = "../../src/merge.rs"]
mod merge;
#[path = "../../src/schedule.rs"]
mod schedule;
#[path = "../../src/scheduler.rs"]
mod scheduler;
mod sync;
#[path = "../../src/urgency.rs"]
mod urgency;
#[path = "../../src/windows.rs"]
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::future::{block_on, spawn, yield_now};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler as Strategy};

use admission::{Limits, Rate};
use gate::Gate;
use merge::Merge;
use scheduler::{Running, Scheduler};
use sync::{Clock, now};
use urgency::Urgency;
use windows::Timing;

#[derive(Default)]
struct Log(Vec<u32>);

impl Merge for Log {
    fn merge(&mut self, later: Self) {
        self.0.extend(later.0);
    }
}

/// Runs under random schedules and under such that delay few tasks for long.
fn check(clock: Clock, test: impl Fn() + Clone + Send + Sync + 'static) {
    fn under(strategy: impl Strategy + 'static, clock: Clock, test: impl Fn() + Send + Sync + 'static) {
        let mut config = shuttle::Config::default();
        config.silence_warnings = true;
        shuttle::Runner::new(strategy, config).run(move || {
            sync::start(clock);
            test();
        });
    }
    under(RandomScheduler::new(2_000), clock, test.clone());
    under(PctScheduler::new(3, 1_000), clock, test);
}

// === debounce ===

/// Two senders, then none: all changes come, each key's in order of its sender.
fn debounced(clock: Clock) {
    check(clock, move || {
        let (sender, mut batches) = debounce::channel::<u8, Log>();
        for n in [0, 10] {
            let sender = sender.clone();
            spawn(async move {
                for i in 0..3u32 {
                    sender.send((i % 2) as u8, Log(vec![n + i]), Timing::default(), now());
                    yield_now().await;
                }
            });
        }
        drop(sender);
        block_on(async move {
            let mut seen = Vec::new();
            while let Some((key, batch)) = batches.next().await {
                batches.spent(&key, Duration::from_millis(3));
                seen.extend(batch.change.0);
            }
            for n in [0, 10] {
                let of_sender: Vec<u32> = seen.iter().copied().filter(|i| i / 10 == n / 10 && (i - n) % 2 == 0).collect();
                assert_eq!(of_sender, [n, n + 2]);
            }
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 10, 11, 12]);
        });
    });
}

#[test]
fn no_change_is_lost_while_time_passes() {
    debounced(Clock::Passes);
}

#[test]
fn no_change_is_lost_while_time_stands_still() {
    debounced(Clock::Stands);
}

/// A receiver that sleeps for one key is woken for another that is due earlier, without time to help.
#[test]
fn a_sleeping_receiver_is_woken() {
    check(Clock::Stands, || {
        let (sender, mut batches) = debounce::channel::<u8, Log>();
        let kept = sender.clone();
        spawn(async move {
            for key in [1, 1, 2, 2, 3] {
                sender.send(key, Log(vec![key.into()]), Timing::default(), now());
                yield_now().await;
            }
        });
        block_on(async move {
            let mut keys = BTreeSet::new();
            while keys.len() < 3 {
                // A wait that is given up loses nothing either.
                tokio::select! {
                    biased;
                    taken = batches.next() => {
                        let (key, _) = taken.unwrap();
                        batches.spent(&key, Duration::from_millis(3));
                        keys.insert(key);
                    }
                    () = given_up(keys.len()) => {}
                }
            }
            drop(kept);
        });
    });
}

/// Ends after a few turns, at first; later it never does, so that only a wake-up helps.
async fn given_up(done: usize) {
    if done > 1 {
        std::future::pending::<()>().await;
    }
    yield_now().await;
}

// === scheduler ===

#[derive(Default)]
struct Seen {
    changes: BTreeMap<u8, Vec<u32>>,
    busy: BTreeSet<u8>,
    count: u32,
}

const STOP: u8 = 100;

/// A worker until it gets a job to stop. Whoever sees the last change stops all.
async fn work(jobs: Scheduler<u8, u8, Log>, seen: Arc<Mutex<Seen>>, limit: usize, all: u32, workers: u8, drops: bool) {
    loop {
        let Running { mut job, lease } = jobs.next().await;
        if job.key >= STOP {
            return;
        }
        {
            let mut seen = seen.lock().unwrap();
            assert!(seen.busy.insert(job.key), "one of each key");
            assert!(seen.busy.len() <= limit);
        }
        yield_now().await;
        let last = {
            let mut seen = seen.lock().unwrap();
            seen.busy.remove(&job.key);
            seen.count += job.change.0.len() as u32;
            seen.changes.entry(job.key).or_default().append(&mut job.change.0);
            seen.count == all
        };
        if drops {
            drop(lease);
        } else {
            lease.done(Duration::from_millis(1));
        }
        if last {
            for worker in 0..workers {
                jobs.submit(STOP + worker, 0, Urgency::Unconfigured, Log::default(), now());
            }
        }
    }
}

fn scheduled(limit: usize, workers: u8, drops: bool) {
    check(Clock::Passes, move || {
        let jobs = Scheduler::new(NonZeroUsize::new(limit).unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let workers: Vec<_> = (0..workers).map(|_| spawn(work(jobs.clone(), seen.clone(), limit, 8, workers, drops))).collect();
        for n in [0, 10] {
            let jobs = jobs.clone();
            spawn(async move {
                for i in 0..4u32 {
                    let urgency = if i == 3 { Urgency::EndpointRemoval } else { Urgency::Config };
                    jobs.submit((i % 2) as u8, n as u8, urgency, Log(vec![n + i]), now());
                    yield_now().await;
                }
            });
        }
        for worker in workers {
            block_on(worker).unwrap();
        }
        let seen = seen.lock().unwrap();
        for (key, n) in [(0, 0), (0, 10), (1, 0), (1, 10)] {
            let of_sender: Vec<u32> = seen.changes[&key].iter().copied().filter(|i| i / 10 == n / 10).collect();
            let first = n + u32::from(key);
            assert_eq!(of_sender, [first, first + 2]);
        }
        assert_eq!(jobs.inspect(|jobs| jobs.len()), 0);
    });
}

#[test]
fn workers_get_every_job() {
    scheduled(2, 2, false);
}

#[test]
fn a_place_that_is_free_again_wakes_a_worker() {
    scheduled(1, 3, true);
}

/// Two jobs that each go on until the other has started: both workers must be woken, although one may be woken before the other waits.
#[test]
fn jobs_run_side_by_side() {
    check(Clock::Stands, || {
        let jobs: Scheduler<u8, u8, Log> = Scheduler::new(NonZeroUsize::new(2).unwrap());
        let started = Arc::new(Mutex::new(0));
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (jobs, started) = (jobs.clone(), started.clone());
                spawn(async move {
                    let running = jobs.next().await;
                    *started.lock().unwrap() += 1;
                    for _ in 0..1_000 {
                        if *started.lock().unwrap() == 2 {
                            return running.done(Duration::ZERO);
                        }
                        yield_now().await;
                    }
                    panic!("the other job waits although a worker is free");
                })
            })
            .collect();
        for key in 0..2 {
            jobs.submit(key, 0, Urgency::Config, Log::default(), now());
        }
        for worker in workers {
            block_on(worker).unwrap();
        }
    });
}

/// Workers that may give up between being woken and taking a job pass the wake-up on.
#[test]
fn a_worker_that_gives_up_passes_the_job_on() {
    check(Clock::Passes, || {
        let jobs: Scheduler<u8, u8, Log> = Scheduler::new(NonZeroUsize::new(2).unwrap());
        let taken = Arc::new(Mutex::new(0));
        for _ in 0..2 {
            let (jobs, taken) = (jobs.clone(), taken.clone());
            spawn(async move {
                tokio::select! {
                    biased;
                    () = yield_now() => {}
                    running = jobs.next() => {
                        *taken.lock().unwrap() += running.job.count;
                    }
                }
            });
        }
        let submitter = spawn({
            let jobs = jobs.clone();
            async move {
                for key in 0..3 {
                    jobs.submit(key, 0, Urgency::Config, Log::default(), now());
                }
            }
        });
        block_on(async move {
            submitter.await.unwrap();
            while *taken.lock().unwrap() < 3 {
                tokio::select! {
                    biased;
                    running = jobs.next() => {
                        *taken.lock().unwrap() += running.job.count;
                    }
                    // The others may have taken the rest.
                    () = others(&jobs) => {}
                }
            }
        });
    });
}

async fn others(jobs: &Scheduler<u8, u8, Log>) {
    while jobs.inspect(|jobs| jobs.len() + jobs.in_flight()) > 0 {
        yield_now().await;
    }
}

// === gate ===

fn admitted(limits: Limits, clock: Clock) {
    check(clock, move || {
        let gate: Gate = Gate::new(limits);
        let inside = Arc::new(Mutex::new(0));
        let callers: Vec<_> = (0..4)
            .map(|n| {
                let (gate, inside) = (gate.clone(), inside.clone());
                spawn(async move {
                    let admit = gate.admit(if n == 2 { Urgency::Unconfigured } else { Urgency::Config });
                    let permit = if n == 1 {
                        // This one may give up, and may do so with the place already given to it.
                        tokio::select! {
                            biased;
                            () = yield_now() => return,
                            permit = admit => permit,
                        }
                    } else {
                        admit.await
                    };
                    *inside.lock().unwrap() += 1;
                    assert!(limits.concurrent.is_none_or(|limit| *inside.lock().unwrap() <= limit.get()));
                    yield_now().await;
                    *inside.lock().unwrap() -= 1;
                    drop(permit);
                })
            })
            .collect();
        for caller in callers {
            block_on(caller).unwrap();
        }
        assert_eq!((gate.waiting(), gate.admitted()), (0, 0));
    });
}

#[test]
fn who_leaves_lets_the_next_in() {
    admitted(Limits { rate: None, concurrent: NonZeroUsize::new(1) }, Clock::Stands);
}

#[test]
fn somebody_watches_the_clock() {
    let rate = Some(Rate { per_second: NonZeroU32::new(100).unwrap(), burst: NonZeroU32::MIN });
    admitted(Limits { rate, concurrent: None }, Clock::Passes);
    admitted(Limits { rate, concurrent: NonZeroUsize::new(1) }, Clock::Passes);
    admitted(Limits { rate, concurrent: NonZeroUsize::new(2) }, Clock::Passes);
}
