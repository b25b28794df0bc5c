//! The filter that verifies tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotfish_envoy::pb::envoy::config::core::v3::{DataSource, HttpUri, data_source, http_uri};
use pilotfish_envoy::pb::envoy::config::route::v3::{RouteMatch, route_match::PathSpecifier};
use pilotfish_envoy::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use pilotfish_envoy::pb::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementAndList, JwtRequirementOrList, RemoteJwks,
    RequirementRule, jwt_provider, requirement_rule,
};
use pilotfish_envoy::pb::google::protobuf::Empty;
use pilotfish_model::name::Str;

use super::resolve::{Token, TokenKeys};
use crate::listener::pack::duration;

/// Where the filter leaves what a token says, for policies and routes.
const PAYLOAD: &str = "payload";

/// How long a proxy may take to fetch keys, where nobody says, and how long it keeps them.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const KEPT: Duration = Duration::from_secs(300);

/// Stands in where no keys are known, so that no token is valid: a point on P-256 that was made from a hash and not from a
/// private key, which therefore nobody has. Its x is the first SHA-256 of "pilotfish: nobody has this key N" (N = 0, 1, ...) that
/// is on the curve.
const NOBODY: &str = include_str!("nobody.jwks.json");

/// Verifies the tokens of `rules`, which are ordered by issuer.
pub(super) fn filter(tokens: &[Token], clear_route_cache: bool) -> JwtAuthentication {
    let providers: BTreeMap<String, JwtProvider> =
        tokens.iter().enumerate().map(|(i, t)| (name(i), provider(t, clear_route_cache))).collect();
    let all = RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..Default::default() };
    let rule =
        RequirementRule { r#match: Some(all), requirement_type: Some(requirement_rule::RequirementType::Requires(requirement(tokens))) };
    JwtAuthentication { providers, rules: vec![rule], bypass_cors_preflight: true, ..Default::default() }
}

fn name(index: usize) -> String {
    format!("origins-{index}")
}

fn provider(token: &Token, clear_route_cache: bool) -> JwtProvider {
    let rule = &token.rule;
    let strings = |list: &[Str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let keys = match &token.keys {
        TokenKeys::Here(keys) => {
            let keys = keys.as_deref().unwrap_or(NOBODY.trim_ascii_end()).to_owned();
            let source = DataSource { specifier: Some(data_source::Specifier::InlineString(keys)), ..Default::default() };
            jwt_provider::JwksSourceSpecifier::LocalJwks(source)
        }
        TokenKeys::Remote { uri, cluster } => jwt_provider::JwksSourceSpecifier::RemoteJwks(RemoteJwks {
            http_uri: Some(HttpUri {
                uri: uri.to_string(),
                timeout: Some(duration(rule.timeout.unwrap_or(FETCH_TIMEOUT))),
                http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(cluster.to_string())),
            }),
            cache_duration: Some(duration(KEPT)),
            ..Default::default()
        }),
    };
    let header = |(name, prefix): &(Str, Str)| JwtHeader { name: name.to_string(), value_prefix: prefix.to_string() };
    let claim = |(header, claim): &(Str, Str)| JwtClaimToHeader {
        header_name: header.to_string(),
        claim_name: claim.to_string(),
        ..Default::default()
    };
    JwtProvider {
        issuer: rule.issuer.to_string(),
        audiences: strings(&rule.audiences),
        forward: rule.forward,
        from_headers: rule.from_headers.iter().map(header).collect(),
        from_params: strings(&rule.from_params),
        from_cookies: strings(&rule.from_cookies),
        forward_payload_header: rule.payload_header.as_deref().unwrap_or_default().to_owned(),
        payload_in_metadata: PAYLOAD.to_owned(),
        normalize_payload_in_metadata: Some(jwt_provider::NormalizePayload { space_delimited_claims: strings(&rule.space_delimited) }),
        claim_to_headers: rule.claim_headers.iter().map(claim).collect(),
        clear_route_cache,
        jwks_source_specifier: Some(keys),
        ..Default::default()
    }
}

// === Requirements ===

fn requires(kind: RequiresType) -> JwtRequirement {
    JwtRequirement { requires_type: Some(kind) }
}

fn any(requirements: Vec<JwtRequirement>) -> JwtRequirement {
    requires(RequiresType::RequiresAny(JwtRequirementOrList { requirements }))
}

fn all(mut requirements: Vec<JwtRequirement>) -> JwtRequirement {
    match requirements.len() {
        1 => requirements.swap_remove(0),
        _ => requires(RequiresType::RequiresAll(JwtRequirementAndList { requirements })),
    }
}

/// A token is valid or missing, never wrong. With several issuers one valid token is enough, whatever else there is: the same
/// header may carry the token of either. Tokens that must be there come on top.
fn requirement(tokens: &[Token]) -> JwtRequirement {
    let valid = |i: usize| requires(RequiresType::ProviderName(name(i)));
    let missing = || requires(RequiresType::AllowMissing(Empty {}));
    let (required, optional): (Vec<usize>, Vec<usize>) = (0..tokens.len()).partition(|i| tokens[*i].rule.required);
    let mut needed: Vec<JwtRequirement> = required.into_iter().map(valid).collect();
    match &optional[..] {
        [] => {}
        [one] => needed.push(any(vec![valid(*one), missing()])),
        several => {
            let each = several.iter().map(|i| any(vec![valid(*i), missing()])).collect();
            needed.push(any(several.iter().map(|i| valid(*i)).chain([all(each)]).collect()));
        }
    }
    all(needed)
}
