//! The translator behind the server's seam: [`MeshTranslator`].

use std::fmt::Debug;
use std::sync::Arc;

use pilotfish_envoy::{Layer, Layers, Resource, ResourceSet};
use pilotfish_model::{Kind, Proxy};
use pilotfish_translator::{Applied, Endpoints, Own, ProxyClass, Refused, ScopeClass, Translator, View, World};
use pilotfish_xds_server::Translate;

use super::Change;

/// The translator, with its cache.
#[derive(Clone, Default)]
pub struct MeshTranslator(Arc<Translator>);

impl MeshTranslator {
    /// What it did so far.
    pub fn translator(&self) -> &Translator {
        &self.0
    }
}

/// Says what is kept in that was not kept in before: a defect of ours, which users should not have to find by its silence.
fn report(refused: &[Refused], before: &[Refused], place: &impl Debug) {
    for Refused { type_url, name, violations, replaced } in refused.iter().filter(|r| !before.contains(r)) {
        tracing::error!(?place, r#type = type_url.short(), %name, replaced, ?violations, "breaks Envoy's rules and is kept in");
    }
}

/// Says which patches cannot be applied that could before.
fn report_patches(applied: &[Applied], before: &[Applied]) {
    let failed = |applied: &&Applied| {
        applied.error.is_some()
            && !before.iter().any(|b| (&b.object, b.index, &b.error) == (&applied.object, applied.index, &applied.error))
    };
    for Applied { object, index, error, .. } in applied.iter().filter(failed) {
        let error = error.as_deref().unwrap_or_default();
        tracing::warn!(%object, patch = index, error, "the patch is left out of what it breaks");
    }
}

impl Translate for MeshTranslator {
    type World = World;
    type Change = Change;
    type Class = ProxyClass;
    type Scope = ScopeClass;
    type View = View;
    type Endpoints = Endpoints;
    type Own = Own;

    fn root_namespace<'a>(&self, world: &'a World) -> &'a str {
        &world.mesh.config.root_namespace
    }

    fn domain<'a>(&self, world: &'a World) -> &'a str {
        &world.mesh.domain
    }

    fn classify(&self, world: &World, proxy: &Proxy) -> ProxyClass {
        self.0.classify(world, proxy)
    }

    fn reclassifies(&self, change: &Change, proxy: &Proxy) -> bool {
        pilotfish_translator::reclassifies(&change.0, proxy)
    }

    fn scope(&self, class: &ProxyClass) -> ScopeClass {
        class.scope().clone()
    }

    fn group(&self, scope: &ScopeClass) -> Arc<str> {
        scope.namespace().clone()
    }

    fn view(&self, world: &World, scope: &ScopeClass, before: Option<(&Arc<View>, &Change)>) -> Arc<View> {
        let view = self.0.view(world, scope, before.map(|(view, change)| (view, &change.0)));
        report(view.refused(), before.map_or(&[], |(before, _)| before.refused()), scope);
        report_patches(&view.applied(), &before.map(|(before, _)| before.applied()).unwrap_or_default());
        view
    }

    fn endpoints(&self, world: &World, view: &Arc<View>, before: Option<&Arc<Endpoints>>, changed: Option<&Change>) -> Arc<Endpoints> {
        let endpoints = self.0.endpoints(world, view, before, changed.map(|change| &change.0.endpoints));
        report(endpoints.refused(), before.map_or(&[], |before| before.refused()), &"endpoints");
        endpoints
    }

    fn own(&self, world: &World, class: &ProxyClass, view: &Arc<View>, before: Option<(&Arc<Own>, &Change)>) -> Arc<Own> {
        let own = self.0.own(world, class, view, before.map(|(own, change)| (own, &change.0)));
        report(own.refused(), before.map_or(&[], |(before, _)| before.refused()), class);
        report_patches(&own.applied(), &before.map(|(before, _)| before.applied()).unwrap_or_default());
        own
    }

    fn touches_view(&self, world: &World, view: &View, change: &Change) -> bool {
        view.touched_by(world, &change.0)
    }

    fn touches_own(&self, world: &World, own: &Own, change: &Change) -> bool {
        own.touched_by(world, &change.0)
    }

    fn touches_endpoints(&self, view: &View, change: &Change) -> bool {
        change.0.endpoints.keys().any(|service| view.sees(service))
    }

    fn touches_secrets(&self, change: &Change) -> bool {
        let secret = |kind| matches!(kind, Kind::Secret | Kind::Gateway | Kind::DestinationRule);
        change.0.everything || change.0.objects.iter().any(|object| secret(object.kind))
    }

    fn view_layers<'a>(&self, view: &'a View) -> &'a Layers {
        view.layers()
    }

    fn endpoint_layer<'a>(&self, endpoints: &'a Endpoints) -> &'a Arc<Layer> {
        endpoints.layer()
    }

    fn own_layers<'a>(&self, own: &'a Own) -> &'a Layers {
        own.layers()
    }

    fn secrets(&self, world: &World, proxy: &Proxy, names: &[Arc<str>]) -> Vec<Resource> {
        pilotfish_translator::secret::secrets(&world.mesh, proxy, names)
    }

    fn with_credentials(&self, world: &World, extensions: &ResourceSet) -> Vec<Resource> {
        pilotfish_translator::secret::with_credentials(&world.mesh, extensions)
    }
}
