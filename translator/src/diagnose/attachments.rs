//! Policies, patches and extensions that are for no workload, or that stand behind older ones.

use std::sync::Arc;

use imbl::OrdMap;
use pilotfish_model::Extension;
use pilotfish_model::attachment::{Attached, Attachment};
use pilotfish_model::extension::Code;
use pilotfish_model::mesh::{Mesh, ObjectKey};
use pilotfish_model::name::{Kind, Labels, Str, selects};
use pilotfish_model::peer_authentication::PeerAuthentication;

use super::workloads::{Workloads, shown};
use super::{Report, full_name, id};
use crate::secret::pull_config;
use crate::world::World;

pub(super) fn look(world: &World, workloads: &Workloads, report: &mut Report) {
    let Mesh { envoy_filters, request_authentications, authorization_policies, telemetries, wasm_plugins, traffic_extensions, .. } =
        &*world.mesh;
    let look = Look { root: &world.mesh.config.root_namespace, workloads };
    look.at(envoy_filters, Kind::EnvoyFilter, "spec.workloadSelector", report);
    look.at(request_authentications, Kind::RequestAuthentication, "spec.selector", report);
    look.at(authorization_policies, Kind::AuthorizationPolicy, "spec.selector", report);
    look.at(telemetries, Kind::Telemetry, "spec.selector", report);
    look.at(wasm_plugins, Kind::WasmPlugin, "spec.selector", report);
    look.at(traffic_extensions, Kind::TrafficExtension, "spec.selector", report);
    for extension in wasm_plugins.values().chain(traffic_extensions.values()) {
        pulled(&world.mesh, extension, report);
    }
    look.at_peers(&world.mesh.peer_authentications, report);
}

/// A module that is pulled with credentials which nobody has, or which nobody asks for.
fn pulled(mesh: &Mesh, extension: &Extension, report: &mut Report) {
    let Code::Wasm(wasm) = &extension.code else { return };
    let field = if extension.kind == Kind::WasmPlugin { "spec.imagePullSecret" } else { "spec.wasm.imagePullSecret" };
    if let Err(why) = pull_config(mesh, extension) {
        report.warn(&extension.id(), field, format!("{why}; no proxy can fetch the module"));
    } else if wasm.pull_secret.is_some() && !wasm.url.starts_with("oci://") {
        report.warn(&extension.id(), field, "has no effect: only images are fetched with credentials");
    }
}

struct Look<'a> {
    root: &'a Str,
    workloads: &'a Workloads,
}

impl Look<'_> {
    fn at<T: Attached>(&self, objects: &OrdMap<ObjectKey, Arc<T>>, kind: Kind, field: &str, report: &mut Report) {
        for object in objects.values() {
            let (meta, attachment) = (object.meta(), object.attachment());
            let namespace = Some(&*meta.namespace).filter(|ns| *ns != &**self.root || !attachment.targets.is_empty());
            if self.workloads.within(namespace).any(|(_, labels)| attachment.covers(labels)) {
                continue;
            }
            let (field, message) = self.why(attachment, &meta.namespace, namespace, field);
            report.warn(&id(kind, meta), field, message);
        }
    }

    fn why(&self, attachment: &Attachment, own: &str, namespace: Option<&str>, field: &str) -> (String, String) {
        let place = namespace.map_or_else(|| "the mesh".to_owned(), |ns| format!("namespace {ns}"));
        match (attachment.targets.first(), attachment.selector.is_empty()) {
            (Some(target), _) => {
                let message = format!("has no effect: no workload of namespace {own} belongs to a {} {:?}", target.kind, &*target.name);
                ("spec.targetRefs".to_owned(), message)
            }
            (None, true) => (String::new(), format!("has no effect: {place} has no workload")),
            (None, false) => {
                (field.to_owned(), format!("has no effect: no workload of {place} has the labels {}", shown(&attachment.selector)))
            }
        }
    }

    /// Of these, one is in force: for a workload the oldest that selects it, else the oldest of its namespace, else of the mesh.
    fn at_peers(&self, objects: &OrdMap<ObjectKey, Arc<PeerAuthentication>>, report: &mut Report) {
        for object in objects.values() {
            let object_id = id(Kind::PeerAuthentication, &object.meta);
            let namespace = &*object.meta.namespace;
            let rivals = || Mesh::in_namespace(objects, namespace).filter(|o| o.meta.age_order() < object.meta.age_order());
            if object.selector.is_empty() {
                if let Some(older) = rivals().find(|o| o.selector.is_empty()) {
                    report.warn(&object_id, "", format!("has no effect: the older {} is for the same workloads", full_name(&older.meta)));
                } else if namespace != &**self.root && self.workloads.within(Some(namespace)).next().is_none() {
                    report.warn(&object_id, "", format!("has no effect: namespace {namespace} has no workload"));
                }
                continue;
            }
            if namespace == &**self.root {
                let message = "has no effect: a PeerAuthentication of the root namespace is for the whole mesh, without a selector";
                report.warn(&object_id, "spec.selector", message.to_owned());
                continue;
            }
            let selected: Vec<&Labels> = self.workloads.selected(Some(namespace), &object.selector).map(|(_, labels)| labels).collect();
            if selected.is_empty() {
                let message = format!("has no effect: no workload of namespace {namespace} has the labels {}", shown(&object.selector));
                report.warn(&object_id, "spec.selector", message);
                continue;
            }
            let before = |labels: &&Labels| rivals().find(|o| !o.selector.is_empty() && selects(&o.selector, labels));
            if let Some(older) = selected.first().and_then(before)
                && selected.iter().all(|labels| before(labels).is_some())
            {
                let message = format!("has no effect: the older {} is for the same workloads", full_name(&older.meta));
                report.warn(&object_id, "spec.selector", message);
            }
        }
    }
}
