//! [`Resolver`]: which key sets to fetch when, and what was last known. No I/O, and the clock is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotfish_model::name::Str;
use pilotfish_model::request_authentication::JwksSource;
use tokio::time::Instant;

/// How long known keys are not asked for again.
const REFRESH: Duration = Duration::from_secs(20 * 60);
/// How long to wait after one of the first failures, while there are no keys.
const AT_FIRST: Duration = Duration::from_secs(1);
/// How many are the first ones.
const FIRST: u32 = 3;
/// How long to wait after any other failure; each time twice as long.
const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// But never longer than this.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// How long keys are kept that nobody wants.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How many fetches may be under way.
const PARALLEL: usize = 16;

/// See the module. Keys once known stay until there are others, whatever fails.
#[derive(Debug, Default)]
pub struct Resolver {
    entries: BTreeMap<JwksSource, Entry>,
    under_way: usize,
}

#[derive(Debug)]
struct Entry {
    keys: Option<Str>,
    /// How long an answer may take; `None`: nobody wants it.
    wanted: Option<Duration>,
    /// Since when nobody has wanted it, if so.
    since: Instant,
    /// When to fetch; `None` while that is under way.
    due: Option<Instant>,
    failures: u32,
}

impl Resolver {
    /// What is wanted from now on, and how long each may take.
    pub fn want(&mut self, wanted: &BTreeMap<JwksSource, Duration>, now: Instant) {
        for (source, entry) in &mut self.entries {
            let limit = wanted.get(source).copied();
            if limit.is_none() && entry.wanted.is_some() {
                entry.since = now;
            }
            entry.wanted = limit;
        }
        for (source, limit) in wanted {
            let new = || Entry { keys: None, wanted: Some(*limit), since: now, due: Some(now), failures: 0 };
            self.entries.entry(source.clone()).or_insert_with(new);
        }
    }

    /// What to fetch now, and how long each may take. Each is to be answered by [`Resolver::answered`].
    pub fn due(&mut self, now: Instant) -> Vec<(JwksSource, Duration)> {
        let mut due = Vec::new();
        for (source, entry) in &mut self.entries {
            if self.under_way >= PARALLEL {
                break;
            }
            let Some(limit) = entry.wanted.filter(|_| entry.due.is_some_and(|d| d <= now)) else { continue };
            entry.due = None;
            self.under_way += 1;
            due.push((source.clone(), limit));
        }
        due
    }

    /// When there is something to do, if nothing is answered or wanted before.
    pub fn next(&self) -> Option<Instant> {
        let of = |e: &Entry| match e.wanted {
            Some(_) if self.under_way >= PARALLEL => None,
            Some(_) => e.due,
            None => Some(e.since + UNUSED),
        };
        self.entries.values().filter_map(of).min()
    }

    /// What came of a fetch: keys, or nothing. Returned are keys that are new.
    pub fn answered(&mut self, source: &JwksSource, keys: Option<Str>, now: Instant) -> Option<Str> {
        self.under_way = self.under_way.saturating_sub(1);
        let entry = self.entries.get_mut(source)?;
        let Some(keys) = keys else {
            let wait = match (entry.failures, &entry.keys) {
                (failures, None) if failures < FIRST => AT_FIRST,
                (failures, keys) => {
                    let before = failures.saturating_sub(if keys.is_none() { FIRST } else { 0 });
                    AFTER_FAILURE.saturating_mul(1 << before.min(16)).min(LONGEST)
                }
            };
            entry.failures += 1;
            entry.due = Some(now + wait);
            return None;
        };
        entry.failures = 0;
        entry.due = Some(now + REFRESH);
        if entry.keys.as_ref() == Some(&keys) {
            return None;
        }
        entry.keys = Some(keys.clone());
        Some(keys)
    }

    /// Forgets what nobody has wanted for long; which they were.
    pub fn forget(&mut self, now: Instant) -> Vec<JwksSource> {
        let old = |e: &Entry| e.wanted.is_none() && e.due.is_some() && e.since + UNUSED <= now;
        let gone: Vec<JwksSource> = self.entries.iter().filter(|(_, e)| old(e)).map(|(s, _)| s.clone()).collect();
        gone.iter().for_each(|source| drop(self.entries.remove(source)));
        gone
    }

    /// Whether all that is wanted was asked for at least once.
    pub fn is_settled(&self) -> bool {
        self.entries.values().all(|e| e.wanted.is_none() || e.keys.is_some() || e.failures > 0)
    }

    /// How many sources are wanted and have no keys.
    pub fn missing(&self) -> usize {
        self.entries.values().filter(|e| e.wanted.is_some() && e.keys.is_none()).count()
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
