//! AuthorizationPolicies whose provider cannot be asked, and those that look at requests where there are only connections.

use std::collections::BTreeSet;
use std::sync::Arc;

use pilotfish_model::authorization_policy::{Action, AuthorizationPolicy, Condition, Rule};
use pilotfish_model::mesh::WorkloadInstance;
use pilotfish_model::name::{Kind, Str};
use pilotfish_model::service::Protocol;

use super::workloads::Workloads;
use super::{Report, id};
use crate::attach::attached;
use crate::security::{BadProvider, ask};
use crate::world::World;

pub(super) fn look(world: &World, workloads: &Workloads, report: &mut Report) {
    let policies = &world.mesh.authorization_policies;
    if policies.is_empty() {
        return;
    }
    for policy in policies.values() {
        let Some(name) = provider(policy) else { continue };
        // Without a name the object says so itself.
        if let Some(why) = ask(world, name).err().filter(|_| !name.is_empty()) {
            report.warn(&id(Kind::AuthorizationPolicy, &policy.meta), "spec.provider.name", denied(&why));
        }
    }
    rivals(world, workloads, report);
    connections(world, report);
}

fn provider(policy: &AuthorizationPolicy) -> Option<&Str> {
    match &policy.action {
        Action::Custom(name) if !policy.dry_run => Some(name),
        _ => None,
    }
}

fn denied(why: &BadProvider) -> String {
    format!("cannot be asked: {why}. Whatever the rules match is denied")
}

/// Workloads whose policies ask several providers.
fn rivals(world: &World, workloads: &Workloads, report: &mut Report) {
    let policies = &world.mesh.authorization_policies;
    let all: BTreeSet<&Str> = policies.values().filter_map(|p| provider(p)).collect();
    if all.len() < 2 || world.mesh.config.features.several_providers {
        return;
    }
    let root = &world.mesh.config.root_namespace;
    for (namespace, labels) in workloads.within(None) {
        let asking: Vec<_> = attached(policies, root, namespace, labels).into_iter().filter(|p| provider(p).is_some()).collect();
        if asking.iter().filter_map(|p| provider(p)).collect::<BTreeSet<_>>().len() < 2 {
            continue;
        }
        for policy in asking {
            report.warn(&id(Kind::AuthorizationPolicy, &policy.meta), "spec.provider.name", denied(&BadProvider::Several));
        }
    }
}

/// Rules about requests at ports that are not read as HTTP.
fn connections(world: &World, report: &mut Report) {
    let looking: Vec<_> = world.mesh.authorization_policies.values().filter(|p| p.rules.iter().any(is_about_requests)).collect();
    if looking.is_empty() {
        return;
    }
    let root = &world.mesh.config.root_namespace;
    let mut seen = BTreeSet::new();
    for instance in world.mesh.workloads.values().flat_map(|w| w.iter()) {
        let workload = &instance.workload;
        // Replicas are alike.
        if !seen.insert((&workload.namespace, &workload.labels, instance.targets.first())) {
            continue;
        }
        let Some(port) = bytes_port(world, instance) else { continue };
        for policy in &looking {
            let near = policy.meta.namespace == workload.namespace || policy.meta.namespace == *root;
            if !near || !policy.attachment.covers(&workload.labels) {
                continue;
            }
            for (i, _) in policy.rules.iter().enumerate().filter(|(_, r)| is_about_requests(r)) {
                let effect = match policy.action {
                    Action::Allow => "it allows nothing",
                    Action::Deny | Action::Audit | Action::Custom(_) => "that part is left out, so it matches more",
                };
                let message = format!("looks at requests, but some ports are not read as HTTP, such as {port}: there {effect}");
                report.warn(&id(Kind::AuthorizationPolicy, &policy.meta), format!("spec.rules[{i}]"), message);
            }
        }
    }
}

fn is_about_requests(rule: &Rule) -> bool {
    let any = |conditions: &[Condition]| conditions.iter().any(|c| c.attribute.is_http());
    rule.from.iter().chain(&rule.to).any(|c| any(c)) || any(&rule.when)
}

/// A port of the workload that is not read as HTTP.
fn bytes_port(world: &World, instance: &Arc<WorkloadInstance>) -> Option<String> {
    instance.targets.iter().find_map(|target| {
        let port = world.mesh.services.get(&target.service)?.port(target.port)?;
        let is_bytes = !port.protocol.is_http() && !matches!(port.protocol, Protocol::Auto | Protocol::Udp);
        is_bytes.then(|| format!("{} of {}", target.target_port, target.service.host))
    })
}
