//! Debounce and merge changes; generic over what changes, on tokio's (pausable) clock.
//!
//! ```text
//!   change ──> quiet until now? ── yes ──> out at once                      (leading edge)
//!                    │ no
//!                    └──> merged into the open batch ──> out after `quiet` without a change,
//!                                                        at the latest `ceiling` after its first
//! ```
//!
//! One scope for now; the push pipeline's own issue adds scopes, fairness and throttling around this. Enter at
//! [`Debounce`].

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Changes that can be united.
pub trait Merge {
    /// Takes in a change that came later.
    fn merge(&mut self, newer: Self);
}

/// Times of a [`Debounce`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long nothing may come in before a batch goes out.
    pub quiet: Duration,
    /// How long the first change of a batch may wait.
    pub ceiling: Duration,
}

impl Default for Config {
    /// The reference's defaults.
    fn default() -> Self {
        Config { quiet: Duration::from_millis(100), ceiling: Duration::from_secs(10) }
    }
}

/// Collects changes into batches.
#[derive(Debug)]
pub struct Debounce<C> {
    config: Config,
    batch: Option<Batch<C>>,
    /// When a change last came in or a batch last went out.
    busy_until: Option<Instant>,
}

#[derive(Debug)]
struct Batch<C> {
    change: C,
    due: Instant,
    deadline: Instant,
}

impl<C: Merge> Debounce<C> {
    /// Nothing collected.
    pub fn new(config: Config) -> Self {
        Debounce { config, batch: None, busy_until: None }
    }

    /// Takes in a change.
    pub fn add(&mut self, change: C) {
        let now = Instant::now();
        let quiet_before = self.busy_until.is_none_or(|t| now >= t);
        let due = if quiet_before { now } else { now + self.config.quiet };
        match &mut self.batch {
            Some(batch) => {
                batch.change.merge(change);
                batch.due = due.min(batch.deadline);
            }
            None => self.batch = Some(Batch { change, due, deadline: now + self.config.ceiling }),
        }
        self.busy_until = Some(now + self.config.quiet);
    }

    /// The next batch, once it is due; never if nothing was taken in. May be dropped and called again.
    pub async fn next(&mut self) -> C {
        loop {
            match &self.batch {
                Some(batch) => sleep_until(batch.due).await,
                None => std::future::pending().await,
            }
            if let Some(batch) = self.batch.take_if(|b| b.due <= Instant::now()) {
                self.busy_until = Some(Instant::now() + self.config.quiet);
                return batch.change;
            }
        }
    }

    /// True if a batch waits.
    pub fn is_waiting(&self) -> bool {
        self.batch.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Seen(Vec<u32>);

    impl Merge for Seen {
        fn merge(&mut self, newer: Self) {
            self.0.extend(newer.0);
        }
    }

    const CONFIG: Config = Config { quiet: Duration::from_millis(100), ceiling: Duration::from_secs(1) };

    /// Adds a change every `every`, `count` times, and returns each batch with the time it came out at.
    async fn drive(count: u32, every: Duration) -> Vec<(Duration, Vec<u32>)> {
        let (mut debounce, start, mut out) = (Debounce::<Seen>::new(CONFIG), Instant::now(), Vec::new());
        let mut next = 0;
        while next < count || debounce.is_waiting() {
            let tick = start + every * next;
            tokio::select! {
                biased;
                batch = debounce.next() => out.push((start.elapsed(), batch.0)),
                () = sleep_until(tick), if next < count => {
                    debounce.add(Seen(vec![next]));
                    next += 1;
                }
            }
        }
        out
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_change_after_quiet_goes_out_at_once() {
        assert_eq!(drive(1, Duration::ZERO).await, [(Duration::ZERO, vec![0])]);
        let spaced = drive(3, Duration::from_millis(300)).await;
        assert_eq!(spaced.iter().map(|(t, _)| t.as_millis()).collect::<Vec<_>>(), [0, 300, 600]);
    }

    #[tokio::test(start_paused = true)]
    async fn later_ones_join_a_batch_that_ends_with_quiet() {
        let out = drive(4, Duration::from_millis(40)).await;
        assert_eq!(out, [(Duration::ZERO, vec![0]), (Duration::from_millis(220), vec![1, 2, 3])]);
    }

    #[tokio::test(start_paused = true)]
    async fn constant_change_meets_the_ceiling_and_loses_nothing() {
        let out = drive(200, Duration::from_millis(50)).await;
        let all: Vec<u32> = out.iter().flat_map(|(_, batch)| batch.clone()).collect();
        assert_eq!(all, (0..200).collect::<Vec<_>>());
        let first_of = |batch: &[u32]| Duration::from_millis(50) * batch[0];
        for (at, batch) in &out {
            assert!(*at <= first_of(batch) + CONFIG.ceiling, "{batch:?} came out at {at:?}");
        }
        assert!(out.len() <= 11, "{} batches in ten seconds", out.len());
    }
}
