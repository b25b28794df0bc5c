//! JSON Web Key Sets: what tokens are signed with, fetched off the way of changes.
//!
//! ```text
//!  state of the controller ──> what RequestAuthentications want ──> resolver ──> client ──> keys ──┐
//!       ^                                                                                          │
//!       └────────────────────────── mesh ── index <── KeysUpdate ──────────────────────────────────┘
//! ```
//!
//! [`resolver`] decides when to fetch what (no I/O), [`client`] fetches, [`guard`] keeps it from where users must not get,
//! [`keys`] looks at what came. Enter at [`Fetcher`], the task that moves events between them.

pub mod client;
pub mod guard;
pub mod keys;
pub mod resolver;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use pilotfish_model::Mesh;
use pilotfish_model::name::Str;
use pilotfish_model::request_authentication::{JwksSource, Keys};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::run::State;
pub use client::{Client, FetchError, TrustError};
pub use guard::Guard;
pub use resolver::Resolver;

/// How long an answer may take where no rule says.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that a rule may ask for.
const LONGEST: Duration = Duration::from_secs(30);

/// What is new about keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeysUpdate {
    /// Keys by source; `None`: forgotten.
    pub keys: BTreeMap<JwksSource, Option<Str>>,
    /// Every source that is wanted was asked at least once.
    pub settled: bool,
}

/// What was done, for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Fetches that brought keys.
    pub fetched: AtomicU64,
    /// Fetches that got no answer, or one with another status than 200.
    pub failed: AtomicU64,
    /// Fetches that brought something else than keys.
    pub invalid: AtomicU64,
    /// Sources without keys: tokens of their issuers are refused.
    pub missing: AtomicUsize,
}

/// What a mesh wants, and how long each may take.
pub fn wanted(mesh: &Mesh) -> BTreeMap<JwksSource, Duration> {
    let mut wanted = BTreeMap::new();
    for rule in mesh.request_authentications.values().flat_map(|a| &a.rules) {
        let Keys::Remote(source) = &rule.keys else { continue };
        let limit = rule.timeout.filter(|t| !t.is_zero()).unwrap_or(TIMEOUT).min(LONGEST);
        let known: &mut Duration = wanted.entry(source.clone()).or_insert(limit);
        *known = limit.max(*known);
    }
    wanted
}

/// The task. To be spawned by the caller, who watches how it ends.
pub struct Fetcher {
    client: Client,
    state: watch::Receiver<State>,
    updates: mpsc::Sender<KeysUpdate>,
    counts: Arc<Counts>,
}

impl Fetcher {
    /// Follows the controller's state, and sends it what it finds.
    pub fn new(client: Client, state: watch::Receiver<State>, updates: mpsc::Sender<KeysUpdate>) -> Self {
        Fetcher { client, state, updates, counts: Arc::default() }
    }

    /// For metrics.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Runs until the controller is gone.
    pub async fn run(mut self) {
        let mut resolver = Resolver::default();
        let mut fetches: JoinSet<Result<Str, FetchError>> = JoinSet::new();
        let mut sources: HashMap<Id, JwksSource> = HashMap::new();
        let mut update = KeysUpdate::default();
        let mut settled = false;
        let mut known: Option<Arc<Mesh>> = None;
        // Of no mesh there is nothing to say.
        tokio::select! {
            changed = self.state.changed() => if changed.is_err() { return },
            () = self.updates.closed() => return,
        }
        loop {
            let mesh = self.state.borrow_and_update().snapshot.mesh.clone();
            let same = |k: &Arc<Mesh>| k.request_authentications.ptr_eq(&mesh.request_authentications);
            if !known.as_ref().is_some_and(same) {
                resolver.want(&wanted(&mesh), Instant::now());
                known = Some(mesh);
            }
            update.keys.extend(resolver.forget(Instant::now()).into_iter().map(|source| (source, None)));
            for (source, limit) in resolver.due(Instant::now()) {
                let (client, at) = (self.client.clone(), source.clone());
                let task = fetches.spawn(async move { client.fetch(&at, limit).await });
                sources.insert(task.id(), source);
            }
            self.counts.missing.store(resolver.missing(), Ordering::Relaxed);
            update.settled = resolver.is_settled();
            let news = std::mem::take(&mut update);
            let changed = !news.keys.is_empty() || news.settled != settled;
            settled = news.settled;
            if changed && self.updates.send(news).await.is_err() {
                return;
            }
            let next = resolver.next();
            tokio::select! {
                changed = self.state.changed() => if changed.is_err() { return },
                () = self.updates.closed() => return,
                Some(ended) = fetches.join_next_with_id() => {
                    let (id, result) = match ended {
                        Ok((id, result)) => (id, result),
                        // A defect, but not one that others should suffer from.
                        Err(e) => (e.id(), Err(FetchError::Body(e.to_string()))),
                    };
                    let Some(source) = sources.remove(&id) else { continue };
                    self.note(&source, &result);
                    if let Some(keys) = resolver.answered(&source, result.ok(), Instant::now()) {
                        update.keys.insert(source, Some(keys));
                    }
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    fn note(&self, source: &JwksSource, result: &Result<Str, FetchError>) {
        let counter = match result {
            Ok(_) => &self.counts.fetched,
            Err(e) if e.is_content() => &self.counts.invalid,
            Err(_) => &self.counts.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = result {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%source, %error, cause, "keys of tokens could not be fetched; those known before stay");
        }
    }
}

#[cfg(test)]
mod tests;
