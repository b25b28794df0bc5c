//! Rules that stand behind those of another object: [`shadowed`].
//!
//! For sidecars one VirtualService speaks for a host, the oldest that a client sees. What is said is only what holds for every
//! client that sees the younger one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pilotfish_model::mesh::Mesh;
use pilotfish_model::name::{Host, Visibility};
use pilotfish_model::virtual_service::GatewayRef;
use pilotfish_model::{Diagnostic, Kind, ObjectId, VirtualService};

/// A warning for each host of a VirtualService whose rules have no effect on sidecars.
pub(super) fn shadowed(mesh: &Mesh) -> BTreeMap<ObjectId, Vec<Diagnostic>> {
    let for_sidecars = |v: &&Arc<VirtualService>| !v.http.is_empty() && v.gateways.contains(&GatewayRef::Mesh);
    let mut all: Vec<&Arc<VirtualService>> = mesh.virtual_services.values().filter(for_sidecars).collect();
    all.sort_by(|a, b| a.meta.age_order().cmp(&b.meta.age_order()));
    let mut by_host: HashMap<&Host, Vec<&Arc<VirtualService>>> = HashMap::new();
    let mut found: BTreeMap<ObjectId, Vec<Diagnostic>> = BTreeMap::new();
    for younger in all {
        for (i, host) in younger.hosts.iter().enumerate() {
            let older = by_host.entry(host).or_default();
            if let Some(first) = older.iter().find(|o| hides(mesh, o, younger)) {
                let id = ObjectId::new(Kind::VirtualService, younger.meta.namespace.clone(), younger.meta.name.clone());
                let (namespace, name) = (&first.meta.namespace, &first.meta.name);
                let message = format!("has no effect on sidecars: the older VirtualService {namespace}/{name} has rules for {host}");
                let warning = Diagnostic::warning(&id, format!("spec.hosts[{i}]"), message);
                found.entry(id).or_default().push(warning);
            } else if !older.iter().any(|o| Arc::ptr_eq(o, younger)) {
                older.push(younger);
            }
        }
    }
    found
}

/// Whether every client that sees the younger one sees the older one, too.
fn hides(mesh: &Mesh, older: &Arc<VirtualService>, younger: &Arc<VirtualService>) -> bool {
    let (seen, namespace) = (older.visibility_in(&mesh.config), &younger.meta.namespace);
    let private = *younger.visibility_in(&mesh.config) == Visibility::Private && seen.allows(&older.meta.namespace, namespace);
    !Arc::ptr_eq(older, younger) && (*seen == Visibility::Public || private)
}
