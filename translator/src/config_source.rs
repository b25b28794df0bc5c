//! Where clients get what a resource names. Made once: nearly every resource has one.

use std::sync::LazyLock;

use pilotfish_envoy::ConfigSource;
use pilotfish_envoy::pb::envoy::config::core::v3::api_config_source::ApiType;
use pilotfish_envoy::pb::envoy::config::core::v3::{ApiConfigSource, ApiVersion, GrpcService, grpc_service};
use prost_types::Duration;

/// The cluster of the Istio agent, part of its bootstrap.
const AGENT_CLUSTER: &str = "sds-grpc";
/// Envoy's sign for no limit.
const WITHOUT_LIMIT: Duration = Duration { seconds: 0, nanos: 0 };
/// How long a listener of a plain Envoy waits for a secret of this server, so that a missing one holds up no other chain
/// for Envoy's default of 15 s.
const SERVER_WAIT: Duration = Duration { seconds: 1, nanos: 0 };

/// The stream that this resource came on, waited for without limit: a listener without its routes, or a cluster without its
/// endpoints, would answer errors.
pub(crate) static STREAM: LazyLock<ConfigSource> = LazyLock::new(|| ConfigSource::ads(ApiVersion::V3, Some(WITHOUT_LIMIT)));

/// The stream, as proxyless gRPC is told of it.
pub(crate) static GRPC_STREAM: LazyLock<ConfigSource> = LazyLock::new(|| ConfigSource::ads(ApiVersion::Auto, None));

/// Secrets of this server, as Istio's proxies are told of them.
pub(crate) static SECRETS: LazyLock<ConfigSource> = LazyLock::new(|| ConfigSource::ads(ApiVersion::V3, None));

/// Secrets of this server that may not exist.
pub(crate) static MISSING_SECRETS: LazyLock<ConfigSource> = LazyLock::new(|| ConfigSource::ads(ApiVersion::V3, Some(SERVER_WAIT)));

/// What the agent has of the mesh: the proxy waits for it without limit.
pub(crate) static AGENT: LazyLock<ConfigSource> = LazyLock::new(|| from_agent(Some(WITHOUT_LIMIT)));

/// Files that the agent watches and serves.
pub(crate) static AGENT_FILES: LazyLock<ConfigSource> = LazyLock::new(|| from_agent(None));

fn from_agent(wait: Option<Duration>) -> ConfigSource {
    let service = grpc_service::EnvoyGrpc { cluster_name: AGENT_CLUSTER.to_owned(), ..Default::default() };
    let target_specifier = Some(grpc_service::TargetSpecifier::EnvoyGrpc(service));
    let source = ApiConfigSource {
        api_type: ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![GrpcService { target_specifier, ..Default::default() }],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    ConfigSource::api(&source, ApiVersion::V3, wait)
}
