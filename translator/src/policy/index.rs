//! [`RuleIndex`]: merged DestinationRules by namespace and host, kept from world to world for namespaces without a change.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use imbl::OrdMap;
use pilotfish_model::DestinationRule;
use pilotfish_model::destination_rule::{LoadBalancer, TrafficPolicy};
use pilotfish_model::mesh::Mesh;
use pilotfish_model::name::{Host, Labels, Str, Visibility, selects};
use pilotfish_model::service::Service;

use super::MergedRule;
use crate::facts::ScopeFacts;
use crate::naming::Direction;
use crate::world::failover_key;

/// Merged rules by namespace and host.
#[derive(Clone, Default)]
pub struct RuleIndex {
    by_namespace: OrdMap<Str, Arc<NamespaceRules>>,
}

/// Rules for one host in one namespace. They differ in whom they are for.
pub type Twins = Vec<Arc<MergedRule>>;

/// What of a client a rule is chosen by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client<'a> {
    pub(crate) namespace: &'a Str,
    pub(crate) labels: &'a Labels,
}

/// What a client found for a service.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The rule; `None` if there is none, or those there are are for other clients.
    pub rule: Option<Arc<MergedRule>>,
    /// What it was chosen from.
    pub from: Option<Arc<Twins>>,
}

impl PartialEq for Found {
    /// By pointer: equal twins keep theirs from index to index.
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Option<Arc<Twins>>, b: &Option<Arc<Twins>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        same(&self.from, &other.from) && self.rule == other.rule
    }
}

/// Rules of one namespace.
#[derive(Default)]
struct NamespaceRules {
    by_host: HashMap<Host, Arc<Twins>>,
    /// Wildcard hosts, the most specific first.
    wildcards: Vec<Host>,
    /// Labels of clients that preferences among endpoints look at.
    failover: BTreeSet<Str>,
}

impl NamespaceRules {
    /// Of all rules of a namespace. What is as it was keeps its pointer.
    fn new(mesh: &Mesh, namespace: &str, before: Option<&NamespaceRules>) -> Self {
        let mut rules: Vec<&Arc<DestinationRule>> = Mesh::in_namespace(&mesh.destination_rules, namespace).collect();
        rules.sort_by(|a, b| a.meta.age_order().cmp(&b.meta.age_order()));
        let mut new = NamespaceRules::default();
        for rule in rules {
            let own = &rule.meta.namespace;
            let visibility = match &rule.visibility {
                // A rule for some clients only is private to its namespace.
                _ if !rule.workload_selector.is_empty() => Visibility::Private,
                Some(v) => v.clone(),
                None => Visibility::parse(&mesh.config.default_destination_rule_export_to, own).unwrap_or_default(),
            };
            new.add(rule, visibility);
        }
        for (host, twins) in &mut new.by_host {
            if let Some(old) = before.and_then(|b| b.by_host.get(host)) {
                if old == twins {
                    *twins = old.clone();
                    continue;
                }
                for rule in Arc::make_mut(twins) {
                    if let Some(same) = old.iter().find(|o| *o == rule) {
                        *rule = same.clone();
                    }
                }
            }
        }
        new
    }

    fn add(&mut self, rule: &DestinationRule, visibility: Visibility) {
        self.failover.extend(failover_keys(rule));
        let twins = self.by_host.entry(rule.host.clone()).or_insert_with(|| {
            if rule.host.is_wildcard() {
                let at = self.wildcards.partition_point(|h| h.cmp_specific(&rule.host).is_lt());
                self.wildcards.insert(at, rule.host.clone());
            }
            Arc::default()
        });
        let twins = Arc::make_mut(twins);
        match twins.iter_mut().find(|m| m.visibility == visibility && m.selector == rule.workload_selector) {
            Some(first) => Arc::make_mut(first).absorb(rule),
            None => twins.push(Arc::new(MergedRule::of(rule, visibility))),
        }
    }

    /// Usable rules for the most specific host that covers `host` and has one.
    fn most_specific(&self, host: &Host, usable: &impl Fn(&MergedRule) -> bool) -> Option<&Arc<Twins>> {
        let has_usable = |rules: &&Arc<Twins>| rules.iter().any(|r| usable(r));
        let exact = self.by_host.get(host).filter(has_usable);
        exact.or_else(|| self.wildcards.iter().filter(|w| w.covers(host)).find_map(|w| self.by_host.get(w).filter(has_usable)))
    }
}

fn failover_keys(rule: &DestinationRule) -> impl Iterator<Item = Str> + '_ {
    let of = |policy: &TrafficPolicy| {
        let balancers = policy.load_balancer.iter().chain(policy.ports.values().filter_map(|p| p.load_balancer.as_ref()));
        let entries = |b: &'_ LoadBalancer| {
            let localities = b.locality.iter().flat_map(|l| &l.failover_priority);
            localities.chain(b.zone_aware.iter().flat_map(|z| &z.failover_priority)).map(|e| failover_key(e)).collect::<Vec<Str>>()
        };
        balancers.flat_map(entries).collect::<Vec<_>>()
    };
    std::iter::once(&rule.policy).chain(rule.subsets.iter().map(|s| &s.policy)).flat_map(of)
}

impl RuleIndex {
    /// Merges all rules of a mesh.
    pub fn new(mesh: &Mesh) -> Self {
        let namespaces: BTreeSet<&Str> = mesh.destination_rules.keys().map(|k| &k.namespace).collect();
        RuleIndex::default().next(mesh, namespaces)
    }

    /// The rules of a later mesh, which differ in these namespaces at most.
    pub fn next(&self, mesh: &Mesh, namespaces: BTreeSet<&Str>) -> Self {
        let mut index = self.clone();
        for namespace in namespaces {
            let before = self.by_namespace.get(namespace);
            let rules = NamespaceRules::new(mesh, namespace, before.map(|b| &**b));
            match rules.by_host.is_empty() {
                true => drop(index.by_namespace.remove(namespace)),
                false => drop(index.by_namespace.insert(namespace.clone(), Arc::new(rules))),
            }
        }
        index
    }

    /// True if nothing can differ.
    pub(crate) fn is_same(&self, other: &RuleIndex) -> bool {
        self.by_namespace.ptr_eq(&other.by_namespace)
    }

    /// True if nothing can differ in a namespace.
    pub(crate) fn is_same_in(&self, other: &RuleIndex, namespace: &str) -> bool {
        match (self.by_namespace.get(namespace), other.by_namespace.get(namespace)) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }

    /// Labels of clients that preferences among endpoints look at.
    pub(crate) fn failover_keys(&self) -> impl Iterator<Item = &Str> {
        self.by_namespace.values().flat_map(|n| &n.failover)
    }

    /// The rule that a client of `class` uses for `service`: of its own namespace, of the service's, of the root's. The
    /// first namespace that has rules for the host decides, even if they are all for other clients.
    pub fn lookup(&self, root: &Str, class: &ScopeFacts, service: &Service, direction: Direction) -> Found {
        self.lookup_for(root, Client { namespace: &class.namespace, labels: &class.labels }, service, direction)
    }

    /// The same for what a rule is chosen by.
    pub(crate) fn lookup_for(&self, root: &Str, class: Client<'_>, service: &Service, direction: Direction) -> Found {
        let client = class.namespace;
        // The root namespace's own rules are everybody's; its clients find only private ones this way.
        let own = |r: &MergedRule| client != root || r.visibility == Visibility::Private;
        let exported = |r: &MergedRule| r.visibility.allows(&r.sources[0].namespace, client);
        self.find(client, class, service, direction, own)
            .or_else(|| self.find(&service.namespace, class, service, direction, exported))
            .or_else(|| self.find(root, class, service, direction, exported))
            .unwrap_or_default()
    }

    /// `None`: the namespace has nothing for the host.
    fn find(
        &self,
        namespace: &Str,
        class: Client<'_>,
        service: &Service,
        direction: Direction,
        usable: impl Fn(&MergedRule) -> bool,
    ) -> Option<Found> {
        let rules = self.by_namespace.get(namespace)?.most_specific(&service.host, &usable)?;
        let same_host = || rules.iter().filter(|r| usable(r));
        let selecting =
            |r: &&Arc<MergedRule>| direction == Direction::Outbound && !r.selector.is_empty() && selects(&r.selector, class.labels);
        let rule = same_host().find(selecting).or_else(|| same_host().find(|r| r.selector.is_empty())).cloned();
        Some(Found { rule, from: Some(rules.clone()) })
    }
}
