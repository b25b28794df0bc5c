//! Which DestinationRule and which mTLS mode applies where.

use std::collections::HashMap;
use std::sync::Arc;

use pilotfish_model::destination_rule::{DestinationRule, Subset, TrafficPolicy};
use pilotfish_model::mesh::Mesh;
use pilotfish_model::name::{Host, Labels, ObjectId, Str, Visibility, selects};
use pilotfish_model::peer_authentication::{MtlsMode, PeerAuthentication};
use pilotfish_model::service::Service;
use pilotfish_model::{Kind, Resolution};

use crate::class::ClassFacts;
use crate::naming::Direction;

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
    visibility: Visibility,
}

impl MergedRule {
    /// A subset by name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|s| &*s.name == name)
    }

    /// The policy for a port, of a subset if one is given. See [`effective`].
    pub fn policy_for(&self, subset: Option<&Subset>, port: u16) -> TrafficPolicy {
        effective(&self.policy, subset.map(|s| &s.policy), port)
    }
}

/// A subset's components replace the host's; a port's settings replace all four components that a port may have, and
/// those that it leaves out fall back to defaults, not to the wider level. The result has no port settings.
pub fn effective(host: &TrafficPolicy, subset: Option<&TrafficPolicy>, port: u16) -> TrafficPolicy {
    let mut merged = TrafficPolicy::default();
    for level in [Some(host), subset].into_iter().flatten() {
        overlay(&mut merged, level, port);
    }
    merged
}

fn overlay(merged: &mut TrafficPolicy, level: &TrafficPolicy, port: u16) {
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
    if let Some(p) = level.ports.get(&port) {
        merged.load_balancer = p.load_balancer.clone();
        merged.connection_pool = p.connection_pool.clone();
        merged.outlier_detection = p.outlier_detection.clone();
        merged.tls = p.tls.clone();
    }
}

/// Merged rules by namespace and host.
pub struct RuleIndex {
    by_namespace: HashMap<Str, NamespaceRules>,
}

/// Rules of one namespace. Several for one host differ in whom they are for.
#[derive(Default)]
struct NamespaceRules {
    by_host: HashMap<Host, Vec<Arc<MergedRule>>>,
    /// Wildcard hosts, the most specific first.
    wildcards: Vec<Host>,
}

impl NamespaceRules {
    fn add(&mut self, rule: &DestinationRule, visibility: Visibility) {
        let twins = self.by_host.entry(rule.host.clone()).or_insert_with(|| {
            if rule.host.is_wildcard() {
                let at = self.wildcards.partition_point(|h| h.cmp_specific(&rule.host).is_lt());
                self.wildcards.insert(at, rule.host.clone());
            }
            Vec::new()
        });
        match twins.iter_mut().find(|m| m.visibility == visibility && m.selector == rule.workload_selector) {
            Some(first) => Arc::make_mut(first).absorb(rule),
            None => twins.push(Arc::new(MergedRule::of(rule, visibility))),
        }
    }

    /// Usable rules for the most specific host that covers `host` and has one.
    fn most_specific(&self, host: &Host, usable: &impl Fn(&MergedRule) -> bool) -> Option<&Vec<Arc<MergedRule>>> {
        let has_usable = |rules: &&Vec<Arc<MergedRule>>| rules.iter().any(|r| usable(r));
        let exact = self.by_host.get(host).filter(has_usable);
        exact.or_else(|| self.wildcards.iter().filter(|w| w.covers(host)).find_map(|w| self.by_host.get(w).filter(has_usable)))
    }
}

impl RuleIndex {
    /// Merges all rules of a mesh.
    pub fn new(mesh: &Mesh) -> Self {
        let mut rules: Vec<&Arc<DestinationRule>> = mesh.destination_rules.values().collect();
        rules.sort_by(|a, b| a.meta.age_order().cmp(&b.meta.age_order()));
        let mut by_namespace: HashMap<Str, NamespaceRules> = HashMap::new();
        for rule in rules {
            let own = &rule.meta.namespace;
            let visibility = match &rule.visibility {
                // A rule for some clients only is private to its namespace.
                _ if !rule.workload_selector.is_empty() => Visibility::Private,
                Some(v) => v.clone(),
                None => Visibility::parse(&mesh.config.default_destination_rule_export_to, own).unwrap_or_default(),
            };
            by_namespace.entry(own.clone()).or_default().add(rule, visibility);
        }
        RuleIndex { by_namespace }
    }

    /// The rule that a client of `class` uses for `service`: of its own namespace, of the service's, of the root's. The
    /// first namespace that has rules for the host decides, even if they are all for other clients.
    pub fn lookup(&self, mesh: &Mesh, class: &ClassFacts, service: &Service, direction: Direction) -> Option<Arc<MergedRule>> {
        let root = &mesh.config.root_namespace;
        let client = &class.namespace;
        // The root namespace's own rules are everybody's; its clients find only private ones this way.
        let own = |r: &MergedRule| client != root || r.visibility == Visibility::Private;
        let exported = |r: &MergedRule| r.visibility.allows(&r.sources[0].namespace, client);
        self.find(client, class, service, direction, own)
            .or_else(|| self.find(&service.namespace, class, service, direction, exported))
            .or_else(|| self.find(root, class, service, direction, exported))
            .flatten()
    }

    /// `None`: the namespace has nothing for the host. `Some(None)`: nothing for this client.
    fn find(
        &self,
        namespace: &Str,
        class: &ClassFacts,
        service: &Service,
        direction: Direction,
        usable: impl Fn(&MergedRule) -> bool,
    ) -> Option<Option<Arc<MergedRule>>> {
        let rules = self.by_namespace.get(namespace)?.most_specific(&service.host, &usable)?;
        let same_host = || rules.iter().filter(|r| usable(r));
        let selecting =
            |r: &&Arc<MergedRule>| direction == Direction::Outbound && !r.selector.is_empty() && selects(&r.selector, &class.labels);
        Some(same_host().find(selecting).or_else(|| same_host().find(|r| r.selector.is_empty())).cloned())
    }
}

impl MergedRule {
    fn of(rule: &DestinationRule, visibility: Visibility) -> Self {
        MergedRule {
            sources: vec![ObjectId::new(Kind::DestinationRule, rule.meta.namespace.clone(), rule.meta.name.clone())],
            host: rule.host.clone(),
            policy: rule.policy.clone(),
            subsets: rule.subsets.clone(),
            selector: rule.workload_selector.clone(),
            visibility,
        }
    }

    fn absorb(&mut self, rule: &DestinationRule) {
        self.sources.push(ObjectId::new(Kind::DestinationRule, rule.meta.namespace.clone(), rule.meta.name.clone()));
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
pub fn workload_mtls_mode(mesh: &Mesh, class: &ClassFacts, port: Option<u16>) -> MtlsMode {
    mtls_mode(mesh, &class.namespace, &class.labels, port)
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
pub fn workload_mtls_ports(mesh: &Mesh, class: &ClassFacts) -> Vec<u16> {
    workload_policy(mesh, &class.namespace, &class.labels).map(|p| p.ports.keys().copied().collect()).unwrap_or_default()
}

fn workload_policy<'a>(mesh: &'a Mesh, namespace: &'a str, labels: &Labels) -> Option<&'a Arc<PeerAuthentication>> {
    let selecting =
        Mesh::in_namespace(&mesh.peer_authentications, namespace).filter(|p| !p.selector.is_empty() && selects(&p.selector, labels));
    selecting.min_by(|a, b| a.meta.age_order().cmp(&b.meta.age_order()))
}

/// Whether clients may use mesh mTLS towards a service without being told. [`MtlsMode::Disable`]: they must not.
/// Services whose addresses clients choose (headless) need every endpoint to speak it.
pub fn service_mtls_mode(mesh: &Mesh, service: &Service, _port: u16) -> MtlsMode {
    if service.mesh_external {
        return MtlsMode::Disable;
    }
    if service.resolution == Resolution::Passthrough {
        let endpoints = mesh.endpoints_of(service);
        if endpoints.is_empty() || endpoints.iter().any(|e| !e.workload.mtls) {
            return MtlsMode::Disable;
        }
    }
    namespace_mtls_mode(mesh, &service.namespace)
}

#[cfg(test)]
mod tests;
