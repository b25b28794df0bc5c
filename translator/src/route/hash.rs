//! Which part of a request chooses the host, where a DestinationRule asks for consistent hashing.

use pilotfish_envoy::pb::envoy::config::route::v3::route_action::HashPolicy;
use pilotfish_envoy::pb::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
};
use pilotfish_model::destination_rule::{HashKey, LbAlgorithm};
use pilotfish_model::service::Service;

use super::proto_duration;
use crate::context::Context;

/// What is hashed for a port of a service, or of its subset.
pub fn key(context: &Context<'_>, service: &Service, subset: &str, port: u16) -> Option<HashKey> {
    let rule = context.rule(service)?;
    let subset = if subset.is_empty() { None } else { rule.subset(subset) };
    if !rule.hashes_requests() {
        return None;
    }
    match rule.policy_for(subset, port).load_balancer?.algorithm? {
        LbAlgorithm::ConsistentHash(hash) if hash.key != HashKey::None => Some(hash.key),
        _ => None,
    }
}

/// As Envoy takes it.
pub fn policy(key: &HashKey) -> Option<HashPolicy> {
    let specifier = match key {
        HashKey::Header(name) => PolicySpecifier::Header(Header { header_name: name.to_string(), ..Default::default() }),
        HashKey::Cookie { name, path, ttl, attributes } => PolicySpecifier::Cookie(Cookie {
            name: name.to_string(),
            path: path.to_string(),
            ttl: ttl.map(proto_duration),
            attributes: attributes.iter().map(|(n, v)| CookieAttribute { name: n.to_string(), value: v.to_string() }).collect(),
        }),
        HashKey::SourceIp => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        HashKey::QueryParameter(name) => PolicySpecifier::QueryParameter(QueryParameter { name: name.to_string() }),
        HashKey::None => return None,
    };
    Some(HashPolicy { policy_specifier: Some(specifier), ..Default::default() })
}
