//! [`findings`]: what of users' objects has no effect, or hardly the one that was meant, as far as only the mesh as a whole shows it.
//!
//! What a single object shows by itself is found where it is converted. Everything here looks at one mesh at rest; it belongs to
//! no push and is never waited for. An object that contributes nothing to anybody is always among the findings, with the reason.

mod attachments;
mod destination_rules;
mod gateways;
mod policies;
mod routes;
mod services;
mod sidecars;
mod telemetry;
mod workloads;

use std::collections::BTreeMap;

use pilotfish_model::name::Kind;
use pilotfish_model::{Diagnostic, Meta, ObjectId};

use crate::world::World;
pub use workloads::Workloads;

/// Findings by object, each object's in the order of fields.
pub type Findings = BTreeMap<ObjectId, Vec<Diagnostic>>;

/// Everything, each object's findings in the order of fields. `workloads`: those that selectors may be meant for. `objects`: what
/// users wrote, of kinds that the mesh knows as services and workloads only.
pub fn findings<'a>(world: &World, workloads: &Workloads, objects: impl Iterator<Item = &'a ObjectId>) -> Findings {
    let mut report = Report::default();
    routes::look(world, workloads, &mut report);
    destination_rules::look(world, workloads, &mut report);
    gateways::look(world, workloads, &mut report);
    sidecars::look(world, workloads, &mut report);
    attachments::look(world, workloads, &mut report);
    telemetry::look(world, &mut report);
    policies::look(world, workloads, &mut report);
    services::look(world, workloads, objects, &mut report);
    let mut found = report.0;
    for list in found.values_mut() {
        list.sort();
        list.dedup();
    }
    found
}

/// Collects findings.
#[derive(Default)]
struct Report(Findings);

impl Report {
    fn warn(&mut self, id: &ObjectId, field: impl Into<String>, message: impl Into<String>) {
        self.0.entry(id.clone()).or_default().push(Diagnostic::warning(id, field, message));
    }
}

fn id(kind: Kind, meta: &Meta) -> ObjectId {
    ObjectId::new(kind, meta.namespace.clone(), meta.name.clone())
}

fn full_name(meta: &Meta) -> String {
    format!("{}/{}", meta.namespace, meta.name)
}
