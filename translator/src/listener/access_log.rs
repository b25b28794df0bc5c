//! Access logs, from mesh config: a file as text or JSON, and the access log service of the proxy's bootstrap.

use std::collections::BTreeMap;

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::accesslog::v3::{AccessLog, AccessLogFilter, ResponseFlagFilter, access_log, access_log_filter};
use pilotfish_envoy::pb::envoy::config::core::v3::{
    ApiVersion, DataSource, GrpcService, JsonFormatOptions, SubstitutionFormatString, data_source, grpc_service, substitution_format_string,
};
use pilotfish_envoy::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use pilotfish_envoy::pb::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_model::MeshConfig;
use pilotfish_model::mesh_config::{AccessLogEncoding, LogFormat, ProviderKind};
use pilotfish_model::name::Str;
use prost_types::Struct;

use crate::extensions;
use crate::facts::UnitFacts;
use crate::metadata;

/// Provider name that stands for the mesh's own file settings.
const BUILT_IN_PROVIDER: &str = "envoy";
/// Cluster of the access log service in the bootstrap of Istio's agent.
const ACCESS_LOG_SERVICE: &str = "envoy_accesslog_service";
/// What telemetry filters leave behind for the access log service.
const PEER_STATE: [&str; 6] =
    ["upstream_peer", "downstream_peer", "wasm.upstream_peer", "wasm.upstream_peer_id", "wasm.downstream_peer", "wasm.downstream_peer_id"];

/// Fields of the default line: the JSON key, and the operator. The text line has the same operators in this order.
const FIELDS: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
];

/// Which logs there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AccessLogs {
    /// Files.
    pub files: Vec<FileLog>,
    /// The access log service of the bootstrap.
    pub service: bool,
    /// Connections that found no chain are logged.
    pub listeners: bool,
}

/// A log file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileLog {
    /// Path.
    pub path: Str,
    /// What a line looks like.
    pub format: LineFormat,
    /// Leave empty values out.
    pub omit_empty_values: bool,
}

/// What a line looks like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LineFormat {
    /// Text; `None`: the default.
    Text(Option<Str>),
    /// A JSON object as text; `None`: the default.
    Json(Option<Str>),
    /// A JSON object by its fields.
    Labels(BTreeMap<Str, Str>),
}

impl AccessLogs {
    /// From mesh config.
    pub fn of(class: &UnitFacts, config: &MeshConfig) -> Self {
        let file = class.has_extension(extensions::ACCESS_LOG_FILE);
        AccessLogs {
            files: if file { files(config) } else { Vec::new() },
            // A plain client's bootstrap does not have that cluster.
            service: config.enable_envoy_access_log_service && class.is_istio(),
            listeners: !config.disable_envoy_listener_log,
        }
    }
}

fn files(config: &MeshConfig) -> Vec<FileLog> {
    match config.default_providers.access_logging.as_slice() {
        [] => mesh_file(config).into_iter().collect(),
        names => names.iter().filter_map(|name| provider_file(config, name)).collect(),
    }
}

fn mesh_file(config: &MeshConfig) -> Option<FileLog> {
    let format = Some(config.access_log_format.clone()).filter(|f| !f.is_empty());
    let format = match config.access_log_encoding {
        AccessLogEncoding::Text => LineFormat::Text(format.map(with_newline)),
        AccessLogEncoding::Json => LineFormat::Json(format),
    };
    (!config.access_log_file.is_empty()).then(|| FileLog { path: config.access_log_file.clone(), format, omit_empty_values: false })
}

fn provider_file(config: &MeshConfig, name: &str) -> Option<FileLog> {
    let Some(provider) = config.extension_providers.iter().find(|p| &*p.name == name) else {
        return if name == BUILT_IN_PROVIDER { mesh_file(config) } else { None };
    };
    let ProviderKind::EnvoyFileAccessLog(file) = &provider.kind else { return None };
    let format = match &file.log_format {
        None => LineFormat::Text(None),
        Some(LogFormat::Text(text)) => LineFormat::Text(Some(text.clone()).filter(|t| !t.is_empty()).map(with_newline)),
        Some(LogFormat::Labels(labels)) => LineFormat::Labels(labels.clone()),
    };
    let path = if file.path.is_empty() { "/dev/stdout".into() } else { file.path.clone() };
    Some(FileLog { path, format, omit_empty_values: file.omit_empty_values })
}

fn with_newline(text: Str) -> Str {
    if text.ends_with('\n') { text } else { format!("{text}\n").into() }
}

/// Logs of requests.
pub(super) fn requests(logs: &AccessLogs) -> Vec<AccessLog> {
    let service = logs.service.then(|| {
        let config = HttpGrpcAccessLogConfig { common_config: Some(service("http_envoy_accesslog")), ..Default::default() };
        log(extensions::ACCESS_LOG_HTTP_GRPC, any(&config))
    });
    logs.files.iter().map(file).chain(service).collect()
}

/// Logs of connections.
pub(super) fn connections(logs: &AccessLogs) -> Vec<AccessLog> {
    let service = logs.service.then(|| {
        let config = TcpGrpcAccessLogConfig { common_config: Some(service("tcp_envoy_accesslog")) };
        log("envoy.tcp_grpc_access_log", any(&config))
    });
    logs.files.iter().map(file).chain(service).collect()
}

/// Logs of connections that found no filter chain.
pub(super) fn unmatched(logs: &AccessLogs) -> Vec<AccessLog> {
    if !logs.listeners {
        return Vec::new();
    }
    let no_route = ResponseFlagFilter { flags: vec!["NR".to_owned()] };
    let filter = AccessLogFilter { filter_specifier: Some(access_log_filter::FilterSpecifier::ResponseFlagFilter(no_route)) };
    connections(logs).into_iter().map(|l| AccessLog { filter: Some(filter.clone()), ..l }).collect()
}

fn log(name: &str, config: Any) -> AccessLog {
    AccessLog { name: name.to_owned(), filter: None, config_type: Some(access_log::ConfigType::TypedConfig(config)) }
}

fn file(input: &FileLog) -> AccessLog {
    use substitution_format_string::Format;
    let (format, json) = match &input.format {
        LineFormat::Text(text) => (Format::TextFormatSource(inline(text.as_deref().map_or_else(default_text, str::to_owned))), false),
        LineFormat::Json(text) => (Format::JsonFormat(text.as_deref().and_then(parse_json).unwrap_or_else(default_json)), true),
        LineFormat::Labels(labels) => (Format::JsonFormat(strings(labels.iter().map(|(k, v)| (&**k, &**v)))), true),
    };
    let format = SubstitutionFormatString {
        omit_empty_values: input.omit_empty_values,
        json_format_options: json.then(JsonFormatOptions::default),
        format: Some(format),
        ..Default::default()
    };
    let config =
        FileAccessLog { path: input.path.to_string(), access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(format)) };
    log(extensions::ACCESS_LOG_FILE, any(&config))
}

fn inline(text: String) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::InlineString(text)), ..Default::default() }
}

/// Request line, agents and upstream in quotes, as web servers write them.
fn default_text() -> String {
    let mut line = String::with_capacity(640);
    for (i, (key, operator)) in FIELDS.iter().enumerate() {
        let (before, after) = match *key {
            "start_time" => ("[", "]"),
            "method" => ("\"", ""),
            "protocol" => ("", "\""),
            "upstream_transport_failure_reason" | "x_forwarded_for" | "user_agent" | "request_id" | "authority" | "upstream_host" => {
                ("\"", "\"")
            }
            _ => ("", ""),
        };
        let space = if i == 0 { "" } else { " " };
        line.extend([space, before, operator, after]);
    }
    line.push('\n');
    line
}

fn default_json() -> Struct {
    strings(FIELDS)
}

fn strings<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Struct {
    metadata::object(fields.into_iter().map(|(k, v)| (k, metadata::text(v))))
}

/// A user's own JSON line; what is not an object is not used.
fn parse_json(text: &str) -> Option<Struct> {
    match serde_json::from_str(text).ok()? {
        serde_json::Value::Object(fields) => Some(metadata::object(fields.into_iter().map(|(k, v)| (k, value(v))))),
        _ => None,
    }
}

fn value(json: serde_json::Value) -> prost_types::Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => prost_types::Value { kind: Some(prost_types::value::Kind::NullValue(0)) },
        Json::Bool(b) => metadata::boolean(b),
        Json::Number(n) => metadata::number(n.as_f64().unwrap_or_default()),
        Json::String(s) => metadata::text(s),
        Json::Array(items) => metadata::list(items.into_iter().map(value)),
        Json::Object(fields) => metadata::object_value(fields.into_iter().map(|(k, v)| (k, value(v)))),
    }
}

fn service(log_name: &str) -> CommonGrpcAccessLogConfig {
    let target = grpc_service::EnvoyGrpc { cluster_name: ACCESS_LOG_SERVICE.to_owned(), ..Default::default() };
    CommonGrpcAccessLogConfig {
        log_name: log_name.to_owned(),
        grpc_service: Some(GrpcService { target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(target)), ..Default::default() }),
        transport_api_version: ApiVersion::V3 as i32,
        filter_state_objects_to_log: PEER_STATE.map(str::to_owned).to_vec(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_line_is_bracketed_and_quoted() {
        let line = default_text();
        assert!(line.starts_with("[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% "));
        assert!(line.ends_with("\"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"));
    }

    #[test]
    fn a_json_line_of_the_user_keeps_its_nesting() {
        let parsed = parse_json(r#"{"a":"%PROTOCOL%","b":{"c":true}}"#).unwrap();
        let nested = metadata::object_value([("c", metadata::boolean(true))]);
        assert_eq!(parsed, metadata::object([("a", metadata::text("%PROTOCOL%")), ("b", nested)]));
        assert_eq!(parse_json("not json"), None);
    }
}
