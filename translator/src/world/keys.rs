//! By which labels and settings proxies are told apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use pilotfish_model::Mesh;
use pilotfish_model::mesh::Usage;
use pilotfish_model::name::Str;

use crate::endpoint::TOPOLOGY_LABELS;
use crate::patch::PatchIndex;
use crate::policy::RuleIndex;

/// What some object of the mesh asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Keys {
    selectors: BTreeSet<Str>,
    /// Metadata that EnvoyFilters look at.
    texts: Arc<BTreeSet<Str>>,
    /// Labels whose equality decides between endpoints.
    failover: BTreeSet<Str>,
    node_local: bool,
    sidecar_ingress: bool,
    /// Of a Sidecar of the root namespace, which is for all.
    root_ingress: bool,
}

impl Keys {
    pub(super) fn of(mesh: &Mesh, rules: &RuleIndex, patches: &PatchIndex) -> Self {
        let Usage { node_local, sidecar_ingress, selector_keys } = &mesh.usage;
        let zones = mesh.config.zone_aware_lb_setting.iter().flat_map(|z| &z.failover_priority);
        let own = mesh.config.locality_lb_setting.failover_priority.iter().chain(zones).map(|l| failover_key(l));
        Keys {
            selectors: selector_keys.keys().cloned().collect(),
            texts: patches.keys().clone(),
            failover: own.chain(rules.failover_keys().cloned()).collect(),
            node_local: *node_local > 0,
            sidecar_ingress: *sidecar_ingress > 0,
            root_ingress: *sidecar_ingress > 0
                && Mesh::in_namespace(&mesh.sidecars, &mesh.config.root_namespace).any(|s| !s.ingress.is_empty()),
        }
    }

    pub(crate) fn is_selector(&self, key: &str) -> bool {
        self.selectors.contains(key)
    }

    pub(crate) fn is_topology(&self, key: &str) -> bool {
        TOPOLOGY_LABELS.contains(&key) || self.failover.contains(key)
    }
}

/// The key of an entry of `failoverPriority`: `label` or `label=value`.
pub(crate) fn failover_key(entry: &str) -> Str {
    entry.split_once('=').map_or(entry, |(key, _)| key).into()
}
