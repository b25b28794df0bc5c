//! [`Admission`] between tasks: [`Gate`].

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::{Admission, Limits, Ticket};
use crate::sync::{Mutex, now, sleep_until};
use crate::urgency::Urgency;

/// Lets callers in, one after the other. Clones are the same gate.
pub struct Gate<U: Ord + Copy = Urgency> {
    shared: Arc<Shared<U>>,
}

struct Shared<U: Ord + Copy> {
    state: Mutex<State<U>>,
}

struct State<U: Ord + Copy> {
    admission: Admission<U>,
    /// Those who sleep, and whether they have been let in.
    sleepers: HashMap<Ticket, (Arc<Notify>, bool)>,
    /// One sleeper watches the clock for all ...
    watch: Option<Ticket>,
    /// ... until then.
    alarm: Option<Instant>,
}

impl<U: Ord + Copy> Clone for Gate<U> {
    fn clone(&self) -> Self {
        Gate { shared: self.shared.clone() }
    }
}

impl<U: Ord + Copy> Gate<U> {
    /// A gate through which nobody has gone yet.
    pub fn new(limits: Limits) -> Self {
        let state = State { admission: Admission::new(limits), sleepers: HashMap::new(), watch: None, alarm: None };
        Gate { shared: Arc::new(Shared { state: Mutex::new(state) }) }
    }

    /// Waits until let in: the more urgent first, then who came first. Whoever drops the future leaves the queue.
    pub async fn admit(&self, urgency: U) -> Permit<U> {
        let (ticket, bell) = {
            let mut state = self.shared.state.lock();
            let ticket = state.admission.enter(urgency, now());
            let bell = Arc::new(Notify::new());
            state.sleepers.insert(ticket, (bell.clone(), false));
            state.turn(now());
            (ticket, bell)
        };
        let mut place = Place { shared: &self.shared, ticket, admitted: false };
        loop {
            let until = {
                let state = self.shared.state.lock();
                if state.sleepers.get(&ticket).is_none_or(|(_, admitted)| *admitted) {
                    place.admitted = true;
                    drop(state);
                    let permit = Permit { shared: self.shared.clone() };
                    drop(place);
                    return permit;
                }
                state.alarm.filter(|_| state.watch == Some(ticket))
            };
            tokio::select! {
                biased;
                () = bell.notified() => {}
                () = alarm(until) => self.shared.state.lock().turn(now()),
            }
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().admission.len()
    }

    /// How many are in.
    pub fn admitted(&self) -> usize {
        self.shared.state.lock().admission.admitted()
    }
}

async fn alarm(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

impl<U: Ord + Copy> State<U> {
    /// Lets in whom it can, and sees to it that somebody watches the clock for the rest.
    fn turn(&mut self, now: Instant) {
        while let Some(ticket) = self.admission.admit(now) {
            if self.watch == Some(ticket) {
                self.watch = None;
            }
            if let Some((bell, admitted)) = self.sleepers.get_mut(&ticket) {
                *admitted = true;
                bell.notify_one();
            }
        }
        let due = self.admission.due();
        if self.watch.is_some() && self.alarm == due {
            return;
        }
        self.watch = self.watch.or_else(|| self.admission.first());
        self.alarm = due;
        if let Some((bell, _)) = self.watch.and_then(|watch| self.sleepers.get(&watch)) {
            bell.notify_one();
        }
    }
}

/// A place in the queue; its end is seen even if the future is dropped.
struct Place<'a, U: Ord + Copy> {
    shared: &'a Shared<U>,
    ticket: Ticket,
    /// The permit has it now.
    admitted: bool,
}

impl<U: Ord + Copy> Drop for Place<'_, U> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.sleepers.remove(&self.ticket);
        if self.admitted {
            return;
        }
        if state.watch == Some(self.ticket) {
            state.watch = None;
        }
        if !state.admission.cancel(self.ticket) {
            state.admission.leave();
        }
        state.turn(now());
    }
}

/// To be kept while inside.
#[must_use = "who drops the permit is out again"]
pub struct Permit<U: Ord + Copy = Urgency> {
    shared: Arc<Shared<U>>,
}

impl<U: Ord + Copy> Drop for Permit<U> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.admission.leave();
        state.turn(now());
    }
}
