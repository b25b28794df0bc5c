//! Which part of a request chooses the host, where a DestinationRule asks for consistent hashing.

use pilotfish_envoy::pb::envoy::config::route::v3::route_action::HashPolicy;
use pilotfish_envoy::pb::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
};
use pilotfish_model::destination_rule::{HashKey, LbAlgorithm, LoadBalancer, TrafficPolicy};
use pilotfish_model::service::Service;
use pilotfish_model::virtual_service::Destination;

use super::proto_duration;
use crate::context::Context;

/// What is hashed on a service's own route: what its port says, else what the service says.
pub fn of_service(context: &Context<'_>, service: &Service, port: u16) -> Option<HashKey> {
    let rule = context.rule(service).filter(|r| r.hashes_requests())?;
    on_port(&rule.policy, Some(port)).or_else(|| of_balancer(rule.policy.load_balancer.as_ref())).cloned()
}

/// What is hashed for a destination of a rule. A subset's own hash comes first; what is said of a port counts for destinations
/// that name it.
pub fn of_destination(context: &Context<'_>, service: &Service, to: &Destination) -> Option<HashKey> {
    let rule = context.rule(service).filter(|r| r.hashes_requests())?;
    let of = |policy: &'_ TrafficPolicy| on_port(policy, to.port).or_else(|| of_balancer(policy.load_balancer.as_ref())).cloned();
    rule.subset(&to.subset).and_then(|s| of(&s.policy)).or_else(|| of(&rule.policy))
}

fn on_port(policy: &TrafficPolicy, port: Option<u16>) -> Option<&HashKey> {
    of_balancer(policy.ports.get(&port?)?.load_balancer.as_ref())
}

fn of_balancer(balancer: Option<&LoadBalancer>) -> Option<&HashKey> {
    match balancer?.algorithm.as_ref()? {
        LbAlgorithm::ConsistentHash(hash) if hash.key != HashKey::None => Some(&hash.key),
        _ => None,
    }
}

/// As Envoy takes it.
pub fn policy(key: &HashKey) -> Option<HashPolicy> {
    let specifier = match key {
        HashKey::Header(name) => PolicySpecifier::Header(Header { header_name: str::to_owned(name), ..Default::default() }),
        HashKey::Cookie { name, path, ttl, attributes } => PolicySpecifier::Cookie(Cookie {
            name: str::to_owned(name),
            path: str::to_owned(path),
            ttl: ttl.map(proto_duration),
            attributes: attributes.iter().map(|(n, v)| CookieAttribute { name: str::to_owned(n), value: str::to_owned(v) }).collect(),
        }),
        HashKey::SourceIp => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        HashKey::QueryParameter(name) => PolicySpecifier::QueryParameter(QueryParameter { name: str::to_owned(name) }),
        HashKey::None => return None,
    };
    Some(HashPolicy { policy_specifier: Some(specifier), ..Default::default() })
}
