//! Routes of clients: one configuration for each service port, with all that is reached on that port. A client looks up in it
//! the name that it calls, which need not be the service's own.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use pilotfish_envoy::pb::envoy::config::route::v3::route::Action;
use pilotfish_envoy::pb::envoy::config::route::v3::{Route, VirtualHost as Message, route_action::MaxStreamDuration};
use pilotfish_envoy::{Fragment, Resource, Sources, TypeUrl};
use pilotfish_model::service::{Protocol, Resolution};
use prost::encoding::{message, string};

use crate::context::Context;
use crate::naming::{self, Direction};
use crate::route::action::RouteDefaults;
use crate::route::retry::RetryExtensions;
use crate::route::sidecar;
use crate::route::virtual_host::{self, RouteSource, VIRTUAL_HOSTS, VirtualHost};
use crate::scope::EgressScope;

/// The field of a route configuration with its name.
const NAME: u32 = 1;

pub(crate) fn routes(context: &Context<'_>) -> Vec<Resource> {
    let defaults = Arc::new(RouteDefaults {
        retry: context.config().default_http_retry_policy.as_ref().map(Into::into),
        retry_extensions: RetryExtensions { previous_hosts: true, previous_priorities: true },
        fault: true,
        cors: false,
        shadow_suffix: false,
        append_x_forwarded_host: false,
    });
    let mut by_port: BTreeMap<u16, Fragment> = BTreeMap::new();
    let mut made: HashSet<String> = HashSet::new();
    let mut resources = Vec::new();
    for service in context.scope.services.iter().filter(|s| s.resolution != Resolution::Alias) {
        for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
            let name = naming::cluster(Direction::Outbound, port.port, "", service.host.as_str());
            if !made.insert(name.clone()) {
                continue;
            }
            let hosts = by_port.entry(port.port).or_insert_with(|| virtual_hosts(context, &defaults, port.port));
            let mut head = Vec::with_capacity(name.len() + 4);
            string::encode(NAME, &name, &mut head);
            let parts = vec![Fragment::new(head.into(), Sources::default()), hosts.clone()];
            resources.push(Resource::rope(name, TypeUrl::Route.as_str(), parts));
        }
    }
    resources
}

/// All of a port, encoded once for the configurations of all services with that port.
fn virtual_hosts(context: &Context<'_>, defaults: &Arc<RouteDefaults>, port: u16) -> Fragment {
    let mut bytes = Vec::new();
    let mut objects: Vec<Arc<str>> = Vec::new();
    if let Some((egress, port)) = egress(context.scope.egress.iter(), port) {
        for host in sidecar::of_dialled_port(context, egress, defaults, port) {
            message::encode(VIRTUAL_HOSTS, &build(&host), &mut bytes);
            objects.extend(host.sources().iter().cloned());
        }
    }
    objects.sort_unstable();
    objects.dedup();
    Fragment::new(bytes.into(), objects)
}

/// The egress listener that speaks for a port: the first that is for it or for all; and the port that its routes are made for.
fn egress<'a>(mut all: impl Iterator<Item = &'a EgressScope>, port: u16) -> Option<(&'a EgressScope, u16)> {
    all.find_map(|egress| match egress.listener.as_ref().and_then(|l| l.port.as_ref()) {
        None => Some((egress, port)),
        Some(own) if own.number == port => Some((egress, if own.protocol == Protocol::HttpProxy { 0 } else { port })),
        Some(_) => None,
    })
}

fn build(host: &VirtualHost) -> Message {
    let mut message = virtual_host::build(host);
    if matches!(host.routes.as_slice(), [RouteSource::Rules(_)]) {
        message.routes.iter_mut().for_each(limit_streams);
    }
    message
}

/// gRPC reads a request's time-out from here only.
#[allow(deprecated)]
fn limit_streams(route: &mut Route) {
    if let Some(Action::Route(action)) = &mut route.action {
        action.max_grpc_timeout = None;
        action.max_stream_duration = action.timeout.map(|t| MaxStreamDuration { max_stream_duration: Some(t), ..Default::default() });
    }
}
