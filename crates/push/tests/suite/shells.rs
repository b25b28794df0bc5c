//! The shells on a paused clock: waits that are dropped, many workers, workers that panic.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pilotfish_push::{Gate, Limits, Rate, Running, Scheduler, Timing, Urgency, debounce};
use tokio::time::{Instant, advance, sleep, timeout};

use crate::{Log, ms};

const TIMING: Timing = Timing { quiet: Duration::from_millis(100), ceiling: Duration::from_millis(1_000) };

// === debounce ===

#[tokio::test(start_paused = true)]
async fn batches_come_when_they_are_due() {
    let start = Instant::now();
    let (sender, mut batches) = debounce::channel::<&str, Log>();
    let send = |key, n| sender.send(key, Log(vec![n]), TIMING, Instant::now());
    send("a", 1);
    assert_eq!(batches.next().await.map(|(key, batch)| (key, batch.change)), Some(("a", Log(vec![1]))));
    batches.spent(&"a", ms(40));
    assert_eq!(start.elapsed(), Duration::ZERO);
    send("a", 2);
    advance(ms(50)).await;
    send("a", 3);
    send("b", 4);
    assert_eq!(batches.len(), 2);
    assert_eq!(batches.next().await.map(|(key, batch)| (key, batch.change)), Some(("b", Log(vec![4]))));
    assert_eq!(start.elapsed(), ms(50));
    let (key, batch) = batches.next().await.unwrap();
    assert_eq!((key, batch.change, batch.since, batch.count), ("a", Log(vec![2, 3]), start, 2));
    assert!(start.elapsed() >= ms(150) && start.elapsed() < ms(160), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_a_receiver_that_sleeps_for_another() {
    let (sender, mut batches) = debounce::channel::<&str, Log>();
    let send = |key| sender.send(key, Log(vec![0]), TIMING, Instant::now());
    send("a");
    batches.next().await.unwrap();
    batches.spent(&"a", ms(40));
    send("a");
    let (first, ()) = tokio::join!(batches.next(), async {
        sleep(ms(10)).await;
        send("b");
    });
    assert_eq!(first.map(|(key, _)| key), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn changes_during_a_rebuild_are_one_batch() {
    let (sender, mut batches) = debounce::channel::<(), Log>();
    let send = |n| sender.send((), Log(vec![n]), TIMING, Instant::now());
    send(0);
    batches.next().await.unwrap();
    for i in 1..=1_000 {
        send(i);
        advance(ms(7)).await;
    }
    let before = Instant::now();
    assert_eq!(batches.next().await.unwrap().1.count, 1_000);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_loses_nothing_and_the_rest_comes_at_the_end() {
    let (sender, mut batches) = debounce::channel::<u8, Log>();
    for key in [1, 2] {
        sender.send(key, Log(vec![0]), TIMING, Instant::now());
        batches.next().await.unwrap();
        batches.spent(&key, ms(40));
        sender.send(key, Log(vec![key.into()]), TIMING, Instant::now());
    }
    assert!(timeout(ms(20), batches.next()).await.is_err());
    drop(sender.clone());
    drop(sender);
    let before = Instant::now();
    assert_eq!(batches.next().await.map(|(key, batch)| (key, batch.change)), Some((1, Log(vec![1]))));
    assert_eq!(batches.next().await.map(|(key, batch)| (key, batch.change)), Some((2, Log(vec![2]))));
    assert_eq!((batches.next().await, before.elapsed()), (None, Duration::ZERO));
}

// === scheduler ===

type Jobs = Scheduler<u8, u8, Log>;

fn scheduler(limit: usize) -> Jobs {
    Scheduler::new(NonZeroUsize::new(limit).unwrap())
}

fn submit(jobs: &Jobs, key: u8, n: u32) {
    jobs.submit(key, key, Urgency::Config, Log(vec![n]), Instant::now());
}

#[tokio::test(start_paused = true)]
async fn many_workers_lose_nothing_and_share_no_key() {
    let jobs = scheduler(3);
    let seen: Arc<Mutex<Vec<(u8, u32)>>> = Arc::default();
    let busy: Arc<Mutex<BTreeSet<u8>>> = Arc::default();
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let (jobs, seen, busy) = (jobs.clone(), seen.clone(), busy.clone());
            tokio::spawn(async move {
                loop {
                    let Running { job, lease } = jobs.next().await;
                    {
                        let mut busy = busy.lock().unwrap();
                        assert!(busy.insert(job.key) && busy.len() <= 3);
                    }
                    sleep(ms(u64::from(job.key))).await;
                    seen.lock().unwrap().extend(job.change.0.iter().map(|n| (job.key, *n)));
                    busy.lock().unwrap().remove(&job.key);
                    lease.done(ms(u64::from(job.key)));
                }
            })
        })
        .collect();
    for n in 0..1_000 {
        submit(&jobs, (n % 7) as u8, n);
        if n % 3 == 0 {
            sleep(ms(1)).await;
        }
    }
    timeout(Duration::from_secs(60), async {
        while seen.lock().unwrap().len() < 1_000 {
            sleep(ms(1)).await;
        }
    })
    .await
    .expect("something is lost");
    assert_eq!(jobs.inspect(|jobs| (jobs.len(), jobs.in_flight())), (0, 0));
    // All of each key, in the order in which it was submitted.
    let seen = seen.lock().unwrap();
    for key in 0..7 {
        let of_key: Vec<u32> = seen.iter().filter(|(k, _)| *k == key).map(|(_, n)| *n).collect();
        assert_eq!(of_key, (0..1_000).filter(|n| n % 7 == u32::from(key)).collect::<Vec<_>>());
    }
    workers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_gives_up_or_panics_blocks_nothing() {
    let jobs = scheduler(1);
    assert!(timeout(ms(1), jobs.next()).await.is_err());
    submit(&jobs, 1, 1);
    let worker = tokio::spawn({
        let jobs = jobs.clone();
        async move {
            let _running = jobs.next().await;
            panic!("a job that fails");
        }
    });
    assert!(worker.await.unwrap_err().is_panic());
    submit(&jobs, 1, 2);
    let running = timeout(ms(1), jobs.next()).await.expect("the job is free again");
    assert_eq!(running.job.change, Log(vec![2]));
    submit(&jobs, 1, 3);
    assert!(timeout(ms(1), jobs.next()).await.is_err());
    running.done(ms(1));
    assert_eq!(timeout(ms(1), jobs.next()).await.expect("it starts again").job.change, Log(vec![3]));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lease_costs_the_time_since_the_start() {
    let jobs = scheduler(1);
    // Two groups with one job at a time: who took 9 ms waits for nine jobs of 1 ms.
    let mut order = Vec::new();
    for n in 0..24 {
        for key in [1, 9] {
            if jobs.inspect(|jobs| jobs.len()) < 2 {
                submit(&jobs, key, n);
            }
        }
        let running = jobs.next().await;
        let key = running.job.key;
        order.push(key);
        submit(&jobs, key, n);
        advance(ms(u64::from(key))).await;
        drop(running);
    }
    let dear = order.iter().filter(|key| **key == 9).count();
    assert!((2..=4).contains(&dear), "{order:?}");
}

// === gate ===

#[tokio::test(start_paused = true)]
async fn the_herd_comes_in_at_the_rate_the_urgent_first() {
    let rate = Rate { per_second: NonZeroU32::new(100).unwrap(), burst: NonZeroU32::MIN };
    let gate: Gate = Gate::new(Limits { rate: Some(rate), concurrent: None });
    let start = Instant::now();
    let order: Arc<Mutex<Vec<(Urgency, u64)>>> = Arc::default();
    let herd: Vec<_> = (0..200u64)
        .map(|n| {
            let urgency = if n % 2 == 0 { Urgency::Config } else { Urgency::Unconfigured };
            let (gate, order) = (gate.clone(), order.clone());
            tokio::spawn(async move {
                let _permit = gate.admit(urgency).await;
                order.lock().unwrap().push((urgency, n));
            })
        })
        .collect();
    for task in herd {
        timeout(Duration::from_secs(10), task).await.expect("somebody is not let in").unwrap();
    }
    assert!(start.elapsed() >= ms(1_990) && start.elapsed() < ms(2_400), "{:?}", start.elapsed());
    assert_eq!((gate.waiting(), gate.admitted()), (0, 0));
    let order = order.lock().unwrap();
    // The first came before the others were there.
    assert_eq!(order[0], (Urgency::Config, 0));
    let expected: Vec<_> = (0..100).map(|n| (Urgency::Unconfigured, 2 * n + 1)).chain((1..100).map(|n| (Urgency::Config, 2 * n))).collect();
    assert_eq!(order[1..], expected);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_or_the_room_makes_place() {
    let gate: Gate = Gate::new(Limits { rate: None, concurrent: NonZeroUsize::new(1) });
    let permit = gate.admit(Urgency::Config).await;
    assert!(timeout(ms(1), gate.admit(Urgency::Unconfigured)).await.is_err());
    assert_eq!((gate.waiting(), gate.admitted()), (0, 1));
    let (waiter, second) = tokio::join!(timeout(ms(10), gate.admit(Urgency::Config)), async {
        sleep(ms(5)).await;
        drop(permit);
        timeout(ms(1), gate.admit(Urgency::Unconfigured)).await.is_err()
    });
    assert!(second, "the first in the queue has the place");
    drop(waiter.expect("it is let in"));
    assert_eq!((gate.waiting(), gate.admitted()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn when_the_one_that_watches_the_clock_gives_up_another_does() {
    let rate = Rate { per_second: NonZeroU32::new(10).unwrap(), burst: NonZeroU32::MIN };
    let gate: Gate = Gate::new(Limits { rate: Some(rate), concurrent: None });
    drop(gate.admit(Urgency::Config).await);
    let start = Instant::now();
    let (first, second) = tokio::join!(timeout(ms(50), gate.admit(Urgency::Config)), timeout(ms(500), gate.admit(Urgency::Config)));
    assert!(first.is_err() && second.is_ok());
    assert!(start.elapsed() >= ms(100) && start.elapsed() < ms(110), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_free_again_counts_against_the_rate() {
    let rate = Rate { per_second: NonZeroU32::new(10).unwrap(), burst: NonZeroU32::new(2).unwrap() };
    let gate: Gate = Gate::new(Limits { rate: Some(rate), concurrent: NonZeroUsize::new(2) });
    let held = [gate.admit(Urgency::Config).await, gate.admit(Urgency::Config).await];
    let start = Instant::now();
    // Two wait while nothing is due; then a place is free at once, and the rate decides.
    let ((), third, fourth) = tokio::join!(
        async {
            sleep(ms(10)).await;
            drop(held);
        },
        async { gate.admit(Urgency::Config).await },
        async { gate.admit(Urgency::Config).await },
    );
    assert!(start.elapsed() >= ms(200) && start.elapsed() < ms(210), "{:?}", start.elapsed());
    drop((third, fourth));
}
