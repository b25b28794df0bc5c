//! Jobs: a scope is made anew, or out of what it was and a change.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use pilotfish_push::{Merge, Running};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Store;
use super::cell::{Cell, Inner};
use super::work::{PushReport, count};
use crate::Translate;

/// Held until what it stands for is done; reports what that cost.
pub(super) type Ticket = UnboundedSender<PushReport>;

/// What a scope still has to take in, and who waits for it.
pub(super) struct Pending<T: Translate> {
    change: T::Change,
    tickets: Vec<Ticket>,
}

impl<T: Translate> Default for Pending<T> {
    fn default() -> Self {
        Pending { change: T::Change::default(), tickets: Vec::new() }
    }
}

impl<T: Translate> Pending<T> {
    pub(super) fn new(change: T::Change, ticket: Ticket) -> Self {
        Pending { change, tickets: vec![ticket] }
    }
}

impl<T: Translate> Merge for Pending<T> {
    fn merge(&mut self, later: Self) {
        self.change.merge(later.change);
        self.tickets.extend(later.tickets);
    }
}

/// What classes have of their own; `None` where that panicked.
type Owns<T> = Vec<(<T as Translate>::Class, Option<Arc<<T as Translate>::Own>>)>;

impl<T: Translate> Store<T> {
    /// Works until the drain. Without it nothing but endpoints is ever made. What proxies had is kept for `keep` after they left.
    pub(crate) async fn run(self: &Arc<Self>, keep: Duration, drain: CancellationToken) {
        let mut workers = JoinSet::new();
        let (store, drained) = (self.clone(), drain.clone());
        workers.spawn(async move {
            let mut ticks = tokio::time::interval(keep.max(Duration::from_millis(1)));
            loop {
                tokio::select! {
                    () = drained.cancelled() => return,
                    now = ticks.tick() => {
                        if let Some(since) = now.checked_sub(keep) {
                            store.sweep(since.into());
                        }
                    }
                }
            }
        });
        for _ in 0..self.workers.get() {
            let (store, drain) = (self.clone(), drain.clone());
            workers.spawn(async move {
                loop {
                    tokio::select! {
                        () = drain.cancelled() => return,
                        running = store.scheduler.next() => store.perform(running).await,
                    }
                }
            });
        }
        while workers.join_next().await.is_some() {}
    }

    async fn perform(self: &Arc<Self>, Running { job, lease }: Running<T::Scope, Arc<str>, Pending<T>>) {
        let store = self.clone();
        let work = move || {
            let Some(cell) = store.lock().scopes.get(&job.key).cloned() else { return Duration::ZERO };
            let began = Instant::now();
            let mut report = store.make(&cell, &job.change.change, job.since);
            report.cost = began.elapsed();
            for _ in 0..report.streams {
                store.metrics.queue_time.observe((began - job.queued_at).as_secs_f64());
            }
            store.metrics.job_time.observe(report.cost.as_secs_f64());
            tracing::debug!(scope = ?cell.scope, urgency = job.urgency.as_str(), changes = job.count, ?report, "made");
            // Where several changes waited, each is told the whole cost: none would have been cheaper alone.
            for ticket in job.change.tickets {
                // Whoever does not want to know has dropped the other end.
                let _ = ticket.send(report);
            }
            report.cost
        };
        // A panic outside of the translator drops the lease, which ends the job.
        if let Ok(cost) = tokio::task::spawn_blocking(work).await {
            lease.done(cost);
        }
    }

    fn make(&self, cell: &Cell<T>, change: &T::Change, since: Instant) -> PushReport {
        let (before, members) = {
            let mut inner = cell.lock();
            inner.in_flight += 1;
            let from_scratch = inner.stale;
            let members: Vec<_> = inner.present().map(|(c, m)| (c.clone(), m.own.clone().filter(|_| !from_scratch))).collect();
            (inner.view.clone().filter(|_| !from_scratch), members)
        };
        // Only now: a change that is not in this world finds the cell in flight, and comes again.
        let Some(world) = self.newest() else {
            // Nothing is placed before the first world.
            cell.lock().in_flight -= 1;
            return PushReport::default();
        };
        count(&self.counters.views, 1);
        let made = catch_unwind(AssertUnwindSafe(|| {
            let view = self.translate.view(&world, &cell.scope, before.as_ref().map(|view| (view, change)));
            let own = |(class, before): (T::Class, Option<Arc<T::Own>>)| {
                let own = self.own(&world, &class, &view, before.as_ref().map(|own| (own, change)));
                (class, own)
            };
            let owns: Vec<_> = members.into_iter().map(own).collect();
            (view, owns)
        }));
        let inner = &mut *cell.lock();
        inner.in_flight -= 1;
        let (view, owns) = match made {
            Ok(made) => made,
            Err(_) => {
                inner.stale = true;
                self.failed(&cell.scope, "view");
                return PushReport::default();
            }
        };
        // The endpoints may have moved on meanwhile, so they are those of the newest world.
        let newest = self.newest().unwrap_or(world);
        let endpoints = catch_unwind(AssertUnwindSafe(|| self.translate.endpoints(&newest, &view, inner.endpoints.as_ref(), None)));
        let Ok(endpoints) = endpoints else {
            inner.stale = true;
            self.failed(&cell.scope, "endpoints");
            return PushReport::default();
        };
        if inner.view.as_ref().is_some_and(|before| !Arc::ptr_eq(before, &view)) {
            // What those who are away had was made beside another view.
            inner.forget(|_| true);
        }
        (inner.stale, inner.behind, inner.view, inner.endpoints) = (false, false, Some(view), Some(endpoints));
        self.commit(cell, inner, owns);
        let (classes, streams) = inner.deliver(&self.translate, self.next_generation(), Some(since.into_std()));
        PushReport { scopes: 1, classes, streams, cost: Duration::ZERO }
    }

    /// Serves a class that is new to a scope which is as it should be: only what is the class's alone is made, at once. False if
    /// the scope has to be made or looked at too.
    pub(super) fn welcome(&self, cell: &Cell<T>, class: &T::Class) -> bool {
        let view = {
            let mut inner = cell.lock();
            let Some(view) = inner.view.clone().filter(|_| !inner.stale && !inner.behind) else { return false };
            inner.in_flight += 1;
            view
        };
        let own = self.newest().and_then(|world| self.own(&world, class, &view, None));
        let inner = &mut *cell.lock();
        inner.in_flight -= 1;
        let is_current = inner.view.as_ref().is_some_and(|now| Arc::ptr_eq(now, &view));
        match (own, inner.classes.get_mut(class)) {
            (Some(own), Some(member)) if is_current => _ = member.own.get_or_insert(own),
            // A job sees to it, and says what is wrong if something is.
            _ => return false,
        }
        inner.deliver(&self.translate, self.next_generation(), None);
        true
    }

    /// `None` if that panicked.
    fn own(
        &self,
        world: &T::World,
        class: &T::Class,
        view: &Arc<T::View>,
        before: Option<(&Arc<T::Own>, &T::Change)>,
    ) -> Option<Arc<T::Own>> {
        catch_unwind(AssertUnwindSafe(|| self.translate.own(world, class, view, before))).ok()
    }

    fn commit(&self, cell: &Cell<T>, inner: &mut Inner<T>, owns: Owns<T>) {
        for (class, own) in owns {
            match (own, inner.classes.get_mut(&class)) {
                (Some(own), Some(member)) => member.own = Some(own),
                (Some(_), None) => {}
                (None, _) => {
                    inner.stale = true;
                    self.failed(&cell.scope, "own part of a class");
                }
            }
        }
    }
}
