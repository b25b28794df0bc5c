//! Providers of telemetry and authorisation that a mesh configuration names.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Unused;
use crate::name::Str;
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
    EnvoyHttpAls(Unused),
    EnvoyTcpAls(Unused),
    EnvoyOtelAls(Unused),
    EnvoyExtAuthzHttp(Unused),
    EnvoyExtAuthzGrpc(Unused),
    Zipkin(ZipkinProvider),
    Lightstep(Unused),
    Datadog(Unused),
    Stackdriver(Unused),
    Opencensus(Unused),
    Skywalking(Unused),
    Opentelemetry(OpenTelemetryProvider),
    Sds(Unused),
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
    pub headers: Unused,
    pub trace_context_option: Unused,
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
    pub grpc: Unused,
    pub dynatrace_sampler: Unused,
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

/// A header for a provider's server. Values from the environment of the control plane are not supported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ProviderHeader {
    pub name: Str,
    pub value: Option<Str>,
    pub env_name: Unused,
}

/// What tells about the process that made a span.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ResourceDetectors {
    pub environment: Option<Unused>,
    pub dynatrace: Option<Unused>,
}

/// A log line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// As text.
    Text(Str),
    /// As a JSON object.
    Labels(BTreeMap<Str, Str>),
}
