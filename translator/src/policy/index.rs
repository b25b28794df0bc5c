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
    /// What its own clients find.
    local: Hosts,
    /// What clients of other namespaces find; whether it is meant for one of them is decided then.
    exported: Hosts,
    /// What clients of the root namespace find first there: rules that are for nobody else.
    private: Hosts,
    /// Labels of clients that preferences among endpoints look at.
    failover: BTreeSet<Str>,
}

/// Rules by host.
#[derive(Default)]
struct Hosts {
    by_host: HashMap<Host, Arc<Twins>>,
    /// Wildcard hosts, the most specific first.
    wildcards: Vec<Host>,
}

impl NamespaceRules {
    /// Of all rules of a namespace. What is as it was keeps its pointer.
    fn new(mesh: &Mesh, namespace: &str, before: Option<&NamespaceRules>) -> Self {
        let mut rules: Vec<&DestinationRule> = Mesh::in_namespace(&mesh.destination_rules, namespace).map(|r| &**r).collect();
        rules.sort_by(|a, b| {
            (a.workload_selector.is_empty(), a.meta.age_order()).cmp(&(b.workload_selector.is_empty(), b.meta.age_order()))
        });
        let mut by_host: HashMap<&Host, Vec<&DestinationRule>> = HashMap::with_capacity(rules.len());
        let mut new = NamespaceRules::default();
        for rule in rules {
            new.failover.extend(failover_keys(rule));
            by_host.entry(&rule.host).or_default().push(rule);
        }
        let default = Visibility::parse(&mesh.config.default_destination_rule_export_to, namespace);
        let is_private =
            |r: &&&DestinationRule| *exports(r).as_ref().or(default.as_ref()).unwrap_or(&Visibility::Public) == Visibility::Private;
        let is_local = |r: &&&DestinationRule| exports(r).is_none_or(|v| v.allows(namespace, namespace));
        let is_root = *namespace == *mesh.config.root_namespace;
        for (host, rules) in by_host {
            let local: Vec<_> = rules.iter().filter(is_local).collect();
            let exported: Vec<_> = rules.iter().filter(|r| !is_private(r)).collect();
            let is_same = local.len() == rules.len() && exported.len() == rules.len();
            let shared = new.local.put(host, &local, before.map(|b| &b.local));
            match shared.filter(|_| is_same) {
                Some(twins) => new.exported.insert(host, twins),
                None => drop(new.exported.put(host, &exported, before.map(|b| &b.exported))),
            }
            if is_root {
                new.private.put(host, &rules.iter().filter(is_private).collect::<Vec<_>>(), before.map(|b| &b.private));
            }
        }
        new
    }

    fn is_empty(&self) -> bool {
        self.local.by_host.is_empty() && self.exported.by_host.is_empty()
    }
}

/// Whom a rule is exported to; a rule for some clients only is private to its namespace.
fn exports(rule: &DestinationRule) -> Option<Visibility> {
    if rule.workload_selector.is_empty() { rule.visibility.clone() } else { Some(Visibility::Private) }
}

impl Hosts {
    /// Merges the rules of a host, oldest first; nothing if there are none.
    fn put(&mut self, host: &Host, rules: &[&&DestinationRule], before: Option<&Hosts>) -> Option<Arc<Twins>> {
        let mut twins = Twins::default();
        for rule in rules {
            join(&mut twins, rule);
        }
        if twins.is_empty() {
            return None;
        }
        let twins = match before.and_then(|b| b.by_host.get(host)) {
            Some(old) if **old == twins => old.clone(),
            Some(old) => {
                for rule in &mut twins {
                    if let Some(same) = old.iter().find(|o| *o == rule) {
                        *rule = same.clone();
                    }
                }
                Arc::new(twins)
            }
            None => Arc::new(twins),
        };
        self.insert(host, twins.clone());
        Some(twins)
    }

    fn insert(&mut self, host: &Host, twins: Arc<Twins>) {
        if host.is_wildcard() {
            let at = self.wildcards.partition_point(|h| h.cmp_specific(host).is_lt());
            self.wildcards.insert(at, host.clone());
        }
        self.by_host.insert(host.clone(), twins);
    }

    /// Rules for the most specific host that covers `host`.
    fn most_specific(&self, host: &Host) -> Option<&Arc<Twins>> {
        let exact = self.by_host.get(host);
        exact.or_else(|| self.wildcards.iter().find(|w| w.covers(host)).and_then(|w| self.by_host.get(w)))
    }
}

/// Adds a rule to those of its host. It goes into older ones that are exported to the same namespaces, or to some of them; it
/// stands for itself unless the last one that it was compared with took it in.
fn join(twins: &mut Twins, rule: &DestinationRule) {
    let exported = exports(rule);
    let mut alone = true;
    for twin in twins.iter_mut() {
        alone = true;
        let selected = (!twin.selector.is_empty(), !rule.workload_selector.is_empty());
        if !covers(exported.as_ref(), twin.exports.as_ref(), &rule.meta.namespace)
            || (selected == (true, true) && twin.selector != rule.workload_selector)
        {
            continue;
        }
        alone = selected.0 != selected.1;
        Arc::make_mut(twin).absorb(rule);
    }
    if alone {
        twins.push(Arc::new(MergedRule::of(rule, exported)));
    }
}

/// Whether what `other` is exported to is a part of it. Lists that say nothing are equal to themselves alone.
fn covers(own: Option<&Visibility>, other: Option<&Visibility>, namespace: &str) -> bool {
    match (own, other) {
        (Some(Visibility::Namespaces(own)), Some(Visibility::Private)) => own.contains(namespace),
        (Some(Visibility::Namespaces(own)), Some(Visibility::Namespaces(other))) => own.is_superset(other),
        _ => own == other,
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
            match rules.is_empty() {
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
        let of = |namespace: &Str| self.by_namespace.get(namespace);
        // The root namespace's own rules are everybody's; its clients find only private ones this way.
        let own = of(client).and_then(|n| if client == root { &n.private } else { &n.local }.most_specific(&service.host));
        if let Some(own) = own {
            return choose(own, class, direction, |_| true);
        }
        let exported =
            |r: &MergedRule| r.exports.as_ref().is_none_or(|v| *v == Visibility::Public || v.allows(&r.sources[0].namespace, client));
        for namespace in [&service.namespace, root] {
            let found = of(namespace).and_then(|n| n.exported.most_specific(&service.host));
            if let Some(twins) = found.filter(|twins| twins.iter().any(|r| exported(r))) {
                return choose(twins, class, direction, exported);
            }
        }
        Found::default()
    }
}

/// The rule that selects the client, else the last one for all.
fn choose(twins: &Arc<Twins>, class: Client<'_>, direction: Direction, usable: impl Fn(&MergedRule) -> bool) -> Found {
    let usable = || twins.iter().filter(|r| usable(r));
    let selecting = |r: &&Arc<MergedRule>| direction == Direction::Outbound && !r.selector.is_empty() && selects(&r.selector, class.labels);
    let rule = usable().find(selecting).or_else(|| usable().filter(|r| r.selector.is_empty()).last()).cloned();
    Found { rule, from: Some(twins.clone()) }
}
