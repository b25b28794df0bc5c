//! Resources of one type that several classes share: [`Layer`].

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::resource::{Resource, Version};
use crate::types::TypeUrl;

/// How many earlier layers a layer remembers the difference to, and how many names that may take.
const STEPS: usize = 8;
const NAMES: usize = 256;

/// Resources of one type, in the order of names, with the version of the whole.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    resources: Vec<Resource>,
    version: Version,
    /// How it came to be out of earlier ones, the newest step first.
    steps: Vec<Arc<Step>>,
}

#[derive(Debug)]
struct Step {
    from: Version,
    names: Vec<Arc<str>>,
}

static EMPTY: LazyLock<Arc<Layer>> = LazyLock::new(Arc::default);

impl Layer {
    /// Of two resources with one name the first stays.
    pub fn new(resources: impl IntoIterator<Item = Resource>) -> Self {
        let mut resources: Vec<Resource> = resources.into_iter().collect();
        // Stable, so the first of equal names comes first.
        resources.sort_by(|a, b| a.name().cmp(b.name()));
        resources.dedup_by(|later, first| later.name() == first.name());
        resources.shrink_to_fit();
        let version = resources.iter().fold(0u128, |sum, r| sum.wrapping_add(r.entry_hash()));
        Layer { resources, version: Version(version), steps: Vec::new() }
    }

    /// A layer without resources.
    pub fn empty() -> Arc<Layer> {
        EMPTY.clone()
    }

    /// This layer with some resources replaced, added or (`None`) removed. The very same one if nothing differs.
    pub fn updated(self: &Arc<Self>, changes: impl IntoIterator<Item = (Arc<str>, Option<Resource>)>) -> Arc<Self> {
        let mut changes: BTreeMap<Arc<str>, Option<Resource>> = changes.into_iter().collect();
        changes.retain(|name, new| self.get(name) != new.as_ref());
        if changes.is_empty() {
            return self.clone();
        }
        let mut version = self.version.0;
        for (name, new) in &changes {
            version = version.wrapping_sub(self.get(name).map_or(0, Resource::entry_hash));
            version = version.wrapping_add(new.as_ref().map_or(0, Resource::entry_hash));
        }
        let step = Step { from: self.version, names: changes.keys().cloned().collect() };
        let mut resources = Vec::with_capacity(self.resources.len() + changes.len());
        let mut rest = self.resources.as_slice();
        for (name, new) in changes {
            let at = rest.partition_point(|r| r.name() < &name);
            resources.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            rest = rest.split_first().filter(|(r, _)| *r.name() == name).map_or(rest, |(_, rest)| rest);
            resources.extend(new);
        }
        resources.extend_from_slice(rest);
        Arc::new(Layer { resources, version: Version(version), steps: self.with_step(step) })
    }

    /// This layer as the successor of `before`: that one if they are equal; else this one, which then knows the difference.
    pub fn after(mut self, before: &Arc<Layer>) -> Arc<Self> {
        if self.version == before.version && self.resources.len() == before.resources.len() {
            return before.clone();
        }
        let mut names = Vec::new();
        let (mut old, mut new) = (before.resources.iter().peekable(), self.resources.iter().peekable());
        loop {
            let (o, n) = (old.peek(), new.peek());
            let order = match (o, n) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(o), Some(n)) => o.name().cmp(n.name()),
            };
            let o = if order.is_le() { old.next() } else { None };
            let n = if order.is_ge() { new.next() } else { None };
            if o != n {
                names.extend(n.or(o).map(|r| r.name().clone()));
            }
        }
        self.steps = before.with_step(Step { from: before.version, names });
        Arc::new(self)
    }

    fn with_step(&self, step: Step) -> Vec<Arc<Step>> {
        let mut names = 0;
        let steps = std::iter::once(Arc::new(step)).chain(self.steps.iter().cloned());
        let affordable = |s: &Arc<Step>| {
            names += s.names.len();
            names <= NAMES
        };
        steps.take_while(affordable).take(STEPS).collect()
    }

    /// Names that may differ from `base`; `None` if only a comparison can tell. A name may come twice.
    pub fn changed_since(&self, base: &Layer) -> Option<impl Iterator<Item = &Arc<str>> + use<'_>> {
        let steps = if self.version == base.version { 0 } else { 1 + self.steps.iter().position(|s| s.from == base.version)? };
        Some(self.steps[..steps].iter().flat_map(|s| &s.names))
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<&Resource> {
        let at = self.resources.binary_search_by(|r| (**r.name()).cmp(name)).ok()?;
        self.resources.get(at)
    }

    /// In the order of names.
    pub fn iter(&self) -> std::slice::Iter<'_, Resource> {
        self.resources.iter()
    }

    /// Sum of the hashes of names and versions: the order in which changes came does not matter.
    pub fn version(&self) -> Version {
        self.version
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }
}

/// Looks names up from where the last one was.
pub(super) struct Finder<'a> {
    resources: &'a [Resource],
    at: usize,
}

impl<'a> Finder<'a> {
    pub(super) fn new(layer: &'a Layer) -> Self {
        Finder { resources: &layer.resources, at: 0 }
    }

    /// By name. Compares few names if this one is a little behind the last.
    pub(super) fn find(&mut self, name: &str) -> Option<&'a Resource> {
        let is_before = |r: &Resource| **r.name() < *name;
        if self.at > 0 && !is_before(&self.resources[self.at - 1]) {
            self.at = 0;
        }
        // Steps that double, until one is too far; then the place between the last two.
        let mut step = 1;
        while self.resources.get(self.at + step - 1).is_some_and(is_before) {
            self.at += step;
            step *= 2;
        }
        let end = self.resources.len().min(self.at + step - 1);
        self.at += self.resources[self.at..end].partition_point(is_before);
        let found = self.resources.get(self.at).filter(|r| **r.name() == *name);
        self.at += usize::from(found.is_some());
        found
    }
}

impl PartialEq for Layer {
    /// By content.
    fn eq(&self, other: &Self) -> bool {
        self.resources == other.resources
    }
}

impl Eq for Layer {}

/// Layers by type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers(BTreeMap<TypeUrl, Arc<Layer>>);

impl Layers {
    /// No resources of any type.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the resources of one type.
    pub fn insert(&mut self, type_url: TypeUrl, layer: impl Into<Arc<Layer>>) {
        self.0.insert(type_url, layer.into());
    }

    /// The resources of one type.
    pub fn get(&self, type_url: TypeUrl) -> &Arc<Layer> {
        self.0.get(&type_url).unwrap_or(&EMPTY)
    }

    /// The types that were inserted.
    pub fn iter(&self) -> impl Iterator<Item = (TypeUrl, &Arc<Layer>)> {
        self.0.iter().map(|(t, l)| (*t, l))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoded::testing::{layer, resource};

    fn changed(new: &Layer, base: &Layer) -> Option<Vec<String>> {
        new.changed_since(base).map(|names| names.map(|n| n.to_string()).collect())
    }

    #[test]
    fn a_finder_finds_what_a_search_does_in_any_order() {
        let names: Vec<String> = (0..40).step_by(2).map(|i| format!("{i:02}")).collect();
        let layer = layer(&names.iter().map(|n| (n.as_str(), "1")).collect::<Vec<_>>());
        for stride in 1..40 {
            let mut finder = Finder::new(&layer);
            for i in 0..200 {
                let name = format!("{:02}", i * stride % 41);
                assert_eq!(finder.find(&name), layer.get(&name), "{name} in steps of {stride}");
            }
        }
    }

    #[test]
    fn an_update_equals_a_new_layer_and_knows_what_it_changed() {
        let before = layer(&[("a", "1"), ("c", "1"), ("e", "1")]);
        let change = |n: &str, c: Option<&str>| (Arc::from(n), c.map(|c| resource(n, c)));
        let after =
            before.updated([change("e", None), change("c", Some("2")), change("a", Some("1")), change("d", Some("1")), change("x", None)]);
        let expected = layer(&[("a", "1"), ("c", "2"), ("d", "1")]);
        assert_eq!((&after, after.version()), (&expected, expected.version()));
        assert_eq!(changed(&after, &before).unwrap(), ["c", "d", "e"]);
        let compared = Layer::clone(&expected).after(&before);
        assert_eq!(changed(&compared, &before).unwrap(), ["c", "d", "e"]);
        assert_eq!(changed(&expected, &before), None);
        // Back again is known to be the same without a look at steps.
        let back = after.updated([change("c", Some("1")), change("d", None), change("e", Some("1"))]);
        assert_eq!(changed(&back, &before).unwrap(), Vec::<String>::new());
        assert_eq!(changed(&back, &after).unwrap(), ["c", "d", "e"]);
    }

    #[test]
    fn nothing_new_is_the_same_layer() {
        let before = layer(&[("a", "1"), ("b", "1")]);
        assert!(Arc::ptr_eq(&before.updated([("a".into(), Some(resource("a", "1"))), ("z".into(), None)]), &before));
        assert!(Arc::ptr_eq(&Layer::new(before.iter().cloned()).after(&before), &before));
    }

    #[test]
    fn steps_are_bounded_and_chain() {
        let mut layers = vec![layer(&[("a", "0"), ("b", "0")])];
        for i in 1..=20 {
            let name = if i % 2 == 0 { "a" } else { "b" };
            let next = layers[i - 1].updated([(name.into(), Some(resource(name, &i.to_string())))]);
            layers.push(next);
        }
        let newest = &layers[20];
        assert_eq!(changed(newest, &layers[18]).unwrap(), ["a", "b"]);
        assert_eq!(changed(newest, &layers[20 - STEPS]).unwrap().len(), STEPS);
        assert_eq!(changed(newest, &layers[19 - STEPS]), None);
    }

    #[test]
    fn of_two_with_one_name_the_first_stays() {
        assert_eq!(Layer::new([resource("a", "1"), resource("b", "1"), resource("a", "2")]), *layer(&[("a", "1"), ("b", "1")]));
    }
}
