//! `telemetry.istio.io`: Telemetry.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Num;
use crate::policy::{LabelsSelector, PolicyTargetReference, WorkloadMode};
use crate::schema::{Duration, at_most_one, one_target, rule};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(transform = one_target)]
pub struct TelemetrySpec {
    pub selector: Option<LabelsSelector>,
    pub target_ref: Option<PolicyTargetReference>,
    #[schemars(length(max = 16))]
    pub target_refs: Vec<PolicyTargetReference>,
    pub tracing: Vec<Tracing>,
    pub metrics: Vec<Metrics>,
    pub access_logging: Vec<AccessLogging>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Tracing {
    #[serde(rename = "match")]
    pub matches: Option<TracingSelector>,
    pub providers: Vec<ProviderRef>,
    /// In percent.
    #[schemars(range(min = 0, max = 100))]
    pub random_sampling_percentage: Option<Num<f64>>,
    pub disable_span_reporting: Option<bool>,
    pub custom_tags: BTreeMap<String, CustomTag>,
    pub use_request_id_for_trace_sampling: Option<bool>,
    pub enable_istio_tags: Option<bool>,
    pub disable_context_propagation: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TracingSelector {
    pub mode: WorkloadMode,
}

/// A provider of the mesh configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct ProviderRef {
    #[schemars(length(min = 1))]
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(transform = at_most_one("literal environment header formatter"))]
pub struct CustomTag {
    pub literal: Option<Literal>,
    pub environment: Option<TagSource>,
    pub header: Option<TagSource>,
    pub formatter: Option<Formatter>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["value"]))]
pub struct Literal {
    #[schemars(length(min = 1))]
    pub value: String,
}

/// A variable of the environment or a header.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct TagSource {
    #[schemars(length(min = 1))]
    pub name: String,
    pub default_value: String,
}

/// Envoy's format of access logs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["value"]))]
pub struct Formatter {
    #[schemars(length(min = 1))]
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Metrics {
    pub providers: Vec<ProviderRef>,
    pub overrides: Vec<MetricsOverrides>,
    #[schemars(with = "Duration")]
    pub reporting_interval: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MetricsOverrides {
    #[serde(rename = "match")]
    pub matches: Option<MetricSelector>,
    pub disabled: Option<bool>,
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(transform = at_most_one("metric customMetric"))]
pub struct MetricSelector {
    pub metric: Option<IstioMetric>,
    #[schemars(length(min = 1))]
    pub custom_metric: Option<String>,
    pub mode: WorkloadMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum IstioMetric {
    AllMetrics,
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    TcpOpenedConnections,
    TcpClosedConnections,
    TcpSentBytes,
    TcpReceivedBytes,
    GrpcRequestMessages,
    GrpcResponseMessages,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(
    transform = rule(
        "!has(self.operation) || self.operation != 'UPSERT' || (has(self.value) && self.value != '')",
        "value must be set when operation is UPSERT",
    ),
    transform = rule(
        "!has(self.operation) || self.operation != 'REMOVE' || !has(self.value)",
        "value must not be set when operation is REMOVE",
    ),
)]
pub struct TagOverride {
    pub operation: TagOperation,
    /// An expression in CEL.
    pub value: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TagOperation {
    #[default]
    Upsert,
    Remove,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AccessLogging {
    #[serde(rename = "match")]
    pub matches: Option<LogSelector>,
    pub providers: Vec<ProviderRef>,
    pub disabled: Option<bool>,
    pub filter: Option<LogFilter>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LogSelector {
    pub mode: WorkloadMode,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LogFilter {
    /// An expression in CEL: what is logged.
    pub expression: String,
}
