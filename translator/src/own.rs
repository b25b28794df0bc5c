//! [`Own`]: what only one class gets: clusters and listeners for what its workload serves, and listeners that say its name.

use std::sync::Arc;

use pilotfish_envoy::{Layer, Layers, Resource, TypeUrl};
use pilotfish_model::ChangeSet;
use pilotfish_model::proxy::Flavour;
use pilotfish_model::sidecar::Sidecar;

use crate::class::ProxyClass;
use crate::cluster::{self, inbound_rule};
use crate::context::OwnContext;
use crate::endpoint;
use crate::grpc;
use crate::leaf::{Key, Leaves};
use crate::listener::{self, ListenerSpec, Settings};
use crate::patch::{Applied, Patched, Patches, Place};
use crate::policy::Found;
use crate::refused::{Refused, resolve};
use crate::security::Security;
use crate::unit::sources;
use crate::view::{View, build_listeners};
use crate::world::World;

/// See the module.
pub struct Own {
    pub(crate) class: ProxyClass,
    /// What of the view it was made of.
    settings: Arc<Settings>,
    named: Arc<[ListenerSpec]>,
    sidecar: Option<Arc<Sidecar>>,
    /// Rules for what is served.
    pub(crate) found: Vec<Found>,
    /// Policies that hold for what is served.
    pub(crate) security: Option<Arc<Security>>,
    /// As if there were no patches.
    layers: Layers,
    refused: Vec<Refused>,
    patches: Option<Arc<Patches>>,
    patched: Option<Patched>,
}

impl Own {
    pub(crate) fn make(
        leaves: &Leaves,
        world: &World,
        class: &ProxyClass,
        view: &Arc<View>,
        before: Option<(&Arc<Own>, &ChangeSet)>,
    ) -> Arc<Own> {
        let facts = class.facts();
        if let Some((own, changes)) = before
            && own.class == *class
            && own.serves(view)
            && !own.touched_by(world, changes)
        {
            leaves.work.owns_unchanged.add(1);
            return own.clone();
        }
        leaves.work.owns.add(1);
        let before = before.map(|(own, _)| own);
        let context =
            OwnContext { world, mesh: &world.mesh, class: facts.scope.facts(), own: &facts.own, sidecar: view.scope.sidecar.as_ref() };
        let mut refused = Vec::new();
        let mut layers = Layers::new();
        let mut put = |type_url: TypeUrl, resources: Vec<Resource>| {
            let layer = Layer::new(resources);
            let layer = match before {
                Some(before) => layer.after(before.layers.get(type_url)),
                None => Arc::new(layer),
            };
            layers.insert(type_url, layer);
        };
        let last_good = |type_url: TypeUrl| before.map(|b| b.layers.get(type_url));
        let is_router = context.class.is_router();
        let security = if is_router { None } else { Security::of(world, &context.class.namespace, &facts.own.labels, false) };
        put(TypeUrl::Endpoint, local_cluster(leaves, &context, last_good(TypeUrl::Endpoint), &mut refused));
        if context.class.flavour == Flavour::Grpc {
            put(TypeUrl::Listener, grpc::inbound(&context, security.as_deref()));
        } else {
            put(TypeUrl::Cluster, clusters(leaves, &context, last_good(TypeUrl::Cluster), &mut refused));
            let settings = view.settings.of_workload(&facts.own);
            let mut specs = listener::of_own(&context);
            specs.extend(view.named.iter().cloned());
            let (secured, before) = (security.as_deref(), last_good(TypeUrl::Listener));
            put(TypeUrl::Listener, build_listeners(leaves, &settings, &view.parts, secured, &specs, before, &mut refused));
        }
        let served = facts.own.targets.iter().filter_map(|t| world.mesh.services.get(&t.service));
        let found = served.map(|service| inbound_rule(&context, service)).collect();
        let (settings, named, sidecar, patches) =
            (view.settings.clone(), view.named.clone(), view.scope.sidecar.clone(), view.patches.clone());
        let patched = patches.as_ref().filter(|_| context.class.is_sidecar()).map(|patches| {
            let known = before.and_then(|b| b.patched.as_ref());
            Patched::make(leaves, patches, Place::Own, Default::default(), &layers, known, before.map(|b| b.layers()))
        });
        Arc::new(Own { class: class.clone(), settings, named, sidecar, found, security, layers, refused, patches, patched })
    }

    /// The resources by type.
    pub fn layers(&self) -> &Layers {
        self.patched.as_ref().map_or(&self.layers, Patched::layers)
    }

    /// What became of the patches that its proxies get.
    pub fn applied(&self) -> Vec<Applied> {
        self.patched.as_ref().map(Patched::report).unwrap_or_default()
    }

    /// What was kept in.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// True if a newer view gives the same.
    fn serves(&self, view: &View) -> bool {
        self.sidecar == view.scope.sidecar
            && (Arc::ptr_eq(&self.settings, &view.settings) || self.settings == view.settings)
            && (Arc::ptr_eq(&self.named, &view.named) || self.named == view.named)
            && self.patches == view.patches
    }
}

fn clusters(leaves: &Leaves, context: &OwnContext<'_>, last_good: Option<&Arc<Layer>>, refused: &mut Vec<Refused>) -> Vec<Resource> {
    let mut resources = Vec::new();
    let behind = listener::inbound_sources(context);
    cluster::inbound(context, &mut |input| {
        let key = Key::of("cluster", &input);
        let built =
            leaves.resource(TypeUrl::Cluster, input.name.clone(), &key, true, last_good, || (cluster::build(&input), sources(&behind)));
        resources.extend(resolve(&built, last_good, refused));
    });
    resources
}

fn local_cluster(leaves: &Leaves, context: &OwnContext<'_>, last_good: Option<&Arc<Layer>>, refused: &mut Vec<Refused>) -> Vec<Resource> {
    let Some(input) = endpoint::local_cluster(context) else { return Vec::new() };
    let checked = context.class.flavour != Flavour::Grpc;
    let key = Key::of("assignment", &(checked, &input));
    let built = leaves.resource(TypeUrl::Endpoint, endpoint::LOCAL_CLUSTER, &key, checked, last_good, || {
        (endpoint::assignment(&input).into_message(), Default::default())
    });
    resolve(&built, last_good, refused).into_iter().collect()
}
