//! [`Endpoints`]: the assignments of a view. Made apart from it, because endpoints come and go far more often, and must not
//! wait for anything else.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_envoy::{Layer, Resource, TypeUrl};
use pilotfish_model::EndpointChange;
use pilotfish_model::endpoint::Endpoint;
use pilotfish_model::mesh::ServiceKey;
use pilotfish_model::proxy::Flavour;

use crate::endpoint::{self, AssignmentInput};
use crate::leaf::{Built, Key, Leaves};
use crate::refused::{Refused, resolve};
use crate::unit::Unit;
use crate::view::View;
use crate::world::{World, service_key};

/// See the module.
pub struct Endpoints {
    view: Arc<View>,
    assigned: Vec<Option<Assigned>>,
    layer: Arc<Layer>,
    refused: Vec<Refused>,
}

/// The assignments of one service, and what they were made of.
#[derive(Clone)]
struct Assigned {
    endpoints: Option<Arc<Vec<Endpoint>>>,
    plaintext: Arc<[usize]>,
}

impl Endpoints {
    pub(crate) fn make(
        leaves: &Leaves,
        world: &World,
        view: &Arc<View>,
        before: Option<&Arc<Endpoints>>,
        changed: Option<&BTreeMap<ServiceKey, EndpointChange>>,
    ) -> Arc<Endpoints> {
        match (before, changed) {
            (Some(before), Some(changed)) if Arc::ptr_eq(&before.view, view) => before.of_services(leaves, world, changed),
            _ => Self::of_all(leaves, world, view, before),
        }
    }

    /// Assignments by the names of clusters.
    pub fn layer(&self) -> &Arc<Layer> {
        &self.layer
    }

    /// What was kept in.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    fn of_services(self: &Arc<Self>, leaves: &Leaves, world: &World, changed: &BTreeMap<ServiceKey, EndpointChange>) -> Arc<Endpoints> {
        let mut next: Option<Vec<Option<Assigned>>> = None;
        let mut resources: Vec<(Arc<str>, Option<Resource>)> = Vec::new();
        let mut refused = self.refused.clone();
        for index in changed.keys().filter_map(|key| self.view.index(key)) {
            let unit = &self.view.units[index];
            if unit.plans.is_empty() {
                continue;
            }
            let new = assigned(world, unit);
            if self.assigned[index].as_ref().is_some_and(|old| old.is_same(&new)) {
                continue;
            }
            leaves.work.services_assigned.add(1);
            refused.retain(|r| unit.plans.iter().all(|p| p.cluster != r.name));
            for built in build(leaves, &self.view, unit, &new) {
                resources.push((built.name().clone(), resolve(&built, Some(&self.layer), &mut refused)));
            }
            next.get_or_insert_with(|| self.assigned.clone())[index] = Some(new);
        }
        match next {
            None => self.clone(),
            Some(assigned) => Arc::new(Endpoints { view: self.view.clone(), assigned, layer: self.layer.updated(resources), refused }),
        }
    }

    fn of_all(leaves: &Leaves, world: &World, view: &Arc<View>, before: Option<&Arc<Endpoints>>) -> Arc<Endpoints> {
        let mut all = Vec::with_capacity(view.units.len());
        let mut resources = Vec::with_capacity(view.units.len() * 2);
        let mut refused = Vec::new();
        let last_good = before.map(|b| &b.layer);
        for unit in view.units.iter() {
            if unit.plans.is_empty() {
                all.push(None);
                continue;
            }
            leaves.work.services_assigned.add(1);
            let new = assigned(world, unit);
            for built in build(leaves, view, unit, &new) {
                resources.extend(resolve(&built, last_good, &mut refused));
            }
            all.push(Some(new));
        }
        let layer = Layer::new(resources);
        let layer = match last_good {
            Some(before) => layer.after(before),
            None => Arc::new(layer),
        };
        Arc::new(Endpoints { view: view.clone(), assigned: all, layer, refused })
    }
}

impl Assigned {
    fn is_same(&self, other: &Assigned) -> bool {
        let same = match (&self.endpoints, &other.endpoints) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        same && self.plaintext == other.plaintext
    }
}

fn assigned(world: &World, unit: &Unit) -> Assigned {
    let endpoints = world.mesh.endpoints.get(&service_key(&unit.of.service)).cloned();
    let plaintext = endpoints.as_ref().map(|e| endpoint::plaintext(&world.mesh, e)).unwrap_or_default();
    Assigned { endpoints, plaintext }
}

fn build<'a>(leaves: &'a Leaves, view: &'a View, unit: &'a Unit, of: &'a Assigned) -> impl Iterator<Item = Built> + 'a {
    let checked = view.class.facts().flavour != Flavour::Grpc;
    unit.plans.iter().map(move |plan| {
        let input =
            AssignmentInput { plan: plan.clone(), endpoints: of.endpoints.clone().unwrap_or_default(), plaintext: of.plaintext.clone() };
        let key = Key::of("assignment", &input);
        leaves.resource(TypeUrl::Endpoint, plan.cluster.clone(), &key, checked, || (endpoint::assignment(&input), unit.of.sources()))
    })
}
