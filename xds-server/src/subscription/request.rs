//! What requests do to a [`Subscription`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilotfish_envoy::{ResourceSet, Version};

use super::{Rejection, Subscription, Verdict};

/// A request of either protocol, for one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The response that this answers; empty if none.
    pub nonce: String,
    /// Why that response was refused.
    pub error: Option<String>,
    /// What the client wants.
    pub interest: Interest,
}

/// What the client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// State of the world: all of it, each time.
    Sotw {
        /// The names; none for a wildcard, or to end the interest.
        names: Vec<String>,
        /// Version that the client holds, from this stream or an earlier one.
        version: String,
    },
    /// Delta: what is new.
    Delta {
        /// Names, or `*`.
        subscribe: Vec<String>,
        /// Names, or `*`.
        unsubscribe: Vec<String>,
        /// What the client holds from an earlier stream.
        initial: BTreeMap<String, String>,
    },
}

impl Default for Interest {
    fn default() -> Self {
        Interest::Sotw { names: Vec::new(), version: String::new() }
    }
}

const WILDCARD: &str = "*";
/// Stands for a version that is not ours: equal to none.
const FOREIGN: Version = Version(0);

impl Subscription {
    /// Takes a request. `first` is true for the first one of this type on the stream, whatever its nonce says: nonces do
    /// not survive streams. `latest` is the set that is served, for names to be shared with it.
    pub fn on_request(&mut self, request: Request, first: bool, latest: &ResourceSet) -> Verdict {
        let Request { nonce, error, interest } = request;
        let verdict = match first || nonce.is_empty() {
            true => Verdict::None,
            false => self.settle(&nonce, error),
        };
        match interest {
            // The client will come again with the nonce of what it has not seen yet.
            Interest::Sotw { .. } if verdict == Verdict::Stale => {}
            Interest::Sotw { names, version } => self.want_sotw(share(names, latest), first, nonce.is_empty(), &version),
            // Increments would be lost, so they hold whatever the nonce is.
            Interest::Delta { subscribe, unsubscribe, initial } => self.want_delta(share(subscribe, latest), unsubscribe, initial, first),
        }
        verdict
    }

    fn settle(&mut self, nonce: &str, error: Option<String>) -> Verdict {
        match self.outstanding.take_if(|o| &*o.nonce == nonce) {
            Some(outstanding) => {
                self.reached = outstanding.generation;
                match error {
                    None => {
                        self.confirmed = outstanding.since;
                        self.acked = Some(outstanding.nonce);
                        self.last_error = None;
                        Verdict::Ack
                    }
                    Some(message) => {
                        let names = outstanding.resources.iter().map(|r| r.name().clone()).collect();
                        let rejection = Rejection { nonce: outstanding.nonce, message, names };
                        if !self.type_url.is_wildcard() {
                            self.retry.extend(rejection.names.iter().cloned());
                        }
                        self.retry.extend(outstanding.removed);
                        self.last_error = Some(rejection.clone());
                        Verdict::Nack(rejection)
                    }
                }
            }
            // Answered before: the request is about names only.
            None if self.sent.as_deref().is_none_or(|sent| sent == nonce) => Verdict::None,
            None => Verdict::Stale,
        }
    }

    fn want_sotw(&mut self, names: Vec<Arc<str>>, first: bool, no_nonce: bool, version: &str) {
        let starts_over = !first && no_nonce && self.outstanding.is_none() && self.answered;
        let wildcard = match names.is_empty() {
            true => self.type_url.is_wildcard() && !self.ever_named,
            false => names.iter().any(|n| &**n == WILDCARD),
        };
        self.ever_named |= !names.is_empty();
        let names: BTreeSet<Arc<str>> = names.into_iter().filter(|n| &**n != WILDCARD).collect();
        let dropped: Vec<_> = self.names.difference(&names).cloned().collect();

        if wildcard && !self.wildcard {
            self.widen();
            self.owed = true;
        } else if !wildcard && self.wildcard {
            self.narrow();
        }
        self.wildcard = wildcard;
        for name in dropped {
            self.forget(&name);
        }
        for name in names {
            if self.names.insert(name.clone()) {
                self.differs.insert(name, None);
                self.owed = true;
            }
        }
        if first || starts_over {
            self.owed = true;
        }
        if first {
            self.resumed = !version.is_empty();
            self.claimed = Version::parse(version);
        }
        if starts_over {
            self.base = Arc::default();
            self.differs.clear();
        }
    }

    fn want_delta(&mut self, subscribe: Vec<Arc<str>>, unsubscribe: Vec<String>, initial: BTreeMap<String, String>, first: bool) {
        if first {
            self.owed = true;
            self.resumed = !initial.is_empty();
            self.wildcard = subscribe.is_empty() && self.type_url.is_wildcard();
            for (name, version) in &initial {
                let version = Version::parse(version).unwrap_or(FOREIGN);
                self.differs.insert(name.as_str().into(), Some(version));
            }
        }
        self.owed |= !subscribe.is_empty();
        let mut subscribe: BTreeSet<Arc<str>> = subscribe.into_iter().collect();
        if subscribe.remove(WILDCARD) {
            if !self.wildcard && !first {
                self.widen();
            }
            self.wildcard = true;
        }
        // Asked for again: the client does not have it, whatever we think. Of nothing, it has nothing.
        let mut missing = subscribe.clone();
        if first {
            missing.retain(|name| !self.differs.contains_key(name));
        }
        if !self.base.is_empty() || !self.differs.is_empty() {
            self.differs.extend(missing.iter().map(|name| (name.clone(), None)));
        }
        // Of sets of thousands of names, most are empty before: to append is to move then.
        self.asked.append(&mut missing);
        self.names.append(&mut subscribe);
        for name in unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
                self.narrow();
                continue;
            }
            let Some(name) = self.names.take(name.as_str()) else { continue };
            self.asked.remove(&name);
            if self.wildcard {
                // The client cannot know whether the wildcard still covers it, so it is told.
                self.differs.insert(name.clone(), None);
                self.asked.insert(name);
                self.owed = true;
            } else {
                self.forget(&name);
            }
        }
        if first && !self.wildcard {
            self.narrow();
        }
    }

    /// Before a wildcard begins: of the base the client holds the named part only.
    fn widen(&mut self) {
        let held: Vec<_> = self.names.iter().map(|n| (n.clone(), self.known(n))).collect();
        self.differs.extend(held);
        self.base = Arc::default();
    }

    /// After a wildcard ended: the client forgets what it did not name.
    fn narrow(&mut self) {
        let names = &self.names;
        self.differs.retain(|n, _| names.contains(n));
        self.asked.retain(|n| names.contains(n));
        self.forced.retain(|n| names.contains(n));
        self.retry.retain(|n| names.contains(n));
    }

    fn forget(&mut self, name: &str) {
        self.names.remove(name);
        if !self.wildcard {
            self.differs.remove(name);
            self.forced.remove(name);
            self.retry.remove(name);
        }
    }
}

/// Names as the set has them, where it does: a client may well ask for ten thousand.
fn share(mut names: Vec<String>, set: &ResourceSet) -> Vec<Arc<str>> {
    names.sort_unstable();
    let mut finder = set.finder();
    names.into_iter().map(|n| finder.find(&n).map_or_else(|| n.as_str().into(), |r| r.name().clone())).collect()
}
