//! The HTTP rules of one VirtualService, as far as they concern one class on one port: [`RuleSet`].

use std::sync::Arc;

use pilotfish_model::destination_rule::HashKey;
use pilotfish_model::name::{Host, Str, selects};
use pilotfish_model::service::Service;
use pilotfish_model::virtual_service::{Destination, GatewayRef, HttpMatch, HttpRoute};

use super::action::RouteDefaults;
use super::{hash, l4, matching};
use crate::context::Context;
use crate::naming::{self, Direction};
use crate::world::Rules;

/// Rules that apply, in order, with everything resolved that they refer to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleSet {
    /// The object.
    pub virtual_service: Arc<Rules>,
    /// Port that clients connect to; 0 where it may be any.
    pub port: u16,
    /// Clients speak TLS.
    pub tls: bool,
    /// And are told that they may speak HTTP/3.
    pub http3: bool,
    /// What holds for all routes of the class.
    pub defaults: Arc<RouteDefaults>,
    /// The rules. Never empty.
    pub rules: Vec<AppliedRule>,
}

/// One rule under one of its conditions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppliedRule {
    /// Which of the object's HTTP rules.
    pub rule: usize,
    /// Which of its conditions; `None`: it has none.
    pub condition: Option<usize>,
    /// One per destination of the rule, in its order.
    pub destinations: Arc<[Target]>,
    /// Clusters of its mirrors, in order.
    pub mirrors: Arc<[Str]>,
}

/// A destination, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its cluster.
    pub cluster: Str,
    /// Host of the cluster, for traces.
    pub host: Host,
    /// Port of the cluster, for traces.
    pub port: u16,
    /// What is hashed to choose a host.
    pub hash: Option<HashKey>,
}

impl RuleSet {
    /// The rule behind an applied one.
    pub fn route(&self, applied: &AppliedRule) -> &HttpRoute {
        &self.virtual_service.http[applied.rule]
    }

    /// Its condition.
    pub fn condition(&self, applied: &AppliedRule) -> Option<&HttpMatch> {
        applied.condition.map(|i| &self.route(applied).matches[i])
    }
}

/// Where rules are asked for.
pub struct Place<'a, F> {
    /// The mesh, or a gateway.
    pub gateway: &'a GatewayRef,
    /// Port that clients connect to.
    pub port: u16,
    /// Clients speak TLS.
    pub tls: bool,
    /// And are told that they may speak HTTP/3.
    pub http3: bool,
    /// What holds for all routes of the class.
    pub defaults: &'a Arc<RouteDefaults>,
    /// Services whose only port stands for a port that a destination does not name.
    pub single_port: F,
}

/// Destinations and mirrors of a rule.
type Resolved = (Arc<[Target]>, Arc<[Str]>);

/// The rules that apply; `None` if none does. What comes after a rule that takes everything is left out.
pub fn applied<'s, F>(context: &Context<'_>, virtual_service: &Arc<Rules>, place: &Place<'_, F>) -> Option<Arc<RuleSet>>
where
    F: Fn(&Host) -> Option<&'s Service>,
{
    let mut rules = Vec::new();
    let mut known = Vec::new();
    'all: for (index, rule) in virtual_service.http.iter().enumerate() {
        let mut resolved: Option<Resolved> = None;
        let conditions = rule.matches.len();
        for condition in (0..conditions.max(1)).map(|i| (i < conditions).then_some(i)) {
            let matched = condition.map(|i| &rule.matches[i]);
            if !matched.is_none_or(|m| applies(context, m, place.gateway, place.port)) {
                continue;
            }
            let (destinations, mirrors) = resolved.get_or_insert_with(|| resolve(context, rule, place, &mut known)).clone();
            rules.push(AppliedRule { rule: index, condition, destinations, mirrors });
            if matching::takes_everything(matched) {
                break 'all;
            }
        }
    }
    let virtual_service = virtual_service.clone();
    let Place { port, tls, http3, .. } = *place;
    (!rules.is_empty()).then(|| Arc::new(RuleSet { virtual_service, port, tls, http3, defaults: place.defaults.clone(), rules }))
}

/// What is known beforehand: port, gateway, client. A condition that names gateways is about them alone.
fn applies(context: &Context<'_>, condition: &HttpMatch, gateway: &GatewayRef, port: u16) -> bool {
    if condition.port.is_some_and(|p| p != port) {
        return false;
    }
    if !condition.gateways.is_empty() {
        return condition.gateways.contains(gateway);
    }
    let namespace = condition.source_namespace.as_deref().unwrap_or_default();
    selects(&condition.source_labels, &context.class.labels) && (namespace.is_empty() || namespace == &*context.class.namespace)
}

/// `known`: what was resolved already; rules of one object mostly lead to the same places.
fn resolve<'s, 'r, F>(
    context: &Context<'_>,
    rule: &'r HttpRoute,
    place: &Place<'_, F>,
    known: &mut Vec<(&'r Destination, Target)>,
) -> Resolved
where
    F: Fn(&Host) -> Option<&'s Service>,
{
    let mut target = |to: &'r Destination| {
        if let Some((_, target)) = known.iter().find(|(k, _)| *k == to) {
            return target.clone();
        }
        let port = l4::destination_port(to, (place.single_port)(&to.host), place.port);
        let service = context.scope.service(&to.host);
        let host = l4::destination_host(to, service.map(|s| &**s));
        let target = Target {
            cluster: naming::cluster(Direction::Outbound, port, &to.subset, host.as_str()).into(),
            host: host.clone(),
            port,
            hash: service.and_then(|s| hash::of_destination(context, s, to)),
        };
        known.push((to, target.clone()));
        target
    };
    let destinations = rule.route.iter().map(|d| target(&d.destination)).collect();
    let mirrors = match rule.mirrors.as_slice() {
        // Needs no memory.
        [] => Arc::default(),
        mirrors => mirrors.iter().map(|m| target(&m.destination).cluster).collect(),
    };
    (destinations, mirrors)
}
