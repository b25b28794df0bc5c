//! One type on one stream: [`Subscription`], a pure state machine for both protocols.
//!
//! It keeps what the client wants and what the client holds; the latter as a pointer to the shared set that was sent last,
//! plus the few names where the client differs from it. [`Subscription::diff`] compares that with the newest set and
//! `commit` notes that the difference was sent. What is sent counts as held, even if it is rejected: the
//! same content is not sent twice.

mod diff;
mod request;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use pilotfish_envoy::{Resource, ResourceSet, TypeUrl, Version};

pub use diff::Diff;
pub use request::{Interest, Request};

/// The two variants of xDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// State of the world.
    Sotw,
    /// Incremental.
    Delta,
}

/// What a request said about earlier responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    None,
    /// The outstanding response was taken.
    Ack,
    /// The outstanding response was refused.
    Nack(Rejection),
    /// It answers a response that is not the last one. In state-of-the-world the whole request is void.
    Stale,
}

/// A refused response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Which one.
    pub nonce: Arc<str>,
    /// The client's words.
    pub message: String,
    /// What the response held.
    pub names: Vec<Arc<str>>,
}

impl Rejection {
    /// The resources that the client complains about: those whose names occur in its message, or else all.
    pub fn suspects(&self) -> Vec<Arc<str>> {
        let named: Vec<_> = self.names.iter().filter(|n| self.message.contains(&***n)).cloned().collect();
        if named.is_empty() { self.names.clone() } else { named }
    }
}

/// What a client has said of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding<'a> {
    /// It took this content.
    Confirmed,
    /// It was not sent this content, or has not answered yet.
    Missing,
    /// It refused this content, with these words.
    Rejected(&'a str),
}

/// What a client has said of resources; see [`Subscription::holding`].
#[derive(Debug)]
pub struct Holdings<'a> {
    subscription: &'a Subscription,
    refused: HashSet<Arc<str>>,
    outstanding: HashSet<Arc<str>>,
}

impl<'a> Holdings<'a> {
    /// What it has said of one.
    pub fn of(&self, resource: &Resource) -> Holding<'a> {
        let name = resource.name();
        if self.outstanding.contains(name) || self.subscription.known(name) != Some(resource.version()) {
            return Holding::Missing;
        }
        match self.subscription.last_error.as_ref().filter(|_| self.refused.contains(name)) {
            Some(refused) => Holding::Rejected(&refused.message),
            None => Holding::Confirmed,
        }
    }
}

/// A response that the client has not answered yet.
#[derive(Clone, Debug)]
struct Outstanding {
    nonce: Arc<str>,
    generation: u64,
    since: Option<Instant>,
    resources: Vec<Resource>,
    removed: Vec<Arc<str>>,
}

/// One type on one stream.
#[derive(Clone, Debug)]
pub struct Subscription {
    type_url: TypeUrl,
    protocol: Protocol,

    wildcard: bool,
    /// Names were given at some time: an empty list no longer means everything.
    ever_named: bool,
    names: BTreeSet<Arc<str>>,

    /// The client holds the wanted part of this,
    base: Arc<ResourceSet>,
    /// except for these names, of which it holds another version or nothing.
    differs: BTreeMap<Arc<str>, Option<Version>>,
    /// The client held resources when the stream began.
    resumed: bool,
    /// State of the world: the version of what it said it held.
    claimed: Option<Version>,

    /// An answer is due even if it is empty.
    owed: bool,
    /// Delta: names that were asked for one by one; if they do not exist, that is the answer.
    asked: BTreeSet<Arc<str>>,
    /// To be sent even if unchanged: endpoints of clusters that changed.
    forced: BTreeSet<Arc<str>>,
    /// What rejected responses held and removed. A client may have dropped such a response half-way, so the next one that
    /// is due says it again; except for clusters and listeners, which clients take one by one.
    retry: BTreeSet<Arc<str>>,

    outstanding: Option<Outstanding>,
    answered: bool,
    /// The client has everything up to this generation of the target, except for removals that are held back.
    pub(crate) reached: u64,
    /// Since when updates wait for other types.
    pub(crate) updates_wait: Option<Instant>,
    /// Since when removals wait for other types.
    pub(crate) removals_wait: Option<Instant>,
    /// When the oldest event happened that the client was not told of.
    pub(crate) since: Option<Instant>,
    /// The same of the last response that was taken, until somebody measures it.
    pub(crate) confirmed: Option<Instant>,

    sent: Option<Arc<str>>,
    acked: Option<Arc<str>>,
    sent_at: Option<SystemTime>,
    last_error: Option<Rejection>,
}

impl Subscription {
    /// A type that nothing was asked of yet; [`Subscription::on_request`] follows at once.
    pub fn new(type_url: TypeUrl, protocol: Protocol) -> Self {
        Subscription {
            type_url,
            protocol,
            wildcard: false,
            ever_named: false,
            names: BTreeSet::new(),
            base: Arc::default(),
            differs: BTreeMap::new(),
            resumed: false,
            claimed: None,
            owed: false,
            asked: BTreeSet::new(),
            forced: BTreeSet::new(),
            retry: BTreeSet::new(),
            outstanding: None,
            answered: false,
            reached: 0,
            updates_wait: None,
            removals_wait: None,
            since: None,
            confirmed: None,
            sent: None,
            acked: None,
            sent_at: None,
            last_error: None,
        }
    }

    /// Its type.
    pub fn type_url(&self) -> TypeUrl {
        self.type_url
    }

    /// True if everything of the type is wanted.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// The names that are wanted explicitly.
    pub fn names(&self) -> &BTreeSet<Arc<str>> {
        &self.names
    }

    /// True if the client wants this resource.
    pub fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// True while a response waits for its ACK.
    pub fn is_outstanding(&self) -> bool {
        self.outstanding.is_some()
    }

    /// True for the first answer to a client that came with nothing: there is no traffic to protect yet.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.answered && !self.resumed
    }

    /// Nonce of the last response.
    pub fn sent(&self) -> Option<&Arc<str>> {
        self.sent.as_ref()
    }

    /// Nonce of the last response that was taken.
    pub fn acked(&self) -> Option<&Arc<str>> {
        self.acked.as_ref()
    }

    /// When the last response was sent.
    pub fn sent_at(&self) -> Option<SystemTime> {
        self.sent_at
    }

    /// The last refusal, until a later response is taken.
    pub fn last_error(&self) -> Option<&Rejection> {
        self.last_error.as_ref()
    }

    /// Notes that these must be sent (again) even if they did not change.
    pub(crate) fn force(&mut self, names: &[Arc<str>]) {
        let wanted: Vec<_> = names.iter().filter(|n| self.wants(n)).cloned().collect();
        self.forced.extend(wanted);
    }

    /// What the client holds of a resource.
    fn known(&self, name: &str) -> Option<Version> {
        match self.differs.get(name) {
            Some(version) => *version,
            None => self.base.get(name).filter(|_| self.wants(name)).map(|r| r.version()),
        }
    }

    /// What the client has said of a resource's present content. That another response was refused as a whole, without a word
    /// about the resource, counts as a refusal only of what it held.
    pub fn holding(&self, resource: &Resource) -> Holding<'_> {
        self.holdings().of(resource)
    }

    /// True if the client wants all of a type and has confirmed that it holds this very set.
    pub fn has_confirmed(&self, set: &ResourceSet) -> bool {
        let nothing_else = self.differs.is_empty() && self.outstanding.is_none() && self.last_error.is_none();
        self.wildcard && nothing_else && self.base.version() == set.version()
    }

    /// The same as [`Subscription::holding`] for many resources.
    pub fn holdings(&self) -> Holdings<'_> {
        let names = |o: &Outstanding| o.resources.iter().map(|r| r.name().clone()).collect();
        let refused = |e: &Rejection| e.suspects().into_iter().collect();
        Holdings {
            subscription: self,
            refused: self.last_error.as_ref().map(refused).unwrap_or_default(),
            outstanding: self.outstanding.as_ref().map(names).unwrap_or_default(),
        }
    }

    /// State of the world has no removals: responses of these types hold everything, and omission removes.
    fn is_full(&self) -> bool {
        self.protocol == Protocol::Sotw && self.type_url.is_wildcard()
    }
}

#[cfg(test)]
mod tests;
