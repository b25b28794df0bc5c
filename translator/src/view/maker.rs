//! A view under construction: each layer is taken over, advanced by what differs, or made.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use pilotfish_envoy::{Layer, Layers, Resource, Sources, TypeUrl};
use pilotfish_model::ContentHash;
use pilotfish_model::proxy::Flavour;

use super::View;
use crate::cluster;
use crate::context::Context;
use crate::gateway::Reached;
use crate::grpc;
use crate::leaf::{AT_ONCE, Built, Key, Leaves};
use crate::listener::{self, Builder, ListenerSpec, Parts, Settings};
use crate::refused::{Refused, resolve};
use crate::route::{Assembler, Assembly};
use crate::security::Security;
use crate::unit::{self, Ingredients, Recipe, Unit, address, sources};

/// See the module.
pub(super) struct Maker<'a> {
    leaves: &'a Leaves,
    context: Context<'a>,
    before: Option<&'a View>,
    pub(super) refused: Vec<Refused>,
    pub(super) layers: Layers,
}

/// Views whose configurations can be gone on from.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// Nothing that they depend on differs.
    pub(super) same: Option<&'a Arc<View>>,
    /// At most rules inside VirtualServices do.
    pub(super) but_rules: Option<&'a Arc<View>>,
    /// At most services do.
    pub(super) but_services: Option<&'a Arc<View>>,
}

impl<'a> Maker<'a> {
    /// `before`: whose resources stand in for broken ones.
    pub(super) fn new(leaves: &'a Leaves, context: Context<'a>, before: Option<&'a View>) -> Self {
        Maker { leaves, context, before, refused: Vec::new(), layers: Layers::new() }
    }

    fn last_good(&self, type_url: TypeUrl) -> Option<&'a Arc<Layer>> {
        self.before.map(|b| b.layers.get(type_url))
    }

    /// Takes a layer over as it is, with what was refused in it.
    pub(super) fn keep(&mut self, type_url: TypeUrl, from: &View) {
        self.layers.insert(type_url, from.layers.get(type_url).clone());
        self.refused.extend(from.refused.iter().filter(|r| r.type_url == type_url).cloned());
    }

    /// Resources of one type.
    pub(super) fn put(&mut self, type_url: TypeUrl, resources: Vec<Resource>) {
        let layer = Layer::new(resources);
        let layer = match self.last_good(type_url) {
            Some(before) => layer.after(before),
            None => Arc::new(layer),
        };
        self.layers.insert(type_url, layer);
    }

    /// One per service; those of the view before where they are made of the same.
    pub(super) fn units(&mut self, by_sni: bool, reached: Option<&Reached>, same_base: Option<&Arc<View>>) -> Arc<[Arc<Unit>]> {
        let recipe = Recipe::new(&self.context, by_sni);
        let known = same_base.filter(|b| b.inputs.gateways.has_auto_passthrough() == by_sni);
        let services = &self.context.scope.services;
        let before = |index: usize, of: &Ingredients| {
            let b = known?;
            let same = |unit: &&Arc<Unit>| unit.of.is_same(of);
            let at = b.units.get(index).filter(same);
            at.or_else(|| b.scope.index(&of.service.host).map(|i| &b.units[i]).filter(same)).cloned()
        };
        let mut units: Vec<Arc<Unit>> = Vec::with_capacity(services.len());
        let indices: Vec<usize> = (0..services.len()).collect();
        for some in indices.chunks(AT_ONCE) {
            let (mut known, mut new) = (Vec::with_capacity(AT_ONCE), Vec::new());
            for index in some {
                let of = Ingredients::of(&self.context, *index, reached);
                let unit = before(*index, &of);
                if unit.is_none() {
                    new.push(of);
                }
                known.push(unit);
            }
            let mut new = recipe.units(self.leaves, new).into_iter();
            units.extend(known.into_iter().filter_map(|unit| unit.or_else(|| new.next())));
        }
        match known {
            Some(b) if b.units.len() == units.len() && b.units.iter().zip(&units).all(|(a, b)| Arc::ptr_eq(a, b)) => b.units.clone(),
            _ => units.into(),
        }
    }

    /// `known`: a view whose clusters that stand for no service are the same.
    pub(super) fn clusters(&mut self, units: &Arc<[Arc<Unit>]>, known: Option<&Arc<View>>) {
        if let Some(b) = known
            && Arc::ptr_eq(&b.units, units)
        {
            return self.keep(TypeUrl::Cluster, b);
        }
        let before = self.last_good(TypeUrl::Cluster);
        let old: HashSet<usize> = known.iter().flat_map(|b| b.units.iter()).map(address).collect();
        let mut changes: Vec<(Arc<str>, Option<Resource>)> = Vec::new();
        if let Some(b) = known {
            let gone = unit::missing(&b.units, units);
            changes.extend(gone.flat_map(|u| &u.clusters).map(|c| (c.name().clone(), None)));
        }
        for unit in units.iter() {
            let is_new = !old.contains(&address(unit));
            for built in unit.clusters.iter().filter(|c| is_new || matches!(c, Built::Broken(_))) {
                changes.push((built.name().clone(), resolve(built, before, &mut self.refused)));
            }
        }
        if let Some(b) = known {
            self.layers.insert(TypeUrl::Cluster, b.layers.get(TypeUrl::Cluster).updated(changes));
            return;
        }
        let mut resources: Vec<Resource> = changes.into_iter().filter_map(|(_, resource)| resource).collect();
        if self.context.class.flavour != Flavour::Grpc {
            let (leaves, refused) = (self.leaves, &mut self.refused);
            cluster::special(&self.context, &mut |input| {
                let key = Key::of("cluster", &input);
                let made = || (cluster::build(&input), Sources::default());
                let built = leaves.resource(TypeUrl::Cluster, input.name.clone(), &key, true, before, made);
                resources.extend(resolve(&built, before, refused));
            });
        }
        self.put(TypeUrl::Cluster, resources);
    }

    /// The listeners of the scope are put; those that each class makes for itself are returned.
    pub(super) fn listeners(&mut self, settings: &Settings, parts: &Parts, security: Option<&Security>) -> Arc<[ListenerSpec]> {
        if self.context.class.flavour == Flavour::Grpc {
            self.put(TypeUrl::Listener, grpc::outbound(&self.context));
            return Arc::default();
        }
        let apart = self.context.class.own.is_none() && settings.names_workload();
        let specs = listener::of_scope(&self.context);
        let (named, shared): (Vec<_>, Vec<_>) = specs.into_iter().partition(|spec| apart && spec.reads_http());
        let resources =
            build_listeners(self.leaves, settings, parts, security, &shared, self.last_good(TypeUrl::Listener), &mut self.refused);
        self.put(TypeUrl::Listener, resources);
        match self.before {
            Some(before) if *before.named == *named => before.named.clone(),
            _ => named.into(),
        }
    }

    /// Settings of extensions.
    pub(super) fn extensions(&mut self, settings: &Settings) {
        let before = self.last_good(TypeUrl::ExtensionConfig);
        let mut resources = Vec::new();
        for plugin in settings.plugins.discovered() {
            let made = || (listener::extension_config::resource(plugin).unwrap_or_default(), sources([&plugin.extension.id()]));
            let key = Key::of("extension", plugin);
            // What an agent takes is no message for Envoy yet: only the agent knows the checksum of a module, which Envoy demands.
            let built = self.leaves.resource(TypeUrl::ExtensionConfig, plugin.name(), &key, !plugin.agent, before, made);
            resources.extend(resolve(&built, before, &mut self.refused));
        }
        self.put(TypeUrl::ExtensionConfig, resources);
    }

    /// What of an earlier view's configurations stays, stays.
    pub(super) fn routes(&mut self, before: Known<'_>) -> Assembly {
        if let Some(b) = before.same {
            self.keep(TypeUrl::Route, b);
            return b.routes.clone();
        }
        if self.context.class.flavour == Flavour::Grpc {
            self.put(TypeUrl::Route, grpc::routes(&self.context));
            return Assembly::default();
        }
        let last_good = self.before.map(|b| &b.routes);
        let known = self.refused.len();
        let mut assembler = Assembler { context: self.context, leaves: self.leaves, before: last_good, refused: &mut self.refused };
        // What was left out of a configuration would be missing in the next.
        let whole = |b: &&Arc<View>| b.refused.iter().all(|r| r.type_url != TypeUrl::Route);
        let mut advanced = before.but_rules.filter(whole).and_then(|b| Some((b, assembler.advance(&b.routes, &b.scope)?)));
        if advanced.is_none() {
            assembler.refused.truncate(known);
            advanced = before.but_services.filter(whole).and_then(|b| Some((b, assembler.with_services(&b.routes, &b.scope)?)));
        }
        if let Some((b, assembly)) = advanced {
            let news = assembly.news(&b.routes).map(|r| (r.name().clone(), Some(r.clone())));
            self.layers.insert(TypeUrl::Route, b.layers.get(TypeUrl::Route).updated(news));
            return assembly;
        }
        assembler.refused.truncate(known);
        let assembly = assembler.whole();
        self.put(TypeUrl::Route, assembly.resources().collect());
        assembly
    }
}

/// Listeners as resources. `security`: what holds for what comes in.
pub(crate) fn build_listeners(
    leaves: &Leaves,
    settings: &Settings,
    parts: &Parts,
    security: Option<&Security>,
    specs: &[ListenerSpec],
    last_good: Option<&Arc<Layer>>,
    refused: &mut Vec<Refused>,
) -> Vec<Resource> {
    let mut builder = Builder::new(settings, parts, security);
    let hash = ContentHash::of(settings);
    let mut resources = Vec::with_capacity(specs.len());
    for spec in specs {
        // Bytes are not traced: scopes that trace differently share their listeners.
        let security = security.filter(|_| spec.is_secured());
        let key = Key::of("listener", &(if spec.reads_http() { hash } else { parts.untraced }, security, spec));
        let built = leaves.resource(TypeUrl::Listener, spec.name.as_str(), &key, true, last_good, || {
            let secured = security.into_iter().flat_map(|s| s.objects());
            let behind: BTreeSet<_> = spec.sources.iter().chain(&settings.sources).cloned().chain(secured).collect();
            (builder.listener(spec), sources(&behind))
        });
        resources.extend(resolve(&built, last_good, refused));
    }
    resources
}
