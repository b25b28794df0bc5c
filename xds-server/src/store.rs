//! Worlds, classes and streams: [`Store`] translates each live class once per world and gives the result to its streams.
//!
//! A class lives as long as a stream of it. Translations run on blocking threads, one flight per class and world; what did
//! not change keeps its `Arc`, so that streams see at once that there is nothing to send. Locks are held for map operations
//! only, never over a translation.

mod session;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pilotfish_envoy::{ResourceSet, Snapshot};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::task::JoinSet;

use crate::client::Target;
use crate::metrics::Metrics;
use crate::{Translate, guard};

pub(crate) use session::{Connected, Session};

/// What a push did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushReport {
    /// Its number, from 1.
    pub generation: u64,
    /// Streams that were told.
    pub streams: usize,
    /// Classes that were translated.
    pub classes: usize,
    /// How long it took.
    pub took: Duration,
}

/// Work since the start, for tests and the curious.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Classes translated, once per world.
    pub translations: u64,
    /// Translations that panicked.
    pub failed_translations: u64,
    /// Responses sent.
    pub responses: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Classes with a stream at this moment.
    pub live_classes: usize,
    /// Streams at this moment.
    pub live_streams: usize,
}

#[derive(Default)]
pub(crate) struct Counters {
    translations: AtomicU64,
    failed: AtomicU64,
    pub(crate) responses: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

pub(crate) struct Store<T: Translate> {
    translate: Arc<T>,
    state: Mutex<State<T>>,
    generation: watch::Sender<u64>,
    publishing: tokio::sync::Mutex<()>,
    permits: Semaphore,
    pub(crate) counters: Counters,
    pub(crate) metrics: Metrics,
}

struct State<T: Translate> {
    generation: u64,
    published: Instant,
    world: Option<Arc<T::World>>,
    classes: HashMap<T::Class, Entry>,
    streams: BTreeMap<u64, Slot<T>>,
}

/// A class. The cell is replaced with each world; it holds nothing if the translation failed and there was no earlier one.
struct Entry {
    generation: u64,
    cell: Arc<OnceCell<Option<Arc<Snapshot>>>>,
    last_good: Option<Arc<Snapshot>>,
    streams: usize,
}

struct Slot<T: Translate> {
    session: Arc<Session>,
    class: Option<T::Class>,
    /// The world that the class belongs to.
    classified: u64,
    target: watch::Sender<Option<Target>>,
}

impl<T: Translate> Store<T> {
    pub(crate) fn new(translate: T, parallel: usize, metrics: Metrics) -> Self {
        let state = State { generation: 0, published: Instant::now(), world: None, classes: HashMap::new(), streams: BTreeMap::new() };
        Store {
            translate: Arc::new(translate),
            state: Mutex::new(state),
            generation: watch::Sender::new(0),
            publishing: tokio::sync::Mutex::new(()),
            permits: Semaphore::new(parallel.max(1)),
            counters: Counters::default(),
            metrics,
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    pub(crate) fn work(&self) -> Work {
        let state = self.lock();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Work {
            translations: load(&self.counters.translations),
            failed_translations: load(&self.counters.failed),
            responses: load(&self.counters.responses),
            bytes: load(&self.counters.bytes),
            live_classes: state.classes.len(),
            live_streams: state.streams.len(),
        }
    }

    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        self.lock().streams.values().map(|slot| slot.session.clone()).collect()
    }

    /// The first world, waited for if there is none yet.
    pub(crate) async fn world(&self) -> (Arc<T>, Arc<T::World>) {
        let mut generation = self.generation.subscribe();
        loop {
            if let Some(newest) = self.newest() {
                return newest;
            }
            // The sender lives in self.
            let _ = generation.changed().await;
        }
    }

    /// The newest world, if there is one.
    pub(crate) fn newest(&self) -> Option<(Arc<T>, Arc<T::World>)> {
        let world = self.lock().world.clone()?;
        Some((self.translate.clone(), world))
    }

    pub(crate) async fn publish(self: &Arc<Self>, world: Arc<T::World>) -> PushReport {
        let _one_at_a_time = self.publishing.lock().await;
        let published = Instant::now();
        let (generation, sessions) = {
            let mut state = self.lock();
            state.generation += 1;
            state.published = published;
            state.world = Some(world.clone());
            (state.generation, state.streams.iter().map(|(id, slot)| (*id, slot.session.clone())).collect::<Vec<_>>())
        };
        self.generation.send_replace(generation);

        let mut by_class: BTreeMap<T::Class, Vec<u64>> = BTreeMap::new();
        for (id, class) in self.classify(sessions, world.clone()).await {
            if self.set_class(id, &class, generation) {
                by_class.entry(class).or_default().push(id);
            }
        }
        let mut report = PushReport { generation, classes: by_class.len(), ..PushReport::default() };
        let mut flights = JoinSet::new();
        for (class, ids) in by_class {
            let (store, world) = (self.clone(), world.clone());
            flights.spawn(async move {
                let snapshot = store.snapshot_of(&class, generation, world).await;
                snapshot.map_or(0, |snapshot| store.deliver(&ids, &Target { generation, snapshot, published }))
            });
        }
        while let Some(told) = flights.join_next().await {
            report.streams += told.unwrap_or_default();
        }
        report.took = published.elapsed();
        report
    }

    /// Gives a new stream its first target. Its class may be in flight already.
    pub(crate) async fn place(self: &Arc<Self>, session: &Arc<Session>) {
        let (generation, published, world) = {
            let state = self.lock();
            match &state.world {
                Some(world) => (state.generation, state.published, world.clone()),
                None => return,
            }
        };
        let classified = self.classify(vec![(session.id, session.clone())], world.clone()).await;
        let Some((id, class)) = classified.into_iter().next() else { return };
        if self.set_class(id, &class, generation)
            && let Some(snapshot) = self.snapshot_of(&class, generation, world).await
        {
            self.deliver(&[id], &Target { generation, snapshot, published });
        }
    }

    async fn classify(&self, sessions: Vec<(u64, Arc<Session>)>, world: Arc<T::World>) -> Vec<(u64, T::Class)> {
        let translate = self.translate.clone();
        let work = move || {
            let classify = |(id, session): &(u64, Arc<Session>)| {
                let class = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| translate.classify(&world, &session.proxy)));
                match class {
                    Ok(class) => Some((*id, class)),
                    Err(_) => {
                        tracing::error!(proxy = %session.connection_id, "classifying the proxy panicked; it keeps what it has");
                        None
                    }
                }
            };
            sessions.iter().filter_map(classify).collect()
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_default()
    }

    /// Moves a stream to a class, unless a newer world did already or the stream is gone: then false.
    fn set_class(&self, id: u64, class: &T::Class, generation: u64) -> bool {
        let state = &mut *self.lock();
        let Some(slot) = state.streams.get_mut(&id).filter(|slot| slot.classified <= generation) else { return false };
        slot.classified = generation;
        if slot.class.as_ref() == Some(class) {
            return true;
        }
        let old = slot.class.replace(class.clone());
        let new = Entry { generation: 0, cell: Arc::default(), last_good: None, streams: 0 };
        state.classes.entry(class.clone()).or_insert(new).streams += 1;
        leave(&mut state.classes, old);
        true
    }

    /// The resources of a class in a world, made at most once; `None` if that failed and never succeeded before, or if a
    /// newer world has come.
    async fn snapshot_of(self: &Arc<Self>, class: &T::Class, generation: u64, world: Arc<T::World>) -> Option<Arc<Snapshot>> {
        let (cell, last_good) = {
            let mut state = self.lock();
            let entry = state.classes.get_mut(class)?;
            if entry.generation > generation {
                return None;
            }
            if entry.generation < generation {
                if let Some(Some(good)) = entry.cell.get() {
                    entry.last_good = Some(good.clone());
                }
                (entry.cell, entry.generation) = (Arc::default(), generation);
            }
            (entry.cell.clone(), entry.last_good.clone())
        };
        cell.get_or_init(|| self.fly(class, world, last_good)).await.clone()
    }

    async fn fly(&self, class: &T::Class, world: Arc<T::World>, last_good: Option<Arc<Snapshot>>) -> Option<Arc<Snapshot>> {
        // Never closed.
        let _permit = self.permits.acquire().await.ok()?;
        self.counters.translations.fetch_add(1, Ordering::Relaxed);
        let (translate, owned_class, before) = (self.translate.clone(), class.clone(), last_good.clone());
        let work = move || {
            let snapshot = translate.translate(&world, &owned_class);
            if translate.is_checked(&owned_class) { guard::sound(before.as_deref(), snapshot) } else { (snapshot, Vec::new()) }
        };
        match tokio::task::spawn_blocking(work).await {
            Ok((snapshot, refused)) => {
                for r in refused {
                    self.metrics.internal_errors.inc();
                    let (name, violations) = (&r.name, &r.violations);
                    tracing::error!(?class, r#type = r.type_url.short(), %name, replaced = r.replaced, ?violations, "breaks Envoy's rules and is kept in");
                }
                Some(keep_equal(last_good, snapshot))
            }
            Err(error) => {
                self.counters.failed.fetch_add(1, Ordering::Relaxed);
                self.metrics.internal_errors.inc();
                tracing::error!(?class, %error, "translation failed; its proxies keep what they have");
                last_good
            }
        }
    }

    fn deliver(&self, ids: &[u64], target: &Target) -> usize {
        let state = self.lock();
        let slots = ids.iter().filter_map(|id| state.streams.get(id));
        let newer = |slot: &&Slot<T>| {
            slot.target.send_if_modified(|current| {
                let newer = current.as_ref().is_none_or(|c| c.generation < target.generation);
                if newer {
                    *current = Some(target.clone());
                }
                newer
            })
        };
        slots.filter(newer).count()
    }

    pub(crate) fn connect(self: &Arc<Self>, session: Session) -> Connected<T> {
        let session = Arc::new(session);
        let (target, targets) = watch::channel(None);
        self.metrics.connected(&session.proxy.version, 1);
        self.lock().streams.insert(session.id, Slot { session: session.clone(), class: None, classified: 0, target });
        Connected { store: self.clone(), session, targets }
    }

    fn disconnect(&self, session: &Session) {
        self.metrics.connected(&session.proxy.version, -1);
        let state = &mut *self.lock();
        if let Some(slot) = state.streams.remove(&session.id) {
            leave(&mut state.classes, slot.class);
        }
    }

    /// No panic happens while it is held; if one did, the maps are still whole.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a stream out of its class, and drops the class with the last one.
fn leave<C: Eq + std::hash::Hash>(classes: &mut HashMap<C, Entry>, class: Option<C>) {
    let Some(class) = class else { return };
    if let Some(entry) = classes.get_mut(&class) {
        entry.streams -= 1;
        if entry.streams == 0 {
            classes.remove(&class);
        }
    }
}

/// Equal content keeps its pointer, per type and as a whole.
fn keep_equal(old: Option<Arc<Snapshot>>, new: Snapshot) -> Arc<Snapshot> {
    let Some(old) = old else { return Arc::new(new) };
    let same = |a: &Arc<ResourceSet>, b: &Arc<ResourceSet>| a.version() == b.version() && a.len() == b.len();
    let mut kept = Snapshot::new();
    let mut equal = old.iter().count() == new.iter().count();
    for (type_url, set) in new.iter() {
        let before = old.get(type_url);
        let is_same = same(&before, set);
        equal &= is_same;
        kept.insert(type_url, if is_same { before.clone() } else { set.clone() });
    }
    if equal { old } else { Arc::new(kept) }
}
