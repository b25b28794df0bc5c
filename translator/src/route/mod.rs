//! Route configurations (RDS).
//!
//! ```text
//!  sidecar.rs, gateway.rs   which configurations there are, which virtual hosts they hold, which rules apply there
//!         │ VirtualHost (domains.rs: its names; rule.rs: RuleSet, a VirtualService's rules for one class and port)
//!         v
//!  virtual_host.rs          the message; action.rs, matching.rs, headers.rs, retry.rs, filters.rs, hash.rs its parts
//! ```
//!
//! For listeners: [`names`] (which configuration a listener refers to), [`inbound`] (routes inline in inbound chains),
//! [`l4`] (where connections go that are not HTTP).

pub mod action;
mod assemble;
pub mod claims;
pub mod delegate;
pub mod domains;
pub mod filters;
pub mod gateway;
pub mod hash;
pub mod headers;
pub mod inbound;
pub mod l4;
pub mod matching;
pub mod names;
pub mod retry;
pub mod rule;
pub mod session;
pub mod sidecar;
pub mod virtual_host;

use std::sync::Arc;
use std::time::Duration;

use pilotfish_envoy::pb::envoy::config::route::v3::RouteConfiguration;
use pilotfish_model::name::{ObjectId, Str};
use pilotfish_model::service::Service;
use pilotfish_model::sidecar::OutboundMode;

use crate::context::Context;
use crate::extensions::{HTTP_CORS, HTTP_FAULT, RETRY_PREVIOUS_HOSTS, RETRY_PREVIOUS_PRIORITIES};
use crate::naming::{self, Direction};
use action::RouteDefaults;
pub(crate) use assemble::{Assembler, Assembly};
use retry::RetryExtensions;
use virtual_host::{RouteSource, VirtualHost};

/// What a route is called that no rule of a user made.
pub const DEFAULT_ROUTE: &str = "default";
/// Unknown traffic that is let through.
pub const ALLOW_ANY: &str = "allow_any";
/// Unknown traffic that is resolved by the name it carries.
pub const ALLOW_ANY_DYNAMIC_DNS: &str = "allow_any_dynamic_dns";
/// Unknown traffic that is refused.
pub const BLOCK_ALL: &str = "block_all";

/// What a route configuration is made of.
pub(crate) struct Configuration {
    /// Its name.
    name: Str,
    /// Its virtual hosts, in order.
    hosts: Vec<HostOf>,
    /// Objects behind it beside those of its virtual hosts.
    sources: Vec<ObjectId>,
    /// Of a sidecar's: what of it a VirtualService decides.
    by_rules: Option<ByRules>,
}

/// A virtual host, and what it stands for.
pub(crate) struct HostOf {
    host: VirtualHost,
    /// Which VirtualService of the egress scope made its routes.
    rules: Option<usize>,
    service: Option<Arc<Service>>,
}

/// How VirtualServices of an egress scope make a configuration.
#[derive(Clone, Debug)]
pub(crate) struct ByRules {
    /// Which egress scope.
    egress: usize,
    /// The port, 0 for all.
    port: u16,
    /// VirtualServices that were asked, and whether they had rules that apply.
    asked: Arc<[(usize, bool)]>,
    /// It takes the first that has.
    first_only: bool,
    /// Somebody did not get a name that somebody else has.
    contested: bool,
}

impl ByRules {
    /// Which of these VirtualServices were asked, by their index.
    fn concerned(&self, changed: &[usize]) -> Vec<usize> {
        changed.iter().filter(|i| self.asked.iter().any(|(asked, _)| asked == *i)).copied().collect()
    }
}

impl From<VirtualHost> for HostOf {
    fn from(host: VirtualHost) -> Self {
        HostOf { host, rules: None, service: None }
    }
}

/// What holds for all routes of a scope.
pub(crate) fn defaults(context: &Context<'_>) -> Arc<RouteDefaults> {
    let class = context.class;
    Arc::new(RouteDefaults {
        retry: context.config().default_http_retry_policy.as_ref().map(Into::into),
        retry_extensions: RetryExtensions {
            previous_hosts: class.has_extension(RETRY_PREVIOUS_HOSTS),
            previous_priorities: class.has_extension(RETRY_PREVIOUS_PRIORITIES),
        },
        fault: class.has_extension(HTTP_FAULT),
        cors: class.has_extension(HTTP_CORS),
        shadow_suffix: context.config().features.shadow_suffix,
        append_x_forwarded_host: append_host(context),
    })
}

/// Whether servers see which host the client asked for, where another one is put in its place.
fn append_host(context: &Context<'_>) -> bool {
    let headers = context.class.proxy_config.proxy_headers.as_ref();
    headers.and_then(|h| h.x_forwarded_host.as_ref()).is_some_and(|e| e.enabled == Some(true))
}

/// All of a scope.
fn configurations(context: &Context<'_>) -> Vec<Configuration> {
    let (class, defaults) = (context.class, defaults(context));
    if class.is_sidecar() {
        sidecar::configurations(context, &defaults)
    } else if class.is_router() {
        gateway::configurations(context, &defaults)
    } else {
        Vec::new()
    }
}

/// The virtual host for unknown outbound traffic.
pub fn catch_all(context: &Context<'_>) -> VirtualHost {
    let policy = context.scope.outbound_policy();
    let mode = policy.map_or(context.config().outbound_traffic_policy.mode, |p| p.mode);
    let append_host = append_host(context);
    let forward =
        |name: &str, cluster: &str| (name.into(), RouteSource::Forward { name: name.into(), cluster: cluster.into(), append_host });
    let (name, route): (Str, RouteSource) = match (mode, policy.and_then(|p| p.egress_proxy.as_ref())) {
        (OutboundMode::RegistryOnly, _) => (BLOCK_ALL.into(), RouteSource::Refuse { name: BLOCK_ALL.into() }),
        (OutboundMode::AllowAnyDynamicDns, _) => return dynamic_dns(attempt_count(context)),
        (OutboundMode::AllowAny, None) => forward(ALLOW_ANY, naming::PASSTHROUGH),
        (OutboundMode::AllowAny, Some((host, port, subset))) => {
            forward(ALLOW_ANY, &naming::cluster(Direction::Outbound, *port, subset, host.as_str()))
        }
    };
    VirtualHost {
        name: str::to_owned(&name),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        require_tls: false,
        attempt_count: attempt_count(context),
        service: None,
        session: None,
        catch_all_last: false,
    }
}

/// Routes inline in the listener for traffic that is resolved by the name it carries.
pub fn dynamic_dns_configuration(attempt_count: bool) -> RouteConfiguration {
    virtual_host::message(ALLOW_ANY_DYNAMIC_DNS, &[dynamic_dns(attempt_count)])
}

fn dynamic_dns(attempt_count: bool) -> VirtualHost {
    let name = Str::from(ALLOW_ANY_DYNAMIC_DNS);
    VirtualHost {
        name: str::to_owned(&name),
        domains: vec!["*".to_owned()],
        routes: vec![RouteSource::Forward { name, cluster: naming::DYNAMIC_DNS.into(), append_host: false }],
        require_tls: false,
        attempt_count,
        service: None,
        session: None,
        catch_all_last: false,
    }
}

/// Whether servers see how often a request was tried.
pub fn attempt_count(context: &Context<'_>) -> bool {
    let headers = context.class.proxy_config.proxy_headers.as_ref();
    headers.and_then(|h| h.attempt_count.as_ref()).is_none_or(|a| a.disabled != Some(true))
}

/// A VirtualService's path in the API, for metadata.
fn config_path(namespace: &str, name: &str) -> String {
    naming::config_path("networking.istio.io", "virtual-service", namespace, name)
}

/// Durations of the model are far below what a proto duration can hold; one that is not becomes the longest.
fn proto_duration(duration: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: duration.subsec_nanos() as i32 }
}
