//! From a change to the scopes that it touches.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pilotfish_push::Urgency;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Store;
use super::cell::Cell;
use super::job::{Pending, Ticket};
use super::work::{PushReport, count};
use crate::Translate;

impl<T: Translate> Store<T> {
    /// Gives a change to all scopes that it touches. The future ends when each of them was made and its streams were told.
    pub(crate) fn push(self: &Arc<Self>, change: T::Change, since: Instant) -> impl Future<Output = PushReport> + Send + use<T> {
        let (ticket, mut reports) = mpsc::unbounded_channel();
        if let Some(world) = self.newest() {
            for session in self.sessions().iter().filter(|s| self.translate.reclassifies(&change, &s.proxy)) {
                self.place(session);
            }
            for cell in self.cells() {
                self.offer(&world, &cell, &change, since, &ticket);
            }
            if self.translate.touches_secrets(&change) {
                self.remind(since);
            }
        }
        drop(ticket);
        async move {
            let mut sum = PushReport::default();
            while let Some(report) = reports.recv().await {
                sum.add(report);
            }
            sum
        }
    }

    fn offer(&self, world: &T::World, cell: &Cell<T>, change: &T::Change, since: Instant, ticket: &Ticket) {
        let touched = {
            let inner = &mut *cell.lock();
            let touches_view = |view: &T::View| self.translate.touches_view(world, view, change);
            let touches_own = |own: &T::Own| self.translate.touches_own(world, own, change);
            match &inner.view {
                // What is being made may need it, though what there is does not.
                _ if inner.in_flight > 0 || inner.stale => true,
                Some(view) if inner.is_away() => {
                    if touches_view(view) {
                        (inner.view, inner.endpoints) = (None, None);
                        inner.classes.clear();
                    } else {
                        inner.forget(touches_own);
                    }
                    false
                }
                Some(view) => {
                    let touched = touches_view(view) || inner.present().any(|(_, m)| m.own.as_deref().is_some_and(touches_own));
                    inner.forget(touches_own);
                    touched
                }
                // Its first job has not begun, and will read the newest world.
                None => false,
            }
        };
        if touched {
            let pending = Pending::new(change.clone(), ticket.clone());
            self.scheduler.submit(cell.scope.clone(), self.translate.group(&cell.scope), Urgency::Config, pending, since);
        } else {
            count(&self.counters.untouched, 1);
        }
    }

    /// The fast lane: endpoints of the views that there are, whatever else is going on.
    pub(crate) async fn push_endpoints(self: &Arc<Self>, change: T::Change, since: Instant) -> PushReport {
        let store = self.clone();
        let work = move || {
            let began = Instant::now();
            let mut report = PushReport::default();
            let Some(world) = store.newest() else { return report };
            for cell in store.cells() {
                let (classes, streams) = store.step(&world, &cell, &change, since);
                report.scopes += usize::from(classes > 0);
                report.classes += classes;
                report.streams += streams;
            }
            report.cost = began.elapsed();
            report
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_default()
    }

    fn step(&self, world: &T::World, cell: &Cell<T>, change: &T::Change, since: Instant) -> (usize, usize) {
        let inner = &mut *cell.lock();
        if inner.is_away() {
            inner.behind = true;
            return (0, 0);
        }
        // Without a view there is nobody to serve yet, and the job that makes one looks at endpoints last.
        let Some(view) = inner.view.as_ref().filter(|view| self.translate.touches_endpoints(view, change)) else { return (0, 0) };
        count(&self.counters.endpoint_steps, 1);
        // Who was away for a while has more to catch up with than this change.
        let changed = (!inner.behind).then_some(change);
        let made = catch_unwind(AssertUnwindSafe(|| self.translate.endpoints(world, view, inner.endpoints.as_ref(), changed)));
        match made {
            Ok(endpoints) => (inner.endpoints, inner.behind) = (Some(endpoints), false),
            Err(_) => {
                self.failed(&cell.scope, "endpoints");
                return (0, 0);
            }
        }
        inner.deliver_endpoints(&self.translate, self.next_generation(), Some(since.into_std()))
    }

    /// Wakes every stream: each looks up its key material itself.
    fn remind(&self, since: Instant) {
        for cell in self.cells() {
            let generation = self.next_generation();
            cell.lock().classes.values().for_each(|member| member.remind(generation, Some(since.into_std())));
        }
    }

    pub(super) fn failed(&self, scope: &T::Scope, what: &str) {
        count(&self.counters.failed, 1);
        self.metrics.internal_errors.inc();
        tracing::error!(?scope, "making the {what} panicked; its proxies keep what they have");
    }
}
