//! RequestAuthentication: which tokens requests to a workload may carry, and [`JwksSource`]: where their keys come from.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::attachment::{Attachment, attached};
use crate::hash::ContentHash;
use crate::name::{Meta, Str};

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// Identity and age.
    pub meta: Meta,
    /// Workloads.
    pub attachment: Attachment,
    /// Tokens that are understood.
    pub rules: Vec<JwtRule>,
    /// Hash of the rules.
    pub content: ContentHash,
}

attached!(RequestAuthentication);

impl RequestAuthentication {
    /// Large objects are hashed once, here.
    pub fn new(meta: Meta, attachment: Attachment, rules: Vec<JwtRule>) -> Self {
        let content = ContentHash::of(&rules);
        RequestAuthentication { meta, attachment, rules, content }
    }

    /// Where keys are to be fetched.
    pub fn sources(&self) -> impl Iterator<Item = &JwksSource> {
        self.rules.iter().filter_map(|r| match &r.keys {
            Keys::Remote(source) => Some(source),
            Keys::Inline(_) | Keys::Invalid => None,
        })
    }
}

impl Hash for RequestAuthentication {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.meta.hash(state);
        self.attachment.hash(state);
        self.content.hash(state);
    }
}

/// Tokens of one issuer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwtRule {
    /// Who issues them.
    pub issuer: Str,
    /// Whom they may be for; empty: anybody.
    pub audiences: Vec<Str>,
    /// What they are signed with.
    pub keys: Keys,
    /// Headers that carry them, and what stands before the token there.
    pub from_headers: Vec<(Str, Str)>,
    /// Query parameters that carry them.
    pub from_params: Vec<Str>,
    /// Cookies that carry them.
    pub from_cookies: Vec<Str>,
    /// The token goes on to the workload.
    pub forward: bool,
    /// Header that tells the workload the payload.
    pub payload_header: Option<Str>,
    /// Headers that tell the workload single claims: header, then claim.
    pub claim_headers: Vec<(Str, Str)>,
    /// How long fetching keys may take, where the proxy does.
    pub timeout: Option<Duration>,
    /// Claims that are lists written as words.
    pub space_delimited: Vec<Str>,
    /// Requests without such a token are refused.
    pub required: bool,
}

/// What tokens are signed with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Keys {
    /// These, as JSON.
    Inline(Str),
    /// What is found there.
    Remote(JwksSource),
    /// The user made a mistake: no token is valid.
    Invalid,
}

/// Where keys are to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JwksSource {
    /// At this URL.
    Uri(Str),
    /// Where the issuer says (OpenID Connect Discovery 1.0).
    Issuer(Str),
}

impl std::fmt::Display for JwksSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JwksSource::Uri(uri) => f.write_str(uri),
            JwksSource::Issuer(issuer) => write!(f, "issuer {issuer}"),
        }
    }
}
