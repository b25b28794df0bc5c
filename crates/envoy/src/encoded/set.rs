//! What one class of proxies gets: [`ResourceSet`] per type, [`Snapshot`] of all.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::layer::{self, Layer, Layers};
use super::resource::{Resource, Version};
use crate::types::TypeUrl;

/// All resources of one type for one class of proxies, with the version of the whole: those that the class shares with
/// others, and its own.
#[derive(Clone, Debug, Default)]
pub struct ResourceSet {
    shared: Arc<Layer>,
    own: Arc<Layer>,
}

static EMPTY: LazyLock<Arc<ResourceSet>> = LazyLock::new(Arc::default);

impl ResourceSet {
    /// Of two resources with one name the first stays.
    pub fn new(resources: impl IntoIterator<Item = Resource>) -> Self {
        ResourceSet { shared: Arc::new(Layer::new(resources)), own: Layer::empty() }
    }

    /// A shared name hides the own one.
    pub fn layered(shared: &Arc<Layer>, own: &Arc<Layer>) -> Self {
        let hidden = own.iter().any(|r| shared.get(r.name()).is_some());
        let own = if hidden { Arc::new(Layer::new(own.iter().filter(|r| shared.get(r.name()).is_none()).cloned())) } else { own.clone() };
        ResourceSet { shared: shared.clone(), own }
    }

    /// Hash of names and versions.
    pub fn version(&self) -> Version {
        Version(self.shared.version().0.wrapping_add(self.own.version().0))
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Resource> {
        self.shared.get(name).or_else(|| self.own.get(name))
    }

    /// By names that mostly ascend: many are found at the cost of few comparisons each.
    pub fn finder(&self) -> Finder<'_> {
        Finder { shared: layer::Finder::new(&self.shared), own: layer::Finder::new(&self.own) }
    }

    /// In the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        let (mut a, mut b) = (self.shared.iter().peekable(), self.own.iter().peekable());
        std::iter::from_fn(move || match (a.peek(), b.peek()) {
            (Some(x), Some(y)) if x.name() > y.name() => b.next(),
            (None, Some(_)) => b.next(),
            _ => a.next(),
        })
    }

    /// Names that may differ from `base`; `None` if only a comparison can tell. A name may come twice.
    pub fn changed_since(&self, base: &ResourceSet) -> Option<impl Iterator<Item = &Arc<str>> + use<'_>> {
        Some(self.shared.changed_since(&base.shared)?.chain(self.own.changed_since(&base.own)?))
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.shared.len() + self.own.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// See [`ResourceSet::finder`].
pub struct Finder<'a> {
    shared: layer::Finder<'a>,
    own: layer::Finder<'a>,
}

impl<'a> Finder<'a> {
    /// As [`ResourceSet::get`].
    pub fn find(&mut self, name: &str) -> Option<&'a Resource> {
        self.shared.find(name).or_else(|| self.own.find(name))
    }
}

impl PartialEq for ResourceSet {
    /// By content, however it is layered.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for ResourceSet {}

/// Everything that one class of proxies gets, by type. A type that is absent has no resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    sets: BTreeMap<TypeUrl, Arc<ResourceSet>>,
}

impl Snapshot {
    /// An empty snapshot.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a class shares with others, the assignments of that, and its own.
    pub fn from_layers(shared: &Layers, endpoints: &Arc<Layer>, own: &Layers) -> Self {
        let mut snapshot = Snapshot::new();
        for type_url in TypeUrl::ALL {
            let shared = if type_url == TypeUrl::Endpoint { endpoints } else { shared.get(type_url) };
            let own = own.get(type_url);
            if !(shared.is_empty() && own.is_empty()) {
                snapshot.insert(type_url, ResourceSet::layered(shared, own));
            }
        }
        snapshot
    }

    /// Replaces the resources of one type.
    pub fn insert(&mut self, type_url: TypeUrl, set: impl Into<Arc<ResourceSet>>) {
        self.sets.insert(type_url, set.into());
    }

    /// The resources of one type.
    pub fn get(&self, type_url: TypeUrl) -> &Arc<ResourceSet> {
        self.sets.get(&type_url).unwrap_or(&EMPTY)
    }

    /// The types that have resources.
    pub fn iter(&self) -> impl Iterator<Item = (TypeUrl, &Arc<ResourceSet>)> {
        self.sets.iter().map(|(t, s)| (*t, s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoded::testing::{layer, resource};

    #[test]
    fn versions_follow_content_only() {
        let set = |names: &[&str]| ResourceSet::new(names.iter().map(|n| resource(n, n))).version();
        assert_eq!(set(&["a", "b"]), set(&["b", "a"]));
        assert_ne!(set(&["a", "b"]), set(&["a"]));
        assert_eq!(Version::parse(&set(&["a"]).to_string()), Some(set(&["a"])));
        assert_eq!(Version::parse("2026-01-01T00:00:00Z/7"), None);
    }

    #[test]
    fn how_a_set_is_layered_does_not_show() {
        let flat = ResourceSet::new([resource("a", "1"), resource("b", "1"), resource("c", "1"), resource("d", "1")]);
        let layered = ResourceSet::layered(&layer(&[("b", "1"), ("d", "1")]), &layer(&[("a", "1"), ("c", "1"), ("d", "hidden")]));
        assert_eq!((&layered, layered.version(), layered.len()), (&flat, flat.version(), 4));
        assert_eq!(layered.iter().map(|r| &**r.name()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(layered.get("d"), Some(&resource("d", "1")));
    }

    #[test]
    fn changes_of_both_layers_are_known() {
        let (shared, own) = (layer(&[("a", "1"), ("b", "1")]), layer(&[("x", "1")]));
        let base = ResourceSet::layered(&shared, &own);
        let new = ResourceSet::layered(&shared.updated([("b".into(), Some(resource("b", "2")))]), &own.updated([("x".into(), None)]));
        let names: Vec<_> = new.changed_since(&base).unwrap().map(|n| &**n).collect();
        assert_eq!(names, ["b", "x"]);
    }
}
