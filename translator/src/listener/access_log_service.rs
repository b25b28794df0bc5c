//! Access logs that go to a server: by Envoy's protocol, for requests or for connections, or by OTLP.

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::accesslog::v3::AccessLog;
use pilotfish_envoy::pb::envoy::config::core::v3::{ApiVersion, GrpcService, grpc_service};
use pilotfish_envoy::pb::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use pilotfish_envoy::pb::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use pilotfish_envoy::pb::opentelemetry::proto::common::v1::{AnyValue, KeyValue, KeyValueList, any_value};
use pilotfish_model::mesh_config::{AccessLogServiceProvider, Json, OtelLogProvider};
use pilotfish_model::name::Str;

use super::access_log::access_log;
use super::access_log_file::{default_text, formatters};
use super::provider::Server;
use crate::context::Context;
use crate::extensions;

/// Log of connections, as a chain calls it.
pub(super) const TCP: &str = "envoy.tcp_grpc_access_log";
/// Cluster of the access log service in the bootstrap of Istio's agent.
const BOOTSTRAP_CLUSTER: &str = "envoy_accesslog_service";
/// What telemetry filters leave behind for the log.
const PEERS: [&str; 2] = ["upstream_peer", "downstream_peer"];
/// The same, of older proxies too.
const ALL_PEERS: [&str; 6] =
    ["upstream_peer", "downstream_peer", "wasm.upstream_peer", "wasm.upstream_peer_id", "wasm.downstream_peer", "wasm.downstream_peer_id"];

/// A log that a server keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerLog {
    server: Server,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Requests(AccessLogServiceProvider),
    Connections(AccessLogServiceProvider),
    Otlp(OtelLogProvider),
}

impl ServerLog {
    pub(super) fn requests(context: &Context<'_>, provider: &AccessLogServiceProvider) -> Option<Self> {
        Some(ServerLog { server: Server::find(context, &provider.service, provider.port)?, kind: Kind::Requests(provider.clone()) })
    }

    pub(super) fn connections(context: &Context<'_>, provider: &AccessLogServiceProvider) -> Option<Self> {
        Some(ServerLog { server: Server::find(context, &provider.service, provider.port)?, kind: Kind::Connections(provider.clone()) })
    }

    pub(super) fn otlp(context: &Context<'_>, provider: &OtelLogProvider) -> Option<Self> {
        Some(ServerLog { server: Server::find(context, &provider.service, provider.port)?, kind: Kind::Otlp(provider.clone()) })
    }
}

pub(super) fn log(input: &ServerLog) -> AccessLog {
    let server = input.server.grpc();
    match &input.kind {
        Kind::Requests(settings) => access_log(extensions::ACCESS_LOG_HTTP_GRPC, any(&requests(settings, server))),
        Kind::Connections(settings) => {
            let common_config = Some(by_envoy(settings, "tcp_envoy_accesslog", server));
            access_log(TCP, any(&TcpGrpcAccessLogConfig { common_config }))
        }
        Kind::Otlp(settings) => access_log(extensions::ACCESS_LOG_OPEN_TELEMETRY, any(&otlp(settings, server))),
    }
}

fn requests(settings: &AccessLogServiceProvider, server: GrpcService) -> HttpGrpcAccessLogConfig {
    let texts = |list: &[Str]| list.iter().map(ToString::to_string).collect();
    HttpGrpcAccessLogConfig {
        common_config: Some(by_envoy(settings, "http_envoy_accesslog", server)),
        additional_request_headers_to_log: texts(&settings.additional_request_headers_to_log),
        additional_response_headers_to_log: texts(&settings.additional_response_headers_to_log),
        additional_response_trailers_to_log: texts(&settings.additional_response_trailers_to_log),
    }
}

fn by_envoy(settings: &AccessLogServiceProvider, name: &str, server: GrpcService) -> CommonGrpcAccessLogConfig {
    let own: Vec<&str> = settings.filter_state_objects_to_log.iter().map(|s| &**s).collect();
    let state = if own.is_empty() { &PEERS[..] } else { &own };
    common(if settings.log_name.is_empty() { name } else { &settings.log_name }, server, state)
}

fn common(log_name: &str, server: GrpcService, state: &[&str]) -> CommonGrpcAccessLogConfig {
    CommonGrpcAccessLogConfig {
        log_name: log_name.to_owned(),
        grpc_service: Some(server),
        transport_api_version: ApiVersion::V3 as i32,
        filter_state_objects_to_log: state.iter().map(|s| (*s).to_owned()).collect(),
        ..Default::default()
    }
}

/// The service that the bootstrap names.
pub(super) fn bootstrap(log_name: &str) -> CommonGrpcAccessLogConfig {
    let target = grpc_service::EnvoyGrpc { cluster_name: BOOTSTRAP_CLUSTER.to_owned(), ..Default::default() };
    let server = GrpcService { target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(target)), ..Default::default() };
    common(log_name, server, &ALL_PEERS)
}

// Older proxies know no other place for what they have in common.
#[allow(deprecated)]
fn otlp(settings: &OtelLogProvider, server: GrpcService) -> OpenTelemetryAccessLogConfig {
    let format = settings.log_format.clone().unwrap_or_default();
    let body = if format.text.is_empty() { default_text() } else { format.text.to_string() };
    // Attributes are texts; of anything else there is only the name.
    let text = |json: &Json| if let Json::Text(text) = json { text.to_string() } else { String::new() };
    let values: Vec<KeyValue> =
        format.labels.iter().map(|(k, v)| KeyValue { key: k.to_string(), value: Some(value(text(v))), ..Default::default() }).collect();
    let texts = format.labels.values().filter_map(|v| if let Json::Text(text) = v { Some(&**text) } else { None });
    OpenTelemetryAccessLogConfig {
        common_config: Some(common(
            if settings.log_name.is_empty() { "otel_envoy_accesslog" } else { &settings.log_name },
            server,
            &ALL_PEERS,
        )),
        disable_builtin_labels: true,
        formatters: formatters(texts.chain([&*body])),
        attributes: (!values.is_empty()).then_some(KeyValueList { values }),
        body: Some(value(body)),
        ..Default::default()
    }
}

fn value(text: String) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text)) }
}
