//! The filters of a workload, in the order in which they decide: CUSTOM, tokens, AUDIT, DENY, ALLOW.

use pilotfish_envoy::pb::envoy::config::listener::v3::Filter;
use pilotfish_envoy::pb::envoy::config::rbac::v3::{Rbac, rbac};
use pilotfish_envoy::pb::envoy::extensions::filters::http::rbac::v3 as http;
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use pilotfish_envoy::pb::envoy::extensions::filters::network::rbac::v3 as network;
use pilotfish_model::authorization_policy::{Action, AuthorizationPolicy};

use super::ext_authz::{self, BadProvider, Provider, SHADOW_PREFIX};
use super::jwt;
use super::rbac::{Place, Policies, policies, rule_name, rules};
use super::resolve::{Content, Security, provider};
use crate::extensions as names;
use crate::listener::Settings;
use crate::listener::pack::{filter, http_filter};

/// Name of these filters in statistics.
pub(super) const TCP_STATS: &str = "tcp.";
const DRY_RUN_ALLOW: &str = "istio_dry_run_allow_";
const DRY_RUN_DENY: &str = "istio_dry_run_deny_";
/// Rules of policies whose provider cannot be asked end in this.
const BAD_CUSTOM: &str = "-deny-due-to-bad-CUSTOM-action";

/// HTTP filters by where they stand: others come between.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct HttpFilters {
    pub(crate) custom: Vec<HttpFilter>,
    pub(crate) tokens: Vec<HttpFilter>,
    pub(crate) rules: Vec<HttpFilter>,
}

/// The same for connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NetworkFilters {
    pub(crate) custom: Vec<Filter>,
    pub(crate) rules: Vec<Filter>,
}

/// Whether the client has what it takes. Otherwise its listeners must not let anything through.
pub(crate) fn can_enforce(settings: &Settings, security: &Security, http: bool) -> bool {
    let content = &security.content;
    let asks = content.providers.values().any(|p| p.as_ref().is_ok_and(|p| http || p.network_filter("").is_some()));
    let (rbac, ext_authz) = if http { (names::HTTP_RBAC, names::HTTP_EXT_AUTHZ) } else { (names::NETWORK_RBAC, names::NETWORK_EXT_AUTHZ) };
    (content.policies.is_empty() || settings.has(rbac))
        && (!asks || settings.has(ext_authz))
        && (!http || content.tokens.is_empty() || settings.has(names::HTTP_JWT_AUTHN))
}

/// For requests.
pub(crate) fn http_filters(settings: &Settings, security: &Security) -> HttpFilters {
    let content = &security.content;
    let place = Place { domains: &content.domains, tcp: false, templates: settings.istio || settings.has(names::URI_TEMPLATE) };
    let mut filters = HttpFilters::default();
    for asked in custom(content, place) {
        let rbac = http::Rbac {
            rules: asked.denied,
            shadow_rules_stat_prefix: if asked.shadow.is_some() { SHADOW_PREFIX.to_owned() } else { String::new() },
            shadow_rules: asked.shadow,
            ..Default::default()
        };
        filters.custom.push(http_filter(names::HTTP_RBAC, &rbac));
        if let Ok(provider) = asked.provider {
            filters.custom.push(http_filter(names::HTTP_EXT_AUTHZ, &provider.http_filter(asked.name)));
        }
    }
    if !content.tokens.is_empty() {
        filters.tokens.push(http_filter(names::HTTP_JWT_AUTHN, &jwt::filter(&content.tokens, content.gateway)));
    }
    for Enforced { rules, shadow, prefix } in enforced(content, place) {
        let rbac = http::Rbac { rules, shadow_rules: shadow, shadow_rules_stat_prefix: prefix.to_owned(), ..Default::default() };
        filters.rules.push(http_filter(names::HTTP_RBAC, &rbac));
    }
    filters
}

/// For connections that are not read as HTTP.
pub(crate) fn network_filters(security: &Security) -> NetworkFilters {
    let content = &security.content;
    let place = Place { domains: &content.domains, tcp: true, templates: false };
    let base = || network::Rbac { stat_prefix: TCP_STATS.to_owned(), ..Default::default() };
    let mut filters = NetworkFilters::default();
    for asked in custom(content, place) {
        let ask = match asked.provider.as_ref().map(|p| p.network_filter(asked.name)) {
            // It can only be asked about requests. The policy is not enforced on connections, as in the reference.
            Ok(None) => continue,
            Ok(Some(ask)) => Some(ask),
            Err(_) => None,
        };
        let rbac = network::Rbac {
            rules: asked.denied,
            shadow_rules_stat_prefix: if asked.shadow.is_some() { SHADOW_PREFIX.to_owned() } else { String::new() },
            shadow_rules: asked.shadow,
            ..base()
        };
        filters.custom.push(filter(names::NETWORK_RBAC, &rbac));
        filters.custom.extend(ask.map(|ask| filter(names::NETWORK_EXT_AUTHZ, &ask)));
    }
    for Enforced { rules, shadow, prefix } in enforced(content, place) {
        let rbac = network::Rbac { rules, shadow_rules: shadow, shadow_rules_stat_prefix: prefix.to_owned(), ..base() };
        filters.rules.push(filter(names::NETWORK_RBAC, &rbac));
    }
    filters
}

// === CUSTOM ===

/// What is asked of one provider.
struct Asked<'a> {
    name: &'a str,
    provider: &'a Result<Provider, BadProvider>,
    /// Rules that make it be asked.
    shadow: Option<Rbac>,
    /// Rules that deny, as it cannot be asked.
    denied: Option<Rbac>,
}

fn custom<'a>(content: &'a Content, place: Place<'a>) -> impl Iterator<Item = Asked<'a>> {
    content.providers.iter().map(move |(name, provided)| {
        let own = content.policies.iter().filter(|p| !p.dry_run && provider(p) == Some(name));
        let suffix = if provided.is_ok() { "" } else { BAD_CUSTOM };
        let rule_name = |p: &AuthorizationPolicy, i: usize| ext_authz::rule_name(name, &rule_name(p, i)) + suffix;
        let made = Some(rules(rbac::Action::Deny, policies(place, own, rule_name)));
        let (shadow, denied) = if provided.is_ok() { (made, None) } else { (None, made) };
        Asked { name, provider: provided, shadow, denied }
    })
}

// === The rest ===

struct Enforced {
    rules: Option<Rbac>,
    shadow: Option<Rbac>,
    /// Name of the shadow rules in statistics.
    prefix: &'static str,
}

fn enforced<'a>(content: &'a Content, place: Place<'a>) -> impl Iterator<Item = Enforced> {
    let actions = [(Action::Audit, rbac::Action::Log), (Action::Deny, rbac::Action::Deny), (Action::Allow, rbac::Action::Allow)];
    actions.into_iter().filter_map(move |(action, effect)| {
        let made = |dry_run: bool| -> Option<Rbac> {
            let mut own = content.policies.iter().filter(|p| p.action == action && p.dry_run == dry_run).peekable();
            own.peek()?;
            let policies: Policies = policies(place, own, rule_name);
            Some(rules(effect, policies))
        };
        let (rules, shadow) = (made(false), made(true));
        if rules.is_none() && shadow.is_none() {
            return None;
        }
        let prefix = match (&shadow, effect) {
            (None, _) | (_, rbac::Action::Allow) => DRY_RUN_ALLOW,
            (_, rbac::Action::Deny) => DRY_RUN_DENY,
            (_, rbac::Action::Log) => "",
        };
        Some(Enforced { rules, shadow, prefix })
    })
}
