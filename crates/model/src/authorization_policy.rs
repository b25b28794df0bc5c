//! AuthorizationPolicy: who may do what at a workload.
//!
//! Parsed as far as it makes sense without knowing who enforces it. What a user got wrong stays in as [`Value::Invalid`] or
//! [`Attribute::Unknown`]: whoever enforces the rule must then refuse more, never less.

use std::hash::{Hash, Hasher};

use ipnet::IpNet;

use crate::attachment::{Attachment, attached};
use crate::hash::ContentHash;
use crate::name::{Meta, Str};

/// An object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Identity and age.
    pub meta: Meta,
    /// Workloads.
    pub attachment: Attachment,
    /// What happens to requests that a rule matches.
    pub action: Action,
    /// Only counted and logged, not enforced.
    pub dry_run: bool,
    /// Any may match. Without one nothing does.
    pub rules: Vec<Rule>,
    /// Hash of what follows from the object beside its identity and workloads.
    pub content: ContentHash,
}

attached!(AuthorizationPolicy);

impl AuthorizationPolicy {
    /// Large objects are hashed once, here.
    pub fn new(meta: Meta, attachment: Attachment, action: Action, dry_run: bool, rules: Vec<Rule>) -> Self {
        let content = ContentHash::of(&(&action, dry_run, &rules));
        AuthorizationPolicy { meta, attachment, action, dry_run, rules, content }
    }
}

impl Hash for AuthorizationPolicy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.meta.hash(state);
        self.attachment.hash(state);
        self.content.hash(state);
    }
}

/// What happens to requests that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// They pass; once there is such a policy, no others do.
    Allow,
    /// They do not.
    Deny,
    /// They are logged.
    Audit,
    /// A provider of the mesh's settings decides.
    Custom(Str),
}

/// All of it must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Any of these clients; empty: all.
    pub from: Vec<Vec<Condition>>,
    /// Any of these operations; empty: all.
    pub to: Vec<Vec<Condition>>,
    /// More conditions, on both.
    pub when: Vec<Condition>,
}

/// One of `values` (unless there is none), and none of `not_values`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Condition {
    /// What is looked at.
    pub attribute: Attribute,
    /// What it may be.
    pub values: Vec<Value>,
    /// What it may not be.
    pub not_values: Vec<Value>,
}

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// Identity of the client's certificate, without its scheme.
    Principal,
    /// Issuer and subject of the request's token.
    RequestPrincipal,
    /// Namespace in the client's identity.
    Namespace,
    /// Service account in the client's identity, as `NAMESPACE/NAME`.
    ServiceAccount,
    /// Trust domain of the client's identity.
    TrustDomain,
    /// Address that the connection comes from.
    SourceIp,
    /// Address of the client, as headers or the PROXY protocol tell it.
    RemoteIp,
    /// A header of the request.
    Header(Str),
    /// One of the values that a header of the request lists, with commas between them.
    ListedHeader(Str),
    /// Who the request's token is for.
    Audiences,
    /// To whom the request's token was issued.
    Presenter,
    /// A claim of the request's token, by its path.
    Claim(Vec<Str>),
    /// Host that the request is for.
    Host,
    /// HTTP method.
    Method,
    /// Path of the request.
    Path,
    /// Port that the connection was meant for.
    DestinationPort,
    /// Address that the connection was meant for.
    DestinationIp,
    /// Server name that the client's TLS asks for.
    Sni,
    /// What a filter found out.
    FilterMetadata {
        /// Name of the filter.
        filter: Str,
        /// Which of its findings.
        key: Str,
    },
    /// Nothing that is known.
    Unknown,
}

impl Attribute {
    /// It is about what is done, as opposed to who does it.
    pub fn is_operation(&self) -> bool {
        use Attribute::*;
        matches!(self, Host | Method | Path | DestinationPort | DestinationIp | Sni | FilterMetadata { .. })
    }

    /// Only requests have it, not connections.
    pub fn is_http(&self) -> bool {
        use Attribute::*;
        matches!(self, RequestPrincipal | Header(_) | ListedHeader(_) | Audiences | Presenter | Claim(_) | Host | Method | Path)
    }
}

/// What an attribute is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// A text; `*` at its start or end stands for anything.
    Text(Str),
    /// A path with operators instead of segments, in Envoy's notation.
    Template(Str),
    /// Addresses.
    Net(IpNet),
    /// A port.
    Port(u16),
    /// Makes no sense for its attribute.
    Invalid,
}
