//! [`Endpoints`]: the assignments of a view. Made apart from it, because endpoints come and go far more often, and must not
//! wait for anything else.

use std::collections::{BTreeMap, HashMap, HashSet};
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
use crate::world::World;

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
            for built in build(leaves, &self.view, unit, &new, Some(&self.layer)) {
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
        let mut known = before.map(|b| Known { before: b, at: HashMap::new() });
        let mut all = Vec::with_capacity(view.units.len());
        let mut changes: Vec<(Arc<str>, Option<Resource>)> = Vec::new();
        let mut refused = Vec::new();
        if let Some(before) = before.filter(|b| !Arc::ptr_eq(&b.view.units, &view.units)) {
            let kept: HashSet<usize> = view.units.iter().map(address).collect();
            let gone = before.view.units.iter().filter(|u| !kept.contains(&address(u)));
            changes.extend(gone.flat_map(|u| &u.plans).map(|p| (p.cluster.clone(), None)));
        }
        for (index, unit) in view.units.iter().enumerate() {
            if unit.plans.is_empty() {
                all.push(None);
                continue;
            }
            let new = assigned(world, unit);
            if known.as_mut().and_then(|k| k.of(index, unit)).is_some_and(|old| old.is_same(&new)) {
                let names = |r: &&Refused| unit.plans.iter().any(|p| p.cluster == r.name);
                refused.extend(before.iter().flat_map(|b| &b.refused).filter(names).cloned());
            } else {
                leaves.work.services_assigned.add(1);
                for built in build(leaves, view, unit, &new, before.map(|b| &b.layer)) {
                    changes.push((built.name().clone(), resolve(&built, before.map(|b| &b.layer), &mut refused)));
                }
            }
            all.push(Some(new));
        }
        let layer = match before {
            Some(before) => before.layer.updated(changes),
            None => Arc::new(Layer::new(changes.into_iter().filter_map(|(_, resource)| resource))),
        };
        Arc::new(Endpoints { view: view.clone(), assigned: all, layer, refused })
    }
}

/// What was assigned before, by unit.
struct Known<'a> {
    before: &'a Endpoints,
    /// Where units were; made when the first is not where it was.
    at: HashMap<usize, usize>,
}

impl Known<'_> {
    fn of(&mut self, index: usize, unit: &Arc<Unit>) -> Option<&Assigned> {
        let units = &self.before.view.units;
        if units.get(index).is_some_and(|u| Arc::ptr_eq(u, unit)) {
            return self.before.assigned[index].as_ref();
        }
        if self.at.is_empty() {
            self.at = units.iter().enumerate().map(|(i, u)| (address(u), i)).collect();
        }
        self.before.assigned[*self.at.get(&address(unit))?].as_ref()
    }
}

fn address(unit: &Arc<Unit>) -> usize {
    Arc::as_ptr(unit).addr()
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
    let endpoints = world.mesh.endpoints.get(&unit.of.key).cloned();
    let plaintext = endpoints.as_ref().map(|e| endpoint::plaintext(&world.mesh, e)).unwrap_or_default();
    Assigned { endpoints, plaintext }
}

fn build<'a>(
    leaves: &'a Leaves,
    view: &'a View,
    unit: &'a Unit,
    of: &'a Assigned,
    served: Option<&'a Arc<Layer>>,
) -> impl Iterator<Item = Built> + 'a {
    let checked = view.class.facts().flavour != Flavour::Grpc;
    unit.plans.iter().map(move |plan| {
        let input =
            AssignmentInput { plan: plan.clone(), endpoints: of.endpoints.clone().unwrap_or_default(), plaintext: of.plaintext.clone() };
        let key = Key::of("assignment", &input);
        leaves
            .resource(TypeUrl::Endpoint, plan.cluster.clone(), &key, checked, served, || (endpoint::assignment(&input), unit.of.sources()))
    })
}
