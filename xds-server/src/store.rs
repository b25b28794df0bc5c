//! Worlds, scopes and streams: [`Store`] makes each live scope once per change that touches it and gives the result to its
//! streams.
//!
//! ```text
//!   publish(world) ──> newest                                     what jobs and the fast lane read
//!   push(change) ────> scopes that it touches ─> schedule ─> job ─> commit ─┐
//!   push_endpoints ──> scopes that see them ───────────────> commit ────────┴─> mailbox per stream
//! ```
//!
//! A scope lives as long as a stream of it, and a while longer for proxies that come back. Locks are held for moments: the order is streams, then one cell.

mod cell;
mod job;
mod mailbox;
mod push;
mod session;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pilotfish_envoy::Snapshot;
use pilotfish_push::{Scheduler, Urgency};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Translate;
use crate::metrics::Metrics;
use cell::Cell;
use job::Pending;

pub(crate) use mailbox::Mailbox;
pub(crate) use session::{Connected, Session};
pub(crate) use work::{Counters, count};
pub use work::{PushReport, Work};

pub(crate) struct Store<T: Translate> {
    pub(crate) translate: Arc<T>,
    newest: watch::Sender<Option<Arc<T::World>>>,
    state: Mutex<State<T>>,
    scheduler: Scheduler<T::Scope, Arc<str>, Pending<T>>,
    workers: NonZeroUsize,
    /// Counts worlds and what was made of them; streams see it rise.
    generation: AtomicU64,
    /// Goes up when streams come, go and say something.
    activity: AtomicU64,
    pub(crate) counters: Counters,
    pub(crate) metrics: Metrics,
}

struct State<T: Translate> {
    scopes: HashMap<T::Scope, Arc<Cell<T>>>,
    streams: BTreeMap<u64, Slot<T>>,
}

struct Slot<T: Translate> {
    session: Arc<Session>,
    mailbox: Arc<Mailbox>,
    place: Option<(T::Class, Arc<Cell<T>>)>,
}

/// What was made for those who are connected.
pub struct Made<T: Translate> {
    /// One for each of their scopes.
    pub views: Vec<Arc<T::View>>,
    /// One for each of their classes.
    pub owns: Vec<Arc<T::Own>>,
}

impl<T: Translate> Store<T> {
    pub(crate) fn new(translate: T, parallel: NonZeroUsize, metrics: Metrics) -> Self {
        Store {
            translate: Arc::new(translate),
            newest: watch::Sender::new(None),
            state: Mutex::new(State { scopes: HashMap::new(), streams: BTreeMap::new() }),
            scheduler: Scheduler::new(parallel),
            workers: parallel,
            generation: AtomicU64::new(0),
            activity: AtomicU64::new(0),
            counters: Counters::default(),
            metrics,
        }
    }

    /// Of the newest world or push.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Goes up with worlds and pushes, and when streams come, go and say something.
    pub(crate) fn activity(&self) -> u64 {
        self.activity.load(Ordering::Relaxed) + self.generation()
    }

    /// A stream said something.
    pub(crate) fn heard(&self) {
        self.activity.fetch_add(1, Ordering::Relaxed);
    }

    fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn work(&self) -> Work {
        let state = self.lock();
        let present = state.scopes.values().map(|cell| cell.lock().present().count());
        let (scopes, classes) = present.filter(|classes| *classes > 0).fold((0, 0), |(s, c), classes| (s + 1, c + classes));
        Work {
            live_scopes: scopes,
            live_classes: classes,
            live_streams: state.streams.len(),
            kept_scopes: state.scopes.len(),
            ..self.counters.read()
        }
    }

    /// Jobs that wait, and how long the first of them has.
    pub(crate) fn queue(&self) -> (usize, std::time::Duration) {
        self.scheduler.inspect(|s| (s.len(), s.oldest(Instant::now()).unwrap_or_default()))
    }

    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        self.lock().streams.values().map(|slot| slot.session.clone()).collect()
    }

    /// What each stream should have, in the order of streams. One that has nothing yet is left out.
    pub(crate) fn served(&self) -> Vec<(Arc<Session>, Arc<Snapshot>)> {
        let state = self.lock();
        let served = |slot: &Slot<T>| {
            let (class, cell) = slot.place.as_ref()?;
            let snapshot = cell.lock().classes.get(class)?.snapshot.clone()?;
            Some((slot.session.clone(), snapshot))
        };
        state.streams.values().filter_map(served).collect()
    }

    /// What was made for those who are connected.
    pub(crate) fn made(&self) -> Made<T> {
        let (mut views, mut owns) = (Vec::new(), Vec::new());
        for cell in self.cells() {
            let inner = cell.lock();
            if !inner.is_away() {
                views.extend(inner.view.clone());
                owns.extend(inner.present().filter_map(|(_, member)| member.own.clone()));
            }
        }
        Made { views, owns }
    }

    /// True if nothing waits to be made.
    pub(crate) fn is_idle(&self) -> bool {
        self.scheduler.inspect(|s| s.is_empty() && s.in_flight() == 0)
    }

    /// Makes a world the one that everything is made of from now on.
    pub(crate) fn publish(&self, world: Arc<T::World>) {
        self.next_generation();
        self.newest.send_replace(Some(world));
    }

    /// The newest world, waited for if there is none yet.
    pub(crate) async fn world(&self) -> Arc<T::World> {
        let mut newest = self.newest.subscribe();
        loop {
            if let Some(world) = self.newest() {
                return world;
            }
            // The sender lives in self.
            let _ = newest.changed().await;
        }
    }

    /// The newest world, if there is one.
    pub(crate) fn newest(&self) -> Option<Arc<T::World>> {
        self.newest.borrow().clone()
    }

    pub(crate) fn connect(self: &Arc<Self>, session: Session) -> Connected<T> {
        let (session, mailbox) = (Arc::new(session), Arc::new(Mailbox::default()));
        self.metrics.connected(&session.proxy.version, 1);
        self.heard();
        self.lock().streams.insert(session.id, Slot { session: session.clone(), mailbox: mailbox.clone(), place: None });
        Connected { store: self.clone(), session, mailbox }
    }

    /// Puts a stream where it belongs in the newest world. It gets what is there at once; else a job makes it.
    pub(crate) fn place(&self, session: &Session) {
        let Some(world) = self.newest() else { return };
        let class = match catch_unwind(AssertUnwindSafe(|| self.translate.classify(&world, &session.proxy))) {
            Ok(class) => class,
            Err(_) => {
                count(&self.counters.failed, 1);
                tracing::error!(proxy = %session.connection_id, "classifying the proxy panicked; it keeps what it has");
                return;
            }
        };
        let (cell, served) = {
            let state = &mut *self.lock();
            let Some(slot) = state.streams.get_mut(&session.id) else { return };
            if slot.place.as_ref().is_some_and(|(at, _)| *at == class) {
                return;
            }
            let scope = self.translate.scope(&class);
            let cell = state.scopes.entry(scope).or_insert_with_key(|scope| Arc::new(Cell::new(scope.clone()))).clone();
            let served = cell.lock().join(&class, session.id, &slot.mailbox, self.generation());
            if let Some((class, cell)) = slot.place.replace((class.clone(), cell.clone())) {
                cell.lock().leave(&class, session.id, Instant::now().into());
            }
            (cell, served)
        };
        if !served && !self.welcome(&cell, &class) {
            let group = self.translate.group(&cell.scope);
            self.scheduler.submit(cell.scope.clone(), group, Urgency::Unconfigured, Pending::default(), Instant::now());
        }
    }

    fn disconnect(&self, session: &Session) {
        self.metrics.connected(&session.proxy.version, -1);
        self.heard();
        let state = &mut *self.lock();
        if let Some((class, cell)) = state.streams.remove(&session.id).and_then(|slot| slot.place) {
            cell.lock().leave(&class, session.id, Instant::now().into());
        }
    }

    /// Drops what is kept for proxies that left before `since`.
    fn sweep(&self, since: std::time::Instant) {
        self.lock().scopes.retain(|scope, cell| {
            let keep = cell.lock().sweep(since);
            if !keep {
                self.scheduler.remove(scope);
            }
            keep
        });
    }

    fn cells(&self) -> Vec<Arc<Cell<T>>> {
        self.lock().scopes.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
