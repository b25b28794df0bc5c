//! [`Layers`]: objects of files and of a cluster in one index. Where both have an object, the file's holds, and the
//! cluster's takes its place again when the file's goes.

use std::collections::{BTreeMap, BTreeSet};

use pilotfish_model::ObjectId;

use crate::index::{Index, Input};
use crate::registries::Registries;
use crate::source::kube::Target;

/// See the module's documentation.
pub(crate) struct Layers {
    pub(crate) registries: Registries,
    /// What files have.
    files: BTreeSet<ObjectId>,
    /// What the cluster has of these.
    hidden: BTreeMap<ObjectId, Input>,
}

impl Layers {
    pub(crate) fn new(index: Index) -> Self {
        Layers { registries: Registries::new(index), files: BTreeSet::new(), hidden: BTreeMap::new() }
    }

    /// A file has an object.
    pub(crate) fn put_file(&mut self, input: Input) {
        if self.files.insert(input.id.clone())
            && let Some(known) = self.registries.primary.get(&input.id)
        {
            hides(&input.id);
            self.hidden.insert(input.id.clone(), known);
        }
        self.registries.primary.put(input);
    }

    /// No file has an object any more.
    pub(crate) fn delete_file(&mut self, id: &ObjectId) {
        self.files.remove(id);
        match self.hidden.remove(id) {
            Some(input) => self.registries.primary.put(input),
            None => self.registries.primary.delete(id),
        }
    }

    /// The cluster has an object.
    pub(crate) fn put(&mut self, input: Input) {
        if !self.files.contains(&input.id) {
            return self.registries.primary.put(input);
        }
        // Refused, it would not even hold if it were not hidden.
        if input.fact.is_some() && self.hidden.insert(input.id.clone(), input.clone()).is_none() {
            hides(&input.id);
        }
    }

    /// The cluster has an object no more.
    pub(crate) fn delete(&mut self, id: &ObjectId) {
        if self.files.contains(id) {
            self.hidden.remove(id);
        } else {
            self.registries.primary.delete(id);
        }
    }

    /// These are all that the cluster has of a kind, or of a part of it.
    pub(crate) fn reset(&mut self, target: &Target, inputs: Vec<Input>) {
        let kind = target.kind;
        if self.files.is_empty() {
            return self.registries.primary.reset(kind, inputs, |id| !target.covers(id));
        }
        let (hidden, rest): (Vec<_>, Vec<_>) = inputs.into_iter().partition(|i| self.files.contains(&i.id));
        let listed: BTreeSet<ObjectId> = hidden.iter().map(|i| i.id.clone()).collect();
        self.hidden.retain(|id, _| !target.covers(id) || listed.contains(id));
        hidden.into_iter().for_each(|input| self.put(input));
        let files = &self.files;
        self.registries.primary.reset(kind, rest, |id| files.contains(id) || !target.covers(id));
    }
}

fn hides(id: &ObjectId) {
    tracing::warn!("{id} is in files and in the cluster: the one in the cluster has no effect");
}

#[cfg(test)]
mod tests {
    use pilotfish_model::Kind;
    use pretty_assertions::assert_eq;

    use super::*;
    use crate::Settings;
    use crate::index::testing::{mk_istio, yaml_objects};

    fn rule(host: &str) -> Input {
        let object = yaml_objects(&mk_istio("DestinationRule", "x", &format!("{{host: {host}}}"))).remove(0);
        Input::of(&object, &Index::new(Settings::default()).context())
    }

    fn host(layers: &mut Layers) -> Option<String> {
        layers.registries.publish();
        let mesh = layers.registries.snapshot().mesh;
        mesh.destination_rules.values().next().map(|d| d.host.to_string())
    }

    #[test]
    fn files_hide_what_the_cluster_has() {
        let (file, cluster) = (rule("file"), rule("cluster"));
        let id = file.id.clone();
        let expect = |layers: &mut Layers, name: Option<&str>| assert_eq!(host(layers), name.map(|n| format!("{n}.ns.svc.cluster.local")));
        let mut layers = Layers::new(Index::new(Settings::default()));
        // Whichever comes first.
        layers.put(cluster.clone());
        layers.put_file(file.clone());
        expect(&mut layers, Some("file"));
        layers.put(rule("newer"));
        layers.reset(&Target::all(Kind::DestinationRule), vec![rule("newest")]);
        expect(&mut layers, Some("file"));
        layers.delete_file(&id);
        expect(&mut layers, Some("newest"));
        // Gone from both, in either order.
        layers.put_file(file.clone());
        layers.delete(&id);
        expect(&mut layers, Some("file"));
        layers.put(cluster.clone());
        layers.reset(&Target::all(Kind::DestinationRule), Vec::new());
        expect(&mut layers, Some("file"));
        layers.delete_file(&id);
        expect(&mut layers, None);
    }
}
