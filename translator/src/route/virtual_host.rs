//! One virtual host out of its inputs. A route configuration is nothing but the sum of its virtual hosts.

use std::sync::{Arc, LazyLock};

use pilotfish_envoy::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use pilotfish_envoy::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use pilotfish_envoy::pb::envoy::config::route::v3::{
    Decorator, DirectResponseAction, Route, RouteAction, RouteConfiguration, VirtualHost as Message, route,
};
use pilotfish_envoy::{Fragment, Resource, Sources, TypeUrl};
use pilotfish_model::destination_rule::HashKey;
use pilotfish_model::name::{Host, Str};
use pilotfish_model::{Kind, ObjectId};
use prost::Message as _;

use super::action::{self, RouteDefaults};
use super::rule::RuleSet;
use super::session::Session;
use super::{DEFAULT_ROUTE, hash, matching, retry};
use crate::naming::{self, Direction};
use crate::unit::sources;

/// The name of a route configuration, and of a virtual host.
const NAME: u32 = 1;
/// The type of a virtual host.
pub(crate) const TYPE_NAME: &str = "envoy.config.route.v3.VirtualHost";
/// Fields of a virtual host.
const DOMAINS: u32 = 2;
const ROUTES: u32 = 3;
/// The field with a virtual host.
pub(crate) const VIRTUAL_HOSTS: u32 = 2;
/// Direct responses may be as large as this, in bytes.
const MAX_DIRECT_RESPONSE: u32 = 1 << 20;

/// What a virtual host depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualHost {
    /// Its name.
    pub name: String,
    /// What it answers to.
    pub domains: Vec<String>,
    /// Its routes, in order.
    pub routes: Vec<RouteSource>,
    /// Clear text is redirected to TLS.
    pub require_tls: bool,
    /// Servers see how often a request was tried.
    pub attempt_count: bool,
    /// The service that it stands for.
    pub service: Option<ObjectId>,
    /// What keeps a client with one server.
    pub session: Option<Session>,
    /// Routes that take everything go last, wherever they stand: the rules come from several objects.
    pub catch_all_last: bool,
}

/// Where routes come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RouteSource {
    /// Rules of a VirtualService.
    Rules(Arc<RuleSet>),
    /// A service that no rule speaks of.
    Service(ServiceRoute),
    /// Unknown traffic, let through.
    Forward {
        /// Name of the route.
        name: Str,
        /// Where to.
        cluster: Str,
        /// The host that the client asked for is kept in `x-forwarded-host`.
        append_host: bool,
    },
    /// Unknown traffic, refused.
    Refuse {
        /// Name of the route.
        name: Str,
    },
}

impl RouteSource {
    /// How many routes it makes.
    fn count(&self) -> usize {
        match self {
            RouteSource::Rules(set) => set.rules.len(),
            RouteSource::Service(_) | RouteSource::Forward { .. } | RouteSource::Refuse { .. } => 1,
        }
    }
}

/// The route of a service that no rule speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceRoute {
    /// The service.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// What is hashed to choose a host.
    pub hash: Option<HashKey>,
    /// What holds for all routes of the class.
    pub defaults: Arc<RouteDefaults>,
}

/// A whole route configuration, as a rope of its virtual hosts.
pub(crate) fn configuration(name: &str, virtual_hosts: impl IntoIterator<Item = Fragment>) -> Resource {
    static TAIL: LazyLock<Fragment> = LazyLock::new(|| Fragment::new(empty("").encode_to_vec().into(), Sources::default()));
    let mut head = Vec::with_capacity(name.len() + 2);
    // Fields of a message may be written piece by piece; an empty name is not written at all.
    if !name.is_empty() {
        prost::encoding::string::encode(NAME, &name.to_owned(), &mut head);
    }
    let head = Fragment::new(head.into(), Sources::default());
    let parts = std::iter::once(head).chain(virtual_hosts).chain(std::iter::once(TAIL.clone()));
    Resource::rope(name, TypeUrl::Route.as_str(), parts.collect())
}

/// A whole route configuration.
pub fn message(name: &str, virtual_hosts: &[VirtualHost]) -> RouteConfiguration {
    RouteConfiguration { virtual_hosts: virtual_hosts.iter().map(build).collect(), ..empty(name) }
}

fn empty(name: &str) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(MAX_DIRECT_RESPONSE),
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}

impl VirtualHost {
    /// The objects behind it.
    pub(crate) fn sources(&self) -> Sources {
        let rules = self.routes.iter().filter_map(|source| match source {
            RouteSource::Rules(set) => Some(&set.virtual_service),
            _ => None,
        });
        let rules = rules.flat_map(|r| std::iter::once(r.key()).chain(r.delegates.iter().cloned()));
        let rules = rules.map(|key| ObjectId::new(Kind::VirtualService, key.namespace, key.name));
        let objects: Vec<ObjectId> = rules.chain(self.service.clone()).collect();
        sources(&objects)
    }
}

/// Builds a virtual host.
pub fn build(input: &VirtualHost) -> Message {
    let mut routes: Vec<Route> = Vec::new();
    each_route(input, |route| routes.push(route));
    Message { name: input.name.clone(), domains: input.domains.clone(), routes, ..rest(input) }
}

/// Appends the same encoded.
pub(crate) fn encode(input: &VirtualHost, out: &mut Vec<u8>) {
    if !input.name.is_empty() {
        prost::encoding::string::encode(NAME, &input.name, out);
    }
    prost::encoding::string::encode_repeated(DOMAINS, &input.domains, out);
    let mut routes: Vec<Route> = Vec::with_capacity(input.routes.iter().map(RouteSource::count).sum());
    each_route(input, |route| routes.push(route));
    routes.iter().for_each(|route| prost::encoding::message::encode(ROUTES, route, out));
    rest(input).encode_raw(out);
}

/// Makes one route after the other, in their order.
fn each_route(input: &VirtualHost, mut then: impl FnMut(Route)) {
    if !input.catch_all_last {
        return input.routes.iter().for_each(|source| routes_of(source, &mut then));
    }
    let mut routes: Vec<Route> = Vec::new();
    input.routes.iter().for_each(|source| routes_of(source, &mut |route| routes.push(route)));
    // Stable: everything else keeps its order.
    routes.sort_by_key(|r| r.r#match.as_ref().is_some_and(matching::is_catch_all));
    routes.into_iter().for_each(then);
}

fn routes_of(source: &RouteSource, then: &mut impl FnMut(Route)) {
    match source {
        RouteSource::Rules(set) => set.rules.iter().for_each(|applied| then(action::route(set, applied))),
        RouteSource::Service(service) => then(service_route(service)),
        RouteSource::Forward { name, cluster, append_host } => then(plain(name, forward(cluster, *append_host))),
        RouteSource::Refuse { name } => {
            then(plain(name, route::Action::DirectResponse(DirectResponseAction { status: 502, ..Default::default() })));
        }
    }
}

/// What comes behind the routes.
fn rest(input: &VirtualHost) -> Message {
    let require_tls = if input.require_tls { TlsRequirementType::All } else { TlsRequirementType::None };
    Message {
        require_tls: require_tls.into(),
        include_request_attempt_count: input.attempt_count,
        typed_per_filter_config: input.session.iter().map(Session::per_filter).collect(),
        ..Default::default()
    }
}

fn plain(name: &str, action: route::Action) -> Route {
    Route { name: name.to_owned(), r#match: Some(matching::route_match(None)), action: Some(action), ..Default::default() }
}

// `max_stream_duration` does more than its deprecated predecessor: it ends streams that are well.
#[allow(deprecated)]
fn forward(cluster: &str, append_x_forwarded_host: bool) -> route::Action {
    let never = Some(prost_types::Duration::default());
    route::Action::Route(RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: never,
        max_grpc_timeout: never,
        append_x_forwarded_host,
        ..Default::default()
    })
}

#[allow(deprecated)]
fn service_route(service: &ServiceRoute) -> Route {
    let never = Some(prost_types::Duration::default());
    let (host, port) = (service.host.as_str(), service.port);
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(naming::cluster(Direction::Outbound, port, "", host))),
        timeout: never,
        max_grpc_timeout: never,
        retry_policy: retry::encoded(service.defaults.retry.as_ref(), false, service.defaults.retry_extensions),
        hash_policy: service.hash.iter().filter_map(hash::policy).collect(),
        append_x_forwarded_host: service.defaults.append_x_forwarded_host,
        ..Default::default()
    };
    Route {
        decorator: Some(Decorator { operation: [host, ":", &port.to_string(), "/*"].concat(), ..Default::default() }),
        ..plain(DEFAULT_ROUTE, route::Action::Route(action))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_the_sum_of_its_virtual_hosts() {
        let refuse = |name: &str| VirtualHost {
            name: name.to_owned(),
            domains: vec![format!("{name}.example")],
            routes: vec![RouteSource::Refuse { name: "no".into() }],
            require_tls: false,
            attempt_count: true,
            service: None,
            session: None,
            catch_all_last: false,
        };
        let hosts = [refuse("a"), refuse("b")];
        let field = |host: &VirtualHost| {
            let mut bytes = Vec::new();
            prost::encoding::message::encode(VIRTUAL_HOSTS, &build(host), &mut bytes);
            let mut encoded = Vec::new();
            encode(host, &mut encoded);
            assert_eq!(encoded, build(host).encode_to_vec(), "built and encoded alike");
            Fragment::new(bytes.into(), Sources::default())
        };
        for name in ["80", ""] {
            let rope = configuration(name, hosts.iter().map(field)).to_any();
            assert_eq!(rope.value, message(name, &hosts).encode_to_vec());
        }
    }
}
