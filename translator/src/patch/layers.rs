//! [`Patched`]: layers of resources, patched.
//!
//! A patched resource is kept by the content of what it was, and that of the patches: scopes that agree in both share it. A
//! layer that was patched before is taken over where the resources under it are as they were.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
use pilotfish_envoy::pb::envoy::config::core::v3::{TrafficDirection, TypedExtensionConfig};
use pilotfish_envoy::pb::envoy::config::listener::v3::Listener;
use pilotfish_envoy::{Layer, Layers, Resource, Sources, TypeUrl};
use pilotfish_model::envoy_filter::{ApplyTo, Operation, PatchContext};

use super::compile::Ready;
use super::run::{Notes, Result, Run, run};
use super::set::{Patches, PortNames};
use super::sound::{Sound, check};
use super::{cluster, listener, routes};
use crate::leaf::{Key, Leaves};
use crate::naming;

/// Whose resources are patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// A gateway's.
    Gateway,
    /// What a sidecar's scope has.
    Scope,
    /// What only its class has.
    Own,
}

/// What became of one resource.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// `None`: it is taken out.
    resource: Option<Resource>,
    notes: Notes,
}

/// Resources of one type.
struct Part {
    plain: Arc<Layer>,
    layer: Arc<Layer>,
    /// Of all resources for which there may be patches.
    outcomes: BTreeMap<Arc<str>, Arc<Outcome>>,
    /// Of patches that add resources.
    added: Vec<(usize, Arc<Outcome>)>,
}

/// See the module.
pub(crate) struct Patched {
    patches: Arc<Patches>,
    ports: PortNames,
    parts: BTreeMap<TypeUrl, Part>,
    layers: Layers,
}

/// What patches change.
const PATCHED: [TypeUrl; 4] = [TypeUrl::Cluster, TypeUrl::Listener, TypeUrl::Route, TypeUrl::ExtensionConfig];
const ROUTES: &[ApplyTo] = &[ApplyTo::RouteConfiguration, ApplyTo::VirtualHost, ApplyTo::HttpRoute];

impl Patched {
    /// `before`: the same of an earlier view; `served`: what its clients have.
    pub(crate) fn make(
        leaves: &Leaves,
        patches: &Arc<Patches>,
        place: Place,
        ports: PortNames,
        plain: &Layers,
        before: Option<&Patched>,
        served: Option<&Layers>,
    ) -> Self {
        let before = before.filter(|b| b.patches.hash == patches.hash && b.ports == ports);
        let maker = Maker { leaves, patches, place, ports: &ports };
        let mut layers = plain.clone();
        let mut parts = BTreeMap::new();
        for type_url in PATCHED.into_iter().filter(|t| maker.is_patched(*t)) {
            let known = before.and_then(|b| b.parts.get(&type_url));
            let part = known
                .and_then(|known| maker.advanced(type_url, plain.get(type_url), known))
                .unwrap_or_else(|| maker.part(type_url, plain.get(type_url), served.map(|s| s.get(type_url))));
            layers.insert(type_url, part.layer.clone());
            parts.insert(type_url, part);
        }
        Patched { patches: patches.clone(), ports, parts, layers }
    }

    /// What clients get.
    pub(crate) fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Each patch of the scope, how often it was applied here, and why it was not.
    pub(super) fn found(&self) -> impl Iterator<Item = (&Ready, usize, Option<&str>)> {
        let mut applied: BTreeMap<usize, usize> = BTreeMap::new();
        let mut failed: BTreeMap<usize, &str> = BTreeMap::new();
        for part in self.parts.values() {
            for outcome in part.outcomes.values().chain(part.added.iter().map(|(_, o)| o)) {
                outcome.notes.applied.iter().for_each(|(at, times)| *applied.entry(*at).or_insert(0) += times);
                for (at, why) in &outcome.notes.failed {
                    failed.entry(*at).or_insert(why);
                }
            }
        }
        let found = self.patches.list.iter().enumerate();
        let found = found.map(move |(at, p)| (&**p, applied.get(&at).copied().unwrap_or(0), failed.get(&at).copied()));
        let lacking = self.patches.lacking.iter().map(|p| (&**p, 0, Some("the client lacks the extension that it needs")));
        found.chain(lacking).chain(self.patches.others.iter().map(|p| (&**p, 0, None)))
    }
}

struct Maker<'a> {
    leaves: &'a Leaves,
    patches: &'a Patches,
    place: Place,
    ports: &'a PortNames,
}

impl Maker<'_> {
    /// Some patch may be of resources of this type.
    fn is_patched(&self, type_url: TypeUrl) -> bool {
        match type_url {
            TypeUrl::Cluster => self.patches.has(&[ApplyTo::Cluster]),
            TypeUrl::Listener => self.patches.has(listener::KINDS) || (self.place == Place::Own && self.patches.has(ROUTES)),
            TypeUrl::Route => self.place != Place::Own && self.patches.has(ROUTES),
            TypeUrl::ExtensionConfig => self.place != Place::Own && self.patches.has(&[ApplyTo::ExtensionConfig]),
            _ => false,
        }
    }

    fn part(&self, type_url: TypeUrl, plain: &Arc<Layer>, served: Option<&Arc<Layer>>) -> Part {
        let mut outcomes = BTreeMap::new();
        let mut resources = Vec::with_capacity(plain.len());
        for resource in plain.iter() {
            match self.outcome(type_url, resource) {
                None => resources.push(resource.clone()),
                Some(outcome) => {
                    resources.extend(outcome.resource.clone());
                    outcomes.insert(resource.name().clone(), outcome);
                }
            }
        }
        let added = self.added(type_url, plain);
        resources.extend(added.iter().filter_map(|(_, outcome)| outcome.resource.clone()));
        let layer = Layer::new(resources);
        let layer = match served {
            Some(served) => layer.after(served),
            None => Arc::new(layer),
        };
        Part { plain: plain.clone(), layer, outcomes, added }
    }

    /// What was patched before, with what differs since. `None`: only all of it can tell.
    fn advanced(&self, type_url: TypeUrl, plain: &Arc<Layer>, known: &Part) -> Option<Part> {
        let names: Vec<&Arc<str>> = plain.changed_since(&known.plain)?.collect();
        // Whether an added resource is left out hangs on what there is already.
        let adds = |name: &str| known.added.iter().any(|(_, o)| o.resource.as_ref().is_none_or(|r| **r.name() == *name));
        if names.iter().any(|name| adds(name)) {
            return None;
        }
        let mut outcomes = known.outcomes.clone();
        let mut changes = Vec::with_capacity(names.len());
        for name in names {
            outcomes.remove(name);
            let resource = plain.get(name);
            let outcome = resource.and_then(|r| self.outcome(type_url, r));
            changes.push((name.clone(), outcome.as_ref().map_or(resource, |o| o.resource.as_ref()).cloned()));
            outcomes.extend(outcome.map(|o| (name.clone(), o)));
        }
        Some(Part { plain: plain.clone(), layer: known.layer.updated(changes), outcomes, added: known.added.clone() })
    }

    /// `None`: no patch is for resources of that name.
    fn outcome(&self, type_url: TypeUrl, resource: &Resource) -> Option<Arc<Outcome>> {
        let context = self.context(type_url, resource.name());
        match type_url {
            TypeUrl::Cluster => {
                let fits = |p: &Ready| p.patch.operation != Operation::Add && cluster::fits(p, resource.name());
                if !self.patches.of_kind(ApplyTo::Cluster, context).any(|(_, p)| fits(p)) {
                    return None;
                }
            }
            TypeUrl::Route => {
                let mut patches = ROUTES.iter().flat_map(|kind| self.patches.of_kind(*kind, context));
                if !patches.any(|(_, p)| routes::is_of(context, self.ports, p, resource.name())) {
                    return None;
                }
            }
            TypeUrl::Listener => {}
            _ => return None,
        }
        let sources: Vec<&Arc<str>> = resource.sources().collect();
        let ports = (type_url == TypeUrl::Route).then_some(self.ports);
        let of = (type_url.as_str(), self.place == Place::Gateway, resource.name(), resource.version().0, sources);
        let key = Key::of("patched", &(of, self.patches.hash, ports));
        Some(self.leaves.kept_or(&key, || match type_url {
            TypeUrl::Cluster => self.patched(resource, |_| context, cluster::patch),
            TypeUrl::Route => self.patched(resource, |_| context, |run, routes| Some(routes::patch(run, routes))),
            _ => self.patched(resource, |l: &Listener| self.listener_context(l), listener::patch),
        }))
    }

    /// Of all types but listeners.
    fn context(&self, type_url: TypeUrl, name: &str) -> PatchContext {
        let inbound = || type_url == TypeUrl::Cluster && (name.starts_with("inbound|") || name == naming::INBOUND_PASSTHROUGH);
        match self.place {
            Place::Gateway => PatchContext::Gateway,
            _ if inbound() => PatchContext::SidecarInbound,
            _ => PatchContext::SidecarOutbound,
        }
    }

    fn listener_context(&self, listener: &Listener) -> PatchContext {
        match (self.place, listener.traffic_direction()) {
            (Place::Gateway, _) => PatchContext::Gateway,
            (_, TrafficDirection::Inbound) => PatchContext::SidecarInbound,
            _ => PatchContext::SidecarOutbound,
        }
    }

    fn patched<M: Sound>(
        &self,
        resource: &Resource,
        context: impl FnOnce(&M) -> PatchContext,
        patch: impl Fn(&Run<'_>, M) -> Option<M>,
    ) -> Outcome {
        let Ok(original) = M::decode(resource.to_any().value) else {
            return Outcome { resource: Some(resource.clone()), notes: Notes::default() };
        };
        // Under another name it would be another resource.
        let patch = |run: &Run<'_>, message: M| {
            let mut patched = patch(run, message)?;
            original.clone().name().clone_into(patched.name());
            Some(patched)
        };
        let sound = |message: &M| check(message, self.patches.strict);
        let (result, notes) = run(self.patches, context(&original), self.ports, &original, patch, sound);
        let resource = match result {
            Result::Unchanged => Some(resource.clone()),
            Result::Removed => None,
            Result::Changed(message) => {
                let mut behind: Vec<Arc<str>> = resource.sources().cloned().collect();
                for at in notes.applied.keys() {
                    behind.extend(self.patches.list[*at].source().iter().filter(|s| !behind.contains(s)).cloned().collect::<Vec<_>>());
                }
                Some(self.encoded(resource.name().clone(), &message, behind.into()))
            }
        };
        Outcome { resource, notes }
    }

    fn encoded<M: Sound>(&self, name: Arc<str>, message: &M, sources: Sources) -> Resource {
        let resource = Resource::new(name, message).with_sources(sources);
        self.leaves.work.leaves_built.add(1);
        self.leaves.work.bytes_encoded.add(resource.delta_len() as u64);
        resource
    }

    /// Resources that patches add. One that there is already stays.
    fn added(&self, type_url: TypeUrl, plain: &Layer) -> Vec<(usize, Arc<Outcome>)> {
        let apply_to = match type_url {
            TypeUrl::Cluster => ApplyTo::Cluster,
            TypeUrl::Listener => ApplyTo::Listener,
            TypeUrl::ExtensionConfig => ApplyTo::ExtensionConfig,
            _ => return Vec::new(),
        };
        let is_here = |p: &Ready| match (self.place, p.patch.context) {
            // What an extension is for is said by who names it.
            _ if apply_to == ApplyTo::ExtensionConfig => true,
            (Place::Gateway, context) => context.is_none_or(|c| c == PatchContext::Gateway),
            (Place::Scope, context) => context.is_none_or(|c| c == PatchContext::SidecarOutbound),
            (Place::Own, context) => context == Some(PatchContext::SidecarInbound),
        };
        let additions = self.patches.list.iter().enumerate().filter(|(_, p)| p.patch.apply_to == apply_to);
        let mut added: Vec<(usize, Arc<Outcome>)> = Vec::new();
        for (at, ready) in additions.filter(|(_, p)| p.patch.operation == Operation::Add && is_here(p)) {
            let taken = |name: &str| {
                let known = |(_, o): &(usize, Arc<Outcome>)| o.resource.as_ref().is_some_and(|r| **r.name() == *name);
                plain.get(name).is_some() || added.iter().any(known)
            };
            let outcome = match apply_to {
                ApplyTo::Cluster => self.addition::<Cluster>(at, ready, &taken),
                ApplyTo::Listener => self.addition::<Listener>(at, ready, &taken),
                _ => self.addition::<TypedExtensionConfig>(at, ready, &taken),
            };
            added.push((at, Arc::new(outcome)));
        }
        added
    }

    fn addition<M: Sound>(&self, at: usize, ready: &Ready, taken: &dyn Fn(&str) -> bool) -> Outcome {
        let mut message: M = ready.value();
        let name: Arc<str> = message.name().as_str().into();
        let sound = match &*name {
            "" => Err("has no name".to_owned()),
            name if taken(name) => Err(format!("there is another {name:?}")),
            _ => check(&message, self.patches.strict),
        };
        match sound {
            Ok(()) => {
                let notes = Notes { applied: [(at, 1)].into(), ..Notes::default() };
                Outcome { resource: Some(self.encoded(name, &message, ready.source())), notes }
            }
            Err(why) => Outcome { resource: None, notes: Notes { failed: [(at, why)].into(), ..Notes::default() } },
        }
    }
}
