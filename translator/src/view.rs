//! [`View`]: what a scope sees, and the resources made of it.
//!
//! A view records what it was made of. The next one looks up the same in a newer world, at a cost that grows with the scope
//! and not with the mesh, keeps by pointer what is the same, and makes the rest. Change sets only say when to look: one that
//! comes twice, or after the world it belongs to, does no harm.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use pilotfish_envoy::{Layer, Layers, Resource, Sources, TypeUrl};
use pilotfish_model::endpoint::Endpoint;
use pilotfish_model::mesh::ServiceKey;
use pilotfish_model::name::Str;
use pilotfish_model::peer_authentication::PeerAuthentication;
use pilotfish_model::proxy::Flavour;
use pilotfish_model::{ContentHash, Mesh, Resolution};

use crate::class::ScopeClass;
use crate::cluster;
use crate::context::Context;
use crate::gateway::{self, MergedGateways};
use crate::grpc;
use crate::leaf::{Built, Key, Leaves};
use crate::listener::{self, Builder, ListenerSpec, Settings};
use crate::name_table;
use crate::policy::Found;
use crate::refused::{Refused, resolve};
use crate::route::{Assembler, Assembly};
use crate::scope::{EgressScope, Scope};
use crate::tls;
use crate::unit::{Ingredients, Recipe, Unit, sources};
use crate::world::{Aliases, World, service_key};

/// See the module.
pub struct View {
    pub(crate) class: ScopeClass,
    pub(crate) scope: Scope,
    pub(crate) inputs: Inputs,
    /// One per service of the scope.
    pub(crate) units: Arc<[Arc<Unit>]>,
    pub(crate) settings: Arc<Settings>,
    /// Listeners that depend on what the workload is called: each class makes them for itself.
    pub(crate) named: Arc<[ListenerSpec]>,
    routes: Assembly,
    layers: Layers,
    refused: Vec<Refused>,
}

/// What of a world a view was made of beside its scope.
pub(crate) struct Inputs {
    config: ContentHash,
    pub(crate) aliases: Arc<Aliases>,
    accounts: imbl::OrdMap<ServiceKey, Arc<[Str]>>,
    pub(crate) gateways: MergedGateways,
    /// Namespaces of the services, sorted.
    pub(crate) namespaces: Arc<[Str]>,
    /// PeerAuthentications of these namespaces and of the root: endpoints are of their service's namespace.
    peers: Vec<Arc<PeerAuthentication>>,
    /// Endpoints that more than assignments depend on, by service.
    live: Vec<Live>,
}

/// A service of the scope, and its endpoints.
type Live = (usize, Option<Arc<Vec<Endpoint>>>);

/// What differs from the view before.
struct Difference {
    scope: bool,
    found: bool,
    /// The rules for some service differ, and one of them chooses hosts by what requests say.
    hashes: bool,
    services: bool,
    units: bool,
    live: bool,
    gateways: bool,
    sidecar: bool,
    l4_rules: bool,
    rules: bool,
    aliases: bool,
}

impl View {
    pub(crate) fn make(leaves: &Leaves, world: &World, class: &ScopeClass, before: Option<&Arc<View>>) -> Arc<View> {
        let facts = class.facts();
        let same_base = before.filter(|b| b.class == *class && b.inputs.config == world.config);
        let scope = Scope::of(world, facts, same_base.map(|b| &b.scope));
        let context = Context::new(world, facts, &scope);
        let same_services = same_base.filter(|b| Arc::ptr_eq(&b.scope.services, &scope.services));
        let inputs = Inputs::of(&context, same_services.map(|b| &**b));
        let difference = same_base.map(|b| Difference::of(b, &context, &inputs));
        if let (Some(b), Some(d)) = (same_base, &difference)
            && d.is_none()
        {
            leaves.work.views_unchanged.add(1);
            return b.clone();
        }
        leaves.work.views.add(1);
        let mut maker = Maker { leaves, context, before: before.map(|b| &**b), refused: Vec::new(), layers: Layers::new() };
        let router = facts.is_router();
        let kept = |unchanged: &dyn Fn(&Difference) -> bool| same_base.filter(|_| difference.as_ref().is_some_and(unchanged));
        let by_sni = inputs.gateways.has_auto_passthrough();
        let units = match kept(&|d| !d.units) {
            Some(b) => b.units.clone(),
            None => maker.units(by_sni, same_base),
        };
        maker.clusters(&units, kept(&|d| !d.sidecar));
        let settings = match kept(&|d| !d.services && !d.sidecar) {
            Some(b) => b.settings.clone(),
            None => Arc::new(Settings::of(&context)),
        };
        let named = match kept(&|d| !d.listeners(router)) {
            Some(b) => {
                maker.keep(TypeUrl::Listener, b);
                b.named.clone()
            }
            None => maker.listeners(&settings),
        };
        let routes = maker.routes(kept(&|d| !d.routes()), kept(&|d| !d.routes_but_rules()));
        match kept(&|d| !d.scope && !d.found && !d.gateways) {
            Some(b) => maker.keep(TypeUrl::Secret, b),
            None => maker.put(TypeUrl::Secret, tls::file_secrets(&context)),
        }
        match kept(&|d| !d.services && !d.live) {
            Some(b) => maker.keep(TypeUrl::NameTable, b),
            None => maker.put(TypeUrl::NameTable, name_table::name_table(&context)),
        }
        let Maker { refused, layers, .. } = maker;
        Arc::new(View { class: class.clone(), inputs, units, settings, named, routes, layers, refused, scope })
    }

    /// The resources by type, without assignments and without what [`crate::Own`] has.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Whether its proxies get clusters of a service.
    pub fn sees(&self, service: &ServiceKey) -> bool {
        self.index(service).is_some()
    }

    /// What was kept in.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Where in the list of services one is.
    pub(crate) fn index(&self, service: &ServiceKey) -> Option<usize> {
        self.scope.index(&service.host).filter(|i| self.scope.services[*i].namespace == service.namespace)
    }
}

impl Inputs {
    fn of(context: &Context<'_>, same_services: Option<&View>) -> Self {
        let namespaces = match same_services {
            Some(view) => view.inputs.namespaces.clone(),
            None => {
                let all: BTreeSet<&Str> = context.scope.services.iter().map(|s| &s.namespace).collect();
                all.into_iter().cloned().collect()
            }
        };
        let root = &context.config().root_namespace;
        let peers = match context.mesh.peer_authentications.is_empty() {
            true => Vec::new(),
            false => {
                let near = namespaces.iter().filter(|ns| *ns != root).chain(std::iter::once(root));
                near.flat_map(|ns| Mesh::in_namespace(&context.mesh.peer_authentications, ns)).cloned().collect()
            }
        };
        let live = context
            .scope
            .services
            .iter()
            .enumerate()
            .filter(|(_, s)| matches!(s.resolution, Resolution::Passthrough | Resolution::Dns | Resolution::DnsRoundRobin));
        Inputs {
            config: context.world.config,
            aliases: context.world.aliases.clone(),
            accounts: context.world.accounts.clone(),
            gateways: gateway::merged(context),
            namespaces,
            peers,
            live: live.map(|(i, s)| (i, context.mesh.endpoints.get(&service_key(s)).cloned())).collect(),
        }
    }
}

impl Difference {
    fn of(before: &View, context: &Context<'_>, inputs: &Inputs) -> Self {
        let (old, scope) = (&before.scope, context.scope);
        let pairs = || old.egress.iter().zip(&scope.egress);
        let same_shape = old.egress.len() == scope.egress.len() && pairs().all(|(a, b)| a.listener == b.listener);
        let same_rules = |a: &EgressScope, b: &EgressScope| Arc::ptr_eq(&a.virtual_services, &b.virtual_services);
        let l4 = |e: &EgressScope, other: &EgressScope| -> bool {
            e.virtual_services.iter().any(|v| v.is_l4() && !other.virtual_services.iter().any(|o| Arc::ptr_eq(o, v)))
        };
        let rules = !same_shape || !pairs().all(|(a, b)| same_rules(a, b));
        let services =
            !same_shape || !Arc::ptr_eq(&old.services, &scope.services) || !pairs().all(|(a, b)| Arc::ptr_eq(&a.services, &b.services));
        // Where hosts have several services, rules of others than the chosen one are looked up as well.
        let shadowed = !context.world.hosts_are_unique() && !old.rules.is_same(&scope.rules);
        let found = !Arc::ptr_eq(&old.found, &scope.found) || shadowed;
        let same_live = |(a, b): (&Live, &Live)| match (&a.1, &b.1) {
            (Some(x), Some(y)) => Arc::ptr_eq(x, y),
            (x, y) => x.is_none() && y.is_none(),
        };
        let live = before.inputs.live.len() != inputs.live.len() || !before.inputs.live.iter().zip(&inputs.live).all(same_live);
        let peers = before.inputs.peers != inputs.peers;
        let gateways = before.inputs.gateways != inputs.gateways;
        Difference {
            scope: services || rules,
            found,
            hashes: found && (shadowed || services || hashes_differ(&old.found, &scope.found)),
            services,
            units: services || found || live || gateways || peers || !before.inputs.accounts.ptr_eq(&inputs.accounts),
            live,
            gateways,
            sidecar: old.sidecar != scope.sidecar,
            l4_rules: rules && (!same_shape || pairs().any(|(a, b)| !same_rules(a, b) && (l4(a, b) || l4(b, a)))),
            rules,
            aliases: !Arc::ptr_eq(&before.inputs.aliases, &inputs.aliases)
                && scope.services.iter().any(|s| before.inputs.aliases.of(&s.host) != inputs.aliases.of(&s.host)),
        }
    }

    fn is_none(&self) -> bool {
        let Difference { scope, found, hashes: _, services, units, live, gateways, sidecar, l4_rules, rules, aliases } = self;
        ![scope, found, services, units, live, gateways, sidecar, l4_rules, rules, aliases].into_iter().any(|d| *d)
    }

    fn listeners(&self, gateway: bool) -> bool {
        self.services || self.found || self.live || self.gateways || self.sidecar || self.l4_rules || (gateway && self.rules)
    }

    fn routes(&self) -> bool {
        self.rules || self.routes_but_rules()
    }

    fn routes_but_rules(&self) -> bool {
        self.services || self.hashes || self.gateways || self.sidecar || self.aliases
    }
}

/// Of the rules for the same services: whether one that differs hashes requests, before or now.
fn hashes_differ(before: &[Found], now: &[Found]) -> bool {
    let hashes = |f: &Found| f.rule.as_ref().is_some_and(|r| r.hashes_requests());
    before.len() != now.len() || before.iter().zip(now).any(|(a, b)| a.rule != b.rule && (hashes(a) || hashes(b)))
}

/// A view under construction.
struct Maker<'a> {
    leaves: &'a Leaves,
    context: Context<'a>,
    before: Option<&'a View>,
    refused: Vec<Refused>,
    layers: Layers,
}

impl<'a> Maker<'a> {
    fn last_good(&self, type_url: TypeUrl) -> Option<&'a Arc<Layer>> {
        self.before.map(|b| b.layers.get(type_url))
    }

    /// Takes a layer over as it is, with what was refused in it.
    fn keep(&mut self, type_url: TypeUrl, from: &View) {
        self.layers.insert(type_url, from.layers.get(type_url).clone());
        self.refused.extend(from.refused.iter().filter(|r| r.type_url == type_url).cloned());
    }

    fn put(&mut self, type_url: TypeUrl, resources: Vec<Resource>) {
        let layer = Layer::new(resources);
        let layer = match self.last_good(type_url) {
            Some(before) => layer.after(before),
            None => Arc::new(layer),
        };
        self.layers.insert(type_url, layer);
    }

    fn units(&mut self, by_sni: bool, same_base: Option<&Arc<View>>) -> Arc<[Arc<Unit>]> {
        let recipe = Recipe::new(&self.context, by_sni);
        let known = same_base.filter(|b| b.inputs.gateways.has_auto_passthrough() == by_sni);
        let services = &self.context.scope.services;
        let unit = |index: usize| {
            let of = Ingredients::of(&self.context, index);
            let same = |unit: &&Arc<Unit>| unit.of.is_same(&of);
            let before = known.and_then(|b| {
                let at = b.units.get(index).filter(same);
                at.or_else(|| b.scope.index(&of.service.host).map(|i| &b.units[i]).filter(same))
            });
            before.cloned().unwrap_or_else(|| recipe.unit(self.leaves, of))
        };
        let units: Vec<Arc<Unit>> = (0..services.len()).map(unit).collect();
        match known {
            Some(b) if b.units.len() == units.len() && b.units.iter().zip(&units).all(|(a, b)| Arc::ptr_eq(a, b)) => b.units.clone(),
            _ => units.into(),
        }
    }

    /// `known`: a view whose clusters that stand for no service are the same.
    fn clusters(&mut self, units: &Arc<[Arc<Unit>]>, known: Option<&Arc<View>>) {
        if let Some(b) = known
            && Arc::ptr_eq(&b.units, units)
        {
            return self.keep(TypeUrl::Cluster, b);
        }
        let before = self.last_good(TypeUrl::Cluster);
        let address = |unit: &Arc<Unit>| Arc::as_ptr(unit).addr();
        let old: HashSet<usize> = known.iter().flat_map(|b| b.units.iter()).map(address).collect();
        let mut changes: Vec<(Arc<str>, Option<Resource>)> = Vec::new();
        if let Some(b) = known {
            let new: HashSet<usize> = units.iter().map(address).collect();
            let gone = b.units.iter().filter(|u| !new.contains(&address(u)));
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
    fn listeners(&mut self, settings: &Settings) -> Arc<[ListenerSpec]> {
        if self.context.class.flavour == Flavour::Grpc {
            self.put(TypeUrl::Listener, grpc::outbound(&self.context));
            return Arc::default();
        }
        let apart = self.context.class.own.is_none() && settings.names_workload();
        let specs = listener::of_scope(&self.context);
        let (named, shared): (Vec<_>, Vec<_>) = specs.into_iter().partition(|spec| apart && spec.reads_http());
        let resources = build_listeners(self.leaves, settings, &shared, self.last_good(TypeUrl::Listener), &mut self.refused);
        self.put(TypeUrl::Listener, resources);
        match self.before {
            Some(before) if *before.named == *named => before.named.clone(),
            _ => named.into(),
        }
    }

    /// `kept`: nothing changed; `inside`: at most rules inside VirtualServices did.
    fn routes(&mut self, kept: Option<&Arc<View>>, inside: Option<&Arc<View>>) -> Assembly {
        if let Some(b) = kept {
            self.keep(TypeUrl::Route, b);
            return b.routes.clone();
        }
        if self.context.class.flavour == Flavour::Grpc {
            self.put(TypeUrl::Route, grpc::routes(&self.context));
            return Assembly::default();
        }
        let before = self.before.map(|b| &b.routes);
        let known = self.refused.len();
        let mut assembler = Assembler { context: self.context, leaves: self.leaves, before, refused: &mut self.refused };
        // What was left out of a configuration would be missing in the next.
        let whole = |b: &&Arc<View>| b.refused.iter().all(|r| r.type_url != TypeUrl::Route);
        if let Some(b) = inside.filter(whole)
            && let Some(assembly) = assembler.advance(&b.routes, &b.scope)
        {
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

/// Listeners as resources.
pub(crate) fn build_listeners(
    leaves: &Leaves,
    settings: &Settings,
    specs: &[ListenerSpec],
    last_good: Option<&Arc<Layer>>,
    refused: &mut Vec<Refused>,
) -> Vec<Resource> {
    let mut builder = Builder::new(settings);
    let hash = ContentHash::of(settings);
    // Bytes are not traced: scopes that trace differently share their listeners.
    let untraced = ContentHash::of(&Settings { tracing: None, ..settings.clone() });
    let mut resources = Vec::with_capacity(specs.len());
    for spec in specs {
        let key = Key::of("listener", &(if spec.reads_http() { hash } else { untraced }, spec));
        let built = leaves
            .resource(TypeUrl::Listener, spec.name.as_str(), &key, true, last_good, || (builder.listener(spec), sources(&spec.sources)));
        resources.extend(resolve(&built, last_good, refused));
    }
    resources
}
