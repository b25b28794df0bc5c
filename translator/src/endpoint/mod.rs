//! Endpoints (EDS): who answers for a cluster, in which locality, with which weight and priority.
//!
//! [`plans`] says what assignments a service has, [`assignment`] makes one.

pub mod address;
mod build;
mod input;
mod spread;

use pilotfish_model::destination_rule::TrafficPolicy;

use crate::context::OwnContext;

pub use build::assignment;
pub use input::{AssignmentInput, Plan, RuledMtls, plaintext, plan, plans};
pub(crate) use input::{is_balanced, is_passed_through, sends_unready};
pub(crate) use spread::TOPOLOGY_LABELS;
pub use spread::{Localities, Locality, Near, Spread};

/// Clients that weigh zones want to know where their own kind is: a cluster of their bootstrap asks for it.
pub const LOCAL_CLUSTER: &str = "local_cluster";

/// The assignment of that cluster.
pub fn local_cluster(context: &OwnContext<'_>) -> Option<AssignmentInput> {
    let target = context.own.targets.first().filter(|_| context.class.settings.self_discovery)?;
    let service = context.mesh.services.get(&target.service)?;
    let policy = TrafficPolicy::default();
    let plan = plan(context.common(), service, service.port_of_any(target.port)?, None, LOCAL_CLUSTER.into(), &policy, &Locality::even());
    let endpoints = context.mesh.endpoints.get(&target.service).cloned().unwrap_or_default();
    let plaintext = plaintext(context.mesh, &endpoints);
    Some(AssignmentInput { plan, endpoints, plaintext })
}

#[cfg(test)]
mod tests;
