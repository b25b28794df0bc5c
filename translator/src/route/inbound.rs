//! Routes of inbound HTTP chains: one virtual host, one route, inline in the listener.

use bytes::Bytes;
use pilotfish_envoy::pb::envoy::config::route::v3::{
    Decorator, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action, route_match,
};
use pilotfish_model::name::Str;
use pilotfish_model::service::Protocol;
use prost::Message;

/// What the routes of one inbound chain depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundRoute {
    /// Cluster to forward to; names the route configuration as well. `inbound|8080||` or `InboundPassthroughCluster`.
    pub cluster: Str,
    /// Host of the service for traces; of a Sidecar's ingress its name and namespace (`web.shop`); empty for unknown
    /// traffic.
    pub host: Str,
    /// Port of the service (not of the workload); 0 for unknown traffic.
    pub service_port: u16,
    /// Protocol of the port: gRPC is not retried.
    pub protocol: Protocol,
}

/// Builds them.
pub fn route_configuration(input: &InboundRoute) -> RouteConfiguration {
    let none = Some(prost_types::Duration::default());
    let action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(str::to_owned(&input.cluster))),
        timeout: none,
        max_stream_duration: Some(route_action::MaxStreamDuration {
            max_stream_duration: none,
            grpc_timeout_header_max: none,
            ..Default::default()
        }),
        retry_policy: retry(input.protocol),
        ..Default::default()
    };
    let route = Route {
        name: super::DEFAULT_ROUTE.to_owned(),
        r#match: Some(RouteMatch { path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())), ..Default::default() }),
        decorator: Some(Decorator { operation: format!("{}:{}/*", input.host, input.service_port), ..Default::default() }),
        action: Some(route::Action::Route(action)),
        ..Default::default()
    };
    RouteConfiguration {
        name: str::to_owned(&input.cluster),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{}", input.service_port),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..Default::default()
        }],
        validate_clusters: Some(false),
        ..Default::default()
    }
}

/// A connection that the workload closed while a request was on its way is worth another try; nothing was sent yet.
fn retry(protocol: Protocol) -> Bytes {
    if matches!(protocol, Protocol::Grpc | Protocol::GrpcWeb) {
        return Bytes::new();
    }
    let policy = RetryPolicy { retry_on: "reset-before-request".to_owned(), num_retries: Some(2), ..Default::default() };
    policy.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_not_retried() {
        let retried = |protocol| {
            let input = InboundRoute { cluster: "inbound|80||".into(), host: "a".into(), service_port: 80, protocol };
            match &route_configuration(&input).virtual_hosts[0].routes[0].action {
                Some(route::Action::Route(action)) => !action.retry_policy.is_empty(),
                _ => panic!("not forwarded"),
            }
        };
        assert!(retried(Protocol::Http) && retried(Protocol::Auto) && !retried(Protocol::Grpc) && !retried(Protocol::GrpcWeb));
    }
}
