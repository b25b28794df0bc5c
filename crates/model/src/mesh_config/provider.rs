//! Providers of telemetry and authorisation that a mesh configuration names.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::Unused;
use crate::name::Str;
use crate::proxy_config::Percent;
use crate::time::Span;

/// A named provider of telemetry or authorisation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[allow(missing_docs)]
pub struct ExtensionProvider {
    pub name: Str,
    #[serde(flatten)]
    pub kind: ProviderKind,
}

/// What a provider is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum ProviderKind {
    Prometheus(Unused),
    EnvoyFileAccessLog(FileAccessLogProvider),
    EnvoyHttpAls(AccessLogServiceProvider),
    #[serde(deserialize_with = "of_connections")]
    EnvoyTcpAls(AccessLogServiceProvider),
    EnvoyOtelAls(OtelLogProvider),
    EnvoyExtAuthzHttp(ExtAuthzHttpProvider),
    EnvoyExtAuthzGrpc(ExtAuthzGrpcProvider),
    Zipkin(ZipkinProvider),
    Lightstep(Unused),
    Datadog(DatadogProvider),
    Stackdriver(Unused),
    Opencensus(Unused),
    Skywalking(SkywalkingProvider),
    Opentelemetry(OpenTelemetryProvider),
    Sds(Unused),
}

impl ProviderKind {
    /// The service that it asks or tells, as `host` or `namespace/host`.
    pub fn service(&self) -> Option<&str> {
        let service = match self {
            ProviderKind::EnvoyHttpAls(p) | ProviderKind::EnvoyTcpAls(p) => &p.service,
            ProviderKind::EnvoyOtelAls(p) => &p.service,
            ProviderKind::EnvoyExtAuthzHttp(p) => &p.service,
            ProviderKind::EnvoyExtAuthzGrpc(p) => &p.service,
            ProviderKind::Zipkin(p) => &p.service,
            ProviderKind::Datadog(p) => &p.service,
            ProviderKind::Skywalking(p) => &p.service,
            ProviderKind::Opentelemetry(p) => &p.service,
            ProviderKind::Prometheus(_)
            | ProviderKind::EnvoyFileAccessLog(_)
            | ProviderKind::Lightstep(_)
            | ProviderKind::Stackdriver(_)
            | ProviderKind::Opencensus(_)
            | ProviderKind::Sds(_) => return None,
        };
        Some(service)
    }

    /// Headers for the provider's server, by what it is asked.
    pub fn headers_mut(&mut self) -> Vec<&mut ProviderHeader> {
        match self {
            ProviderKind::Zipkin(p) => p.headers.iter_mut().collect(),
            ProviderKind::Opentelemetry(p) => {
                let api = p.dynatrace_sampler.as_mut().and_then(|s| s.http_service.as_mut());
                let http = p.http.iter_mut().chain(api.map(|a| &mut a.http)).flat_map(|h| &mut h.headers);
                http.chain(p.grpc.iter_mut().flat_map(|g| &mut g.initial_metadata)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Access logs to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct FileAccessLogProvider {
    pub path: Str,
    pub log_format: Option<LogFormat>,
    pub omit_empty_values: bool,
}

/// Access logs to a gRPC service of Envoy's protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AccessLogServiceProvider {
    /// Host, or `namespace/host`.
    pub service: Str,
    pub port: u16,
    pub log_name: Str,
    pub filter_state_objects_to_log: Vec<Str>,
    /// Of requests only, like the two that follow.
    pub additional_request_headers_to_log: Vec<Str>,
    pub additional_response_headers_to_log: Vec<Str>,
    pub additional_response_trailers_to_log: Vec<Str>,
}

/// Connections have no headers.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ConnectionLog {
    service: Str,
    port: u16,
    log_name: Str,
    filter_state_objects_to_log: Vec<Str>,
}

fn of_connections<'de, D: Deserializer<'de>>(d: D) -> Result<AccessLogServiceProvider, D::Error> {
    let ConnectionLog { service, port, log_name, filter_state_objects_to_log } = ConnectionLog::deserialize(d)?;
    Ok(AccessLogServiceProvider { service, port, log_name, filter_state_objects_to_log, ..AccessLogServiceProvider::default() })
}

/// Access logs by OTLP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct OtelLogProvider {
    /// Host, or `namespace/host`.
    pub service: Str,
    pub port: u16,
    pub log_name: Str,
    pub log_format: Option<OtelLogFormat>,
}

/// A log record: its body, and its attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct OtelLogFormat {
    pub text: Str,
    pub labels: BTreeMap<Str, Json>,
}

/// Spans to Zipkin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ZipkinProvider {
    /// Host, or `namespace/host`.
    pub service: Str,
    pub port: u16,
    pub max_tag_length: u32,
    #[serde(rename = "enable64bitTraceId")]
    pub enable_64bit_trace_id: bool,
    /// Empty: where Zipkin takes spans by default.
    pub path: Str,
    pub timeout: Option<Span>,
    pub headers: Vec<ProviderHeader>,
    pub trace_context_option: TraceContext,
}

/// Which headers say what a request's trace is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum TraceContext {
    #[default]
    UseB3,
    UseB3WithW3cPropagation,
}

/// Spans to a Datadog agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct DatadogProvider {
    /// Host, or `namespace/host`.
    pub service: Str,
    pub port: u16,
    pub max_tag_length: u32,
}

/// Spans to SkyWalking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SkywalkingProvider {
    /// Host, or `namespace/host`.
    pub service: Str,
    pub port: u16,
    /// Not sent, as in the reference: it would be readable in every dump.
    pub access_token: Unused,
}

/// Spans by OTLP, over gRPC unless `http` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct OpenTelemetryProvider {
    /// Host, or `namespace/host`.
    pub service: Str,
    pub port: u16,
    pub max_tag_length: u32,
    pub http: Option<OtlpHttp>,
    pub resource_detectors: Option<ResourceDetectors>,
    pub grpc: Option<OtlpGrpc>,
    pub dynatrace_sampler: Option<DynatraceSampler>,
    /// What the agent tells about the workload: part of injection.
    pub service_attribute_enrichment: Unused,
}

/// OTLP over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct OtlpHttp {
    pub path: Str,
    pub timeout: Option<Span>,
    pub headers: Vec<ProviderHeader>,
}

/// OTLP over gRPC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct OtlpGrpc {
    pub timeout: Option<Span>,
    pub initial_metadata: Vec<ProviderHeader>,
}

/// Dynatrace says which requests are sampled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct DynatraceSampler {
    pub tenant: Str,
    pub cluster_id: i32,
    pub root_spans_per_minute: u32,
    /// Where it says so; `None`: the server that takes spans, over HTTP.
    pub http_service: Option<DynatraceApi>,
}

/// Dynatrace's API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct DynatraceApi {
    /// Host, or `namespace/host`.
    pub service: Str,
    pub port: u16,
    pub http: OtlpHttp,
}

/// A header for a provider's server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ProviderHeader {
    pub name: Str,
    pub value: Option<Str>,
    /// The variable of this process that has the value instead. Whoever reads the settings looks it up.
    pub env_name: Str,
}

/// What tells about the process that made a span.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ResourceDetectors {
    pub environment: Option<Unused>,
    pub dynatrace: Option<Unused>,
}

/// Authorisation by a server that speaks HTTP. What is wrong in it is found where a policy asks for it, which then denies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ExtAuthzHttpProvider {
    /// Host, or `namespace/host`.
    pub service: Str,
    pub port: u32,
    pub timeout: Option<Span>,
    pub path_prefix: Str,
    pub fail_open: bool,
    pub clear_route_cache: bool,
    pub status_on_error: Str,
    /// The older name of the next.
    pub include_headers_in_check: Vec<Str>,
    pub include_request_headers_in_check: Vec<Str>,
    pub include_additional_headers_in_check: BTreeMap<Str, Str>,
    pub include_request_body_in_check: Option<RequestBodyInCheck>,
    pub headers_to_upstream_on_allow: Vec<Str>,
    pub headers_to_downstream_on_allow: Vec<Str>,
    pub headers_to_downstream_on_deny: Vec<Str>,
}

/// Authorisation by a server that speaks Envoy's gRPC protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ExtAuthzGrpcProvider {
    /// Host, or `namespace/host`.
    pub service: Str,
    pub port: u32,
    pub timeout: Option<Span>,
    pub fail_open: bool,
    pub clear_route_cache: bool,
    pub status_on_error: Str,
    pub include_request_body_in_check: Option<RequestBodyInCheck>,
}

/// How much of a request's body is shown to an authorisation server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RequestBodyInCheck {
    pub max_request_bytes: u32,
    pub allow_partial_message: bool,
    pub pack_as_bytes: bool,
}

/// A log line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// As text.
    Text(Str),
    /// As a JSON object.
    Labels(BTreeMap<Str, Json>),
}

/// Any JSON value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum Json {
    Null,
    Bool(bool),
    Number(Percent),
    Text(Str),
    List(Vec<Json>),
    Object(BTreeMap<Str, Json>),
}
