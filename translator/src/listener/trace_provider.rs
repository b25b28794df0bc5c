//! Servers that take spans: Zipkin, and OTLP over gRPC or HTTP.

use std::time::Duration;

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use pilotfish_envoy::pb::envoy::config::core::v3::{
    GrpcService, HeaderValue, HeaderValueOption, HttpService, HttpUri, TypedExtensionConfig, grpc_service, http_uri,
};
use pilotfish_envoy::pb::envoy::config::trace::v3::zipkin_config::CollectorEndpointVersion;
use pilotfish_envoy::pb::envoy::config::trace::v3::{OpenTelemetryConfig, ZipkinConfig, tracing};
use pilotfish_envoy::pb::envoy::extensions::tracers::opentelemetry::resource_detectors::v3::EnvironmentResourceDetectorConfig;
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_model::mesh_config::{OpenTelemetryProvider, ProviderKind, ZipkinProvider};
use pilotfish_model::name::{Host, Str};
use pilotfish_model::proxy::ProxyVersion;

use super::pack::duration;
use crate::context::Context;
use crate::naming::{self, Direction};

const ZIPKIN: &str = "envoy.tracers.zipkin";
const OPEN_TELEMETRY: &str = "envoy.tracers.opentelemetry";
const ENVIRONMENT_DETECTOR: &str = "envoy.tracers.opentelemetry.resource_detectors.environment";
/// Where Zipkin takes spans.
const ZIPKIN_PATH: &str = "/api/v2/spans";
/// First version of Istio's proxy that takes Zipkin's server as a whole HTTP service.
const ZIPKIN_HTTP_SERVICE: ProxyVersion = ProxyVersion(1, 29, 0);
const ZIPKIN_TIMEOUT: Duration = Duration::from_secs(5);
const OTLP_TIMEOUT: Duration = Duration::from_secs(10);

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Provider {
    /// Longest tag.
    pub max_tag_length: Option<u32>,
    host: Host,
    cluster: Str,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Zipkin { settings: ZipkinProvider, as_service: bool },
    OpenTelemetry(OpenTelemetryProvider),
}

impl Provider {
    /// `None` if there is no such provider, the client cannot speak to it, or does not see its service: a cluster that
    /// does not exist would make the client refuse the listener.
    pub fn of(context: &Context<'_>, name: &str) -> Option<Self> {
        let class = context.class;
        let provider = context.config().extension_providers.iter().find(|p| &*p.name == name)?;
        let (extension, service, port, max_tag_length, kind) = match &provider.kind {
            ProviderKind::Zipkin(z) => {
                let kind = Kind::Zipkin { settings: z.clone(), as_service: class.version >= ZIPKIN_HTTP_SERVICE };
                (ZIPKIN, &z.service, z.port, z.max_tag_length, kind)
            }
            ProviderKind::Opentelemetry(o) => (OPEN_TELEMETRY, &o.service, o.port, o.max_tag_length, Kind::OpenTelemetry(o.clone())),
            _ => return None,
        };
        let host = Host::new(service.rsplit_once('/').map_or(service, |(_, host)| host));
        let known = context.scope.service(&host).is_some_and(|s| s.port(port).is_some());
        let cluster = naming::cluster(Direction::Outbound, port, "", host.as_str()).into();
        let max_tag_length = Some(max_tag_length).filter(|n| *n > 0);
        (known && class.has_extension(extension)).then_some(Provider { max_tag_length, host, cluster, kind })
    }
}

impl Provider {
    /// Spans name the workload.
    pub(super) fn names_workload(&self) -> bool {
        matches!(self.kind, Kind::OpenTelemetry(_))
    }
}

/// The tracer. `service_name`: what it calls the workload, if it does.
pub(super) fn config(input: &Provider, service_name: &str) -> tracing::Http {
    let (name, config) = match &input.kind {
        Kind::Zipkin { settings, as_service } => (ZIPKIN, any(&zipkin(input, settings, *as_service))),
        Kind::OpenTelemetry(settings) => (OPEN_TELEMETRY, any(&open_telemetry(input, settings, service_name))),
    };
    tracing::Http { name: name.to_owned(), config_type: Some(tracing::http::ConfigType::TypedConfig(config)) }
}

fn zipkin(input: &Provider, settings: &ZipkinProvider, as_service: bool) -> ZipkinConfig {
    let path = if settings.path.is_empty() { ZIPKIN_PATH } else { &settings.path };
    let common = ZipkinConfig {
        trace_id_128bit: !settings.enable_64bit_trace_id,
        // Servers and clients each have their span, as other tracers do.
        shared_span_context: Some(false),
        collector_endpoint_version: CollectorEndpointVersion::HttpJson as i32,
        ..Default::default()
    };
    if as_service {
        let timeout = settings.timeout.map_or(ZIPKIN_TIMEOUT, Into::into);
        let uri = uri(input, format!("http://{}{path}", input.host), timeout);
        return ZipkinConfig { collector_service: Some(HttpService { http_uri: Some(uri), ..Default::default() }), ..common };
    }
    ZipkinConfig {
        collector_cluster: input.cluster.to_string(),
        collector_endpoint: path.to_owned(),
        collector_hostname: input.host.to_string(),
        ..common
    }
}

fn open_telemetry(input: &Provider, settings: &OpenTelemetryProvider, service_name: &str) -> OpenTelemetryConfig {
    let environment = settings.resource_detectors.as_ref().is_some_and(|d| d.environment.is_some());
    let detector = || extension(ENVIRONMENT_DETECTOR, any(&EnvironmentResourceDetectorConfig {}));
    let common = OpenTelemetryConfig {
        service_name: service_name.to_owned(),
        resource_detectors: environment.then(detector).into_iter().collect(),
        ..Default::default()
    };
    let Some(http) = &settings.http else {
        let target =
            grpc_service::EnvoyGrpc { cluster_name: input.cluster.to_string(), authority: input.host.to_string(), ..Default::default() };
        let target_specifier = Some(grpc_service::TargetSpecifier::EnvoyGrpc(target));
        return OpenTelemetryConfig { grpc_service: Some(GrpcService { target_specifier, ..Default::default() }), ..common };
    };
    let headers = http.headers.iter().filter_map(|h| {
        let header = HeaderValue { key: h.name.to_string(), value: h.value.as_ref()?.to_string(), ..Default::default() };
        let append_action = HeaderAppendAction::OverwriteIfExistsOrAdd as i32;
        Some(HeaderValueOption { header: Some(header), append_action, ..Default::default() })
    });
    let service = HttpService {
        http_uri: Some(uri(input, format!("{}{}", input.host, http.path), http.timeout.map_or(OTLP_TIMEOUT, Into::into))),
        request_headers_to_add: headers.collect(),
        ..Default::default()
    };
    OpenTelemetryConfig { http_service: Some(service), ..common }
}

fn uri(input: &Provider, uri: String, timeout: Duration) -> HttpUri {
    let cluster = http_uri::HttpUpstreamType::Cluster(input.cluster.to_string());
    HttpUri { uri, timeout: Some(duration(timeout)), http_upstream_type: Some(cluster) }
}

fn extension(name: &str, config: Any) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) }
}
