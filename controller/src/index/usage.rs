//! What objects ask for anywhere in the mesh, counted as they come and go: see [`Usage`].

use std::collections::BTreeSet;

use pilotfish_model::mesh::{NamespaceInfo, NodeLocality, Usage};
use pilotfish_model::name::{Labels, Str};
use pilotfish_model::{
    AuthorizationPolicy, DestinationRule, EnvoyFilter, Extension, Gateway, PeerAuthentication, RequestAuthentication, Service, Sidecar,
    Telemetry, VirtualService,
};

/// What one object adds.
#[derive(Default)]
pub(super) struct Asks<'a> {
    node_local: bool,
    sidecar_ingress: bool,
    selector_keys: BTreeSet<&'a Str>,
}

/// An object of the mesh that may ask for something.
pub(super) trait Asking {
    fn asks(&self) -> Asks<'_> {
        Asks::default()
    }
}

impl Asking for NamespaceInfo {}
impl Asking for NodeLocality {}
impl Asking for Gateway {}
impl Asking for PeerAuthentication {}
// Of sidecars, they change only what each class has for itself.
impl Asking for RequestAuthentication {}
impl Asking for AuthorizationPolicy {}

/// Objects that change what whole scopes get.
macro_rules! asks_by_attachment {
    ($($type:ty),+) => {$(
        impl Asking for $type {
            fn asks(&self) -> Asks<'_> {
                Asks { selector_keys: self.attachment.keys().collect(), ..Asks::default() }
            }
        }
    )+};
}

asks_by_attachment!(EnvoyFilter, Extension, Telemetry);

impl Asking for Service {
    fn asks(&self) -> Asks<'_> {
        Asks { node_local: self.node_local, ..Asks::default() }
    }
}

impl Asking for Sidecar {
    fn asks(&self) -> Asks<'_> {
        let selector_keys = self.selector.iter().flat_map(Labels::keys).collect();
        Asks { sidecar_ingress: !self.ingress.is_empty(), selector_keys, ..Asks::default() }
    }
}

impl Asking for DestinationRule {
    fn asks(&self) -> Asks<'_> {
        Asks { selector_keys: self.workload_selector.keys().collect(), ..Asks::default() }
    }
}

impl Asking for VirtualService {
    fn asks(&self) -> Asks<'_> {
        let http = self.http.iter().flat_map(|r| &r.matches).map(|m| &m.source_labels);
        let tls = self.tls.iter().flat_map(|r| &r.matches).map(|m| &m.l4.source_labels);
        let tcp = self.tcp.iter().flat_map(|r| &r.matches).map(|m| &m.source_labels);
        Asks { selector_keys: http.chain(tls).chain(tcp).flat_map(Labels::keys).collect(), ..Asks::default() }
    }
}

/// One object takes the place of another.
pub(super) fn replace<T: Asking>(usage: &mut Usage, old: Option<&T>, new: Option<&T>) {
    // The new one first: what both ask for never drops to nothing in between.
    if let Some(asks) = new.map(Asking::asks) {
        usage.node_local += usize::from(asks.node_local);
        usage.sidecar_ingress += usize::from(asks.sidecar_ingress);
        for key in asks.selector_keys {
            *usage.selector_keys.entry(key.clone()).or_insert(0) += 1;
        }
    }
    if let Some(asks) = old.map(Asking::asks) {
        usage.node_local -= usize::from(asks.node_local);
        usage.sidecar_ingress -= usize::from(asks.sidecar_ingress);
        for key in asks.selector_keys {
            match usage.selector_keys.get_mut(key) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(usage.selector_keys.remove(key)),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use pilotfish_model::Mesh;

    use super::*;

    /// What a mesh makes use of, counted from nothing.
    pub(in crate::index) fn recount(mesh: &Mesh) -> Usage {
        let mut usage = Usage::default();
        mesh.services.values().for_each(|x| replace(&mut usage, None, Some(&**x)));
        mesh.sidecars.values().for_each(|x| replace(&mut usage, None, Some(&**x)));
        mesh.destination_rules.values().for_each(|x| replace(&mut usage, None, Some(&**x)));
        mesh.virtual_services.values().for_each(|x| replace(&mut usage, None, Some(&**x)));
        mesh.envoy_filters.values().for_each(|x| replace(&mut usage, None, Some(&**x)));
        mesh.telemetries.values().for_each(|x| replace(&mut usage, None, Some(&**x)));
        mesh.wasm_plugins.values().chain(mesh.traffic_extensions.values()).for_each(|x| replace(&mut usage, None, Some(&**x)));
        usage
    }
}
