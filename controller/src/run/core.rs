//! The synchronous part of the controller: sources in, meshes out. Moved to a blocking thread and back for long work.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

use pilotfish_model::diagnostic::Severity;
use pilotfish_model::{ChangeSet, Diagnostic, Mesh};

use super::{Options, State};
use crate::convert::{Context, REVISION};
use crate::index::{Index, Input};
use crate::jwks::KeysUpdate;
use crate::layers::Layers;
use crate::mesh_config::Layer;
use crate::source::file::Scan;
use crate::source::kube::{Change, KubeSource};
use crate::source::{FileSource, Problem, SourceError, SourceEvent};

pub(super) struct Core {
    files: FileSource,
    layers: Layers,
    said: State,
}

impl Core {
    pub(super) fn new(options: &Options) -> Result<Core, SourceError> {
        let files = FileSource::new(options.config_dirs.clone())?;
        Ok(Core { files, layers: Layers::new(Index::new(options.settings.clone())), said: State::default() })
    }

    pub(super) fn roots(&self) -> &[PathBuf] {
        self.files.roots()
    }

    /// What objects of other sources must be converted with.
    pub(super) fn context(&self) -> Context {
        self.layers.registries.primary.context()
    }

    /// Whether so much is waiting to be published that it takes a while.
    pub(super) fn is_large(&self) -> bool {
        self.layers.registries.pending() >= super::MANY
    }

    pub(super) fn publish(&mut self) -> Option<(Arc<Mesh>, ChangeSet)> {
        self.layers.registries.publish()
    }

    pub(super) fn set_mesh_file(&mut self, layer: Layer) {
        self.layers.registries.primary.set_mesh_file(layer);
    }

    /// Takes in keys of tokens.
    pub(super) fn set_keys(&mut self, update: KeysUpdate) {
        self.layers.registries.primary.set_keys(update.keys);
    }

    /// Reads what changed in files.
    pub(super) fn scan(&mut self, scan: Scan) {
        let context = self.context();
        for event in self.files.scan(scan) {
            match event {
                // It may have been ours before.
                SourceEvent::Apply(object, _) if !context.owns(object.id.kind, object.meta.labels.get(REVISION).map(|r| &**r)) => {
                    self.layers.delete_file(&object.id);
                }
                SourceEvent::Apply(object, place) => {
                    let input = Input::of(&object, &context);
                    for d in &input.diagnostics {
                        say(d.severity, format_args!("{place}: {d}"));
                    }
                    self.layers.put_file(input);
                }
                SourceEvent::Delete(id) => self.layers.delete_file(&id),
            }
        }
        self.say_problems();
    }

    /// Takes in what happened in the cluster.
    pub(super) fn take(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(input) => {
                    self.say_findings(&input);
                    self.layers.put(input);
                }
                Change::Delete(id) => self.layers.delete(&id),
                Change::Reset(target, inputs) => {
                    inputs.iter().for_each(|input| self.say_findings(input));
                    self.layers.reset(&target, inputs);
                }
            }
        }
    }

    /// Lets a cluster's Secrets be followed that are referred to by now.
    pub(super) fn follow_secrets(&mut self, cluster: &mut KubeSource) {
        if let Some(names) = self.layers.registries.primary.new_credentials() {
            let changes = cluster.follow_secrets(&names);
            self.take(changes);
        }
    }

    /// Logs what was not wrong with an object before.
    fn say_findings(&self, input: &Input) {
        if input.diagnostics.is_empty() {
            return;
        }
        let before: &[Diagnostic] = self.layers.registries.primary.diagnostics_of(&input.id);
        for d in input.diagnostics.iter().filter(|d| !before.contains(d)) {
            say(d.severity, d);
        }
    }

    /// Logs what was not wrong with files before.
    fn say_problems(&mut self) {
        let now = self.files.problems();
        let before: BTreeSet<&Problem> = self.said.problems.iter().collect();
        for p in now.iter().filter(|p| !before.contains(p)) {
            say(p.severity, p);
        }
        if *self.said.problems != now {
            self.said.problems = Arc::new(now.to_vec());
        }
    }

    pub(super) fn state(&mut self) -> State {
        State { snapshot: self.layers.registries.snapshot(), problems: self.said.problems.clone(), ignored: self.files.ignored() }
    }
}

fn say(severity: Severity, finding: impl Display) {
    match severity {
        Severity::Error => tracing::error!("{finding}"),
        Severity::Warning => tracing::warn!("{finding}"),
    }
}
