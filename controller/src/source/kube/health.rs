//! [`Health`]: how far each watch is, for metrics, pages and warnings. Written by the tasks, read by anybody.
//!
//! What is known is never given up for being old: it stays as it was, and how old it is can be seen here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use pilotfish_model::Kind;
use tokio::time::{Instant, sleep};

/// From this age on a kind is stale. Bookmarks come however quiet a kind is: every minute or two, as seen with a busy server.
const STALE: Duration = Duration::from_secs(150);
/// How often ages are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often it is said again.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// See the module's documentation.
#[derive(Default)]
pub struct Health {
    kinds: Mutex<BTreeMap<Kind, Entry>>,
}

/// A kind may have several watches, of parts of it or of several clusters.
#[derive(Default)]
struct Entry {
    totals: Arc<Totals>,
    watches: Vec<Weak<Signs>>,
}

/// These never fall, though watches end.
#[derive(Default)]
struct Totals {
    lists: AtomicU64,
    audits: AtomicU64,
    healed: AtomicU64,
}

struct Signs {
    started: Instant,
    /// When the server was last heard of, in ms since the start.
    heard: AtomicU64,
    listed: AtomicBool,
    trouble: Mutex<Option<String>>,
}

/// Where one watch leaves its signs of life. It counts until it is dropped.
pub(super) struct Pulse {
    totals: Arc<Totals>,
    signs: Arc<Signs>,
}

/// How far the watches of a kind are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindHealth {
    /// Which.
    pub kind: Kind,
    /// Since the last sign of life, an event, a bookmark or a list; of the watch of which it is longest ago.
    pub staleness: Duration,
    /// All of it was listed at least once.
    pub listed: bool,
    /// How many whole lists were taken in.
    pub lists: u64,
    /// How many audits came to an end.
    pub audits: u64,
    /// How many objects an audit found to be other than the watch had said.
    pub healed: u64,
    /// What is wrong, until it is not any more.
    pub trouble: Option<String>,
}

impl Health {
    /// A watch begins.
    pub(super) fn watch(&self, kind: Kind) -> Pulse {
        let signs = Arc::new(Signs {
            started: Instant::now(),
            heard: AtomicU64::new(0),
            listed: AtomicBool::new(false),
            trouble: Mutex::default(),
        });
        let mut kinds = lock(&self.kinds);
        let entry = kinds.entry(kind).or_default();
        entry.watches.retain(|watch| watch.strong_count() > 0);
        entry.watches.push(Arc::downgrade(&signs));
        Pulse { totals: entry.totals.clone(), signs }
    }

    /// How it is now, in the order of kinds.
    pub fn report(&self) -> Vec<KindHealth> {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let one = |(kind, entry): (&Kind, &Entry)| {
            let watches: Vec<Arc<Signs>> = entry.watches.iter().filter_map(Weak::upgrade).collect();
            KindHealth {
                kind: *kind,
                staleness: watches.iter().map(|signs| signs.age()).max().unwrap_or_default(),
                listed: watches.iter().all(|signs| signs.listed.load(Ordering::Relaxed)),
                lists: load(&entry.totals.lists),
                audits: load(&entry.totals.audits),
                healed: load(&entry.totals.healed),
                trouble: watches.iter().find_map(|signs| lock(&signs.trouble).clone()),
            }
        };
        lock(&self.kinds).iter().map(one).collect()
    }

    /// Warns of what is stale, for ever.
    pub(super) async fn watch_over(&self) {
        let mut sentinel = Sentinel::default();
        loop {
            sleep(LOOK).await;
            match sentinel.look(Instant::now(), &self.report()) {
                None => {}
                Some(Say::Fresh) => tracing::info!("the API server is heard of again for all kinds"),
                Some(stale) => tracing::warn!("{stale}"),
            }
        }
    }
}

impl Signs {
    fn age(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)))
    }
}

impl Pulse {
    /// The server said something that was understood.
    pub(super) fn heard(&self) {
        let now = u64::try_from(self.signs.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.signs.heard.store(now, Ordering::Relaxed);
    }

    /// A whole list was taken in.
    pub(super) fn listed(&self) {
        self.signs.listed.store(true, Ordering::Relaxed);
        self.totals.lists.fetch_add(1, Ordering::Relaxed);
    }

    /// An audit came to an end.
    pub(super) fn audited(&self) {
        self.totals.audits.fetch_add(1, Ordering::Relaxed);
    }

    /// So many objects were other than the watch had said.
    pub(super) fn healed(&self, objects: usize) {
        self.totals.healed.fetch_add(objects as u64, Ordering::Relaxed);
    }

    /// Something is wrong, or not any more.
    pub(super) fn set_trouble(&self, what: Option<&str>) {
        *lock(&self.signs.trouble) = what.map(Into::into);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Decides what is said of ages, and when.
#[derive(Default)]
struct Sentinel {
    said: Option<(Instant, BTreeSet<Kind>)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Say {
    Stale { kinds: Vec<&'static str>, oldest: Duration, trouble: Option<String> },
    Fresh,
}

impl fmt::Display for Say {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Say::Stale { kinds, oldest, trouble } = self else { return f.write_str("fresh") };
        write!(f, "the API server was not heard of for {} s: what is known of {} stays as it was", oldest.as_secs(), kinds.join(", "))?;
        trouble.iter().try_for_each(|trouble| write!(f, " ({trouble})"))
    }
}

impl Sentinel {
    fn look(&mut self, now: Instant, report: &[KindHealth]) -> Option<Say> {
        let stale: Vec<&KindHealth> = report.iter().filter(|k| k.staleness >= STALE).collect();
        if stale.is_empty() {
            return self.said.take().map(|_| Say::Fresh);
        }
        let kinds: BTreeSet<Kind> = stale.iter().map(|k| k.kind).collect();
        if let Some((at, said)) = &self.said
            && now < *at + SAY_AGAIN
            && kinds.is_subset(said)
        {
            return None;
        }
        self.said = Some((now, kinds));
        Some(Say::Stale {
            kinds: stale.iter().map(|k| k.kind.as_str()).collect(),
            oldest: stale.iter().map(|k| k.staleness).max().unwrap_or_default(),
            trouble: stale.iter().find_map(|k| k.trouble.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_old_is_said_once_a_minute_and_once_when_it_is_over() {
        let health = Health::default();
        let (services, pods) = (health.watch(Kind::Service), health.watch(Kind::Pod));
        let mut sentinel = Sentinel::default();
        let mut said = Vec::new();
        for second in (0..400).step_by(5) {
            // Pods are heard of until 100 s; all is well again from 300 s on.
            if second <= 100 || second >= 300 {
                pods.heard();
            }
            if second == 200 {
                services.set_trouble(Some("nobody answers"));
            }
            if second >= 300 {
                services.heard();
            }
            if let Some(say) = sentinel.look(Instant::now(), &health.report()) {
                said.push((second, say.to_string()));
            }
            advance(LOOK).await;
        }
        let stale = |seconds: u32, kinds: &str, why: &str| {
            (seconds, format!("the API server was not heard of for {seconds} s: what is known of {kinds} stays as it was{why}"))
        };
        let both = "Service, Pod";
        let both = if Kind::Pod < Kind::Service { "Pod, Service" } else { both };
        assert_eq!(
            said,
            [
                stale(150, "Service", ""),
                stale(210, "Service", " (nobody answers)"),
                // At once, because it is one kind more.
                stale(250, both, " (nobody answers)"),
                (300, "fresh".into()),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_counts_what_happened() {
        let health = Health::default();
        let (pods, others) = (health.watch(Kind::Pod), health.watch(Kind::Pod));
        advance(Duration::from_secs(3)).await;
        pods.heard();
        pods.listed();
        pods.audited();
        pods.healed(2);
        others.listed();
        others.set_trouble(Some("x"));
        advance(Duration::from_secs(4)).await;
        let expected = KindHealth {
            kind: Kind::Pod,
            // The other one was never heard of.
            staleness: Duration::from_secs(7),
            listed: true,
            lists: 2,
            audits: 1,
            healed: 2,
            trouble: Some("x".into()),
        };
        assert_eq!(health.report(), std::slice::from_ref(&expected));
        // A watch that ended is not old; what it counted stays.
        drop(others);
        assert_eq!(health.report(), [KindHealth { staleness: Duration::from_secs(4), trouble: None, ..expected }]);
    }
}
