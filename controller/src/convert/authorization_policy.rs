//! AuthorizationPolicy. A mistake is reported, and the policy still counts: enforced with the mistake in place it refuses
//! more, while a policy that were missing would let everything through.

mod value;

use pilotfish_crds::security::AuthorizationPolicySpec;
use pilotfish_crds::security::authorization_policy as api;
use pilotfish_model::AuthorizationPolicy;
use pilotfish_model::authorization_policy::{Action, Attribute, Condition, Rule, Value};
use pilotfish_model::name::Str;

use super::attachment::attachment;
use super::fields::{Path, Scope};
use value::Form;

/// How many conditions a rule may come to: those of `when` hold for each client and each operation, so a rule of some megabytes
/// could come to any number.
const MAX_CONDITIONS: usize = 200_000;
/// Annotation of policies that are only tried.
const DRY_RUN: &str = "istio.io/dry-run";

pub(super) fn convert(scope: &mut Scope<'_>, spec: &AuthorizationPolicySpec) -> AuthorizationPolicy {
    scope.counts_with_errors = true;
    let root = Path::SPEC;
    let action = action(scope, &root, spec);
    let dry_run = dry_run(scope, &action);
    if spec.rules.is_empty() && matches!(action, Action::Deny | Action::Audit | Action::Custom(_)) {
        scope.warning(&root.field("rules"), "is empty: the policy matches nothing");
    }
    let path = root.field("rules");
    let rules = spec.rules.iter().enumerate().map(|(i, r)| rule(scope, &path.index(i), r)).collect();
    let attachment = attachment(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    AuthorizationPolicy::new(scope.meta_without_labels(), attachment, action, dry_run, rules)
}

fn action(scope: &mut Scope<'_>, root: &Path<'_>, spec: &AuthorizationPolicySpec) -> Action {
    let provider = spec.provider.as_ref().map(|p| p.name.as_str());
    let path = root.field("provider");
    match (spec.action, provider) {
        (api::Action::Custom, Some(name)) if !name.is_empty() => return Action::Custom(name.into()),
        (api::Action::Custom, _) => {
            scope.error(&path.field("name"), "is missing: nobody can decide, so whatever the rules match is denied");
            return Action::Custom(Str::default());
        }
        (_, Some(_)) => scope.warning(&path, "has no effect: only the action CUSTOM asks a provider"),
        (_, None) => {}
    }
    match spec.action {
        api::Action::Deny => Action::Deny,
        api::Action::Audit => Action::Audit,
        api::Action::Allow | api::Action::Custom => Action::Allow,
    }
}

/// The annotation takes what Go's parser of booleans takes.
fn dry_run(scope: &mut Scope<'_>, action: &Action) -> bool {
    let Some(text) = scope.annotation(DRY_RUN) else { return false };
    let dry_run = match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
        "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
        _ => {
            let metadata = Path::root("metadata");
            let path = metadata.field("annotations");
            scope.error(&path.key(DRY_RUN), format!("{text:?} is neither true nor false: the policy is enforced"));
            false
        }
    };
    if dry_run && matches!(action, Action::Custom(_)) {
        let metadata = Path::root("metadata");
        scope.warning(&metadata.field("annotations").key(DRY_RUN), "a policy that asks a provider cannot be tried: it has no effect");
    }
    dry_run
}

fn rule(scope: &mut Scope<'_>, path: &Path<'_>, rule: &api::Rule) -> Rule {
    let (from, to, when) = (path.field("from"), path.field("to"), path.field("when"));
    let source = |scope: &mut Scope<'_>, (i, from_item): (usize, &api::From)| {
        let at = from.index(i);
        from_item.source.as_ref().map(|s| source(scope, &at.field("source"), s)).unwrap_or_default()
    };
    let operation = |scope: &mut Scope<'_>, (i, to_item): (usize, &api::To)| {
        let at = to.index(i);
        to_item.operation.as_ref().map(|o| operation(scope, &at.field("operation"), o)).unwrap_or_default()
    };
    let made = Rule {
        from: rule.from.iter().enumerate().map(|item| source(scope, item)).collect(),
        to: rule.to.iter().enumerate().map(|item| operation(scope, item)).collect(),
        when: rule.when.iter().enumerate().map(|(i, c)| condition(scope, &when.index(i), c)).collect(),
    };
    if size(&made) <= MAX_CONDITIONS {
        return made;
    }
    scope.error(
        path,
        format!("comes to more than {MAX_CONDITIONS} conditions: one that allows has no effect, any other matches everything"),
    );
    let nothing = Condition { attribute: Attribute::Unknown, values: vec![Value::Invalid], not_values: Vec::new() };
    Rule { when: vec![nothing], ..Rule::default() }
}

/// How many values a rule compares with once it is written out.
fn size(rule: &Rule) -> usize {
    let of = |conditions: &[Condition]| conditions.iter().map(|c| c.values.len() + c.not_values.len()).sum::<usize>();
    let own = |alternatives: &[Vec<Condition>]| alternatives.iter().map(|c| of(c)).sum::<usize>();
    let times = rule.from.len().max(1) + rule.to.len().max(1);
    of(&rule.when).saturating_mul(times).saturating_add(own(&rule.from)).saturating_add(own(&rule.to)).saturating_add(times)
}

/// A field, its opposite, and what they are about.
type Fields<'a> = (&'a str, &'a [String], &'a str, &'a [String], Attribute, Form);

/// In the order in which they are enforced: it shows in what proxies get.
fn source(scope: &mut Scope<'_>, path: &Path<'_>, s: &api::Source) -> Vec<Condition> {
    use Attribute::*;
    let fields: [Fields<'_>; 7] = [
        ("principals", &s.principals, "notPrincipals", &s.not_principals, Principal, Form::Text),
        ("requestPrincipals", &s.request_principals, "notRequestPrincipals", &s.not_request_principals, RequestPrincipal, Form::Text),
        ("serviceAccounts", &s.service_accounts, "notServiceAccounts", &s.not_service_accounts, ServiceAccount, Form::Account),
        ("trustDomains", &s.trust_domains, "notTrustDomains", &s.not_trust_domains, TrustDomain, Form::Text),
        ("namespaces", &s.namespaces, "notNamespaces", &s.not_namespaces, Namespace, Form::Text),
        ("remoteIpBlocks", &s.remote_ip_blocks, "notRemoteIpBlocks", &s.not_remote_ip_blocks, RemoteIp, Form::Net),
        ("ipBlocks", &s.ip_blocks, "notIpBlocks", &s.not_ip_blocks, SourceIp, Form::Net),
    ];
    conditions(scope, path, fields)
}

fn operation(scope: &mut Scope<'_>, path: &Path<'_>, o: &api::Operation) -> Vec<Condition> {
    use Attribute::*;
    let fields: [Fields<'_>; 4] = [
        ("hosts", &o.hosts, "notHosts", &o.not_hosts, Host, Form::Text),
        ("methods", &o.methods, "notMethods", &o.not_methods, Method, Form::Text),
        ("paths", &o.paths, "notPaths", &o.not_paths, Path, Form::Path),
        ("ports", &o.ports, "notPorts", &o.not_ports, DestinationPort, Form::Port),
    ];
    conditions(scope, path, fields)
}

fn conditions<const N: usize>(scope: &mut Scope<'_>, path: &Path<'_>, fields: [Fields<'_>; N]) -> Vec<Condition> {
    let given = fields.into_iter().filter(|(_, values, _, not_values, ..)| !values.is_empty() || !not_values.is_empty());
    given
        .map(|(name, values, not_name, not_values, attribute, form)| Condition {
            attribute,
            values: value::all(scope, &path.field(name), form, values),
            not_values: value::all(scope, &path.field(not_name), form, not_values),
        })
        .collect()
}

fn condition(scope: &mut Scope<'_>, path: &Path<'_>, c: &api::Condition) -> Condition {
    let Some((attribute, form)) = value::attribute(&c.key) else {
        scope.error(&path.field("key"), format!("{:?} is not a key", c.key));
        return Condition { attribute: Attribute::Unknown, values: vec![Value::Invalid], not_values: Vec::new() };
    };
    let mut values = value::all(scope, &path.field("values"), form, &c.values);
    if c.values.is_empty() && c.not_values.is_empty() {
        scope.error(path, "needs values or notValues");
        values.push(Value::Invalid);
    }
    Condition { attribute, values, not_values: value::all(scope, &path.field("notValues"), form, &c.not_values) }
}
