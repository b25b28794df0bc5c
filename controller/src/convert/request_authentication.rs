//! RequestAuthentication. A mistake is reported, and the rest counts: a rule whose keys make no sense accepts no token.

use std::sync::LazyLock;

use pilotfish_crds::security::RequestAuthenticationSpec;
use pilotfish_crds::security::request_authentication as api;
use pilotfish_model::RequestAuthentication;
use pilotfish_model::name::Str;
use pilotfish_model::request_authentication::{JwksSource, JwtRule, Keys};

use super::attachment::attachment;
use super::fields::{Path, Scope, strs};
use crate::jwks::keys::{self, BadKeys};

/// Claims that are lists written as words, whatever a rule says.
static SPACE_DELIMITED: LazyLock<[Str; 2]> = LazyLock::new(|| ["permission".into(), "scope".into()]);

pub(super) fn convert(scope: &mut Scope<'_>, spec: &RequestAuthenticationSpec) -> RequestAuthentication {
    scope.counts_with_errors = true;
    let root = Path::SPEC;
    let path = root.field("jwtRules");
    let rules = spec.jwt_rules.iter().enumerate().map(|(i, r)| rule(scope, &path.index(i), r)).collect();
    let attachment = attachment(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    RequestAuthentication::new(scope.meta_without_labels(), attachment, rules)
}

fn rule(scope: &mut Scope<'_>, path: &Path<'_>, r: &api::JwtRule) -> JwtRule {
    let headers = path.field("fromHeaders");
    let claims = path.field("outputClaimToHeaders");
    let mut space_delimited: Vec<Str> = SPACE_DELIMITED.iter().cloned().chain(strs(&r.space_delimited_claims)).collect();
    space_delimited.sort();
    space_delimited.dedup();
    JwtRule {
        issuer: r.issuer.as_str().into(),
        audiences: strs(&r.audiences),
        keys: keys(scope, path, r),
        from_headers: (r.from_headers.iter().enumerate())
            .filter(|(i, h)| is_header(scope, &headers.index(*i).field("name"), &h.name))
            .filter(|(_, h)| !h.prefix.contains(['\0', '\n', '\r']))
            .map(|(_, h)| (h.name.as_str().into(), h.prefix.as_str().into()))
            .collect(),
        from_params: strs(&r.from_params),
        from_cookies: strs(&r.from_cookies),
        forward: r.forward_original_token,
        payload_header: Some(r.output_payload_to_header.as_str())
            .filter(|h| !h.is_empty() && is_header(scope, &path.field("outputPayloadToHeader"), h))
            .map(Into::into),
        claim_headers: (r.output_claim_to_headers.iter().enumerate())
            .filter(|(i, c)| !c.claim.is_empty() && is_header(scope, &claims.index(*i).field("header"), &c.header))
            .map(|(_, c)| (c.header.as_str().into(), c.claim.as_str().into()))
            .collect(),
        timeout: scope.duration(&path.field("timeout"), &r.timeout),
        space_delimited,
        required: r.presence == api::Presence::Required,
    }
}

/// Keys that are written down win over those that would have to be fetched.
fn keys(scope: &mut Scope<'_>, path: &Path<'_>, r: &api::JwtRule) -> Keys {
    // For a proxy that is any issuer: who means that says whose keys count.
    if r.issuer.is_empty() && r.jwks_uri.is_empty() {
        scope.error(&path.field("issuer"), "must not be empty without jwksUri: no token is valid");
        return Keys::Invalid;
    }
    if !r.jwks.is_empty() {
        if !r.jwks_uri.is_empty() {
            scope.warning(&path.field("jwksUri"), "has no effect: the rule has jwks");
        }
        return match keys::check(&r.jwks) {
            Ok(bad) => {
                bad.iter().for_each(|b| scope.warning(&path.field("jwks"), format!("{b}: it has no effect")));
                Keys::Inline(r.jwks.as_str().into())
            }
            Err(e) => {
                let (path, message) = (path.field("jwks"), format!("{e}: no token of this issuer is valid"));
                // An empty set is one that a user may mean.
                match e {
                    BadKeys::Empty => scope.warning(&path, message),
                    BadKeys::NoSet | BadKeys::Unusable(_) => scope.error(&path, message),
                }
                Keys::Invalid
            }
        };
    }
    let (field, url) = if r.jwks_uri.is_empty() { ("issuer", &r.issuer) } else { ("jwksUri", &r.jwks_uri) };
    let is_url = url.parse::<http::Uri>().is_ok_and(|u| matches!(u.scheme_str(), Some("http" | "https")) && u.host().is_some());
    match (is_url, field) {
        (true, "issuer") => Keys::Remote(JwksSource::Issuer(url.as_str().into())),
        (true, _) => Keys::Remote(JwksSource::Uri(url.as_str().into())),
        (false, "issuer") => {
            scope.error(path, "needs jwks or jwksUri, as the issuer is not a URL that tells: no token of this issuer is valid");
            Keys::Invalid
        }
        (false, field) => {
            scope.error(&path.field(field), format!("{url:?} is not a URL of http or https: no token of this issuer is valid"));
            Keys::Invalid
        }
    }
}

fn is_header(scope: &mut Scope<'_>, path: &Path<'_>, name: &str) -> bool {
    let valid = !name.is_empty() && name.parse::<http::HeaderName>().is_ok();
    if !valid {
        scope.error(path, format!("{name:?} is not the name of a header"));
    }
    valid
}
