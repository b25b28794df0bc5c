//! ServiceEntries and WorkloadEntries that nothing is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilotfish_model::name::{Kind, Str};
use pilotfish_model::{ObjectId, Service};

use super::Report;
use super::workloads::Workloads;
use crate::world::World;

pub(super) fn look<'a>(world: &World, workloads: &Workloads, objects: impl Iterator<Item = &'a ObjectId>, report: &mut Report) {
    let mut objects = objects.filter(|o| matches!(o.kind, Kind::ServiceEntry | Kind::WorkloadEntry)).peekable();
    if objects.peek().is_none() {
        return;
    }
    let mut behind: BTreeMap<&ObjectId, Vec<&Arc<Service>>> = BTreeMap::new();
    for service in world.mesh.services.values() {
        for source in std::iter::once(&service.source).chain(&service.joined) {
            behind.entry(source).or_default().push(service);
        }
    }
    let instances = || world.mesh.workloads.values().flat_map(|w| w.iter()).filter(|w| !w.targets.is_empty());
    let serving: BTreeSet<(&Str, &Str)> = instances().map(|w| (&w.workload.namespace, &w.workload.name)).collect();
    for object in objects {
        match object.kind {
            Kind::ServiceEntry => match behind.get(object).map(Vec::as_slice) {
                None => report.warn(
                    object,
                    "spec.hosts",
                    "has no effect: older ServiceEntries of its namespace have all its hosts, and these are other than they",
                ),
                Some(services) if services.iter().all(|s| s.ports.is_empty()) => {
                    report.warn(object, "spec.ports", "has no effect: there are none");
                }
                Some(services) => {
                    if let Some(why) = services.first().and_then(|s| workloads.unseen(&s.visibility, &s.namespace)) {
                        report.warn(object, "spec.exportTo", format!("has no effect: {why}"));
                    }
                }
            },
            Kind::WorkloadEntry if !serving.contains(&(&object.namespace, &object.name)) => {
                report.warn(object, "spec.labels", format!("serves nothing: no service of namespace {} selects it", object.namespace));
            }
            _ => {}
        }
    }
}
