//! What became of patches, for who tells users.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use pilotfish_model::{Diagnostic, ObjectId};

use super::layers::Patched;

/// A patch of an EnvoyFilter in one view or own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The EnvoyFilter.
    pub object: ObjectId,
    /// Which of its `configPatches`.
    pub index: usize,
    /// How often it was applied.
    pub times: usize,
    /// Why it was not, where it should have been: the last form without it is served there.
    pub error: Option<Arc<str>>,
}

impl Patched {
    /// Each patch of the scope.
    pub(crate) fn report(&self) -> Vec<Applied> {
        let applied = self.found().map(|(ready, times, error)| Applied {
            object: ready.object.clone(),
            index: ready.patch.index,
            times,
            error: error.map(Arc::from),
        });
        applied.collect()
    }
}

/// What users should know of all that proxies get: patches that failed somewhere, and patches that matched nowhere. `all` must
/// be of every view and own there is, or patches of those that are missing seem to match nothing.
pub fn diagnostics(all: impl IntoIterator<Item = Applied>) -> Vec<Diagnostic> {
    let mut by_patch: BTreeMap<(ObjectId, usize), Applied> = BTreeMap::new();
    for applied in all {
        match by_patch.entry((applied.object.clone(), applied.index)) {
            Entry::Vacant(first) => drop(first.insert(applied)),
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                known.times += applied.times;
                known.error = known.error.take().or(applied.error);
            }
        }
    }
    let told = by_patch.into_values().filter_map(|Applied { object, index, times, error }| {
        let field = format!("spec.configPatches[{index}]");
        match (error, times) {
            (Some(error), _) => Some(Diagnostic::error(&object, field, error.to_string())),
            (None, 0) => Some(Diagnostic::warning(&object, field, "matches nothing that a proxy gets")),
            (None, _) => None,
        }
    });
    told.collect()
}
