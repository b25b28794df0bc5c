//! RequestAuthentication.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::policy::{LabelsSelector, PolicyTargetReference};
use crate::schema::{Duration, one_target, rule};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(transform = one_target)]
pub struct RequestAuthenticationSpec {
    pub selector: Option<LabelsSelector>,
    pub target_ref: Option<PolicyTargetReference>,
    #[schemars(length(max = 16))]
    pub target_refs: Vec<PolicyTargetReference>,
    #[schemars(length(max = 4096))]
    pub jwt_rules: Vec<JwtRule>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct JwtRule {
    #[schemars(length(min = 1))]
    pub issuer: String,
    #[schemars(inner(length(min = 1)))]
    pub audiences: Vec<String>,
    #[schemars(
        length(min = 1, max = 2048),
        transform = rule("url(self).getScheme() in ['http', 'https']", "url must have scheme http:// or https://"),
    )]
    pub jwks_uri: String,
    /// The keys themselves, in JSON.
    pub jwks: String,
    pub from_headers: Vec<JwtHeader>,
    #[schemars(inner(length(min = 1)))]
    pub from_params: Vec<String>,
    #[schemars(inner(length(min = 1)))]
    pub from_cookies: Vec<String>,
    pub output_payload_to_header: String,
    pub forward_original_token: bool,
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    #[schemars(with = "Duration")]
    pub timeout: Option<String>,
    #[schemars(length(max = 64), inner(length(min = 1)))]
    pub space_delimited_claims: Vec<String>,
    pub presence: Presence,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct JwtHeader {
    #[schemars(length(min = 1))]
    pub name: String,
    /// What stands before the token, with the space.
    pub prefix: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["header", "claim"]))]
pub struct ClaimToHeader {
    #[schemars(length(min = 1), regex(pattern = "^[-_A-Za-z0-9]+$"))]
    pub header: String,
    #[schemars(length(min = 1))]
    pub claim: String,
}

/// Whether a request without a token is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Presence {
    #[default]
    Optional,
    Required,
}
