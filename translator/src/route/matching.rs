//! Conditions of HTTP rules.

use pilotfish_envoy::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use pilotfish_envoy::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use pilotfish_envoy::pb::envoy::config::route::v3::route_match::PathSpecifier;
use pilotfish_envoy::pb::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use pilotfish_model::matching::{Pattern, StringMatch};
use pilotfish_model::name::Str;
use pilotfish_model::virtual_service::HttpMatch;

use super::claims;

/// A text comparison.
pub fn string_matcher(text: &StringMatch) -> StringMatcher {
    let pattern = match text {
        StringMatch::Exact(t) => MatchPattern::Exact(str::to_owned(t)),
        StringMatch::Prefix(t) => MatchPattern::Prefix(str::to_owned(t)),
        StringMatch::Regex(p) => MatchPattern::SafeRegex(regex(p)),
    };
    StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

/// A regular expression.
pub fn regex(pattern: &Pattern) -> RegexMatcher {
    RegexMatcher { regex: pattern.as_str().to_owned(), ..Default::default() }
}

/// The conditions of one match; `None` matches everything. Port, source and gateways are decided before.
pub fn route_match(condition: Option<&HttpMatch>) -> RouteMatch {
    let Some(m) = condition else {
        return RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..Default::default() };
    };
    let path = match &m.uri {
        None => PathSpecifier::Prefix("/".to_owned()),
        Some(StringMatch::Exact(path)) => PathSpecifier::Path(str::to_owned(path)),
        Some(StringMatch::Prefix(prefix)) => PathSpecifier::Prefix(str::to_owned(prefix)),
        Some(StringMatch::Regex(pattern)) => PathSpecifier::SafeRegex(regex(pattern)),
    };
    let claims = m.headers.iter().filter_map(|(name, value)| claims::matcher(name, value.as_ref(), false));
    let no_claims = m.without_headers.iter().filter_map(|(name, value)| claims::matcher(name, value.as_ref(), true));
    let plain = |(name, _): &&(Str, Option<StringMatch>)| claims::path(name).is_none();
    let with = m.headers.iter().filter(plain).map(|(name, value)| header(name, value.as_ref()));
    let without = m.without_headers.iter().filter(plain).map(|(name, value)| HeaderMatcher {
        invert_match: true,
        // "Has another value" includes "has none".
        treat_missing_header_as_empty: value.is_some(),
        ..header(name, value.as_ref())
    });
    let mut headers: Vec<HeaderMatcher> = with.chain(without).collect();
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    let pseudo = [(":method", &m.method), (":authority", &m.authority), (":scheme", &m.scheme)];
    let pseudo = pseudo.into_iter().filter_map(|(name, value)| value.as_ref().map(|v| header(name, Some(v))));
    RouteMatch {
        path_specifier: Some(path),
        case_sensitive: Some(!m.ignore_uri_case),
        headers: headers.into_iter().chain(pseudo).collect(),
        dynamic_metadata: claims.chain(no_claims).collect(),
        query_parameters: m.query_params.iter().map(|(name, value)| query(name, value.as_ref())).collect(),
        ..Default::default()
    }
}

fn header(name: &str, value: Option<&StringMatch>) -> HeaderMatcher {
    let specifier = match value {
        Some(v) => HeaderMatchSpecifier::StringMatch(string_matcher(v)),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

fn query(name: &str, value: Option<&StringMatch>) -> QueryParameterMatcher {
    let specifier = match value {
        Some(v) => QueryParameterMatchSpecifier::StringMatch(string_matcher(v)),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(specifier) }
}

/// An expression that every path matches. Others may do so too, but nobody writes them to say that.
const ANY_PATH: &str = ".*";

/// True if nothing can come after it. The same question as [`is_catch_all`] before the match is made.
pub fn takes_everything(condition: Option<&HttpMatch>) -> bool {
    let Some(m) = condition else { return true };
    let path = m.uri.as_ref().is_none_or(|u| match u {
        StringMatch::Prefix(prefix) => &**prefix == "/",
        StringMatch::Regex(pattern) => pattern.as_str() == ANY_PATH,
        StringMatch::Exact(_) => false,
    });
    let bare = m.headers.is_empty() && m.without_headers.is_empty() && m.query_params.is_empty();
    path && bare && m.method.is_none() && m.authority.is_none() && m.scheme.is_none()
}

/// True if a match is met by every request.
pub fn is_catch_all(m: &RouteMatch) -> bool {
    let path = match &m.path_specifier {
        Some(PathSpecifier::Prefix(p) | PathSpecifier::PathSeparatedPrefix(p)) => p == "/",
        Some(PathSpecifier::SafeRegex(r)) => r.regex == ANY_PATH,
        _ => false,
    };
    path && m.headers.is_empty() && m.query_parameters.is_empty() && m.dynamic_metadata.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_questions_for_a_catch_all_have_one_answer() {
        let get = Some(StringMatch::Exact("GET".into()));
        let root = Some(StringMatch::Prefix("/".into()));
        for (condition, expected) in [
            (None, true),
            (Some(HttpMatch::default()), true),
            (Some(HttpMatch { uri: root.clone(), ..Default::default() }), true),
            (Some(HttpMatch { uri: root, without_headers: vec![("x".into(), None)], ..Default::default() }), false),
            (Some(HttpMatch { method: get, ..Default::default() }), false),
            (Some(HttpMatch { uri: Some(StringMatch::Exact("/".into())), ..Default::default() }), false),
            (Some(HttpMatch { uri: Some(StringMatch::Regex(Pattern::new(".*").unwrap())), ..Default::default() }), true),
            (Some(HttpMatch { uri: Some(StringMatch::Regex(Pattern::new("/.*").unwrap())), ..Default::default() }), false),
        ] {
            assert_eq!(takes_everything(condition.as_ref()), expected, "{condition:?}");
            assert_eq!(is_catch_all(&route_match(condition.as_ref())), expected, "{condition:?}");
        }
    }
}
