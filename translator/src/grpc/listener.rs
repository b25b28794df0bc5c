//! Listeners: of clients, one for each name that a program may dial; of servers, one for each address to listen on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pilotfish_envoy::pb::envoy::config::core::v3::TransportSocket;
use pilotfish_envoy::pb::envoy::config::listener::v3::{AdditionalAddress, ApiListener, Filter, FilterChain, Listener, filter};
use pilotfish_envoy::pb::envoy::config::route::v3::{
    NonForwardingAction, Route, RouteConfiguration, RouteMatch, VirtualHost, route, route_match::PathSpecifier,
};
use pilotfish_envoy::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use pilotfish_envoy::pb::envoy::extensions::filters::http::router::v3::Router;
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_filter,
};
use pilotfish_envoy::{Resource, any};
use pilotfish_model::name::Str;
use pilotfish_model::peer_authentication::MtlsMode;
use pilotfish_model::service::{Address, Protocol, Registry, Resolution, Service};

use super::cluster::downstream;
use crate::addresses::{self, Place};
use crate::cluster::inbound_targets;
use crate::config_source;
use crate::context::{Context, OwnContext};
use crate::endpoint::address;
use crate::extensions;
use crate::naming::{self, Direction};
use crate::policy;
use crate::security::{self, Security};
use crate::unit::sources;

/// Servers ask for this and the address that they listen on.
const INBOUND: &str = "xds.istio.io/grpc/lds/inbound/";
/// Label of workloads that accept mesh mTLS.
const TLS_MODE: &str = "security.istio.io/tlsMode";

pub(crate) fn outbound(context: &Context<'_>) -> Vec<Resource> {
    let mut resources = Vec::new();
    for service in context.scope.services.iter().filter(|s| s.resolution != Resolution::Alias) {
        let ips = addresses_of(context, service);
        for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
            let routes = naming::cluster(Direction::Outbound, port.port, "", service.host.as_str());
            for name in names(service, &context.class.namespace) {
                let name = naming::host_port(&name, port.port);
                let message = client(&name, &ips, port.port, &routes);
                resources.push(Resource::new(name, &message).with_sources(sources([&service.source])));
            }
        }
    }
    resources
}

/// The addresses that stand for a service, at least one. gRPC does not look at them.
fn addresses_of(context: &Context<'_>, service: &Service) -> Vec<IpAddr> {
    let places = addresses::places(&context.class.unit, service);
    let ips = places.into_iter().find(Place::is_own).into_iter().flat_map(|place| place.address.into_iter().chain(place.more));
    let ips: Vec<IpAddr> = ips.filter_map(|a| if let Address::Ip(ip) = a { Some(ip) } else { None }).collect();
    if ips.is_empty() { vec![Ipv4Addr::UNSPECIFIED.into()] } else { ips }
}

/// The names that a program in `namespace` may dial.
fn names(service: &Service, namespace: &str) -> Vec<String> {
    let mut names = vec![service.host.to_string()];
    if service.registry == Registry::Kubernetes {
        let qualified = format!("{}.{}", service.name, service.namespace);
        names.push(format!("{qualified}.svc"));
        names.push(qualified);
        names.extend((*service.namespace == *namespace).then(|| service.name.to_string()));
    }
    names
}

fn client(name: &str, ips: &[IpAddr], port: u16, routes: &str) -> Listener {
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(config_source::GRPC_STREAM.clone()),
            route_config_name: routes.to_owned(),
        })),
        http_filters: vec![
            http_filter(extensions::HTTP_FAULT, any(&HttpFault::default())),
            http_filter(extensions::HTTP_ROUTER, any(&Router::default())),
        ],
        ..Default::default()
    };
    let mut sockets = ips.iter().map(|ip| address::socket(&ip.to_string(), port));
    Listener {
        name: name.to_owned(),
        address: sockets.next(),
        additional_addresses: sockets.map(|a| AdditionalAddress { address: Some(a), ..Default::default() }).collect(),
        api_listener: Some(ApiListener { api_listener: Some(any(&manager)) }),
        ..Default::default()
    }
}

fn http_filter(name: &str, config: pilotfish_envoy::pb::google::protobuf::Any) -> HttpFilter {
    HttpFilter { name: name.to_owned(), config_type: Some(http_filter::ConfigType::TypedConfig(config)), ..Default::default() }
}

/// What a server's listener depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ServerListener {
    name: Str,
    ip: IpAddr,
    port: u16,
    mtls: bool,
}

pub(crate) fn inbound(context: &OwnContext<'_>, security: Option<&Security>) -> Vec<Resource> {
    let rules = security.map(security::grpc_filters).unwrap_or_default();
    let class = context.class;
    let any: [IpAddr; 4] =
        [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let mut behind = crate::listener::inbound_sources(context);
    behind.extend(security.iter().flat_map(|s| s.objects()));
    let mut resources = Vec::new();
    for target in inbound_targets(context) {
        let port = target.target_port;
        // A gRPC server cannot tell TLS from clear text on one port.
        let mtls = match policy::workload_mtls_mode(context.mesh, &class.namespace, context.own, Some(port)) {
            MtlsMode::Strict => true,
            MtlsMode::Permissive => context.own.labels.get(TLS_MODE).is_some_and(|m| &**m == "istio"),
            MtlsMode::Disable => false,
        };
        for ip in any.iter().chain(&context.own.own_ips) {
            let name = format!("{INBOUND}{}", std::net::SocketAddr::new(*ip, port));
            let input = ServerListener { name: name.into(), ip: *ip, port, mtls };
            resources.push(Resource::new(input.name.clone(), &server(&input, &rules)).with_sources(sources(&behind)));
        }
    }
    resources
}

fn server(input: &ServerListener, rules: &[HttpFilter]) -> Listener {
    let (kind, socket): (&str, Option<TransportSocket>) = if input.mtls { ("mtls", Some(downstream())) } else { ("plaintext", None) };
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(any_path())),
        http_filters: rules.iter().cloned().chain([http_filter(extensions::HTTP_ROUTER, any(&Router::default()))]).collect(),
        ..Default::default()
    };
    let filter = Filter { name: format!("inbound-hcm{kind}"), config_type: Some(filter::ConfigType::TypedConfig(any(&manager))) };
    Listener {
        name: input.name.to_string(),
        address: Some(address::socket(&input.ip.to_string(), input.port)),
        filter_chains: vec![FilterChain {
            name: format!("inbound-{kind}"),
            filters: vec![filter],
            transport_socket: socket,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// To the program itself, whatever is asked for.
fn any_path() -> RouteConfiguration {
    let all = RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..Default::default() };
    let here = route::Action::NonForwardingAction(NonForwardingAction::default());
    RouteConfiguration {
        name: "inbound".to_owned(),
        virtual_hosts: vec![VirtualHost {
            domains: vec!["*".to_owned()],
            routes: vec![Route { r#match: Some(all), action: Some(here), ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    }
}
