//! VirtualService: how requests to a host are routed.

use std::borrow::Cow;
use std::time::Duration;

use crate::matching::{Pattern, StringMatch};
use crate::mesh_config::MeshConfig;
use crate::name::{Host, Labels, Meta, Str, Visibility};

/// A route object. Short host names are resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualService {
    /// Identity and age.
    pub meta: Meta,
    /// Hosts it speaks for; empty for delegates.
    pub hosts: Vec<Host>,
    /// Gateways it applies to. Never empty: `mesh` where the user named none.
    pub gateways: Vec<GatewayRef>,
    /// Who sees it; `None`: the mesh's default.
    pub visibility: Option<Visibility>,
    /// HTTP routes in order.
    pub http: Vec<HttpRoute>,
    /// TLS routes in order.
    pub tls: Vec<TlsRoute>,
    /// TCP routes in order.
    pub tcp: Vec<TcpRoute>,
}

impl VirtualService {
    /// Who sees it: as it says, or as the mesh does of those that say nothing.
    pub fn visibility_in(&self, config: &MeshConfig) -> Cow<'_, Visibility> {
        let default = || Visibility::parse(&config.default_virtual_service_export_to, &self.meta.namespace).unwrap_or_default();
        self.visibility.as_ref().map_or_else(|| Cow::Owned(default()), Cow::Borrowed)
    }
}

/// What a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GatewayRef {
    /// All sidecars.
    Mesh,
    /// A Gateway.
    Gateway {
        /// Its namespace.
        namespace: Str,
        /// Its name.
        name: Str,
    },
}

/// One HTTP rule. What few rules have is boxed: a mesh has many, and each kind of client reads all that it may see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpRoute {
    /// Name given by the user, for logs.
    pub name: Str,
    /// Any of these; empty matches all.
    pub matches: Vec<HttpMatch>,
    /// Weighted destinations.
    pub route: Vec<HttpDestination>,
    /// Answer with a redirect.
    pub redirect: Option<Box<HttpRedirect>>,
    /// Answer from the proxy.
    pub direct_response: Option<Box<DirectResponse>>,
    /// Another VirtualService that holds the rules.
    pub delegate: Option<Delegate>,
    /// Change of the request before it is forwarded.
    pub rewrite: Option<Box<HttpRewrite>>,
    /// Whole-request timeout; `None` and zero: none.
    pub timeout: Option<Duration>,
    /// Retries; `None`: the mesh's default.
    pub retries: Option<Box<HttpRetry>>,
    /// Injected faults.
    pub fault: Option<Box<HttpFault>>,
    /// Copies of requests.
    pub mirrors: Vec<HttpMirror>,
    /// CORS.
    pub cors: Option<Box<CorsPolicy>>,
    /// Header operations for all destinations, if there are any.
    pub headers: Option<Box<HeaderOperations>>,
}

/// One set of conditions, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpMatch {
    /// Name given by the user.
    pub name: Str,
    /// Path.
    pub uri: Option<StringMatch>,
    /// Scheme.
    pub scheme: Option<StringMatch>,
    /// Method.
    pub method: Option<StringMatch>,
    /// Host header.
    pub authority: Option<StringMatch>,
    /// Headers; a value of `None` asks for presence.
    pub headers: Vec<(Str, Option<StringMatch>)>,
    /// Headers that must not match.
    pub without_headers: Vec<(Str, Option<StringMatch>)>,
    /// Query parameters; a value of `None` asks for presence.
    pub query_params: Vec<(Str, Option<StringMatch>)>,
    /// Compare paths without case.
    pub ignore_uri_case: bool,
    /// Port the client asked for.
    pub port: Option<u16>,
    /// Labels of the client.
    pub source_labels: Labels,
    /// Namespace of the client.
    pub source_namespace: Option<Str>,
    /// Gateways; empty: those of the VirtualService.
    pub gateways: Vec<GatewayRef>,
    /// Prefix for statistics.
    pub stat_prefix: Str,
}

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Service host.
    pub host: Host,
    /// Subset of a DestinationRule.
    pub subset: Str,
    /// Port; `None`: the only one, or the one the client asked for.
    pub port: Option<u16>,
}

/// A weighted destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpDestination {
    /// Where to.
    pub destination: Destination,
    /// Relative weight. A single destination counts as everything, whatever its weight.
    pub weight: u32,
    /// Header operations for this destination, if there are any.
    pub headers: Option<Box<HeaderOperations>>,
}

/// Header operations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderOperations {
    /// On requests.
    pub request: HeaderOps,
    /// On responses.
    pub response: HeaderOps,
}

impl HeaderOperations {
    /// True if nothing is to do.
    pub fn is_empty(&self) -> bool {
        self == &HeaderOperations::default()
    }
}

/// Operations on one direction; names in the order of the alphabet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderOps {
    /// Overwrite.
    pub set: Vec<(Str, Str)>,
    /// Append.
    pub add: Vec<(Str, Str)>,
    /// Remove.
    pub remove: Vec<Str>,
}

/// A redirect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpRedirect {
    /// New path; empty: as it was.
    pub uri: Str,
    /// Replaces the matched prefix instead (Gateway API).
    pub prefix_rewrite: Option<Str>,
    /// New host; empty: as it was.
    pub authority: Str,
    /// New scheme; empty: as it was.
    pub scheme: Str,
    /// New port.
    pub port: Option<RedirectPort>,
    /// Status: 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// Port of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RedirectPort {
    /// This one.
    Number(u16),
    /// The default of the scheme.
    ProtocolDefault,
    /// The one the request came in on.
    Request,
}

/// An answer from the proxy itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DirectResponse {
    /// Status.
    pub status: u16,
    /// Body.
    pub body: Option<Body>,
}

/// A body.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// Text.
    Text(Str),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// Points to the VirtualService that holds the rules of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Delegate {
    /// Its namespace.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
}

/// Change of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpRewrite {
    /// Replaces the matched path or prefix; empty: as it was.
    pub uri: Str,
    /// Replaces the host; empty: as it was.
    pub authority: Str,
    /// Replaces by pattern.
    pub uri_regex: Option<RegexRewrite>,
}

/// Replacement by pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegexRewrite {
    /// What to find.
    pub pattern: Pattern,
    /// What to put there; `\1` names a group.
    pub rewrite: Str,
}

/// Retries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpRetry {
    /// How often at most; 0 switches retries off.
    pub attempts: u32,
    /// Timeout of each attempt.
    pub per_try_timeout: Option<Duration>,
    /// Conditions as Envoy names them, or status numbers, comma separated; empty: the default.
    pub retry_on: Str,
    /// Retry in other localities.
    pub retry_remote_localities: Option<bool>,
    /// Prefer hosts that were not tried; `None`: yes.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Base of the back-off.
    pub backoff: Option<Duration>,
}

/// Injected faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HttpFault {
    /// Delay.
    pub delay: Option<FaultDelay>,
    /// Abort.
    pub abort: Option<FaultAbort>,
}

/// A share of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Share {
    /// In millionths: 1,000,000 are all.
    PerMillion(u32),
    /// In percent, as old fields say it.
    Percent(u32),
}

impl Share {
    /// From percent; values beyond 0..=100 are clamped, and what is less than a millionth is left out.
    pub fn from_percent(percent: f64) -> Self {
        Share::PerMillion((percent.clamp(0.0, 100.0) * 10_000.0) as u32)
    }

    /// The same of an old field.
    pub fn whole(percent: i64) -> Self {
        Share::Percent(u32::try_from(percent.clamp(0, 100)).unwrap_or_default())
    }

    /// True if nothing has a part in it.
    pub fn is_none(self) -> bool {
        matches!(self, Share::PerMillion(0) | Share::Percent(0))
    }
}

/// A delay.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FaultDelay {
    /// How long.
    pub fixed: Duration,
    /// How often; `None` where the user did not say (all).
    pub percentage: Option<Share>,
}

/// An abort.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FaultAbort {
    /// With what.
    pub status: AbortStatus,
    /// How often; `None` where the user did not say (all).
    pub percentage: Option<Share>,
}

/// Status of an abort.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AbortStatus {
    /// HTTP.
    Http(u16),
    /// gRPC code by number.
    Grpc(u32),
}

/// A copy of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpMirror {
    /// Where to.
    pub destination: Destination,
    /// How many; `None`: all.
    pub percentage: Option<Share>,
}

/// CORS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CorsPolicy {
    /// Origins.
    pub allow_origins: Vec<StringMatch>,
    /// Methods.
    pub allow_methods: Vec<Str>,
    /// Request headers.
    pub allow_headers: Vec<Str>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<Str>,
    /// How long a preflight may be cached.
    pub max_age: Option<Duration>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// Preflights that do not match: `Some(false)` answers them here (IGNORE), else they are forwarded.
    pub forward_unmatched_preflights: Option<bool>,
}

/// One TLS rule: routed by SNI, not terminated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsRoute {
    /// Any of these; never empty.
    pub matches: Vec<TlsMatch>,
    /// Weighted destinations.
    pub route: Vec<TcpDestination>,
}

/// Conditions of a TLS rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsMatch {
    /// Server names; wildcards as in hosts.
    pub sni_hosts: Vec<Host>,
    /// The rest.
    pub l4: L4Match,
}

/// One TCP rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpRoute {
    /// Any of these; empty matches all.
    pub matches: Vec<L4Match>,
    /// Weighted destinations.
    pub route: Vec<TcpDestination>,
}

/// Conditions that connections can be told by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct L4Match {
    /// Addresses or ranges the client connects to, as written.
    pub destination_subnets: Vec<Str>,
    /// Port the client connects to.
    pub port: Option<u16>,
    /// Labels of the client.
    pub source_labels: Labels,
    /// Namespace of the client.
    pub source_namespace: Option<Str>,
    /// Gateways; empty: those of the VirtualService.
    pub gateways: Vec<GatewayRef>,
}

/// A weighted destination of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpDestination {
    /// Where to.
    pub destination: Destination,
    /// Relative weight.
    pub weight: u32,
}

/// Names of gRPC's status codes, by number.
pub const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
