//! Telemetry: what proxies log, trace and count.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::attachment::{Attachment, attached};
use crate::name::{Meta, Str};
use crate::proxy_config::{CustomTag, Percent};

/// An object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Telemetry {
    /// Identity and age.
    pub meta: Meta,
    /// Workloads.
    pub attachment: Attachment,
    /// What is traced; later entries weigh more.
    pub tracing: Vec<Tracing>,
    /// What is counted; later entries weigh more.
    pub metrics: Vec<Metrics>,
    /// What is logged.
    pub access_logging: Vec<AccessLogging>,
}

attached!(Telemetry);

/// Direction of traffic, as the workload sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkloadMode {
    /// Not said: what that means depends on the field.
    #[default]
    Undefined,
    /// What the workload sends. Gateways are clients only.
    Client,
    /// What the workload receives.
    Server,
    /// Both.
    ClientAndServer,
}

impl WorkloadMode {
    /// Whether one direction (`server` or else client) is meant; an undefined mode means both.
    pub fn covers(self, server: bool) -> bool {
        match self {
            WorkloadMode::Undefined | WorkloadMode::ClientAndServer => true,
            WorkloadMode::Client => !server,
            WorkloadMode::Server => server,
        }
    }
}

/// Spans of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tracing {
    /// Of which traffic.
    pub mode: WorkloadMode,
    /// Providers of the mesh configuration; the first is used, an empty list leaves those before.
    pub providers: Vec<Str>,
    /// Share of requests.
    pub sampling: Option<Percent>,
    /// No spans.
    pub disabled: Option<bool>,
    /// Tags of each span; empty: those before.
    pub custom_tags: BTreeMap<Str, CustomTag>,
    /// The request's id says whether it is sampled.
    pub use_request_id: Option<bool>,
    /// Tags that name the workload.
    pub istio_tags: Option<bool>,
    /// Spans are made, but their headers are not passed on.
    pub no_context_propagation: Option<bool>,
}

/// Istio's standard metrics, and others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Metrics {
    /// Providers of the mesh configuration; an empty list leaves those before.
    pub providers: Vec<Str>,
    /// In order: later ones weigh more.
    pub overrides: Vec<MetricOverride>,
    /// How often metrics of open TCP connections are updated.
    pub reporting_interval: Option<Duration>,
}

/// What is different about some metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MetricOverride {
    /// Which.
    pub metric: Metric,
    /// Of which traffic.
    pub mode: WorkloadMode,
    /// They are not kept.
    pub disabled: Option<bool>,
    /// Labels to add or change by an expression in CEL, or (`None`) to remove.
    pub tags: BTreeMap<Str, Option<Str>>,
}

/// Which metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Metric {
    /// All of Istio's.
    #[default]
    All,
    /// One of Istio's.
    Standard(StandardMetric),
    /// Another, by its name.
    Custom(Str),
}

/// Istio's metrics, in the order of the API's names, which is the order of their settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum StandardMetric {
    GrpcRequestMessages,
    GrpcResponseMessages,
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    TcpClosedConnections,
    TcpOpenedConnections,
    TcpReceivedBytes,
    TcpSentBytes,
}

impl StandardMetric {
    /// Every one, in order.
    pub const ALL: [StandardMetric; 10] = [
        StandardMetric::GrpcRequestMessages,
        StandardMetric::GrpcResponseMessages,
        StandardMetric::RequestCount,
        StandardMetric::RequestDuration,
        StandardMetric::RequestSize,
        StandardMetric::ResponseSize,
        StandardMetric::TcpClosedConnections,
        StandardMetric::TcpOpenedConnections,
        StandardMetric::TcpReceivedBytes,
        StandardMetric::TcpSentBytes,
    ];

    /// As the API writes it.
    pub fn api_name(self) -> &'static str {
        match self {
            StandardMetric::GrpcRequestMessages => "GRPC_REQUEST_MESSAGES",
            StandardMetric::GrpcResponseMessages => "GRPC_RESPONSE_MESSAGES",
            StandardMetric::RequestCount => "REQUEST_COUNT",
            StandardMetric::RequestDuration => "REQUEST_DURATION",
            StandardMetric::RequestSize => "REQUEST_SIZE",
            StandardMetric::ResponseSize => "RESPONSE_SIZE",
            StandardMetric::TcpClosedConnections => "TCP_CLOSED_CONNECTIONS",
            StandardMetric::TcpOpenedConnections => "TCP_OPENED_CONNECTIONS",
            StandardMetric::TcpReceivedBytes => "TCP_RECEIVED_BYTES",
            StandardMetric::TcpSentBytes => "TCP_SENT_BYTES",
        }
    }
}

/// Access logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AccessLogging {
    /// Of which traffic; `None`: of all, while an undefined mode means none.
    pub mode: Option<WorkloadMode>,
    /// Providers of the mesh configuration; an empty list leaves those before.
    pub providers: Vec<Str>,
    /// Not logged.
    pub disabled: bool,
    /// An expression in CEL that says what is logged; `None`: everything.
    pub filter: Option<Str>,
}
