//! [`View`]: what a scope sees, and the resources made of it.
//!
//! A view records what it was made of. The next one looks up the same in a newer world, at a cost that grows with the scope
//! and not with the mesh, keeps by pointer what is the same, and makes the rest. Change sets only say when to look: one that
//! comes twice, or after the world it belongs to, does no harm.
//!
//! The first view of a scope starts from that of a sibling, a scope that differs only in where its proxies run, if there is one:
//! of all resources, only clusters and assignments depend on that.

mod difference;
mod maker;

use std::sync::Arc;

use pilotfish_envoy::{Layers, TypeUrl};
use pilotfish_model::mesh::ServiceKey;

use crate::class::ScopeClass;
use crate::context::Context;
use crate::leaf::{Key, Leaves};
use crate::listener::{ListenerSpec, Parts, Settings};
use crate::name_table;
use crate::patch::{Applied, Patched, Patches, Place, port_names};
use crate::refused::Refused;
use crate::route::Assembly;
use crate::scope::Scope;
use crate::tls;
use crate::unit::Unit;
use crate::world::World;
use difference::{Difference, Inputs};
use maker::{Known, Maker};

pub(crate) use maker::build_listeners;

/// See the module.
pub struct View {
    pub(crate) class: ScopeClass,
    /// Under which siblings find it.
    anywhere: Key,
    pub(crate) scope: Scope,
    pub(crate) inputs: Inputs,
    /// One per service of the scope.
    pub(crate) units: Arc<[Arc<Unit>]>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) parts: Arc<Parts>,
    /// Listeners that depend on what the workload is called: each class makes them for itself.
    pub(crate) named: Arc<[ListenerSpec]>,
    routes: Assembly,
    /// As if there were no patches.
    layers: Layers,
    refused: Vec<Refused>,
    pub(crate) patches: Option<Arc<Patches>>,
    patched: Option<Patched>,
}

impl View {
    pub(crate) fn make(leaves: &Leaves, world: &World, class: &ScopeClass, before: Option<&Arc<View>>) -> Arc<View> {
        let facts = class.facts();
        let comparable = |b: &&Arc<View>| b.inputs.config == world.config;
        let own_base = before.filter(|b| b.class == *class).filter(comparable);
        let anywhere = own_base.map_or_else(|| Key::of("view", &facts.anywhere()), |b| b.anywhere);
        let sibling = if own_base.is_none() { leaves.kept::<View>(&anywhere) } else { None };
        let same_base = own_base.or(sibling.as_ref().filter(comparable));
        let scope = Scope::of(world, facts, same_base.map(|b| &b.scope));
        let context = Context::new(world, facts, &scope);
        let same_services = same_base.filter(|b| Arc::ptr_eq(&b.scope.services, &scope.services));
        let inputs = Inputs::of(&context, same_services.map(|b| &**b));
        let difference = same_base.map(|b| Difference::of(b, &context, &inputs));
        let patches = Patches::of(world, facts);
        if let (Some(b), Some(d)) = (own_base, &difference)
            && d.is_none()
            && b.patches == patches
        {
            leaves.work.views_unchanged.add(1);
            return b.clone();
        }
        leaves.work.views.add(1);
        let mut maker = Maker::new(leaves, context, before.or(same_base).map(|b| &**b));
        let router = facts.is_router();
        let kept = |unchanged: &dyn Fn(&Difference) -> bool| same_base.filter(|_| difference.as_ref().is_some_and(unchanged));
        let by_sni = inputs.gateways.has_auto_passthrough();
        let own = |_: &&Arc<View>| own_base.is_some();
        // Units hold what endpoints are chosen by, which is where a proxy runs: a sibling's are others.
        let units = match kept(&|d| !d.units).filter(own) {
            Some(b) => b.units.clone(),
            None => maker.units(by_sni, inputs.reached.as_ref(), own_base),
        };
        maker.clusters(&units, kept(&|d| !d.sidecar).filter(own));
        let (settings, parts) = match kept(&|d| !d.services && !d.sidecar && !d.telemetry) {
            Some(b) => (b.settings.clone(), b.parts.clone()),
            None => {
                let settings = Settings::of(&context, &inputs.telemetries, &inputs.extensions);
                let parts = Arc::new(Parts::of(&settings));
                (Arc::new(settings), parts)
            }
        };
        let named = match kept(&|d| !d.listeners(router)) {
            Some(b) => {
                maker.keep(TypeUrl::Listener, b);
                b.named.clone()
            }
            None => maker.listeners(&settings, &parts, inputs.security.as_deref()),
        };
        let known = Known {
            same: kept(&|d| !d.routes()),
            but_rules: kept(&|d| !d.routes_but_rules()),
            but_services: kept(&|d| !d.routes_but_services()),
        };
        let routes = maker.routes(known);
        match kept(&|d| !d.scope && !d.found && !d.gateways) {
            Some(b) => maker.keep(TypeUrl::Secret, b),
            None => maker.put(TypeUrl::Secret, tls::file_secrets(&context)),
        }
        match kept(&|d| !d.telemetry) {
            Some(b) => maker.keep(TypeUrl::ExtensionConfig, b),
            None => maker.extensions(&settings),
        }
        match kept(&|d| !d.services && !d.live) {
            Some(b) => maker.keep(TypeUrl::NameTable, b),
            None => maker.put(TypeUrl::NameTable, name_table::name_table(&context)),
        }
        let Maker { refused, layers, .. } = maker;
        let patched = patches.as_ref().map(|patches| {
            let place = if router { Place::Gateway } else { Place::Scope };
            let (known, served) = (before.or(same_base), before.map(|b| b.layers()));
            Patched::make(leaves, patches, place, port_names(&inputs.gateways), &layers, known.and_then(|b| b.patched.as_ref()), served)
        });
        let class = class.clone();
        let view = View { class, anywhere, inputs, units, settings, parts, named, routes, layers, refused, scope, patches, patched };
        let view = Arc::new(view);
        leaves.keep(&anywhere, &view);
        view
    }

    /// The resources by type, without assignments and without what [`crate::Own`] has.
    pub fn layers(&self) -> &Layers {
        self.patched.as_ref().map_or(&self.layers, Patched::layers)
    }

    /// What became of the patches that its proxies get.
    pub fn applied(&self) -> Vec<Applied> {
        self.patched.as_ref().map(Patched::report).unwrap_or_default()
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
