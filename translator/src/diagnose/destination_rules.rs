//! DestinationRules that no client uses, or only in part.

use std::sync::Arc;

use pilotfish_model::Service;
use pilotfish_model::destination_rule::{DestinationRule, TrafficPolicy};
use pilotfish_model::mesh::{Mesh, ObjectKey};
use pilotfish_model::name::{Kind, Labels, Str, selects};

use super::workloads::{Workloads, shown};
use super::{Report, full_name, id};
use crate::naming::Direction;
use crate::policy::Client;
use crate::world::World;

pub(super) fn look(world: &World, workloads: &Workloads, report: &mut Report) {
    for rule in world.mesh.destination_rules.values() {
        let object = id(Kind::DestinationRule, &rule.meta);
        let services = covered(world, rule);
        if services.is_empty() {
            report.warn(&object, "spec.host", format!("has no effect: there is no service {} with a port", rule.host));
            continue;
        }
        let namespace = &rule.meta.namespace;
        if !rule.workload_selector.is_empty() && workloads.selected(Some(namespace), &rule.workload_selector).next().is_none() {
            let message = format!("has no effect: no workload of namespace {namespace} has the labels {}", shown(&rule.workload_selector));
            report.warn(&object, "spec.workloadSelector", message);
            continue;
        }
        if !services.iter().any(|service| is_used(world, workloads, rule, service)) {
            report.warn(
                &object,
                "spec.host",
                "has no effect: for each of its hosts a more specific rule is used, or one of another namespace",
            );
            continue;
        }
        behind_older(world, rule, report);
        credentials(world, rule, report);
        subsets(world, rule, &services, report);
    }
}

/// Services that clusters are made of.
fn covered<'a>(world: &'a World, rule: &DestinationRule) -> Vec<&'a Arc<Service>> {
    match rule.host.is_wildcard() {
        true => world.mesh.services.values().filter(|s| rule.host.covers(&s.host) && !s.ports.is_empty()).collect(),
        false => world.services_of(&rule.host).iter().filter(|s| !s.ports.is_empty()).collect(),
    }
}

/// Whether a client anywhere finds it for a service.
fn is_used(world: &World, workloads: &Workloads, rule: &DestinationRule, service: &Service) -> bool {
    let root = &world.mesh.config.root_namespace;
    let none = Labels::new();
    let finds = |namespace: &Str, labels: &Labels| {
        let found = world.rules.lookup_for(root, Client { namespace, labels }, service, Direction::Outbound);
        let sources = found.rule.iter().flat_map(|r| &r.sources);
        sources.into_iter().any(|s| s.namespace == rule.meta.namespace && s.name == rule.meta.name)
    };
    let own = &rule.meta.namespace;
    let is_home = own == root || *own == service.namespace || workloads.within(Some(own)).next().is_some();
    if rule.workload_selector.is_empty() && is_home && (finds(own, &none) || finds(&service.namespace, &none)) {
        return true;
    }
    let wide = own == root || *own == service.namespace;
    if !rule.workload_selector.is_empty() {
        return workloads.selected(Some(own), &rule.workload_selector).any(|(_, labels)| finds(own, labels));
    }
    wide && workloads.namespaces().any(|ns| finds(ns, &none))
}

/// What an older rule for the same clients and host says already.
fn behind_older(world: &World, rule: &DestinationRule, report: &mut Report) {
    let twin = |o: &&Arc<DestinationRule>| {
        o.host == rule.host
            && o.visibility == rule.visibility
            && o.workload_selector == rule.workload_selector
            && o.meta.age_order() < rule.meta.age_order()
    };
    let older: Vec<&Arc<DestinationRule>> =
        Mesh::in_namespace(&world.mesh.destination_rules, &rule.meta.namespace).filter(|o| twin(o)).collect();
    let object = id(Kind::DestinationRule, &rule.meta);
    if rule.policy != TrafficPolicy::default()
        && let Some(first) = older.iter().find(|o| o.policy != TrafficPolicy::default())
    {
        report.warn(
            &object,
            "spec.trafficPolicy",
            format!("has no effect: the older {} has one for the same host", full_name(&first.meta)),
        );
    }
    for (i, subset) in rule.subsets.iter().enumerate() {
        if let Some(first) = older.iter().find(|o| o.subsets.iter().any(|s| s.name == subset.name)) {
            let message = format!("has no effect: the older {} has a subset of that name", full_name(&first.meta));
            report.warn(&object, format!("spec.subsets[{i}]"), message);
        }
    }
}

/// Secrets that clients could not prove themselves with.
fn credentials(world: &World, rule: &DestinationRule, report: &mut Report) {
    let named = [("spec.trafficPolicy".to_owned(), &rule.policy)].into_iter();
    let named = named.chain(rule.subsets.iter().enumerate().map(|(i, s)| (format!("spec.subsets[{i}].trafficPolicy"), &s.policy)));
    for (field, policy) in named {
        for tls in policy.tls.iter().chain(policy.ports.values().filter_map(|p| p.tls.as_ref())) {
            let key = ObjectKey { namespace: rule.meta.namespace.clone(), name: tls.credential_name.clone() };
            if let Some(mistake) = world.mesh.secrets.get(&key).and_then(|s| s.mistake) {
                let message = format!("Secret {}/{} is not served: {mistake}", key.namespace, key.name);
                report.warn(&id(Kind::DestinationRule, &rule.meta), field.clone(), message);
            }
        }
    }
}

/// Subsets without any endpoint.
fn subsets(world: &World, rule: &DestinationRule, services: &[&Arc<Service>], report: &mut Report) {
    let endpoints = || services.iter().flat_map(|s| world.mesh.endpoints_of(s));
    if endpoints().next().is_none() {
        return;
    }
    for (i, subset) in rule.subsets.iter().enumerate().filter(|(_, s)| !s.labels.is_empty()) {
        if !endpoints().any(|e| selects(&subset.labels, &e.workload.labels)) {
            let message = format!("no endpoint of {} has the labels {}", rule.host, shown(&subset.labels));
            report.warn(&id(Kind::DestinationRule, &rule.meta), format!("spec.subsets[{i}].labels"), message);
        }
    }
}
