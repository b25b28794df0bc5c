//! Which DestinationRule and which mTLS mode applies where.

mod index;

use std::sync::Arc;

use pilotfish_model::destination_rule::{DestinationRule, LbAlgorithm, Subset, TrafficPolicy};
use pilotfish_model::mesh::Mesh;
use pilotfish_model::name::{Host, Labels, ObjectId, Visibility, selects};
use pilotfish_model::peer_authentication::{MtlsMode, PeerAuthentication};
use pilotfish_model::service::Service;
use pilotfish_model::{Kind, Resolution};

use crate::facts::OwnFacts;

pub(crate) use index::Client;
pub use index::{Found, RuleIndex, Twins};

/// DestinationRules of one namespace for one host, merged: subsets of all, the policy of the oldest that has one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MergedRule {
    /// The objects, oldest first. The first names the rule in metadata.
    pub sources: Vec<ObjectId>,
    /// The host.
    pub host: Host,
    /// Policy of the host.
    pub policy: TrafficPolicy,
    /// Subsets, each name once.
    pub subsets: Vec<Subset>,
    /// Clients it is for; empty: all.
    pub selector: Labels,
    /// Who else finds it, as the oldest of them says; `None`: as the mesh says.
    exports: Option<Visibility>,
}

impl MergedRule {
    /// A subset by name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|s| &*s.name == name)
    }

    /// Some policy chooses hosts by what requests say.
    pub fn hashes_requests(&self) -> bool {
        let of = |policy: &TrafficPolicy| {
            let mut balancers = policy.load_balancer.iter().chain(policy.ports.values().filter_map(|p| p.load_balancer.as_ref()));
            balancers.any(|b| matches!(b.algorithm, Some(LbAlgorithm::ConsistentHash(_))))
        };
        of(&self.policy) || self.subsets.iter().any(|s| of(&s.policy))
    }

    /// Clients may choose addresses of the host, or of one of its subsets.
    pub fn passes_through(&self) -> bool {
        passes_through(&self.policy) || self.subsets.iter().any(|s| passes_through(&s.policy))
    }

    /// The policy for a port, of a subset if one is given. See [`effective`].
    pub fn policy_for(&self, subset: Option<&Subset>, port: u16) -> TrafficPolicy {
        effective(&self.policy, subset.map(|s| &s.policy), port)
    }
}

/// A level sends to whatever address the client asked for, whatever it says of single ports.
pub fn passes_through(level: &TrafficPolicy) -> bool {
    level.load_balancer.as_ref().and_then(|b| b.algorithm.as_ref()) == Some(&LbAlgorithm::Passthrough)
}

/// A subset's components replace the host's; the settings of a port stand for the whole of their level: what they leave out
/// falls back to defaults, not to the rest of the level, and the four components that a port may have replace the host's in any
/// case. The result has no port settings.
pub fn effective(host: &TrafficPolicy, subset: Option<&TrafficPolicy>, port: u16) -> TrafficPolicy {
    let mut merged = TrafficPolicy::default();
    for level in [Some(host), subset].into_iter().flatten() {
        overlay(&mut merged, level, port);
    }
    merged
}

fn overlay(merged: &mut TrafficPolicy, level: &TrafficPolicy, port: u16) {
    if let Some(p) = level.ports.get(&port) {
        merged.load_balancer = p.load_balancer.clone();
        merged.connection_pool = p.connection_pool.clone();
        merged.outlier_detection = p.outlier_detection.clone();
        merged.tls = p.tls.clone();
        return;
    }
    fn replace<T: Clone>(into: &mut Option<T>, from: &Option<T>) {
        if from.is_some() {
            into.clone_from(from);
        }
    }
    replace(&mut merged.load_balancer, &level.load_balancer);
    replace(&mut merged.connection_pool, &level.connection_pool);
    replace(&mut merged.outlier_detection, &level.outlier_detection);
    replace(&mut merged.tls, &level.tls);
    replace(&mut merged.tunnel, &level.tunnel);
    replace(&mut merged.proxy_protocol, &level.proxy_protocol);
    replace(&mut merged.retry_budget, &level.retry_budget);
}

impl MergedRule {
    fn of(rule: &DestinationRule, exports: Option<Visibility>) -> Self {
        MergedRule {
            sources: vec![rule.meta.id(Kind::DestinationRule)],
            host: rule.host.clone(),
            policy: rule.policy.clone(),
            subsets: rule.subsets.clone(),
            selector: rule.workload_selector.clone(),
            exports,
        }
    }

    fn absorb(&mut self, rule: &DestinationRule) {
        self.sources.push(rule.meta.id(Kind::DestinationRule));
        if self.policy == TrafficPolicy::default() {
            self.policy = rule.policy.clone();
        }
        for subset in &rule.subsets {
            if self.subset(&subset.name).is_none() {
                self.subsets.push(subset.clone());
            }
        }
    }
}

// === mTLS ===

/// The oldest PeerAuthentication of a namespace that is for all of it.
fn general<'a>(mesh: &'a Mesh, namespace: &'a str) -> Option<&'a Arc<PeerAuthentication>> {
    let all = Mesh::in_namespace(&mesh.peer_authentications, namespace).filter(|p| p.selector.is_empty());
    all.min_by(|a, b| a.meta.age_order().cmp(&b.meta.age_order()))
}

/// What a namespace's workloads accept as far as no selector is involved.
pub fn namespace_mtls_mode(mesh: &Mesh, namespace: &str) -> MtlsMode {
    let of = |ns: &str| general(mesh, ns).and_then(|p| p.mode);
    of(namespace).or_else(|| of(&mesh.config.root_namespace)).unwrap_or(MtlsMode::Permissive)
}

/// What a workload accepts on a port, or on ports that nothing is said about (`None`).
pub fn workload_mtls_mode(mesh: &Mesh, namespace: &str, own: &OwnFacts, port: Option<u16>) -> MtlsMode {
    mtls_mode(mesh, namespace, &own.labels, port)
}

/// The same for a workload that is known by its labels.
pub fn mtls_mode(mesh: &Mesh, namespace: &str, labels: &Labels, port: Option<u16>) -> MtlsMode {
    let wide = namespace_mtls_mode(mesh, namespace);
    let Some(policy) = workload_policy(mesh, namespace, labels) else { return wide };
    let own = policy.mode.unwrap_or(wide);
    match port.and_then(|p| policy.ports.get(&p)) {
        Some(mode) => mode.unwrap_or(own),
        None => own,
    }
}

/// Ports that the workload's PeerAuthentication speaks of.
pub fn workload_mtls_ports(mesh: &Mesh, namespace: &str, own: &OwnFacts) -> Vec<u16> {
    workload_policy(mesh, namespace, &own.labels).map(|p| p.ports.keys().copied().collect()).unwrap_or_default()
}

/// The PeerAuthentications that decide about a workload, the narrowest first: each fills in what the one before leaves open.
pub(crate) fn policies<'a>(
    mesh: &'a Mesh,
    namespace: &'a str,
    labels: &Labels,
) -> impl Iterator<Item = &'a Arc<PeerAuthentication>> + use<'a> {
    let root = &*mesh.config.root_namespace;
    let wide = Some(root).filter(|root| *root != namespace);
    let wide = wide.and_then(|root| general(mesh, root));
    workload_policy(mesh, namespace, labels).into_iter().chain(general(mesh, namespace)).chain(wide)
}

/// The PeerAuthentication that selects a workload. Those of the root namespace are for the whole mesh or for nobody.
pub(crate) fn workload_policy<'a>(mesh: &'a Mesh, namespace: &'a str, labels: &Labels) -> Option<&'a Arc<PeerAuthentication>> {
    if *namespace == *mesh.config.root_namespace {
        return None;
    }
    let selecting =
        Mesh::in_namespace(&mesh.peer_authentications, namespace).filter(|p| !p.selector.is_empty() && selects(&p.selector, labels));
    selecting.min_by(|a, b| a.meta.age_order().cmp(&b.meta.age_order()))
}

/// Whether clients may use mesh mTLS towards a service without being told. [`MtlsMode::Disable`]: they must not.
/// Services whose addresses clients choose (headless) need every endpoint to speak it.
pub fn service_mtls_mode(mesh: &Mesh, service: &Service) -> MtlsMode {
    if service.mesh_external || (service.resolution == Resolution::Passthrough && !all_speak_mtls(mesh, service)) {
        return MtlsMode::Disable;
    }
    namespace_mtls_mode(mesh, &service.namespace)
}

/// Whether there are endpoints, and each speaks mesh mTLS: a client that chooses the address cannot tell them apart.
pub fn all_speak_mtls(mesh: &Mesh, service: &Service) -> bool {
    let endpoints = mesh.endpoints_of(service);
    !endpoints.is_empty() && endpoints.iter().all(|e| e.workload.mtls)
}

#[cfg(test)]
mod tests;
