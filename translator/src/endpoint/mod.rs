//! Endpoints (EDS): who answers for a cluster, in which locality, with which weight and priority.
//!
//! [`input`] collects what one assignment depends on, [`assignment`] makes it.

pub mod address;
mod build;
mod input;
mod spread;

use pilotfish_envoy::Resource;
use pilotfish_model::destination_rule::TrafficPolicy;
use pilotfish_model::service::Protocol;

use crate::context::Context;
use crate::gateway;
use crate::naming::{self, Direction};

pub use build::assignment;
pub use input::{AssignmentInput, input};
pub use spread::{Locality, Spread};

/// Assignments for all clusters of a class that ask for endpoints.
pub fn assignments(context: &Context<'_>) -> Vec<Resource> {
    let by_sni = context.class.is_router() && gateway::merged(context).has_auto_passthrough();
    let mut resources = Vec::with_capacity(context.scope.services.len() * 2);
    for service in &context.scope.services {
        if !input::has_assignments(context, service) {
            continue;
        }
        let rule = context.rule(service);
        for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
            let subsets = rule.iter().flat_map(|r| r.subsets.iter().map(Some));
            for subset in std::iter::once(None).chain(subsets) {
                let policy = rule.as_ref().map(|r| r.policy_for(subset, port.port)).unwrap_or_default();
                if input::is_passthrough(&policy) {
                    continue;
                }
                let name = subset.map_or("", |s| &s.name);
                let locality = Locality::of(context, service, &policy);
                let mut add = |name: String| {
                    let name: pilotfish_model::Str = name.into();
                    let input = input(context, service, port, subset, name.clone(), &policy, &locality);
                    resources.push(Resource::new(name, &assignment(&input)));
                };
                add(naming::cluster(Direction::Outbound, port.port, name, service.host.as_str()));
                if by_sni && !service.mesh_external {
                    add(naming::sni(Direction::Outbound, port.port, name, service.host.as_str()));
                }
            }
        }
    }
    resources.extend(own_cluster(context));
    resources
}

/// Clients that weigh zones want to know where their own kind is: a cluster of their bootstrap asks for it.
const LOCAL_CLUSTER: &str = "local_cluster";

fn own_cluster(context: &Context<'_>) -> Option<Resource> {
    let target = context.class.targets.first().filter(|_| context.class.settings.self_discovery)?;
    let service = context.mesh.services.get(&target.service)?;
    let policy = TrafficPolicy::default();
    let even = Locality::even();
    let input = input(context, service, service.port(target.port)?, None, LOCAL_CLUSTER.into(), &policy, &even);
    Some(Resource::new(LOCAL_CLUSTER, &assignment(&input)))
}

#[cfg(test)]
mod tests;
