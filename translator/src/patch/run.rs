//! One resource with its patches: applied all, or where that would break it, without those that do.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pilotfish_model::envoy_filter::{ApplyTo, PatchContext};

use super::compile::Ready;
use super::set::{Patches, PortNames};

/// Of patches that do not go together in a resource so many are tried one by one.
const MAX_TRIALS: usize = 64;

/// A pass over one resource. Patches are named by their places in the list of [`Patches`].
pub(super) struct Run<'a> {
    patches: &'a Patches,
    /// Patches that count; `None`: all.
    only: Option<&'a BTreeSet<usize>>,
    /// How resources of the context are told apart.
    pub(super) context: PatchContext,
    /// Of a gateway.
    pub(super) ports: &'a PortNames,
    notes: RefCell<Notes>,
}

/// What a pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// How often each patch was applied.
    pub(super) applied: BTreeMap<usize, usize>,
    /// Why patches were not.
    pub(super) failed: BTreeMap<usize, String>,
}

/// What became of a resource.
#[derive(Debug, PartialEq)]
pub(super) enum Result<M> {
    /// No patch is for it.
    Unchanged,
    /// Patched.
    Changed(M),
    /// Taken out.
    Removed,
}

impl<'a> Run<'a> {
    /// Patches of one thing that count, with their places.
    pub(super) fn of_kind(&self, apply_to: ApplyTo) -> impl Iterator<Item = (usize, &'a Ready)> + use<'a> {
        let only = self.only;
        self.patches.of_kind(apply_to, self.context).filter(move |(at, _)| only.is_none_or(|o| o.contains(at)))
    }

    /// A patch was applied.
    pub(super) fn applied(&self, at: usize) {
        *self.notes.borrow_mut().applied.entry(at).or_insert(0) += 1;
    }

    /// A patch should have been and could not.
    pub(super) fn failed(&self, at: usize, why: impl ToString) {
        self.notes.borrow_mut().failed.entry(at).or_insert_with(|| why.to_string());
    }

    /// Applied, or why not.
    pub(super) fn note<E: ToString>(&self, at: usize, outcome: std::result::Result<(), E>) {
        match outcome {
            Ok(()) => self.applied(at),
            Err(why) => self.failed(at, why),
        }
    }
}

/// Patches a resource. `patch` returns `None` to take it out; `sound` says what a client would refuse.
pub(super) fn run<M: Clone>(
    patches: &Patches,
    context: PatchContext,
    ports: &PortNames,
    original: &M,
    patch: impl Fn(&Run<'_>, M) -> Option<M>,
    sound: impl Fn(&M) -> std::result::Result<(), String>,
) -> (Result<M>, Notes) {
    let pass = |only: Option<&BTreeSet<usize>>| -> (std::result::Result<Option<M>, String>, Notes) {
        let run = Run { patches, only, context, ports, notes: RefCell::default() };
        // What went wrong in the middle is thrown away as a whole, so nobody sees it.
        let made = catch_unwind(AssertUnwindSafe(|| patch(&run, original.clone())));
        let made = made.map_err(|_| "the patch could not be applied: internal error".to_owned());
        let notes = run.notes.into_inner();
        match made {
            Ok(Some(message)) if !notes.applied.is_empty() => (sound(&message).map(|()| Some(message)), notes),
            made => (made, notes),
        }
    };
    let result = |made: Option<M>, notes: &Notes| match made {
        None => Result::Removed,
        Some(_) if notes.applied.is_empty() => Result::Unchanged,
        Some(message) => Result::Changed(message),
    };
    let (made, notes) = pass(None);
    let Err(broken) = made else {
        let made = made.ok().flatten();
        return (result(made, &notes), notes);
    };
    // One after the other, so that only those are left out that break what the ones before them made.
    let suspects: Vec<usize> = notes.applied.keys().copied().collect();
    let (mut kept, mut failed) = (BTreeSet::new(), notes.failed);
    let (mut best, mut applied) = (Result::Unchanged, BTreeMap::new());
    for (trial, at) in suspects.iter().enumerate() {
        if trial >= MAX_TRIALS {
            failed.insert(*at, format!("not tried: too many patches of a resource that one of them breaks: {broken}"));
            continue;
        }
        kept.insert(*at);
        match pass(Some(&kept)) {
            (Ok(made), notes) => {
                best = result(made, &notes);
                applied = notes.applied;
            }
            (Err(why), _) => {
                kept.remove(at);
                failed.insert(*at, why);
            }
        }
    }
    (best, Notes { applied, failed })
}
