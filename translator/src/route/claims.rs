//! Routing by claims of a verified token: conditions on pseudo-headers that name a claim.

use pilotfish_envoy::pb::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::{ListMatcher, MetadataMatcher, OrMatcher, ValueMatcher, list_matcher};
use pilotfish_model::matching::StringMatch;

use super::matching::string_matcher;

const PREFIX: &str = "@request.auth.claims";
/// Filter that verifies tokens and leaves their payload.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";

/// The claim that a header name means: `@request.auth.claims.a.b` or, for names with dots, `@request.auth.claims[a][b]`.
pub fn path(header: &str) -> Option<Vec<&str>> {
    let prefix = header.get(..PREFIX.len()).filter(|p| p.eq_ignore_ascii_case(PREFIX))?;
    let claim = &header[prefix.len()..];
    let parts: Vec<&str> = match claim.strip_prefix('.') {
        Some(dotted) => dotted.split('.').collect(),
        None => claim.strip_prefix('[')?.strip_suffix(']')?.split("][").collect(),
    };
    parts.iter().all(|p| !p.is_empty()).then_some(parts)
}

/// A condition on a claim; `None` if the header is an ordinary one. A claim may be a text or a list of texts.
pub fn matcher(header: &str, value: Option<&StringMatch>, invert: bool) -> Option<MetadataMatcher> {
    let segment = |key: &str| PathSegment { segment: Some(path_segment::Segment::Key(key.to_owned())) };
    let path = std::iter::once("payload").chain(path(header)?).map(segment).collect();
    let of = |pattern| ValueMatcher { match_pattern: Some(pattern) };
    let value = match value {
        None => of(MatchPattern::PresentMatch(true)),
        Some(text) => {
            let text = of(MatchPattern::StringMatch(string_matcher(text)));
            let one_of = list_matcher::MatchPattern::OneOf(Box::new(text.clone()));
            let list = of(MatchPattern::ListMatch(Box::new(ListMatcher { match_pattern: Some(one_of) })));
            of(MatchPattern::OrMatch(OrMatcher { value_matchers: vec![list, text] }))
        }
    };
    Some(MetadataMatcher { filter: JWT_FILTER.to_owned(), path, value: Some(value), invert })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_by_dots_and_by_brackets() {
        assert_eq!(path("@request.auth.claims.a.b"), Some(vec!["a", "b"]));
        assert_eq!(path("@request.auth.claims[a.b][c]"), Some(vec!["a.b", "c"]));
        assert_eq!(path("x-user"), None);
        assert_eq!(path("@request.auth.claims"), None);
    }
}
