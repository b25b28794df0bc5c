//! [`Driver`]: what to ask the API server for one kind, and what its answers mean. No I/O, no clock.
//!
//! ```text
//!            ┌──────── Gone, or refused again and again ────────┐
//!            v                                                  │
//! start ─> Listing (side buffer) ── complete: Reset ──> Watching (version)
//!            │  ^                                        │  ^
//!            └──┘ interrupted: the buffer goes,          └──┘ ended: again from the last version
//!                 what was known stays
//! ```
//!
//! A list is taken as a stream of events where the server offers that, else in pages. Only a complete list replaces what
//! was known: no half world is ever seen, and nothing that went in the meantime stays behind.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::time::Duration;

use super::audit::{Known, Suspects, hash};

/// What to ask next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A watch that begins with everything there is.
    Stream,
    /// A page of a list; the first one without a token.
    Page {
        /// Where the page before ended.
        token: Option<String>,
    },
    /// What happened after a version.
    Watch {
        /// The version.
        version: String,
    },
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply<K, V> {
    /// A page.
    Page {
        /// Its objects, with their versions; without a value those that are there but none of our business.
        items: Vec<(K, Option<V>, String)>,
        /// The version of the list.
        version: String,
        /// The next page.
        token: Option<String>,
    },
    /// An object is there.
    Applied {
        /// Which.
        key: K,
        /// What it is; nothing if it is none of our business, or not any more.
        value: Option<V>,
        /// Its version.
        version: String,
    },
    /// An object is gone.
    Deleted {
        /// Which.
        key: K,
        /// The version at which it went.
        version: String,
    },
    /// Nothing happened until a version.
    Bookmark {
        /// The version.
        version: String,
        /// All that was there when the stream began has been sent.
        complete: bool,
    },
    /// The stream ended, as the server ends each after some minutes.
    Ended,
    /// It did not work.
    Failed(Failure),
}

/// Why it did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server does not know that version, or that page, any more.
    Gone,
    /// The server does not serve lists as streams.
    NoStreams,
    /// Not there, but perhaps elsewhere: the next request asks there.
    Elsewhere,
    /// The kind is not installed.
    Absent,
    /// The server said no, or not now.
    Refused,
    /// The server does not know us, or does not let us: which says nothing about what is known.
    Denied,
    /// No answer, or a broken one.
    Disconnected,
}

/// What to do with what is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Output<K, V> {
    /// Replace it all.
    Reset(Vec<(K, V)>),
    /// Put one object.
    Apply(K, V),
    /// Remove one object.
    Delete(K),
}

/// See the module's documentation.
pub(super) struct Driver<K, V> {
    state: State<K, V>,
    streams: bool,
    /// How many requests have failed since the last that got anywhere.
    failures: u32,
    /// Whether this request has got anywhere.
    progress: bool,
    /// The next request is another one, not the same again.
    elsewhere: bool,
    /// How often in a row it was said that the kind is not installed.
    absences: u32,
    /// Whether that is believed.
    absent: bool,
    known: Known,
    suspects: Suspects,
    healed: usize,
}

enum State<K, V> {
    Listing { buffer: BTreeMap<K, (Option<V>, u64)>, token: Option<String> },
    Watching { version: String },
}

/// How long the first pause lasts; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: a server that is back is noticed soon, and one that is in trouble is not overrun.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often a kind that is not installed is looked for.
const LOOK_FOR_KIND: Duration = Duration::from_secs(10);
/// After how many refusals in a row a version is given up: a server restored from a backup may never reach it.
const REFUSALS: u32 = 4;
/// How often in a row it must be said that a kind of which there are objects is not installed: a server that just starts, or
/// something in front of it, may say so wrongly. Who removes a kind removes its objects before, and the watch tells of them.
const ABSENCES: u32 = 3;

impl<K: Ord + Hash, V> Driver<K, V> {
    /// Before the first list.
    pub(super) fn new() -> Self {
        Driver {
            state: State::start(),
            streams: true,
            failures: 0,
            progress: false,
            elsewhere: false,
            absences: 0,
            absent: false,
            known: Known::default(),
            suspects: Suspects::default(),
            healed: 0,
        }
    }

    /// The next request, after [`Driver::pause`].
    pub(super) fn ask(&self) -> Ask {
        match &self.state {
            State::Listing { .. } if self.streams => Ask::Stream,
            State::Listing { token, .. } => Ask::Page { token: token.clone() },
            State::Watching { version } => Ask::Watch { version: version.clone() },
        }
    }

    /// How long to wait before the next request. `spread`, in [0, 1), keeps many from asking at the same moment.
    pub(super) fn pause(&self, spread: f64) -> Duration {
        if self.elsewhere {
            return Duration::ZERO;
        }
        if self.absences > 0 {
            return LOOK_FOR_KIND;
        }
        let Some(doublings) = self.failures.checked_sub(1) else { return Duration::ZERO };
        let longest = FIRST_PAUSE.saturating_mul(1 << doublings.min(10)).min(LONGEST_PAUSE);
        longest.mul_f64(0.5 + spread / 2.0)
    }

    /// Whether the newest list is complete and being followed.
    pub(super) fn is_watching(&self) -> bool {
        matches!(self.state, State::Watching { .. })
    }

    /// How many requests have failed since the last that got anywhere.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the kind is taken for not installed.
    pub(super) fn is_absent(&self) -> bool {
        self.absent
    }

    /// For audits.
    pub(super) fn known(&mut self) -> &mut Known {
        &mut self.known
    }

    /// Lists everything anew, because these were not told.
    pub(super) fn relist(&mut self, suspects: Suspects) {
        self.suspects = suspects;
        self.state = State::start();
    }

    /// How many objects the newest list found to be other than the watch had said; once.
    pub(super) fn healed(&mut self) -> usize {
        std::mem::take(&mut self.healed)
    }

    /// Takes an answer in.
    pub(super) fn handle(&mut self, reply: Reply<K, V>) -> Option<Output<K, V>> {
        match reply {
            Reply::Ended => self.failed(None),
            Reply::Failed(failure) => self.failed(Some(failure)),
            Reply::Page { items, version, token } => {
                self.advance();
                let State::Listing { buffer, token: next } = &mut self.state else { return None };
                buffer.extend(items.into_iter().map(|(key, value, version)| (key, (value, hash(&version)))));
                if token.is_some() {
                    *next = token;
                    return None;
                }
                self.complete(version)
            }
            Reply::Applied { key, value, version } => {
                self.advance();
                match &mut self.state {
                    State::Listing { buffer, .. } => {
                        buffer.insert(key, (value, hash(&version)));
                        None
                    }
                    State::Watching { version: known } => {
                        self.known.set(hash(&key), Some(hash(&version)));
                        *known = version;
                        Some(match value {
                            Some(value) => Output::Apply(key, value),
                            None => Output::Delete(key),
                        })
                    }
                }
            }
            Reply::Deleted { key, version } => {
                self.advance();
                match &mut self.state {
                    State::Listing { buffer, .. } => {
                        buffer.remove(&key);
                        None
                    }
                    State::Watching { version: known } => {
                        self.known.set(hash(&key), None);
                        *known = version;
                        Some(Output::Delete(key))
                    }
                }
            }
            Reply::Bookmark { version, complete } => {
                self.advance();
                match &mut self.state {
                    State::Listing { .. } if complete => self.complete(version),
                    State::Listing { .. } => None,
                    State::Watching { version: known } => {
                        *known = version;
                        None
                    }
                }
            }
        }
    }

    fn advance(&mut self) {
        self.progress = true;
        self.failures = 0;
        (self.absences, self.absent, self.elsewhere) = (0, false, false);
    }

    fn complete(&mut self, version: String) -> Option<Output<K, V>> {
        match std::mem::replace(&mut self.state, State::Watching { version }) {
            State::Listing { buffer, .. } => {
                self.known.replace(buffer.iter().map(|(key, (_, version))| (hash(key), *version)).collect());
                self.healed += std::mem::take(&mut self.suspects).healed(self.known.versions());
                Some(Output::Reset(buffer.into_iter().filter_map(|(key, (value, _))| Some((key, value?))).collect()))
            }
            State::Watching { .. } => None,
        }
    }

    fn failed(&mut self, failure: Option<Failure>) -> Option<Output<K, V>> {
        let progress = std::mem::take(&mut self.progress);
        // A watch that told something and ended is how it should be; a list that ended is not.
        if !(progress && failure.is_none() && self.is_watching()) {
            self.failures += 1;
        }
        self.elsewhere = matches!(failure, Some(Failure::NoStreams | Failure::Elsewhere));
        let restart = match failure {
            Some(Failure::NoStreams | Failure::Elsewhere) => {
                self.streams &= failure != Some(Failure::NoStreams);
                self.failures -= 1;
                true
            }
            Some(Failure::Gone | Failure::Absent) => true,
            Some(Failure::Refused) => self.failures >= REFUSALS,
            Some(Failure::Denied | Failure::Disconnected) | None => false,
        };
        // Pages that were read are of use only with those that follow.
        if restart || !self.is_watching() {
            self.state = State::start();
        }
        if failure != Some(Failure::Absent) {
            return None;
        }
        self.absences = self.absences.saturating_add(1);
        let believed = self.known.is_empty() || self.absences >= ABSENCES;
        if self.absent || !believed {
            return None;
        }
        self.absent = true;
        self.known = Known::default();
        Some(Output::Reset(Vec::new()))
    }
}

impl<K: Ord + Hash, V> State<K, V> {
    fn start() -> Self {
        State::Listing { buffer: BTreeMap::new(), token: None }
    }
}

#[cfg(test)]
#[path = "driver/tests.rs"]
mod tests;
