//! [`Task`]: does what the [`Writer`] decides, while this replica leads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, StatusCode};
use imbl::ordmap::DiffItem;
use pilotfish_model::diagnostic::Severity;
use pilotfish_model::{Diagnostic, Kind, ObjectId};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::condition::{Condition, Observed, State as Is};
use super::report::Reports;
use super::writer::{Counts, Limits, Outcome, Plan, Writer};
use super::{FIELD_MANAGER, WRITTEN};
use crate::addresses::{Allocator, Pools};
use crate::api::{APPLY, Api, ApiError, Call, rfc3339};
use crate::index::Snapshot;
use crate::lease::{FIRST_TERM, Leadership};
use crate::run::State;
use crate::source::kube::path;

/// What is written.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Conditions.
    pub conditions: bool,
    /// Addresses of ServiceEntries, out of these.
    pub addresses: Option<Pools>,
    /// How much.
    pub limits: Limits,
}

/// See the module's documentation.
pub struct Task<A> {
    api: A,
    options: Options,
    state: watch::Receiver<State>,
    reports: watch::Receiver<Option<Arc<Reports>>>,
    leadership: Leadership,
    counts: watch::Sender<Counts>,
    writer: Writer,
    allocator: Option<Allocator>,
    /// What was taken in last.
    known: Snapshot,
    /// Findings by object.
    findings: BTreeMap<ObjectId, Vec<Diagnostic>>,
    /// Findings that only the mesh as a whole shows.
    between: watch::Receiver<Between>,
    /// Those that were taken in.
    known_between: Between,
    /// The term that this replica leads in.
    term: Option<u64>,
    /// The last one that it led in.
    led: Option<u64>,
    said: BTreeMap<Kind, String>,
}

/// Findings that only the mesh as a whole shows, by object.
pub type Between = Arc<BTreeMap<ObjectId, Vec<Diagnostic>>>;

type Done = (Plan, Result<Outcome, (Outcome, ApiError)>);

impl<A: Api> Task<A> {
    /// What it did is told through the receiver.
    pub fn new(
        api: A,
        options: Options,
        state: watch::Receiver<State>,
        reports: watch::Receiver<Option<Arc<Reports>>>,
        between: watch::Receiver<Between>,
        leadership: Leadership,
    ) -> (Self, watch::Receiver<Counts>) {
        let (counts, counted) = watch::channel(Counts::default());
        let writer = Writer::new(options.limits, Instant::now());
        let allocator = options.addresses.clone().map(Allocator::new);
        let task = Task {
            api,
            options,
            state,
            reports,
            leadership,
            counts,
            writer,
            allocator,
            known: Snapshot::default(),
            findings: BTreeMap::new(),
            between,
            known_between: Between::default(),
            term: None,
            led: None,
            said: BTreeMap::new(),
        };
        (task, counted)
    }

    /// Ends when nobody publishes states any more. Writes that are under way then are cut off.
    pub async fn run(mut self) -> Result<(), JoinError> {
        let mut writes: JoinSet<Done> = JoinSet::new();
        self.take_state();
        loop {
            self.note_term();
            self.allocate();
            let leads = self.leadership.holds(Instant::now()).is_some();
            while leads && let Some(plan) = self.writer.next(Instant::now()) {
                writes.spawn(write(self.api.clone(), plan, self.leadership.clone()));
            }
            self.counts.send_replace(self.writer.counts());
            let wake = self.writer.wake().filter(|_| leads);
            tokio::select! {
                changed = self.state.changed() => match changed {
                    Ok(()) => self.take_state(),
                    Err(_) => return Ok(()),
                },
                Ok(()) = self.reports.changed() => {
                    let reports = self.reports.borrow_and_update().clone();
                    if let Some(reports) = reports.filter(|_| self.options.conditions) {
                        self.writer.report(&reports, Instant::now());
                    }
                }
                Ok(()) = self.between.changed() => self.take_between(),
                () = self.leadership.changed() => {}
                Some(done) = writes.join_next() => self.done(done?),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    fn done(&mut self, (plan, outcome): Done) {
        let outcome = match outcome {
            Ok(outcome) => {
                self.said.remove(&plan.id.kind);
                outcome
            }
            Err((outcome, error)) => {
                // A missing permission concerns all objects of a kind: once is enough.
                let text = error.to_string();
                if self.said.insert(plan.id.kind, text.clone()).as_ref() != Some(&text) {
                    tracing::warn!(
                        kind = plan.id.kind.as_str(),
                        ns = &*plan.id.namespace,
                        name = &*plan.id.name,
                        "status not written: {text}"
                    );
                }
                outcome
            }
        };
        tracing::debug!(object = %plan.id, ?outcome, "status");
        self.writer.done(&plan, outcome, Instant::now());
    }

    /// Takes in what is new since the last time.
    fn take_state(&mut self) {
        let snapshot = self.state.borrow_and_update().snapshot.clone();
        let now = Instant::now();
        let mut changed: BTreeMap<ObjectId, Option<Arc<Observed>>> = BTreeMap::new();
        // Most news are of endpoints.
        if !self.known.statuses.ptr_eq(&snapshot.statuses) {
            for item in self.known.statuses.diff(&snapshot.statuses) {
                match item {
                    DiffItem::Add(id, observed) | DiffItem::Update { new: (id, observed), .. } => {
                        changed.insert(id.clone(), Some(observed.clone()));
                    }
                    DiffItem::Remove(id, _) => drop(changed.insert(id.clone(), None)),
                }
            }
        }
        if !Arc::ptr_eq(&self.known.diagnostics, &snapshot.diagnostics) {
            let mut findings: BTreeMap<ObjectId, Vec<Diagnostic>> = BTreeMap::new();
            for d in snapshot.diagnostics.iter().filter(|d| WRITTEN.contains(&d.object.kind)) {
                findings.entry(d.object.clone()).or_default().push(d.clone());
            }
            let before = std::mem::replace(&mut self.findings, findings);
            let differs = |id: &&ObjectId| before.get(*id) != self.findings.get(*id);
            for id in before.keys().chain(self.findings.keys()).filter(differs) {
                if let Some(observed) = snapshot.statuses.get(id) {
                    changed.insert(id.clone(), Some(observed.clone()));
                }
            }
        }
        if let Some(allocator) = &mut self.allocator
            && !self.known.objects.ptr_eq(&snapshot.objects)
        {
            let entries = |id: &ObjectId| id.kind == Kind::ServiceEntry;
            for item in self.known.objects.diff(&snapshot.objects) {
                match item {
                    DiffItem::Add(id, raw) | DiffItem::Update { new: (id, raw), .. } if entries(id) => {
                        // One of a file has no status to be written to.
                        let raw = snapshot.statuses.contains_key(id).then_some(&**raw);
                        allocator.see(id, raw);
                    }
                    DiffItem::Remove(id, _) if entries(id) => allocator.see(id, None),
                    _ => {}
                }
            }
        }
        for (id, observed) in changed {
            match observed {
                None => self.writer.forget(&id),
                Some(observed) => {
                    self.see(&id, &observed, now);
                    if let Some(allocator) = &mut self.allocator {
                        allocator.ask(&id);
                    }
                }
            }
        }
        self.known = snapshot;
    }

    fn see(&mut self, id: &ObjectId, observed: &Observed, now: Instant) {
        let findings = self.findings.get(id).into_iter().chain(self.known_between.get(id)).flatten();
        let accepted = self.options.conditions.then(|| accepted(findings, observed.generation));
        self.writer.see(id, observed.clone(), accepted, now);
    }

    fn take_between(&mut self) {
        let now = Instant::now();
        let new = self.between.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.known_between, new);
        let differs = |id: &&ObjectId| before.get(*id) != self.known_between.get(*id);
        let changed: BTreeSet<ObjectId> = before.keys().chain(self.known_between.keys()).filter(differs).cloned().collect();
        for id in changed {
            if let Some(observed) = self.known.statuses.get(&id).cloned() {
                self.see(&id, &observed, now);
            }
        }
    }

    /// Begins anew where others may have written meanwhile.
    fn note_term(&mut self) {
        let term = self.leadership.holds(Instant::now());
        if term == self.term {
            return;
        }
        if let Some(allocator) = &mut self.allocator {
            allocator.start_over();
        }
        if term.is_some_and(|term| term > FIRST_TERM && Some(term) != self.led) {
            self.writer.took_over(Instant::now());
        }
        self.led = term.or(self.led);
        self.term = term;
    }

    /// Gives addresses to those that need some. Only a leader does: what others give is seen in the objects.
    fn allocate(&mut self) {
        let Some(allocator) = self.allocator.as_mut().filter(|_| self.term.is_some()) else { return };
        let now = Instant::now();
        for (id, addresses) in allocator.allocate() {
            self.writer.set_addresses(&id, addresses, now);
        }
    }
}

/// What is said of an object with such findings.
fn accepted<'a>(findings: impl Iterator<Item = &'a Diagnostic>, generation: u64) -> Condition {
    let findings: Vec<&Diagnostic> = findings.collect();
    let said = |severity: Severity| {
        let said = findings.iter().filter(|d| d.severity == severity).map(|d| {
            let colon = if d.field.is_empty() { "" } else { ": " };
            format!("{}{colon}{}", d.field, d.message)
        });
        said.collect::<Vec<_>>().join("; ")
    };
    let (errors, warnings) = (said(Severity::Error), said(Severity::Warning));
    match (errors.is_empty(), warnings.is_empty()) {
        (false, _) => Condition::new(Is::False, "Invalid", errors, generation),
        (true, false) => Condition::new(Is::True, "Warnings", warnings, generation),
        (true, true) => Condition::new(Is::True, "Accepted", String::new(), generation),
    }
}

/// How often a merge is done again because somebody else was quicker.
const RACES: usize = 3;

/// Reads, merges and applies.
async fn write<A: Api>(api: A, plan: Plan, leadership: Leadership) -> Done {
    let outcome = attempt(&api, &plan, &leadership).await;
    (plan, outcome)
}

async fn attempt<A: Api>(api: &A, plan: &Plan, leadership: &Leadership) -> Result<Outcome, (Outcome, ApiError)> {
    let mut refused = None;
    for _ in 0..RACES {
        let Some((path, current)) = read(api, &plan.id).await.map_err(unread)? else { return Ok(Outcome::Gone) };
        let observed = Observed::of(&current);
        if observed.generation != plan.generation {
            return Ok(Outcome::Stale);
        }
        let Some(body) = plan.desired.document(&current, &rfc3339(SystemTime::now(), 0)) else { return Ok(Outcome::Unchanged(observed)) };
        if leadership.holds(Instant::now()).is_none() {
            return Ok(Outcome::Stale);
        }
        let path = format!("{path}/status?fieldManager={FIELD_MANAGER}&force=true");
        match api.call(Call { method: Method::PATCH, path, content_type: APPLY, body }).await {
            Ok(object) => return Ok(Outcome::Written(Observed::of(&object))),
            Err(e) => match e.code() {
                Some(StatusCode::CONFLICT) => refused = Some(e),
                Some(StatusCode::NOT_FOUND) => return Ok(Outcome::Gone),
                Some(StatusCode::FORBIDDEN) => return Err((Outcome::Forbidden, e)),
                Some(_) => return Err((Outcome::Failed, e)),
                None => return Err((Outcome::Unknown, e)),
            },
        }
    }
    let error = refused.unwrap_or_else(|| ApiError::Unknown("never asked".into()));
    Err((Outcome::Failed, error))
}

fn unread(error: ApiError) -> (Outcome, ApiError) {
    let forbidden = error.code() == Some(StatusCode::FORBIDDEN);
    (if forbidden { Outcome::Forbidden } else { Outcome::Failed }, error)
}

/// An object in a version that the server serves, and where it is.
async fn read<A: Api>(api: &A, id: &ObjectId) -> Result<Option<(String, serde_json::Value)>, ApiError> {
    for version in path::versions(id.kind) {
        let path = path::object(id, version);
        match api.call(Call::get(&path)).await {
            Ok(object) => return Ok(Some((path, object))),
            Err(e) if e.code() == Some(StatusCode::NOT_FOUND) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}
