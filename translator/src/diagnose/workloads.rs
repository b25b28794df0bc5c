//! [`Workloads`]: which workloads there are, by what selectors look at.

use std::collections::{BTreeMap, BTreeSet};

use pilotfish_model::mesh::Mesh;
use pilotfish_model::name::{Labels, Str, Visibility, selects};

/// Labels of workloads, each set once per namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workloads(BTreeMap<Str, BTreeSet<Labels>>);

impl Workloads {
    /// Those of the mesh.
    pub fn of(mesh: &Mesh) -> Self {
        let mut workloads = Workloads::default();
        for instance in mesh.workloads.values().flat_map(|w| w.iter()) {
            workloads.add(&instance.workload.namespace, &instance.workload.labels);
        }
        workloads
    }

    /// One more, such as a proxy that is connected and that the mesh knows nothing of.
    pub fn add(&mut self, namespace: &Str, labels: &Labels) {
        let known = match self.0.get_mut(namespace) {
            Some(known) => known,
            None => self.0.entry(namespace.clone()).or_default(),
        };
        if !known.contains(labels) {
            known.insert(labels.clone());
        }
    }

    /// Namespaces that have any.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Str> {
        self.0.keys()
    }

    /// Why nobody sees what an object of namespace `own` exports like this, if so.
    pub(super) fn unseen(&self, visibility: &Visibility, own: &str) -> Option<String> {
        match visibility {
            Visibility::None => Some("it is exported to nobody".to_owned()),
            Visibility::Namespaces(list) if !self.0.keys().any(|ns| visibility.allows(own, ns)) => {
                Some(format!("there is no workload in {}", list.iter().map(|ns| &**ns).collect::<Vec<_>>().join(", ")))
            }
            _ => None,
        }
    }

    /// Labels of one namespace, or of all.
    pub(super) fn within<'a>(&'a self, namespace: Option<&'a str>) -> impl Iterator<Item = (&'a Str, &'a Labels)> {
        let wanted = self.0.iter().filter(move |(ns, _)| namespace.is_none_or(|wanted| ***ns == *wanted));
        wanted.flat_map(|(ns, all)| all.iter().map(move |labels| (ns, labels)))
    }

    /// Those that a selector selects.
    pub(super) fn selected<'a>(&'a self, namespace: Option<&'a str>, selector: &'a Labels) -> impl Iterator<Item = (&'a Str, &'a Labels)> {
        self.within(namespace).filter(move |(_, labels)| selects(selector, labels))
    }
}

/// As a user would write them.
pub(super) fn shown(labels: &Labels) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}
