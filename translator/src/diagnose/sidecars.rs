//! Sidecars that are for no workload, or that see nothing.

use std::sync::Arc;

use pilotfish_model::Sidecar;
use pilotfish_model::mesh::Mesh;
use pilotfish_model::name::{Kind, Labels, selects};
use pilotfish_model::sidecar::{EgressHost, EgressNamespace};

use super::workloads::{Workloads, shown};
use super::{Report, full_name, id};
use crate::world::World;

pub(super) fn look(world: &World, workloads: &Workloads, report: &mut Report) {
    for sidecar in world.mesh.sidecars.values() {
        let (field, why) = match &sidecar.selector {
            Some(selector) if !selector.is_empty() => ("spec.workloadSelector", selecting(world, workloads, sidecar, selector)),
            _ => ("", general(world, workloads, sidecar)),
        };
        let object = id(Kind::Sidecar, &sidecar.meta);
        if let Some(why) = why {
            report.warn(&object, field, format!("has no effect: {why}"));
        }
        if !world.mesh.config.features.sidecar_ingress_tls {
            for (i, _) in sidecar.ingress.iter().enumerate().filter(|(_, l)| l.tls.is_some()) {
                report.warn(&object, format!("spec.ingress[{i}].tls"), "has no effect: ENABLE_TLS_ON_SIDECAR_INGRESS is not set");
            }
        }
        for (i, listener) in sidecar.egress.iter().enumerate() {
            for (j, host) in listener.hosts.iter().enumerate() {
                if !imports_any(world, &sidecar.meta.namespace, host) {
                    report.warn(&object, format!("spec.egress[{i}].hosts[{j}]"), "there is no such service");
                }
            }
        }
    }
}

fn is_older(a: &Sidecar, b: &Sidecar) -> bool {
    a.meta.age_order() < b.meta.age_order()
}

fn selecting(world: &World, workloads: &Workloads, sidecar: &Arc<Sidecar>, selector: &Labels) -> Option<String> {
    let namespace = &*sidecar.meta.namespace;
    let selected: Vec<&Labels> = workloads.selected(Some(namespace), selector).map(|(_, labels)| labels).collect();
    if selected.is_empty() {
        return Some(format!("no workload of namespace {namespace} has the labels {}", shown(selector)));
    }
    let older = |labels: &&Labels| {
        let mut rivals = Mesh::in_namespace(&world.mesh.sidecars, namespace).filter(|s| is_older(s, sidecar));
        rivals.find(|s| s.selector.as_ref().is_some_and(|sel| !sel.is_empty() && selects(sel, labels)))
    };
    let first = selected.first().and_then(older)?;
    selected.iter().all(|l| older(l).is_some()).then(|| format!("the older {} is for the same workloads", full_name(&first.meta)))
}

fn general(world: &World, workloads: &Workloads, sidecar: &Arc<Sidecar>) -> Option<String> {
    let is_general = |s: &&Arc<Sidecar>| s.selector.as_ref().is_none_or(Labels::is_empty);
    let namespace = &*sidecar.meta.namespace;
    if let Some(older) = Mesh::in_namespace(&world.mesh.sidecars, namespace).filter(is_general).find(|s| is_older(s, sidecar)) {
        return Some(format!("the older {} is for the same workloads", full_name(&older.meta)));
    }
    let is_root = *namespace == *world.mesh.config.root_namespace;
    let is_used = |ns: &str, labels: &Labels| {
        let selecting = |s: &Arc<Sidecar>| s.selector.as_ref().is_some_and(|sel| !sel.is_empty() && selects(sel, labels));
        let goes_before = |s: &Arc<Sidecar>| selecting(s) || (ns != namespace && is_general(&s));
        !Mesh::in_namespace(&world.mesh.sidecars, ns).any(goes_before)
    };
    let mut concerned = workloads.within(if is_root { None } else { Some(namespace) });
    let used = concerned.any(|(ns, labels)| is_used(ns, labels));
    (!used).then(|| if is_root { "every namespace with workloads has its own".into() } else { no_workload(workloads, namespace) })
}

fn no_workload(workloads: &Workloads, namespace: &str) -> String {
    match workloads.within(Some(namespace)).next() {
        None => format!("namespace {namespace} has no workload"),
        Some(_) => format!("each workload of namespace {namespace} has a Sidecar that selects it"),
    }
}

/// Whether an entry names any service, whoever may see it.
fn imports_any(world: &World, own: &str, entry: &EgressHost) -> bool {
    let of = |namespace: &str| world.mesh.services_in(namespace).any(|s| entry.host.covers(&s.host));
    match &entry.namespace {
        _ if entry.exclude => true,
        EgressNamespace::Nothing => true,
        // A wildcard for whatever there may be is no mistake where there is nothing yet.
        _ if entry.host.as_str() == "*" => true,
        EgressNamespace::Any if !entry.host.is_wildcard() => !world.services_of(&entry.host).is_empty(),
        EgressNamespace::Any => world.mesh.services.keys().any(|k| entry.host.covers(&k.host)),
        EgressNamespace::Own => of(own),
        EgressNamespace::Named(namespace) => of(namespace),
    }
}
