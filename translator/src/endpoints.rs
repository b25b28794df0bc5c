//! [`Endpoints`]: the assignments of a view. Made apart from it, because endpoints come and go far more often, and must not
//! wait for anything else.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use pilotfish_envoy::{Layer, Resource};
use pilotfish_model::EndpointChange;
use pilotfish_model::endpoint::Endpoint;
use pilotfish_model::mesh::ServiceKey;
use pilotfish_model::proxy::Flavour;

use crate::endpoint::{self, AssignmentInput};
use crate::leaf::{AT_ONCE, Built, Key, Leaves, Wanted};
use crate::refused::{Refused, resolve};
use crate::unit::{self, Unit, address};
use crate::view::View;
use crate::world::World;

/// See the module.
pub struct Endpoints {
    view: Arc<View>,
    /// One per unit; `None` for services without assignments.
    assigned: Vec<Option<Arc<Assigned>>>,
    layer: Arc<Layer>,
    refused: Vec<Refused>,
}

/// The assignments of one service. Scopes that share its unit share them.
pub(crate) struct Assigned {
    /// Kept for its address.
    _unit: Arc<Unit>,
    of: Answers,
    built: Vec<Built>,
}

/// Who answers for a service.
#[derive(Clone)]
struct Answers {
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
        let mut next: Option<Vec<Option<Arc<Assigned>>>> = None;
        let mut resources: Vec<(Arc<str>, Option<Resource>)> = Vec::new();
        let mut refused = self.refused.clone();
        for index in changed.keys().filter_map(|key| self.view.index(key)) {
            let unit = &self.view.units[index];
            if unit.plans.is_empty() {
                continue;
            }
            let of = Answers::of(world, unit);
            if self.assigned[index].as_ref().is_some_and(|old| old.of.is_same(&of) || is_gone(world, unit)) {
                continue;
            }
            refused.retain(|r| unit.plans.iter().all(|p| p.cluster != r.name));
            for new in assign(leaves, &self.view, vec![(unit, of)], Some(&self.layer)) {
                resources.extend(new.built.iter().map(|b| (b.name().clone(), resolve(b, Some(&self.layer), &mut refused))));
                next.get_or_insert_with(|| self.assigned.clone())[index] = Some(new);
            }
        }
        match next {
            None => self.clone(),
            Some(assigned) => Arc::new(Endpoints { view: self.view.clone(), assigned, layer: self.layer.updated(resources), refused }),
        }
    }

    fn of_all(leaves: &Leaves, world: &World, view: &Arc<View>, before: Option<&Arc<Endpoints>>) -> Arc<Endpoints> {
        let mut known = before.map(|b| Known { before: b, at: HashMap::new() });
        let mut all = Vec::with_capacity(view.units.len());
        let mut new: Vec<(usize, Answers)> = Vec::new();
        let mut changes: Vec<(Arc<str>, Option<Resource>)> = Vec::new();
        let mut refused = Vec::new();
        if let Some(before) = before.filter(|b| !Arc::ptr_eq(&b.view.units, &view.units)) {
            let gone = unit::missing(&before.view.units, &view.units);
            changes.extend(gone.flat_map(|u| &u.plans).map(|p| (p.cluster.clone(), None)));
        }
        for (index, unit) in view.units.iter().enumerate() {
            if unit.plans.is_empty() {
                all.push(None);
                continue;
            }
            let of = Answers::of(world, unit);
            if let Some(old) = known.as_mut().and_then(|k| k.of(index, unit)).filter(|old| old.of.is_same(&of) || is_gone(world, unit)) {
                let names = |r: &&Refused| unit.plans.iter().any(|p| p.cluster == r.name);
                refused.extend(before.iter().flat_map(|b| &b.refused).filter(names).cloned());
                all.push(Some(old.clone()));
                continue;
            }
            all.push(None);
            new.push((index, of));
        }
        let served = before.map(|b| &b.layer);
        let mut new = new.into_iter().map(|(index, of)| (index, (&view.units[index], of)));
        while new.len() > 0 {
            let (at, some): (Vec<usize>, Vec<(&Arc<Unit>, Answers)>) = new.by_ref().take(AT_ONCE).unzip();
            for (index, made) in at.into_iter().zip(assign(leaves, view, some, served)) {
                changes.extend(made.built.iter().map(|b| (b.name().clone(), resolve(b, served, &mut refused))));
                all[index] = Some(made);
            }
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
    fn of(&mut self, index: usize, unit: &Arc<Unit>) -> Option<&Arc<Assigned>> {
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

/// A service that is gone goes with the view that lacks it, after the routes that name it: until then its assignments stay.
fn is_gone(world: &World, unit: &Unit) -> bool {
    !world.mesh.services.contains_key(&unit.of.key)
}

impl Answers {
    fn of(world: &World, unit: &Unit) -> Self {
        let endpoints = world.mesh.endpoints.get(&unit.of.key).cloned();
        let plaintext = endpoints.as_ref().map(|e| endpoint::plaintext(&world.mesh, e)).unwrap_or_default();
        Answers { endpoints, plaintext }
    }

    fn is_same(&self, other: &Answers) -> bool {
        self.address() == other.address() && self.plaintext == other.plaintext
    }

    fn address(&self) -> usize {
        self.endpoints.as_ref().map_or(0, |e| Arc::as_ptr(e).addr())
    }
}

/// The endpoints of services that have none: one list, as the address of a list tells what is made of it.
static NOBODY: LazyLock<Arc<Vec<Endpoint>>> = LazyLock::new(Arc::default);

/// The assignments of some services, made or found. What they are made of lives as long as they, so addresses tell it.
fn assign(leaves: &Leaves, view: &View, wanted: Vec<(&Arc<Unit>, Answers)>, served: Option<&Arc<Layer>>) -> Vec<Arc<Assigned>> {
    let checked = view.class.facts().flavour != Flavour::Grpc;
    let mut found: Vec<(Key, Option<Arc<Assigned>>)> = Vec::with_capacity(wanted.len());
    let mut missing = Vec::with_capacity(wanted.len());
    for (unit, of) in &wanted {
        leaves.work.services_assigned.add(1);
        let key = Key::of("assigned", &(address(unit), of.address(), &of.plaintext));
        let kept = leaves.kept(&key);
        if kept.is_none() {
            let (endpoints, plaintext) = (of.endpoints.as_ref().unwrap_or(&NOBODY), &of.plaintext);
            missing.extend(unit.plans.iter().map(|plan| {
                let key = Key::of("assignment", &(checked, plan, Arc::as_ptr(endpoints).addr(), plaintext));
                let input = AssignmentInput { plan: plan.clone(), endpoints: endpoints.clone(), plaintext: plaintext.clone() };
                Wanted { name: plan.cluster.clone(), key, input: (input, *unit) }
            }));
        }
        found.push((key, kept));
    }
    let make = |input: &AssignmentInput, unit: &Unit| {
        (endpoint::assignment(input), unit.of.sources_with(&unit::entries(input.chosen().map(|(_, e)| e))))
    };
    let mut made = leaves.assignments(missing, checked, served, make).into_iter();
    let mut all = Vec::with_capacity(wanted.len());
    for ((unit, of), (key, kept)) in wanted.into_iter().zip(found) {
        all.push(kept.unwrap_or_else(|| {
            let built = made.by_ref().take(unit.plans.len()).collect();
            let new = Arc::new(Assigned { built, _unit: unit.clone(), of });
            leaves.keep(&key, &new);
            new
        }));
    }
    all
}
