//! When a batch is due: [`Window`], pure; time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::merge::{Batch, Merge};

/// How long changes wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// A batch ends once nothing came for so long.
    pub quiet: Duration,
    /// No change waits longer than this.
    pub ceiling: Duration,
}

impl Default for Config {
    /// The reference's defaults of `PILOT_DEBOUNCE_AFTER` and `PILOT_DEBOUNCE_MAX`.
    fn default() -> Self {
        Config { quiet: Duration::from_millis(100), ceiling: Duration::from_secs(10) }
    }
}

/// The changes that wait, and until when.
#[derive(Clone, Debug)]
pub struct Window<C> {
    config: Config,
    pending: Option<Pending<C>>,
    /// A change before this is not the first after quiet.
    busy_until: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Pending<C> {
    batch: Batch<C>,
    due: Instant,
    /// It came first after quiet and waits for nothing.
    at_once: bool,
}

impl<C: Merge> Window<C> {
    /// A window in which nothing has happened.
    pub fn new(config: Config) -> Self {
        Window { config, pending: None, busy_until: None }
    }

    /// Takes a change. `now` never falls from call to call.
    pub fn add(&mut self, change: C, now: Instant) {
        let Config { quiet, ceiling } = self.config;
        match &mut self.pending {
            Some(pending) => {
                pending.batch.change.merge(change);
                pending.batch.count += 1;
                if !pending.at_once {
                    pending.due = (now + quiet).min(pending.batch.since + ceiling);
                }
            }
            None => {
                let at_once = self.busy_until.is_none_or(|until| now >= until);
                let due = if at_once { now } else { now + quiet.min(ceiling) };
                self.pending = Some(Pending { batch: Batch { change, since: now, queued_at: now, count: 1 }, due, at_once });
            }
        }
    }

    /// When the pending batch is due; it may have passed. `None` if nothing is pending.
    pub fn due(&self) -> Option<Instant> {
        self.pending.as_ref().map(|p| p.due)
    }

    /// The pending batch, if it is due.
    pub fn take(&mut self, now: Instant) -> Option<Batch<C>> {
        self.pending.as_ref().filter(|p| p.due <= now)?;
        self.flush(now)
    }

    /// The pending batch, due or not.
    pub fn flush(&mut self, now: Instant) -> Option<Batch<C>> {
        let pending = self.pending.take()?;
        self.busy_until = Some(now + self.config.quiet);
        Some(pending.batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Merge for Vec<u32> {
        fn merge(&mut self, later: Self) {
            self.extend(later);
        }
    }

    const QUIET: u64 = 100;
    const CEILING: u64 = 1_000;

    /// Adds a change at each of these milliseconds and takes each batch when it is due: (taken at, changes).
    fn run(times: &[u64]) -> Vec<(u64, Vec<u32>)> {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut window = Window::new(Config { quiet: Duration::from_millis(QUIET), ceiling: Duration::from_millis(CEILING) });
        let mut taken = Vec::new();
        let mut take_until = |window: &mut Window<Vec<u32>>, end: Option<u64>| {
            while let Some(due) = window.due().filter(|due| end.is_none_or(|end| *due <= at(end))) {
                let batch = window.take(due).unwrap();
                assert_eq!(batch.count, batch.change.len());
                taken.push(((due - start).as_millis() as u64, batch.change));
            }
        };
        for (i, ms) in times.iter().enumerate() {
            if i > 0 && times[i - 1] < *ms {
                take_until(&mut window, Some(*ms));
            }
            window.add(vec![i as u32], at(*ms));
        }
        take_until(&mut window, None);
        taken
    }

    #[test]
    fn the_first_after_quiet_goes_at_once() {
        assert_eq!(run(&[0, 300, 900]), [(0, vec![0]), (300, vec![1]), (900, vec![2])]);
    }

    #[test]
    fn later_ones_wait_for_quiet() {
        assert_eq!(run(&[0, 10, 50, 120]), [(0, vec![0]), (220, vec![1, 2, 3])]);
    }

    #[test]
    fn a_batch_is_not_quiet_itself() {
        // The second batch went at 150; a change at 200 is within its quiet time.
        assert_eq!(run(&[0, 50, 200]), [(0, vec![0]), (150, vec![1]), (300, vec![2])]);
    }

    #[test]
    fn none_waits_longer_than_the_ceiling() {
        let times: Vec<u64> = (0..200).map(|i| i * 20).collect();
        let taken = run(&times);
        assert_eq!(taken.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1_020, 2_020, 3_020, 4_020]);
    }

    proptest! {
        #[test]
        fn every_change_goes_once_in_order_and_in_time(steps in prop::collection::vec(0u64..250, 1..60)) {
            let times: Vec<u64> = steps.iter().scan(0, |now, step| { *now += step; Some(*now) }).collect();
            let taken = run(&times);
            let all: Vec<u32> = taken.iter().flat_map(|(_, changes)| changes.clone()).collect();
            prop_assert_eq!(all, (0..times.len() as u32).collect::<Vec<_>>());
            let mut last: Option<u64> = None;
            for (at, changes) in &taken {
                let (first, newest) = (times[changes[0] as usize], times[changes[changes.len() - 1] as usize]);
                let quiet_before = last.is_none_or(|last| first >= last + QUIET);
                let expected = if quiet_before { first } else { (newest + QUIET).min(first + CEILING) };
                prop_assert_eq!(*at, expected);
                last = Some(*at);
            }
        }
    }
}
