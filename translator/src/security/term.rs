//! One condition of a rule as Envoy's permission or principal.

#![allow(deprecated, reason = "every version of Envoy takes `metadata`; what replaces it is newer")]

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::core::v3::{CidrRange, TypedExtensionConfig};
use pilotfish_envoy::pb::envoy::config::rbac::v3::permission::{self, Rule as PermissionKind};
use pilotfish_envoy::pb::envoy::config::rbac::v3::principal::{self, Authenticated, Identifier};
use pilotfish_envoy::pb::envoy::config::rbac::v3::{Permission, Principal};
use pilotfish_envoy::pb::envoy::config::route::v3::HeaderMatcher;
use pilotfish_envoy::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use pilotfish_envoy::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern as ValuePattern;
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, PathMatcher, RegexMatcher, StringMatcher, ValueMatcher, list_matcher, path_matcher,
};
use pilotfish_model::authorization_policy::{Attribute, Value};

use crate::extensions as names;

/// A condition that cannot be expressed where it is to be enforced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inexpressible;

/// What conditions are made of.
pub(super) trait Term: Sized {
    fn all_of(terms: Vec<Self>) -> Self;
    fn one_of(terms: Vec<Self>) -> Self;
    fn not(term: Self) -> Self;
    fn anything() -> Self;
    /// One of several values; `templates`: the client has the extension for path templates.
    fn matching(attribute: &Attribute, values: &[Value], templates: bool) -> Result<Self, Inexpressible>;
}

impl Term for Permission {
    fn all_of(rules: Vec<Self>) -> Self {
        permission(PermissionKind::AndRules(permission::Set { rules }))
    }

    fn one_of(rules: Vec<Self>) -> Self {
        permission(PermissionKind::OrRules(permission::Set { rules }))
    }

    fn not(term: Self) -> Self {
        permission(PermissionKind::NotRule(Box::new(term)))
    }

    fn anything() -> Self {
        permission(PermissionKind::Any(true))
    }

    fn matching(attribute: &Attribute, values: &[Value], templates: bool) -> Result<Self, Inexpressible> {
        if let Attribute::FilterMetadata { filter, key } = attribute {
            let value = one_value(texts(values)?.map(finding).collect());
            return Ok(permission(PermissionKind::Metadata(metadata(filter, [&**key], value))));
        }
        let kind = |value: &Value| match (attribute, value) {
            (Attribute::Host, Value::Text(t)) => Ok(PermissionKind::Header(header(":authority", t, true))),
            (Attribute::Method, Value::Text(t)) => Ok(PermissionKind::Header(header(":method", t, false))),
            (Attribute::Path, Value::Text(t)) => Ok(PermissionKind::UrlPath(url_path(text(t)))),
            (Attribute::Path, Value::Template(t)) if templates => Ok(PermissionKind::UriTemplate(template(t))),
            (Attribute::Path, Value::Template(t)) => Ok(PermissionKind::UrlPath(url_path(regex(template_regex(t))))),
            (Attribute::DestinationIp, Value::Net(net)) => Ok(PermissionKind::DestinationIp(range(net))),
            (Attribute::DestinationPort, Value::Port(port)) => Ok(PermissionKind::DestinationPort((*port).into())),
            (Attribute::Sni, Value::Text(t)) => Ok(PermissionKind::RequestedServerName(text(t))),
            _ => Err(Inexpressible),
        };
        Ok(Term::one_of(values.iter().map(|v| kind(v).map(permission)).collect::<Result<_, _>>()?))
    }
}

impl Term for Principal {
    fn all_of(ids: Vec<Self>) -> Self {
        principal(Identifier::AndIds(principal::Set { ids }))
    }

    fn one_of(ids: Vec<Self>) -> Self {
        principal(Identifier::OrIds(principal::Set { ids }))
    }

    fn not(term: Self) -> Self {
        principal(Identifier::NotId(Box::new(term)))
    }

    fn anything() -> Self {
        principal(Identifier::Any(true))
    }

    fn matching(attribute: &Attribute, values: &[Value], _: bool) -> Result<Self, Inexpressible> {
        let claim = |path: &[&str]| -> Result<Self, Inexpressible> {
            let value = one_or_listed(texts(values)?.map(|t| string(text(t))).collect());
            Ok(principal(Identifier::Metadata(metadata(names::HTTP_JWT_AUTHN, ["payload"].iter().chain(path).copied(), value))))
        };
        match attribute {
            Attribute::Audiences => return claim(&["aud"]),
            Attribute::Presenter => return claim(&["azp"]),
            Attribute::Claim(path) => return claim(&path.iter().map(|p| &**p).collect::<Vec<_>>()),
            Attribute::RequestPrincipal => {
                let mut ids: Vec<Principal> = texts(values)?.map(request_principal).collect();
                return Ok(if ids.len() == 1 { ids.swap_remove(0) } else { Term::one_of(ids) });
            }
            _ => {}
        }
        let id = |value: &Value| match (attribute, value) {
            (Attribute::Principal, Value::Text(t)) => Ok(authenticated(identity(t))),
            (Attribute::Namespace, Value::Text(t)) => Ok(authenticated(regex(format!(".*/ns/{}/.*", wildcards(t))))),
            (Attribute::ServiceAccount, Value::Text(t)) => Ok(authenticated(regex(account(t)))),
            (Attribute::TrustDomain, Value::Text(t)) => Ok(authenticated(regex(format!("spiffe://{}/.*", wildcards(t))))),
            (Attribute::SourceIp, Value::Net(net)) => Ok(Identifier::DirectRemoteIp(range(net))),
            (Attribute::RemoteIp, Value::Net(net)) => Ok(Identifier::RemoteIp(range(net))),
            (Attribute::Header(name), Value::Text(t)) => Ok(Identifier::Header(header(name, t, false))),
            (Attribute::ListedHeader(name), Value::Text(t)) => Ok(Identifier::Header(listed_header(name, t))),
            _ => Err(Inexpressible),
        };
        Ok(Term::one_of(values.iter().map(|v| id(v).map(principal)).collect::<Result<_, _>>()?))
    }
}

fn permission(rule: PermissionKind) -> Permission {
    Permission { rule: Some(rule) }
}

fn principal(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

fn authenticated(principal_name: StringMatcher) -> Identifier {
    Identifier::Authenticated(Authenticated { principal_name: Some(principal_name) })
}

/// All values as texts.
fn texts(values: &[Value]) -> Result<impl Iterator<Item = &str>, Inexpressible> {
    if values.iter().any(|v| !matches!(v, Value::Text(_))) {
        return Err(Inexpressible);
    }
    Ok(values.iter().filter_map(|v| if let Value::Text(t) = v { Some(&**t) } else { None }))
}

// === Texts ===

fn matcher(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

fn regex(regex: String) -> StringMatcher {
    matcher(MatchPattern::SafeRegex(RegexMatcher { regex, ..Default::default() }))
}

/// Presence, a suffix, a prefix, or the whole.
pub(super) fn text(pattern: &str) -> StringMatcher {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => regex(".+".to_owned()),
        (Some(suffix), _) => matcher(MatchPattern::Suffix(suffix.to_owned())),
        (_, Some(prefix)) => matcher(MatchPattern::Prefix(prefix.to_owned())),
        _ => matcher(MatchPattern::Exact(pattern.to_owned())),
    }
}

/// What stands for itself in Envoy's regular expressions.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

/// With `*` for anything, wherever it stands.
fn wildcards(pattern: &str) -> String {
    pattern.split('*').map(quote).collect::<Vec<_>>().join(".*")
}

/// The identity in a certificate of the mesh has a scheme, which policies leave out.
fn identity(pattern: &str) -> StringMatcher {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => regex(".+".to_owned()),
        (Some(suffix), _) => regex(format!("spiffe://.*{}", quote(suffix))),
        (_, Some(prefix)) => matcher(MatchPattern::Prefix(format!("spiffe://{prefix}"))),
        _ => matcher(MatchPattern::Exact(format!("spiffe://{pattern}"))),
    }
}

/// Identities of a service account: there may be more parts between and after what counts.
fn account(account: &str) -> String {
    let (namespace, name) = account.split_once('/').unwrap_or(("", account));
    format!("spiffe://.+/ns/{}/(.+/|)sa/{}(/.+)?", quote(namespace), quote(name))
}

// === Requests ===

fn header(name: &str, pattern: &str, ignore_case: bool) -> HeaderMatcher {
    let specifier = match pattern {
        "*" => HeaderMatchSpecifier::PresentMatch(true),
        _ => HeaderMatchSpecifier::StringMatch(StringMatcher { ignore_case, ..text(pattern) }),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

/// A value by itself, or with a comma on either side.
fn listed_header(name: &str, pattern: &str) -> HeaderMatcher {
    let value = match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => return header(name, pattern, false),
        (Some(suffix), _) => format!(".*{}", quote(suffix)),
        (_, Some(prefix)) => format!("{}.*", quote(prefix)),
        _ => quote(pattern),
    };
    let regex = format!("^{value}$|^{value},.*|.*,{value},.*|.*,{value}$");
    let specifier = HeaderMatchSpecifier::SafeRegexMatch(RegexMatcher { regex, ..Default::default() });
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

fn url_path(path: StringMatcher) -> PathMatcher {
    PathMatcher { rule: Some(path_matcher::Rule::Path(path)) }
}

fn template(template: &str) -> TypedExtensionConfig {
    let config = UriTemplateMatchConfig { path_template: template.to_owned() };
    TypedExtensionConfig { name: "uri-template".to_owned(), typed_config: Some(any(&config)) }
}

/// The same for clients without that extension.
fn template_regex(template: &str) -> String {
    let segment = |s: &str| match s {
        "*" => "[^/]+".to_owned(),
        "**" => ".*".to_owned(),
        literal => quote(literal),
    };
    template.split('/').map(segment).collect::<Vec<_>>().join("/")
}

fn range(net: &ipnet::IpNet) -> CidrRange {
    CidrRange { address_prefix: net.addr().to_string(), prefix_len: Some(net.prefix_len().into()) }
}

// === Metadata ===

fn metadata<'a>(filter: &str, path: impl IntoIterator<Item = &'a str>, value: ValueMatcher) -> MetadataMatcher {
    let segment = |key: &str| PathSegment { segment: Some(path_segment::Segment::Key(key.to_owned())) };
    MetadataMatcher { filter: filter.to_owned(), path: path.into_iter().map(segment).collect(), value: Some(value), ..Default::default() }
}

/// Condition on what another filter found out, by its path.
pub(super) fn found_by(filter: &str, key: &str, value: StringMatcher) -> MetadataMatcher {
    metadata(filter, [key], string(value))
}

fn value(pattern: ValuePattern) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(pattern) }
}

fn string(matcher: StringMatcher) -> ValueMatcher {
    value(ValuePattern::StringMatch(matcher))
}

fn listed(item: ValueMatcher) -> ValueMatcher {
    let one_of = list_matcher::MatchPattern::OneOf(Box::new(item));
    value(ValuePattern::ListMatch(Box::new(ListMatcher { match_pattern: Some(one_of) })))
}

fn one_value(mut values: Vec<ValueMatcher>) -> ValueMatcher {
    match values.len() {
        1 => values.swap_remove(0),
        _ => value(ValuePattern::OrMatch(OrMatcher { value_matchers: values })),
    }
}

/// Claims are texts or lists of texts.
fn one_or_listed(values: Vec<ValueMatcher>) -> ValueMatcher {
    let one = one_value(values);
    value(ValuePattern::OrMatch(OrMatcher { value_matchers: vec![listed(one.clone()), one] }))
}

/// A value in brackets is an item of a list.
fn finding(pattern: &str) -> ValueMatcher {
    match pattern.strip_prefix('[').and_then(|p| p.strip_suffix(']')) {
        Some(item) => listed(string(text(item))),
        None => string(text(pattern)),
    }
}

/// Issuer and subject are claims of their own; the last slash joins them, as issuers are URLs. One wildcard counts: the first
/// character, or else the last. Everything else stands for itself.
fn request_principal(pattern: &str) -> Principal {
    let exact = |text: &str| matcher(MatchPattern::Exact(text.to_owned()));
    let (issuer, subject) = match pattern.rsplit_once('/') {
        _ if pattern == "*" => (text("*"), text("*")),
        Some((issuer, subject)) if pattern.starts_with('*') => (text_behind(issuer), exact(subject)),
        Some((issuer, subject)) if pattern.ends_with('*') => (exact(issuer), text(subject)),
        Some((issuer, subject)) => (exact(issuer), exact(subject)),
        None if pattern.starts_with('*') => (text("*"), text_behind(pattern)),
        None if pattern.ends_with('*') => (text(pattern), text("*")),
        None => (exact(pattern), exact("")),
    };
    let claim = |name: &str, value: StringMatcher| {
        principal(Identifier::Metadata(metadata(names::HTTP_JWT_AUTHN, ["payload", name], string(value))))
    };
    Term::all_of(vec![claim("iss", issuer), claim("sub", subject)])
}

/// Presence, or what follows a wildcard.
fn text_behind(pattern: &str) -> StringMatcher {
    match pattern.strip_prefix('*') {
        Some(suffix) if !suffix.is_empty() => matcher(MatchPattern::Suffix(suffix.to_owned())),
        _ => text("*"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_lists_values_is_looked_through() {
        let regex = |pattern: &str| match listed_header("x", pattern).header_match_specifier {
            Some(HeaderMatchSpecifier::SafeRegexMatch(r)) => r.regex,
            other => format!("{other:?}"),
        };
        assert_eq!(regex("a.b"), r"^a\.b$|^a\.b,.*|.*,a\.b,.*|.*,a\.b$");
        assert_eq!(regex("a*"), "^a.*$|^a.*,.*|.*,a.*,.*|.*,a.*$");
        assert_eq!(regex("*a"), "^.*a$|^.*a,.*|.*,.*a,.*|.*,.*a$");
        assert_eq!(regex("*"), "Some(PresentMatch(true))");
    }

    #[test]
    fn a_request_principal_has_one_wildcard() {
        let shown = |m: StringMatcher| match m.match_pattern {
            Some(MatchPattern::Exact(t)) => format!("={t}"),
            Some(MatchPattern::Prefix(t)) => format!("{t}.."),
            Some(MatchPattern::Suffix(t)) => format!("..{t}"),
            _ => "any".to_owned(),
        };
        let claim = |id: &Principal| match &id.identifier {
            Some(Identifier::Metadata(MetadataMatcher { value: Some(value), .. })) => match &value.match_pattern {
                Some(ValuePattern::StringMatch(m)) => shown(m.clone()),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let parts = |pattern: &str| match request_principal(pattern).identifier {
            Some(Identifier::AndIds(set)) => set.ids.iter().map(claim).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let cases = [
            ("*", ["any", "any"]),
            ("*/*", ["any", "=*"]),
            ("*/sub", ["any", "=sub"]),
            ("*.com/sub", ["...com", "=sub"]),
            ("*/sub*", ["any", "=sub*"]),
            ("*sub", ["any", "..sub"]),
            ("https://a.b/*", ["=https://a.b", "any"]),
            ("https://a.b/c*", ["=https://a.b", "c.."]),
            ("https://a.b/c", ["=https://a.b", "=c"]),
            ("a*", ["a..", "any"]),
            ("a", ["=a", "="]),
        ];
        for (pattern, expected) in cases {
            assert_eq!(parts(pattern), expected, "{pattern}");
        }
    }
}
