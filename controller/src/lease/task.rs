//! [`run`]: the task that holds on to the Lease, or waits for it.

use std::future::Future;
use std::time::SystemTime;

use http::{Method, StatusCode};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Election, Leadership, Record, Step, Term, Timing};
use crate::api::{Api, ApiError, Call, JSON, rfc3339};

/// Which Lease, and who wants it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// A name that no other process ever has.
    pub identity: String,
    /// Its times.
    pub timing: Timing,
}

/// Elects until `stop` ends, then gives the lead up. The future must be polled for [`Leadership`] to mean anything.
pub fn run<A: Api>(api: A, lease: Lease, stop: impl Future<Output = ()>) -> (Leadership, impl Future<Output = ()>) {
    let (out, leadership) = watch::channel(None);
    let election = Election::new(lease.identity.clone(), lease.timing);
    (Leadership(leadership), Task { api, lease, election, out, said: None }.run(stop))
}

struct Task<A> {
    api: A,
    lease: Lease,
    election: Election,
    out: watch::Sender<Option<Term>>,
    said: Option<ApiError>,
}

impl<A: Api> Task<A> {
    async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let next = Instant::now() + self.lease.timing.period();
            // A request that never ends must not keep the term from ending.
            let stopped = tokio::select! {
                () = &mut stop => true,
                () = self.round() => false,
            };
            if stopped || self.pause(next, &mut stop).await {
                return self.resign().await;
            }
        }
    }

    /// Waits for the next round, and ends the term on time. True if it is time to stop.
    async fn pause(&mut self, next: Instant, stop: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        loop {
            self.tell();
            let until = self.out.borrow().and_then(|t| t.until).map_or(next, |until| until.min(next));
            tokio::select! {
                () = &mut *stop => return true,
                () = sleep_until(until) => {}
            }
            if Instant::now() >= next {
                self.tell();
                return false;
            }
        }
    }

    /// Reads the Lease and does what that asks for.
    async fn round(&mut self) {
        match self.ask().await {
            Ok(()) => self.said = None,
            Err(e) => {
                // Losing a race is how elections go.
                if e.code() != Some(StatusCode::CONFLICT) && self.said.as_ref() != Some(&e) {
                    tracing::warn!(lease = self.lease.name, "no election: {e}");
                    self.said = Some(e);
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<(), ApiError> {
        let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.lease.namespace);
        let path = format!("{leases}/{}", self.lease.name);
        let known = match self.api.call(Call::get(&path)).await {
            Ok(lease) => Some(Record::read(&lease)),
            Err(e) if e.code() == Some(StatusCode::NOT_FOUND) => None,
            Err(e) => return Err(e),
        };
        let started = Instant::now();
        let step = self.election.read(known, started, &rfc3339(SystemTime::now(), 6));
        self.tell();
        let Step::Write(record, version) = step else { return Ok(()) };
        let (method, path) = if version.is_some() { (Method::PUT, path) } else { (Method::POST, leases) };
        let body = record.write(&self.lease.namespace, &self.lease.name, version.as_deref());
        let lease = self.api.call(Call { method, path, content_type: JSON, body }).await?;
        let (record, version) = Record::read(&lease);
        self.election.wrote(record, version, started);
        self.tell();
        Ok(())
    }

    /// Publishes what changed of the term.
    fn tell(&self) {
        let term = self.election.term(Instant::now());
        let led = |t: &Option<Term>| t.map(|t| t.number);
        self.out.send_if_modified(|known| {
            let changed = led(known) != led(&term);
            if changed {
                let lease = &self.lease;
                match term {
                    Some(_) => tracing::info!(lease = lease.name, identity = lease.identity, "leads"),
                    None => tracing::info!(lease = lease.name, identity = lease.identity, "leads no more"),
                }
            }
            *known = term;
            changed
        });
    }

    async fn resign(mut self) {
        let resigned = self.election.resign();
        self.tell();
        let Some((record, version)) = resigned else { return };
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/{}", self.lease.namespace, self.lease.name);
        let body = record.write(&self.lease.namespace, &self.lease.name, Some(&version));
        if let Err(e) = self.api.call(Call { method: Method::PUT, path, content_type: JSON, body }).await {
            tracing::debug!(lease = self.lease.name, "not given back: {e}");
        }
    }
}
