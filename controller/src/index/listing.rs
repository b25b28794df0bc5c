//! [`Listing`]: what is shown of objects beside the mesh. Of namespaces that are not part of the mesh nothing is shown; it is
//! laid aside until they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use pilotfish_model::name::Str;
use pilotfish_model::{Diagnostic, Kind, ObjectId};

use crate::status::Observed;

/// What is shown of one object.
#[derive(Clone, Default)]
pub(super) struct Entry {
    /// The whole as JSON.
    pub(super) raw: Option<Str>,
    /// What the API server has as its status.
    pub(super) status: Option<Arc<Observed>>,
    /// What is wrong with it.
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.raw.is_none() && self.status.is_none() && self.diagnostics.is_empty()
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Listing {
    raw: OrdMap<ObjectId, Str>,
    statuses: OrdMap<ObjectId, Arc<Observed>>,
    diagnostics: BTreeMap<ObjectId, Vec<Diagnostic>>,
    aside: BTreeMap<ObjectId, Entry>,
    /// All diagnostics in one list, while none has changed: a snapshot is taken with every update.
    listed: Option<Arc<Vec<Diagnostic>>>,
    /// Goes up with everything that is shown.
    revision: u64,
}

/// Objects, statuses, diagnostics and the revision.
type Shown = (OrdMap<ObjectId, Str>, OrdMap<ObjectId, Arc<Observed>>, Arc<Vec<Diagnostic>>, u64);

impl Listing {
    pub(super) fn snapshot(&mut self) -> Shown {
        let all = &self.diagnostics;
        let diagnostics = self.listed.get_or_insert_with(|| Arc::new(all.values().flatten().cloned().collect())).clone();
        (self.raw.clone(), self.statuses.clone(), diagnostics, self.revision)
    }

    /// Replaces all that there is to say of an object.
    pub(super) fn set(&mut self, id: &ObjectId, entry: Entry, shown: bool) {
        if !self.aside.is_empty() {
            self.aside.remove(id);
        }
        if !shown {
            self.show(id, Entry::default());
            if !entry.is_empty() {
                self.aside.insert(id.clone(), entry);
            }
            return;
        }
        self.show(id, entry);
    }

    fn show(&mut self, id: &ObjectId, entry: Entry) {
        let Entry { raw, status, diagnostics } = entry;
        let revision = self.revision + 1;
        if self.raw.get(id) != raw.as_ref() {
            self.revision = revision;
            match raw {
                Some(raw) => drop(self.raw.insert(id.clone(), raw)),
                None => drop(self.raw.remove(id)),
            }
        }
        if self.statuses.get(id) != status.as_ref() {
            self.revision = revision;
            match status {
                Some(status) => drop(self.statuses.insert(id.clone(), status)),
                None => drop(self.statuses.remove(id)),
            }
        }
        if self.diagnostics.get(id).map_or(&[][..], Vec::as_slice) != diagnostics {
            self.revision = revision;
            self.listed = None;
            if diagnostics.is_empty() {
                self.diagnostics.remove(id);
            } else {
                self.diagnostics.insert(id.clone(), diagnostics);
            }
        }
    }

    /// All that there is to say of an object, shown or not.
    pub(super) fn get(&self, id: &ObjectId) -> Entry {
        match self.aside.get(id) {
            Some(entry) => entry.clone(),
            None => {
                Entry { raw: self.raw.get(id).cloned(), status: self.statuses.get(id).cloned(), diagnostics: self.diagnostics(id).to_vec() }
            }
        }
    }

    pub(super) fn raw(&self, id: &ObjectId) -> Option<Str> {
        self.aside.get(id).map_or_else(|| self.raw.get(id), |entry| entry.raw.as_ref()).cloned()
    }

    /// What is shown to be wrong with an object.
    pub(super) fn diagnostics(&self, id: &ObjectId) -> &[Diagnostic] {
        self.diagnostics.get(id).map_or(&[], Vec::as_slice)
    }

    /// Objects of a kind, of one namespace or of all, of which there is anything to say. Some may come twice.
    pub(super) fn ids<'a>(&'a self, kind: Kind, namespace: Option<&'a str>) -> impl Iterator<Item = &'a ObjectId> + use<'a> {
        let first = ObjectId::new(kind, namespace.unwrap_or_default(), "");
        let within = move |id: &&ObjectId| id.kind == kind && namespace.is_none_or(|ns| &*id.namespace == ns);
        let raw = self.raw.range(first.clone()..).map(|(id, _)| id).take_while(within);
        let statuses = self.statuses.range(first.clone()..).map(|(id, _)| id).take_while(within);
        let diagnostics = self.diagnostics.range(first.clone()..).map(|(id, _)| id).take_while(within);
        let aside = self.aside.range(first..).map(|(id, _)| id).take_while(within);
        raw.chain(statuses).chain(diagnostics).chain(aside)
    }

    /// Shows what there is of a namespace, or lays it aside.
    pub(super) fn set_shown(&mut self, namespace: &str, shown: bool) {
        let ids: BTreeSet<ObjectId> = Kind::ALL.iter().flat_map(|kind| self.ids(*kind, Some(namespace))).cloned().collect();
        for id in &ids {
            if self.aside.contains_key(id) == shown {
                let entry = self.get(id);
                self.set(id, entry, shown);
            }
        }
    }

    /// Namespaces of which there is anything to say.
    pub(super) fn namespaces(&self) -> BTreeSet<Str> {
        let all = Kind::ALL.iter().flat_map(|kind| self.ids(*kind, None));
        all.map(|id| id.namespace.clone()).filter(|ns| !ns.is_empty()).collect()
    }
}
