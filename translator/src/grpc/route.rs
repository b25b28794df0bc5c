//! Routes of clients: one configuration for each service port.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use pilotfish_envoy::Resource;
use pilotfish_envoy::pb::envoy::config::route::v3::route::Action;
use pilotfish_envoy::pb::envoy::config::route::v3::{Route, RouteConfiguration, route_action::MaxStreamDuration};
use pilotfish_model::name::Host;
use pilotfish_model::service::{Protocol, Resolution, Service, ServicePort};
use pilotfish_model::virtual_service::GatewayRef;

use crate::context::Context;
use crate::naming::{self, Direction};
use crate::route::action::RouteDefaults;
use crate::route::domains::{self, Claims};
use crate::route::retry::RetryExtensions;
use crate::route::rule::{self, Place};
use crate::route::virtual_host::{self, RouteSource, ServiceRoute, VirtualHost};
use crate::route::{attempt_count, hash};
use crate::scope::EgressScope;
use crate::world::Rules;

pub(crate) fn routes(context: &Context<'_>) -> Vec<Resource> {
    let defaults = Arc::new(RouteDefaults {
        retry: context.config().default_http_retry_policy.as_ref().map(Into::into),
        retry_extensions: RetryExtensions { previous_hosts: true, previous_priorities: true },
        fault: true,
        cors: false,
        append_x_forwarded_host: false,
    });
    let mut made: HashSet<&Host> = HashSet::new();
    let mut resources = Vec::new();
    for egress in &context.scope.egress {
        let rules = by_host(egress);
        for service in egress.services.iter().filter(|s| s.resolution != Resolution::Alias) {
            if !made.insert(&service.host) {
                continue;
            }
            for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
                let host = virtual_host(context, &defaults, service, port, rules.get(&service.host).map(Vec::as_slice).unwrap_or_default());
                let name = naming::cluster(Direction::Outbound, port.port, "", service.host.as_str());
                let message = configuration(&name, &host);
                resources.push(Resource::new(name, &message).with_sources(host.sources()));
            }
        }
    }
    resources
}

/// Rules that speak of a host by its name, oldest first.
fn by_host(egress: &EgressScope) -> HashMap<&Host, Vec<&Arc<Rules>>> {
    let mut rules: HashMap<&Host, Vec<&Arc<Rules>>> = HashMap::new();
    for rule in egress.virtual_services.iter().filter(|v| !v.http.is_empty()) {
        for host in &rule.hosts {
            rules.entry(host).or_default().push(rule);
        }
    }
    rules
}

fn virtual_host(
    context: &Context<'_>,
    defaults: &Arc<RouteDefaults>,
    service: &Arc<Service>,
    port: &ServicePort,
    rules: &[&Arc<Rules>],
) -> VirtualHost {
    let single_port = |host: &Host| context.scope.service(host).map(|s| &**s).filter(|s| s.ports.len() == 1);
    let place = Place { gateway: &GatewayRef::Mesh, port: port.port, tls: false, http3: false, defaults, single_port };
    let route = match rules.iter().find_map(|v| rule::applied(context, v, &place)) {
        Some(set) => RouteSource::Rules(set),
        None => RouteSource::Service(ServiceRoute {
            host: service.host.clone(),
            port: port.port,
            hash: hash::of_service(context, service, port.port),
            defaults: defaults.clone(),
        }),
    };
    VirtualHost {
        name: naming::host_port(service.host.as_str(), port.port),
        domains: Claims::default().domains(domains::of_service(context.class, service, &[], Some(port.port))),
        routes: vec![route],
        require_tls: false,
        attempt_count: attempt_count(context),
        service: Some(service.source.clone()),
        catch_all_last: false,
    }
}

fn configuration(name: &str, host: &VirtualHost) -> RouteConfiguration {
    let mut message = virtual_host::build(host);
    if matches!(host.routes.as_slice(), [RouteSource::Rules(_)]) {
        message.routes.iter_mut().for_each(limit_streams);
    }
    RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![message], ..Default::default() }
}

/// gRPC reads a request's time-out from here only.
#[allow(deprecated)]
fn limit_streams(route: &mut Route) {
    if let Some(Action::Route(action)) = &mut route.action {
        action.max_grpc_timeout = None;
        action.max_stream_duration = action.timeout.map(|t| MaxStreamDuration { max_stream_duration: Some(t), ..Default::default() });
    }
}
