//! Servers that decide about requests (`extensionProviders` of MeshConfig), and the filters that ask them.

use std::collections::BTreeSet;
use std::time::Duration;

use pilotfish_envoy::pb::envoy::config::core::v3::{ApiVersion, GrpcService, HeaderValue, HttpUri, grpc_service, http_uri};
use pilotfish_envoy::pb::envoy::extensions::filters::http::ext_authz::v3 as http;
use pilotfish_envoy::pb::envoy::extensions::filters::network::ext_authz::v3 as network;
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::{ListStringMatcher, MetadataMatcher, StringMatcher};
use pilotfish_envoy::pb::envoy::r#type::v3::{HttpStatus, StatusCode};
use pilotfish_model::mesh::ServiceKey;
use pilotfish_model::mesh_config::{ExtAuthzGrpcProvider, ExtAuthzHttpProvider, ProviderKind, RequestBodyInCheck};
use pilotfish_model::name::{Host, Str};

use super::term::{found_by, text};
use crate::extensions as names;
use crate::listener::pack::duration;
use crate::naming::{self, Direction};
use crate::world::World;

/// How long an answer may take where nobody says.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Rules that decide whether to ask are named with this before the provider's name.
pub(super) const PREFIX: &str = "istio-ext-authz";
/// Where RBAC leaves the name of the rule that asks: the prefix of its shadow rules, and what it appends.
pub(super) const SHADOW_PREFIX: &str = "istio_ext_authz_";
const FOUND: &str = "istio_ext_authz_shadow_effective_policy_id";

/// A server to ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Provider {
    host: Str,
    cluster: Str,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Http(ExtAuthzHttpProvider),
    Grpc(ExtAuthzGrpcProvider),
}

/// Why nobody can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum BadProvider {
    #[error("the mesh has no such provider, or it does not authorise")]
    Unknown,
    #[error("other policies of a workload ask another one")]
    Several,
    #[error("there is no service {0}, or there are several")]
    NoService(Str),
    #[error("its {0} is not valid")]
    Invalid(&'static str),
}

/// Whether a provider can be asked.
pub(crate) fn ask(world: &World, name: &str) -> Result<(), BadProvider> {
    resolve(world, name, &mut BTreeSet::new()).map(|_| ())
}

/// Finds a provider. Hosts that it was looked for under are noted, found or not.
pub(super) fn resolve(world: &World, name: &str, hosts: &mut BTreeSet<Host>) -> Result<Provider, BadProvider> {
    let provider = world.mesh.config.extension_providers.iter().find(|p| &*p.name == name).ok_or(BadProvider::Unknown)?;
    let kind = match &provider.kind {
        ProviderKind::EnvoyExtAuthzHttp(http) => Kind::Http(http.clone()),
        ProviderKind::EnvoyExtAuthzGrpc(grpc) => Kind::Grpc(grpc.clone()),
        _ => return Err(BadProvider::Unknown),
    };
    let (service, port) = match &kind {
        Kind::Http(p) => (&p.service, p.port),
        Kind::Grpc(p) => (&p.service, p.port),
    };
    let host = find(world, service, hosts).ok_or_else(|| BadProvider::NoService(service.clone()))?;
    let port = u16::try_from(port).ok().filter(|p| *p > 0).ok_or(BadProvider::Invalid("port"))?;
    kind.check()?;
    let cluster = naming::cluster(Direction::Outbound, port, "", host.as_str()).into();
    Ok(Provider { host: host.as_str().into(), cluster, kind })
}

/// `namespace/host`, or a host that is unique.
pub(super) fn find(world: &World, service: &str, hosts: &mut BTreeSet<Host>) -> Option<Host> {
    let (namespace, host) = naming::namespaced(service);
    let host = Host::new(host);
    hosts.insert(host.clone());
    let found = match namespace {
        Some(namespace) => world.mesh.services.contains_key(&ServiceKey { namespace: namespace.into(), host: host.clone() }),
        None => world.services_of(&host).len() == 1,
    };
    found.then_some(host)
}

impl Kind {
    fn check(&self) -> Result<(), BadProvider> {
        let (status, body) = match self {
            Kind::Http(p) => (&p.status_on_error, &p.include_request_body_in_check),
            Kind::Grpc(p) => (&p.status_on_error, &p.include_request_body_in_check),
        };
        if !status.is_empty() && status_code(status).is_none() {
            return Err(BadProvider::Invalid("statusOnError"));
        }
        if body.as_ref().is_some_and(|b| b.max_request_bytes == 0) {
            return Err(BadProvider::Invalid("includeRequestBodyInCheck.maxRequestBytes"));
        }
        let Kind::Http(p) = self else { return Ok(()) };
        if !p.path_prefix.is_empty() && !p.path_prefix.starts_with('/') {
            return Err(BadProvider::Invalid("pathPrefix"));
        }
        let patterns = [
            (&p.include_request_headers_in_check, "includeRequestHeadersInCheck"),
            (&p.include_headers_in_check, "includeHeadersInCheck"),
            (&p.headers_to_upstream_on_allow, "headersToUpstreamOnAllow"),
            (&p.headers_to_downstream_on_allow, "headersToDownstreamOnAllow"),
            (&p.headers_to_downstream_on_deny, "headersToDownstreamOnDeny"),
        ];
        let is_bad = |text: &str| text.len() > 8192 || text.contains(['\0', '\n', '\r']);
        if p.include_additional_headers_in_check.iter().any(|(name, value)| name.is_empty() || is_bad(name) || is_bad(value)) {
            return Err(BadProvider::Invalid("includeAdditionalHeadersInCheck"));
        }
        match patterns.into_iter().find(|(list, _)| list.iter().any(|h| matches!(&**h, "" | "*"))) {
            Some((_, field)) => Err(BadProvider::Invalid(field)),
            None => Ok(()),
        }
    }
}

impl Provider {
    /// What to do with requests that rules named after the provider match.
    pub(super) fn http_filter(&self, name: &str) -> http::ExtAuthz {
        let common = http::ExtAuthz {
            transport_api_version: ApiVersion::V3 as i32,
            filter_enabled_metadata: Some(asked_by(names::HTTP_RBAC, name)),
            ..Default::default()
        };
        match &self.kind {
            Kind::Grpc(p) => http::ExtAuthz {
                services: Some(http::ext_authz::Services::GrpcService(self.grpc_service(p))),
                failure_mode_allow: p.fail_open,
                clear_route_cache: p.clear_route_cache,
                status_on_error: status(&p.status_on_error),
                with_request_body: p.include_request_body_in_check.as_ref().map(body),
                ..common
            },
            Kind::Http(p) => {
                let newer = headers(&p.include_request_headers_in_check);
                http::ExtAuthz {
                    services: Some(http::ext_authz::Services::HttpService(self.http_service(p))),
                    failure_mode_allow: p.fail_open,
                    clear_route_cache: p.clear_route_cache,
                    status_on_error: status(&p.status_on_error),
                    with_request_body: p.include_request_body_in_check.as_ref().map(body),
                    allowed_headers: newer.or_else(|| headers(&p.include_headers_in_check)),
                    ..common
                }
            }
        }
    }

    /// The same for connections; `None` where the server only understands requests.
    pub(super) fn network_filter(&self, name: &str) -> Option<network::ExtAuthz> {
        let Kind::Grpc(p) = &self.kind else { return None };
        Some(network::ExtAuthz {
            stat_prefix: super::filters::TCP_STATS.to_owned(),
            grpc_service: Some(self.grpc_service(p)),
            failure_mode_allow: p.fail_open,
            transport_api_version: ApiVersion::V3 as i32,
            filter_enabled_metadata: Some(asked_by(names::NETWORK_RBAC, name)),
            ..Default::default()
        })
    }

    fn grpc_service(&self, p: &ExtAuthzGrpcProvider) -> GrpcService {
        let envoy =
            grpc_service::EnvoyGrpc { cluster_name: self.cluster.to_string(), authority: self.host.to_string(), ..Default::default() };
        GrpcService {
            target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
            timeout: Some(duration(p.timeout.map_or(TIMEOUT, Into::into))),
            ..Default::default()
        }
    }

    fn http_service(&self, p: &ExtAuthzHttpProvider) -> http::HttpService {
        let header = |(key, value): (&Str, &Str)| HeaderValue { key: key.to_string(), value: value.to_string(), ..Default::default() };
        let added: Vec<HeaderValue> = p.include_additional_headers_in_check.iter().map(header).collect();
        let response = http::AuthorizationResponse {
            allowed_upstream_headers: headers(&p.headers_to_upstream_on_allow),
            allowed_client_headers: headers(&p.headers_to_downstream_on_deny),
            allowed_client_headers_on_success: headers(&p.headers_to_downstream_on_allow),
            ..Default::default()
        };
        http::HttpService {
            server_uri: Some(HttpUri {
                uri: format!("http://{}", self.host),
                timeout: Some(duration(p.timeout.map_or(TIMEOUT, Into::into))),
                http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(self.cluster.to_string())),
            }),
            path_prefix: p.path_prefix.to_string(),
            authorization_request: (!added.is_empty()).then(|| http::AuthorizationRequest { headers_to_add: added, ..Default::default() }),
            authorization_response: (response != http::AuthorizationResponse::default()).then_some(response),
            ..Default::default()
        }
    }
}

/// What a rule is called that makes the provider be asked.
pub(super) fn rule_name(provider: &str, rule: &str) -> String {
    format!("{PREFIX}-{provider}-{rule}")
}

fn asked_by(filter: &str, provider: &str) -> MetadataMatcher {
    // The name goes on, so this is the text before a wildcard.
    found_by(filter, FOUND, text(&format!("{PREFIX}-{provider}*")))
}

fn headers(patterns: &[Str]) -> Option<ListStringMatcher> {
    let pattern = |h: &Str| StringMatcher { ignore_case: true, ..text(h) };
    (!patterns.is_empty()).then(|| ListStringMatcher { patterns: patterns.iter().map(pattern).collect() })
}

fn body(b: &RequestBodyInCheck) -> http::BufferSettings {
    http::BufferSettings {
        max_request_bytes: b.max_request_bytes,
        allow_partial_message: b.allow_partial_message,
        pack_as_bytes: b.pack_as_bytes,
    }
}

/// A status that Envoy knows.
fn status_code(text: &str) -> Option<StatusCode> {
    text.parse().ok().and_then(|n: i32| StatusCode::try_from(n).ok()).filter(|s| *s != StatusCode::Empty)
}

fn status(text: &str) -> Option<HttpStatus> {
    status_code(text).map(|code| HttpStatus { code: code as i32 })
}
