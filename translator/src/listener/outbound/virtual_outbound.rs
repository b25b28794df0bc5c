//! The listener that takes all captured connections and hands them on; what no other listener wants stays here.

use pilotfish_envoy::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action, route_match,
};
use pilotfish_model::name::Str;
use pilotfish_model::proxy::Interception;
use pilotfish_model::sidecar::OutboundMode;

use crate::context::Context;
use crate::listener::hcm::{Http, Routes};
use crate::listener::network_filters::TcpProxy;
use crate::listener::spec::{ChainSpec, Content, ListenerSpec, Matching, Role, plain_http};
use crate::listener::{captured_binds, stat_prefix};
use crate::naming;
use crate::scope::sidecar_object;

const CATCH_ALL: &str = "virtualOutbound-catchall-tcp";
const CATCH_ALL_HTTP: &str = "virtualOutbound-catchall-tcp-http";
const BLACK_HOLE: &str = "virtualOutbound-blackhole";
/// Route configuration, virtual host and route for hosts that nobody knows.
const DYNAMIC_DNS: &str = "allow_any_dynamic_dns";
/// Cluster that resolves the host of each request.
const DYNAMIC_DNS_CLUSTER: &str = "AllowAnyDynamicDNSCluster";

pub(super) fn listener(context: &Context<'_>, catch_all: TcpProxy) -> ListenerSpec {
    let class = context.class;
    let port = context.config().proxy_listen_port;
    // A connection to the listener's own port would be handed to itself for ever.
    let to_itself = Matching { destination_port: Some(port), ..Matching::default() };
    let mut chains = vec![chain(BLACK_HOLE, to_itself, Content::Tcp(TcpProxy::black_hole()))];
    if super::traffic_mode(context) == OutboundMode::AllowAnyDynamicDns {
        let http = Matching { alpn: plain_http(&context.config().features).to_vec(), ..Matching::default() };
        chains.push(chain(CATCH_ALL_HTTP, http, Content::Http(dynamic_dns(context))));
    }
    chains.push(chain(CATCH_ALL, Matching::default(), Content::Tcp(catch_all)));
    ListenerSpec {
        name: naming::VIRTUAL_OUTBOUND.to_owned(),
        binds: captured_binds(context.config(), class, true),
        port,
        role: Role::VirtualOutbound { transparent: class.interception == Interception::Tproxy },
        bind_to_port: true,
        exact_balance: false,
        chains,
        fallback: None,
        sources: context.scope.sidecar.iter().map(|s| sidecar_object(s)).collect(),
    }
}

fn chain(name: &str, matching: Matching, content: Content) -> ChainSpec {
    ChainSpec { name: Str::from(name), matching, tls: None, content, config: None, handshake_limit: false }
}

fn dynamic_dns(context: &Context<'_>) -> Http {
    let headers = context.class.proxy_config.proxy_headers.as_ref();
    let uncounted = headers.and_then(|h| h.attempt_count.as_ref()).is_some_and(|a| a.disabled == Some(true));
    let stat_prefix = stat_prefix::outbound(&format!("{}_{DYNAMIC_DNS}", naming::VIRTUAL_OUTBOUND));
    Http { routes: Routes::DynamicDns { attempt_count: !uncounted }, ..Http::rds(stat_prefix, Str::default()) }
}

/// Every host to itself.
pub(in crate::listener) fn dynamic_dns_routes(attempt_count: bool) -> RouteConfiguration {
    let none = Some(prost_types::Duration::default());
    #[allow(deprecated)]
    let action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(DYNAMIC_DNS_CLUSTER.to_owned())),
        timeout: none,
        max_grpc_timeout: none,
        ..Default::default()
    };
    let route = Route {
        name: DYNAMIC_DNS.to_owned(),
        r#match: Some(RouteMatch { path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())), ..Default::default() }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    };
    RouteConfiguration {
        name: DYNAMIC_DNS.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: DYNAMIC_DNS.to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            include_request_attempt_count: attempt_count,
            ..Default::default()
        }],
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(1 << 20),
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}
