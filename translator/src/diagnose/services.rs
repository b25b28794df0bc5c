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
    let mut behind: BTreeMap<&ObjectId, Vec<(&Arc<Service>, &Service)>> = BTreeMap::new();
    for service in world.mesh.services.values() {
        for one in service.all() {
            behind.entry(&one.source).or_default().push((service, one));
        }
    }
    let instances = || world.mesh.workloads.values().flat_map(|w| w.iter()).filter(|w| !w.targets.is_empty());
    let serving: BTreeSet<(&Str, &Str)> = instances().map(|w| (&w.workload.namespace, &w.workload.name)).collect();
    for object in objects {
        match object.kind {
            Kind::ServiceEntry => match behind.get(object).map(Vec::as_slice) {
                None => {}
                Some(services) if services.iter().all(|(_, s)| s.ports.is_empty()) => {
                    report.warn(object, "spec.ports", "has no effect: there are none");
                }
                Some(services) => {
                    let unseen = |(_, s): &(_, &Service)| workloads.unseen(&s.visibility, &s.namespace);
                    if let Some(why) = services.first().and_then(unseen) {
                        report.warn(object, "spec.exportTo", format!("has no effect: {why}"));
                    } else if let Some((main, _)) = services.first()
                        && services.iter().all(|(main, s)| s.source != main.source && !main.takes_ports_of(s))
                    {
                        let by = format!("{} {}/{}", main.source.kind.as_str(), main.source.namespace, main.source.name);
                        let message =
                            format!("{by} has its hosts, and is other than it: only its addresses and endpoints count where both are seen");
                        report.warn(object, "spec.hosts", message);
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
