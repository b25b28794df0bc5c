//! Rules of AuthorizationPolicies as Envoy's role-based access control.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac, rbac};
use pilotfish_envoy::pb::envoy::extensions::filters::http::rbac::v3 as http;
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use pilotfish_model::authorization_policy::{Action, Attribute, AuthorizationPolicy, Condition, Rule};

use super::resolve::{Content, Security};
use super::term::{Inexpressible, Term};
use super::trust_domain::TrustDomains;
use crate::extensions as names;

/// What the filter with the denying rules of a gRPC server is called.
const GRPC_DENY: &str = "envoy.filters.http.rbac.DENY";

/// Where rules are enforced.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) domains: &'a TrustDomains,
    /// On connections, which have no requests.
    pub(super) tcp: bool,
    /// The client has the extension for path templates.
    pub(super) templates: bool,
}

/// Rules with the same effect, by name.
pub(super) type Policies = BTreeMap<String, Policy>;

/// The rules of some policies. `name` is given the policy and the number of the rule.
pub(super) fn policies<'a>(
    place: Place<'_>,
    policies: impl IntoIterator<Item = &'a Arc<AuthorizationPolicy>>,
    name: impl Fn(&AuthorizationPolicy, usize) -> String,
) -> Policies {
    let mut all = Policies::new();
    for policy in policies {
        if policy.rules.is_empty() {
            all.insert(name(policy, 0), nothing());
        }
        let allow = policy.action == Action::Allow;
        for (i, rule) in policy.rules.iter().enumerate() {
            if let Some(made) = place.policy(rule, allow) {
                all.insert(name(policy, i), made);
            }
        }
    }
    all
}

/// What a rule is called.
pub(super) fn rule_name(policy: &AuthorizationPolicy, rule: usize) -> String {
    format!("ns[{}]-policy[{}]-rule[{rule}]", policy.meta.namespace, policy.meta.name)
}

pub(super) fn rules(action: rbac::Action, policies: Policies) -> Rbac {
    Rbac { action: action as i32, policies, ..Default::default() }
}

/// Matches nothing.
fn nothing() -> Policy {
    Policy {
        permissions: vec![Permission::not(Permission::anything())],
        principals: vec![Principal::not(Principal::anything())],
        ..Default::default()
    }
}

impl Place<'_> {
    /// One rule. Where part of it cannot be expressed, a rule that allows is none, and any other leaves that part out: both
    /// let less through.
    fn policy(self, rule: &Rule, allow: bool) -> Option<Policy> {
        let (operations, clients): (Vec<_>, Vec<_>) = rule.when.iter().partition(|c| c.attribute.is_operation());
        Some(Policy {
            permissions: self.alternatives(&rule.to, &operations, allow)?,
            principals: self.alternatives(&rule.from, &clients, allow)?,
            ..Default::default()
        })
    }

    /// Each of the alternatives (one that is open, if there is none) with all of the common conditions.
    fn alternatives<T: Term + Clone>(self, alternatives: &[Vec<Condition>], common: &[&Condition], allow: bool) -> Option<Vec<T>> {
        let common = self.all::<T>(common.iter().copied(), allow)?;
        let one = |mut terms: Vec<T>| {
            terms.extend(common.iter().cloned());
            if terms.is_empty() {
                terms.push(T::anything());
            }
            T::all_of(terms)
        };
        if alternatives.is_empty() {
            return Some(vec![one(Vec::new())]);
        }
        alternatives.iter().map(|conditions| Some(one(self.all(conditions, allow)?))).collect()
    }

    fn all<'a, T: Term>(self, conditions: impl IntoIterator<Item = &'a Condition>, allow: bool) -> Option<Vec<T>> {
        let mut terms = Vec::new();
        for condition in conditions {
            for (values, negated) in [(&condition.values, false), (&condition.not_values, true)] {
                if values.is_empty() {
                    continue;
                }
                match self.side::<T>(&condition.attribute, values) {
                    Ok(term) => terms.push(if negated { T::not(term) } else { term }),
                    Err(Inexpressible) if allow => return None,
                    Err(Inexpressible) => {}
                }
            }
        }
        Some(terms)
    }

    fn side<T: Term>(self, attribute: &Attribute, values: &[pilotfish_model::authorization_policy::Value]) -> Result<T, Inexpressible> {
        if self.tcp && attribute.is_http() {
            return Err(Inexpressible);
        }
        match attribute {
            Attribute::Principal => T::matching(attribute, &self.domains.expand(values), self.templates),
            Attribute::TrustDomain => T::matching(attribute, &self.domains.expand_domains(values), self.templates),
            _ => T::matching(attribute, values, self.templates),
        }
    }
}

/// The filters of a proxyless gRPC server, which knows rules that deny and rules that allow, and no servers to ask.
pub fn grpc_filters(security: &Security) -> Vec<HttpFilter> {
    let Content { domains, policies: all, .. } = &security.content;
    let place = Place { domains, tcp: false, templates: false };
    let name = |policy: &AuthorizationPolicy, rule: usize| format!("{}-{}-{rule}", policy.meta.namespace, policy.meta.name);
    let enforced = |wanted: fn(&Action) -> bool| all.iter().filter(move |p| !p.dry_run && wanted(&p.action));
    // Who cannot ask must not let through what would have to be asked about.
    let deny = policies(place, enforced(|a| matches!(a, Action::Deny | Action::Custom(_))), name);
    let deny = (!deny.is_empty()).then(|| rules(rbac::Action::Deny, deny));
    let has_allow = enforced(|a| *a == Action::Allow).next().is_some();
    let allow = has_allow.then(|| rules(rbac::Action::Allow, policies(place, enforced(|a| *a == Action::Allow), name)));
    let filter = |name: &str, rules: Rbac| HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&http::Rbac { rules: Some(rules), ..Default::default() }))),
        ..Default::default()
    };
    // gRPC refuses a list of filters with one name twice.
    let deny = deny.map(|rules| filter(GRPC_DENY, rules));
    deny.into_iter().chain(allow.map(|rules| filter(names::HTTP_RBAC, rules))).collect()
}
