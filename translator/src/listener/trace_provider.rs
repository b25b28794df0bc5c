//! Servers that take spans: Zipkin, Datadog, SkyWalking, and OTLP over gRPC or HTTP.

use std::time::Duration;

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::core::v3::{GrpcService, HttpService, TypedExtensionConfig};
use pilotfish_envoy::pb::envoy::config::trace::v3::zipkin_config::{CollectorEndpointVersion, TraceContextOption};
use pilotfish_envoy::pb::envoy::config::trace::v3::{DatadogConfig, OpenTelemetryConfig, SkyWalkingConfig, ZipkinConfig, tracing};
use pilotfish_envoy::pb::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::{
    DynatraceResourceDetectorConfig, EnvironmentResourceDetectorConfig,
};
use pilotfish_envoy::pb::envoy::extensions::tracers::opentelemetry::samplers::v3::DynatraceSamplerConfig;
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_model::mesh_config::{DynatraceSampler, OpenTelemetryProvider, OtlpHttp, ProviderKind, TraceContext, ZipkinProvider};
use pilotfish_model::proxy::ProxyVersion;

use super::pack::duration;
use super::provider::{Server, header_values, headers};
use crate::context::Context;

const ZIPKIN: &str = "envoy.tracers.zipkin";
const DATADOG: &str = "envoy.tracers.datadog";
const SKYWALKING: &str = "envoy.tracers.skywalking";
const OPEN_TELEMETRY: &str = "envoy.tracers.opentelemetry";
const ENVIRONMENT_DETECTOR: &str = "envoy.tracers.opentelemetry.resource_detectors.environment";
const DYNATRACE_DETECTOR: &str = "envoy.tracers.opentelemetry.resource_detectors.dynatrace";
const DYNATRACE_SAMPLER: &str = "envoy.tracers.opentelemetry.samplers.dynatrace";
/// Where Dynatrace says what is sampled.
const DYNATRACE_SAMPLING_PATH: &str = "api/v2/samplingConfiguration";
/// Where Zipkin takes spans.
const ZIPKIN_PATH: &str = "/api/v2/spans";
/// First version of Istio's proxy that takes Zipkin's server as a whole HTTP service.
const ZIPKIN_HTTP_SERVICE: ProxyVersion = ProxyVersion(1, 29, 0);
/// First version of Istio's proxy that can write W3C's headers beside Zipkin's own.
const ZIPKIN_TRACE_CONTEXT: ProxyVersion = ProxyVersion(1, 28, 0);
const ZIPKIN_TIMEOUT: Duration = Duration::from_secs(5);
const OTLP_TIMEOUT: Duration = Duration::from_secs(10);

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Provider {
    /// Longest tag.
    pub max_tag_length: Option<u32>,
    server: Server,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Zipkin { settings: ZipkinProvider, as_service: bool, w3c: bool },
    Datadog,
    SkyWalking,
    OpenTelemetry(Box<OpenTelemetry>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct OpenTelemetry {
    settings: OpenTelemetryProvider,
    environment: bool,
    dynatrace: bool,
    /// Where Dynatrace says which requests are sampled, and by which path.
    sampler: Option<(DynatraceSampler, Server, OtlpHttp)>,
}

impl Provider {
    /// `None` if there is no such provider, the client cannot speak to it, or does not see its service.
    pub fn of(context: &Context<'_>, name: &str) -> Option<Self> {
        let class = context.class;
        let provider = context.config().provider(name)?;
        let (extension, service, port, max_tag_length, kind) = match &provider.kind {
            ProviderKind::Zipkin(z) => {
                let w3c = z.trace_context_option == TraceContext::UseB3WithW3cPropagation && class.version >= ZIPKIN_TRACE_CONTEXT;
                let kind = Kind::Zipkin { settings: z.clone(), as_service: class.version >= ZIPKIN_HTTP_SERVICE, w3c };
                (ZIPKIN, &z.service, z.port, z.max_tag_length, kind)
            }
            ProviderKind::Datadog(d) => (DATADOG, &d.service, d.port, d.max_tag_length, Kind::Datadog),
            ProviderKind::Skywalking(s) => (SKYWALKING, &s.service, s.port, 0, Kind::SkyWalking),
            ProviderKind::Opentelemetry(o) => {
                let kind = Kind::OpenTelemetry(Box::new(OpenTelemetry::of(context, o)?));
                (OPEN_TELEMETRY, &o.service, o.port, o.max_tag_length, kind)
            }
            _ => return None,
        };
        let server = Server::find(context, service, port).filter(|_| class.has_extension(extension))?;
        Some(Provider { max_tag_length: Some(max_tag_length).filter(|n| *n > 0), server, kind })
    }

    /// Spans name the workload.
    pub(super) fn names_workload(&self) -> bool {
        matches!(self.kind, Kind::OpenTelemetry(_) | Kind::Datadog)
    }

    /// Which requests are sampled is its own decision.
    pub(super) fn decides_sampling(&self) -> bool {
        matches!(&self.kind, Kind::OpenTelemetry(o) if o.sampler.is_some())
    }

    /// What goes on to other servers is a span of its own.
    pub(super) fn spawns_upstream_span(&self) -> bool {
        matches!(self.kind, Kind::SkyWalking)
    }
}

impl OpenTelemetry {
    /// `None` if a sampler is wanted that cannot be asked.
    fn of(context: &Context<'_>, settings: &OpenTelemetryProvider) -> Option<Self> {
        let detectors = settings.resource_detectors.clone().unwrap_or_default();
        let has = |name| context.class.has_extension(name);
        let sampler = match &settings.dynatrace_sampler {
            None => None,
            Some(sampler) => {
                let (server, http) = match (&sampler.http_service, &settings.http) {
                    (Some(api), _) => (Server::find(context, &api.service, api.port)?, api.http.clone()),
                    (None, Some(http)) => {
                        let server = Server::find(context, &settings.service, settings.port)?;
                        (server, OtlpHttp { path: DYNATRACE_SAMPLING_PATH.into(), ..http.clone() })
                    }
                    (None, None) => return None,
                };
                has(DYNATRACE_SAMPLER).then(|| (sampler.clone(), server, http))
            }
        };
        Some(OpenTelemetry {
            environment: detectors.environment.is_some() && has(ENVIRONMENT_DETECTOR),
            dynatrace: detectors.dynatrace.is_some() && has(DYNATRACE_DETECTOR),
            settings: settings.clone(),
            sampler,
        })
    }
}

/// The tracer. `service_name`: what it calls the workload, if it does.
pub(super) fn config(input: &Provider, service_name: &str) -> tracing::Http {
    let server = &input.server;
    let (name, config) = match &input.kind {
        Kind::Zipkin { settings, as_service, w3c } => (ZIPKIN, any(&zipkin(server, settings, *as_service, *w3c))),
        Kind::Datadog => (DATADOG, any(&datadog(server, service_name))),
        Kind::SkyWalking => (SKYWALKING, any(&SkyWalkingConfig { grpc_service: Some(server.grpc()), ..Default::default() })),
        Kind::OpenTelemetry(settings) => (OPEN_TELEMETRY, any(&open_telemetry(server, settings, service_name))),
    };
    tracing::Http { name: name.to_owned(), config_type: Some(tracing::http::ConfigType::TypedConfig(config)) }
}

fn datadog(server: &Server, service_name: &str) -> DatadogConfig {
    DatadogConfig {
        collector_cluster: server.cluster.to_string(),
        service_name: service_name.to_owned(),
        collector_hostname: server.host.to_string(),
        ..Default::default()
    }
}

fn zipkin(server: &Server, settings: &ZipkinProvider, as_service: bool, w3c: bool) -> ZipkinConfig {
    let path = if settings.path.is_empty() { ZIPKIN_PATH } else { &settings.path };
    let context = if w3c { TraceContextOption::UseB3WithW3cPropagation } else { TraceContextOption::UseB3 };
    let common = ZipkinConfig {
        trace_id_128bit: !settings.enable_64bit_trace_id,
        // Servers and clients each have their span, as other tracers do.
        shared_span_context: Some(false),
        collector_endpoint_version: CollectorEndpointVersion::HttpJson as i32,
        trace_context_option: context as i32,
        ..Default::default()
    };
    if as_service {
        let timeout = settings.timeout.map_or(ZIPKIN_TIMEOUT, Into::into);
        let http_uri = Some(server.http(format!("http://{}{path}", server.host), timeout));
        let service = HttpService { http_uri, request_headers_to_add: headers(&settings.headers), ..Default::default() };
        return ZipkinConfig { collector_service: Some(service), ..common };
    }
    ZipkinConfig {
        collector_cluster: server.cluster.to_string(),
        collector_endpoint: path.to_owned(),
        collector_hostname: server.host.to_string(),
        ..common
    }
}

fn open_telemetry(server: &Server, input: &OpenTelemetry, service_name: &str) -> OpenTelemetryConfig {
    let settings = &input.settings;
    let environment = || extension(ENVIRONMENT_DETECTOR, any(&EnvironmentResourceDetectorConfig {}));
    let dynatrace = || extension(DYNATRACE_DETECTOR, any(&DynatraceResourceDetectorConfig {}));
    let detectors = input.environment.then(environment).into_iter().chain(input.dynatrace.then(dynatrace));
    let common = OpenTelemetryConfig {
        service_name: service_name.to_owned(),
        resource_detectors: detectors.collect(),
        sampler: input
            .sampler
            .as_ref()
            .map(|(sampler, server, http)| extension(DYNATRACE_SAMPLER, any(&dynatrace_sampler(sampler, server, http)))),
        ..Default::default()
    };
    if let Some(http) = &settings.http {
        return OpenTelemetryConfig { http_service: Some(by_http(server, http)), ..common };
    }
    let grpc = settings.grpc.clone().unwrap_or_default();
    let service = GrpcService {
        timeout: grpc.timeout.map(|t| duration(t.into())),
        initial_metadata: header_values(&grpc.initial_metadata),
        ..server.grpc()
    };
    OpenTelemetryConfig { grpc_service: Some(service), ..common }
}

fn by_http(server: &Server, http: &OtlpHttp) -> HttpService {
    let uri = server.http(server.uri(&http.path), http.timeout.map_or(OTLP_TIMEOUT, Into::into));
    HttpService { http_uri: Some(uri), request_headers_to_add: headers(&http.headers), ..Default::default() }
}

fn dynatrace_sampler(sampler: &DynatraceSampler, server: &Server, http: &OtlpHttp) -> DynatraceSamplerConfig {
    DynatraceSamplerConfig {
        tenant: sampler.tenant.to_string(),
        cluster_id: sampler.cluster_id,
        root_spans_per_minute: sampler.root_spans_per_minute,
        http_service: Some(by_http(server, http)),
    }
}

fn extension(name: &str, config: Any) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) }
}
