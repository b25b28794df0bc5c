//! Instruction counts of the push stages (callgrind: repeatable on one machine type). Each case is a thousand operations, which
//! evens out where the hash maps put things.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Duration;

use gungraun::{library_benchmark, library_benchmark_group, main};
use pilotfish_push::{Schedule, Timing, Urgency, Windows};
use tokio::time::Instant;

const ROUNDS: u64 = 1_000;
const MS: Duration = Duration::from_millis(1);

type Scopes = Windows<u64, ()>;
type Jobs = Schedule<u64, u64, ()>;

/// Scopes in their quiet time, of which one is due each millisecond, from the time that is returned.
fn busy_scopes(scopes: u64) -> (Scopes, Instant) {
    let timing = Timing { quiet: MS * 100_000, ceiling: MS * 1_000_000 };
    let mut windows = Windows::default();
    let start = Instant::now();
    for key in 0..scopes {
        windows.add(key, (), timing, start, start);
        windows.take(start).unwrap();
        windows.spent(&key, MS * 100_000);
    }
    let mut now = start;
    for key in 0..scopes {
        // In an order unlike that of the keys.
        windows.add(key * 7_919 % scopes, (), timing, now, now);
        now += MS;
    }
    (windows, start + MS * 100_000)
}

#[library_benchmark]
#[bench::scopes_100(args = (100), setup = busy_scopes)]
#[bench::scopes_10000(args = (10_000), setup = busy_scopes)]
fn debounce_tick_1000((mut windows, mut now): (Scopes, Instant)) -> Scopes {
    for _ in 0..ROUNDS {
        black_box(windows.due());
        while let Some(taken) = windows.take(now) {
            black_box(taken);
        }
        now += MS;
    }
    windows
}

#[library_benchmark]
#[bench::scopes_10000(args = (10_000), setup = busy_scopes)]
fn debounce_add_1000((mut windows, now): (Scopes, Instant)) -> Scopes {
    for key in 0..ROUNDS {
        windows.add(key, (), Timing::default(), now, now);
    }
    windows
}

/// So many jobs of a hundred groups and all classes wait, none for long.
fn waiting(jobs: u64) -> (Jobs, Instant) {
    let mut schedule = Jobs::new(NonZeroUsize::new(8).unwrap());
    let now = Instant::now();
    for key in 0..jobs {
        schedule.submit(key, key % 100, Urgency::ALL[key as usize % 4], (), now, now);
    }
    (schedule, now)
}

#[library_benchmark]
#[bench::waiting_10(args = (10), setup = waiting)]
#[bench::waiting_1000(args = (1_000), setup = waiting)]
fn submit_next_done_1000((mut schedule, now): (Jobs, Instant)) -> Jobs {
    for round in 0..ROUNDS {
        schedule.submit(10_000 + round, round % 100, Urgency::ALL[round as usize % 4], (), now, now);
        if let Some(job) = schedule.next(now) {
            schedule.done(&job.key, MS);
        }
    }
    schedule
}

library_benchmark_group!(name = push, benchmarks = [debounce_tick_1000, debounce_add_1000, submit_next_done_1000]);
main!(library_benchmark_groups = push);
