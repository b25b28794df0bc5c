//! The HTTP connection manager.
//!
//! Thousands of them differ in a name and a route only. A message is the concatenation of its fields, so what is common to a
//! scope is encoded once (`Parts`), what is common to a workload once more (`Templates`), and the few own ones are appended.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use pilotfish_envoy::pb::envoy::config::core::v3::http1_protocol_options::{HeaderKeyFormat, header_key_format};
use pilotfish_envoy::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, Http3ProtocolOptions, HttpProtocolOptions, TypedExtensionConfig,
};
use pilotfish_envoy::pb::envoy::config::listener::v3::Filter;
use pilotfish_envoy::pb::envoy::config::route::v3::RouteConfiguration;
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
    SetCurrentClientCertDetails, UpgradeConfig,
};
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds, RequestIdExtension,
};
use pilotfish_envoy::pb::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use pilotfish_envoy::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_model::ContentHash;
use pilotfish_model::mesh_config::PathNormalization;
use pilotfish_model::name::Str;
use pilotfish_model::proxy_config::{Disabled, EscapedSlashes, ForwardClientCert, Underscores};
use pilotfish_model::time::Span;
use prost::{Message, Name};

use super::extension::Chosen;
use super::pack::{duration, packed_filter};
use super::settings::{Settings, Side};
use super::{access_log, http_filters, stats_log, tracing};
use crate::cluster::NameCache;
use crate::config_source;
use crate::extensions as names;
use crate::route::inbound::InboundRoute;
use crate::security::HttpFilters;

/// The name in the `server` header.
const SERVER_NAME: &str = "istio-envoy";

/// What one connection manager depends on beside the class's settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Http {
    /// Name in statistics, with the `;` that ends it.
    pub stat_prefix: String,
    /// Routes.
    pub routes: Routes,
    /// gRPC-Web is translated.
    pub grpc_web: bool,
    /// HTTP/2 is expected.
    pub http2: bool,
    /// HTTP/3 is spoken, and nothing else.
    pub http3: bool,
    /// Requests name the host in the request line: an explicit HTTP proxy.
    pub absolute_url: bool,
    /// Names that requests bring are resolved into these.
    pub caches: Vec<NameCache>,
}

/// Where the routes are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Routes {
    /// In a resource of their own.
    Rds(Str),
    /// Here: to the workload.
    Inbound(InboundRoute),
    /// Here: to the host that the request names.
    DynamicDns {
        /// Whether attempts are counted in a header.
        attempt_count: bool,
    },
}

impl Http {
    /// With routes in a resource of their own.
    pub fn rds(stat_prefix: String, name: Str) -> Self {
        Http {
            stat_prefix,
            routes: Routes::Rds(name),
            grpc_web: false,
            http2: false,
            http3: false,
            absolute_url: false,
            caches: Vec::new(),
        }
    }
}

/// What decides about the common parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) side: Side,
    pub(super) grpc_web: bool,
    pub(super) plugins: Chosen,
    pub(super) caches: Vec<NameCache>,
}

/// What connection managers of all workloads of a scope have in common: encoded, by what decides about it.
pub(crate) struct Parts {
    encoded: Mutex<BTreeMap<Shape, Bytes>>,
    /// Hash of the settings but for what is traced.
    pub(crate) untraced: ContentHash,
}

impl Parts {
    pub(crate) fn of(settings: &Settings) -> Self {
        Parts { encoded: Mutex::default(), untraced: ContentHash::of(&settings.untraced()) }
    }

    fn common(&self, settings: &Settings, shape: Shape) -> Bytes {
        let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        let made = |shape: &Shape| common(settings, shape, &HttpFilters::default()).encode_to_vec().into();
        encoded.entry(shape).or_insert_with_key(made).clone()
    }
}

/// Encoded parts that decide about the connection managers of one workload.
pub(super) struct Templates<'a> {
    settings: &'a Settings,
    parts: &'a Parts,
    tracing: BTreeMap<Side, Bytes>,
    /// What takes the place of parts where policies hold: they are of one workload.
    security: Option<HttpFilters>,
    secured: BTreeMap<Shape, Bytes>,
}

impl<'a> Templates<'a> {
    /// `parts` are of the same settings, but for what is traced.
    pub(super) fn new(settings: &'a Settings, parts: &'a Parts) -> Self {
        Templates { settings, parts, tracing: BTreeMap::new(), security: None, secured: BTreeMap::new() }
    }

    /// Filters of policies for what comes in; `make` is called at most once.
    pub(super) fn secure(&mut self, make: impl FnOnce() -> HttpFilters) {
        self.security.get_or_insert_with(make);
    }

    /// The filter, for connections to a port. No field is in two of what is put together here.
    pub(super) fn connection_manager(&mut self, side: Side, port: u16, input: &Http) -> Filter {
        let settings = self.settings;
        let plugins = settings.plugins.chosen(side, port, false);
        let shape = Shape { side, grpc_web: input.grpc_web, plugins, caches: input.caches.clone() };
        let common = match &self.security {
            Some(security) if side != Side::Outbound => {
                let made = |shape: &Shape| common(settings, shape, security).encode_to_vec().into();
                self.secured.entry(shape).or_insert_with_key(made).clone()
            }
            _ => self.parts.common(settings, shape),
        };
        let tracing = self.tracing.entry(side).or_insert_with(|| traced(settings, side).encode_to_vec().into());
        let own = own(settings, side, input);
        let mut value = BytesMut::with_capacity(common.len() + tracing.len() + own.encoded_len());
        value.put_slice(&common);
        value.put_slice(tracing);
        own.encode_raw(&mut value);
        let type_url = format!("type.googleapis.com/{}", HttpConnectionManager::full_name());
        packed_filter(names::HTTP_CONNECTION_MANAGER, Any { type_url, value: value.freeze() })
    }
}

fn traced(settings: &Settings, side: Side) -> HttpConnectionManager {
    HttpConnectionManager { tracing: settings.observed(side).tracing.as_ref().map(|t| tracing::config(t, side)), ..Default::default() }
}

fn own(settings: &Settings, side: Side, input: &Http) -> HttpConnectionManager {
    let routes = match &input.routes {
        Routes::Rds(name) => {
            RouteSpecifier::Rds(Rds { config_source: Some(config_source::STREAM.clone()), route_config_name: name.to_string() })
        }
        Routes::Inbound(route) => RouteSpecifier::RouteConfig(crate::route::inbound::route_configuration(route)),
        Routes::DynamicDns { attempt_count } => RouteSpecifier::RouteConfig(dynamic_dns(*attempt_count)),
    };
    HttpConnectionManager {
        stat_prefix: stat_prefix(settings, &input.stat_prefix),
        route_specifier: Some(routes),
        http_protocol_options: http1(settings, side, input.absolute_url),
        http2_protocol_options: http2(settings, input.http2),
        http3_protocol_options: input.http3.then(Http3ProtocolOptions::default),
        codec_type: if input.http3 { CodecType::Http3 as i32 } else { 0 },
        ..Default::default()
    }
}

/// Only Istio's Envoy knows the sign that ends a name; elsewhere it would be part of it.
fn stat_prefix(settings: &Settings, name: &str) -> String {
    if settings.istio { name.to_owned() } else { name.trim_end_matches(';').to_owned() }
}

fn dynamic_dns(attempt_count: bool) -> RouteConfiguration {
    super::outbound::dynamic_dns_routes(attempt_count)
}

fn disabled(switch: &Option<Disabled>) -> bool {
    switch.as_ref().is_some_and(|s| s.disabled == Some(true))
}

fn common(settings: &Settings, shape: &Shape, security: &HttpFilters) -> HttpConnectionManager {
    let side = shape.side;
    let headers = &settings.headers;
    let gateway = side == Side::Gateway;
    let hide_server = headers.server.as_ref().is_some_and(|s| s.disabled == Some(true));
    let (merge_slashes, escaped) = match settings.path_normalization {
        PathNormalization::MergeSlashes => (true, PathWithEscapedSlashesAction::KeepUnchanged),
        PathNormalization::DecodeAndMergeSlashes => (true, PathWithEscapedSlashesAction::UnescapeAndForward),
        _ => (false, PathWithEscapedSlashesAction::KeepUnchanged),
    };
    let connections = &settings.connections;
    let limit = |time: Option<Span>| time.map(|t| duration(t.into()));
    let request_id =
        UuidRequestIdConfig { use_request_id_for_trace_sampling: Some(!settings.observed(side).ignore_request_id), ..Default::default() };
    HttpConnectionManager {
        http_filters: http_filters::http_filters(settings, shape, security),
        common_http_protocol_options: protocol_options(settings),
        request_timeout: limit(connections.http_request_timeout),
        request_headers_timeout: limit(connections.http_request_headers_timeout),
        drain_timeout: limit(connections.http_drain_timeout),
        server_name: if hide_server { String::new() } else { server_name(settings, side) },
        server_header_transformation: if hide_server { ServerHeaderTransformation::PassThrough as i32 } else { 0 },
        stream_idle_timeout: Some(limit(connections.http_stream_idle_timeout).unwrap_or_default()),
        access_log: access_log::requests(&settings.observed(side).access_logs)
            .into_iter()
            .chain(stats_log::requests(settings, side))
            .collect(),
        use_remote_address: Some(gateway || (side == Side::Outbound && settings.features.sidecar_remote_address)),
        xff_num_trusted_hops: if gateway { settings.topology.num_trusted_proxies } else { 0 },
        generate_request_id: disabled(&headers.request_id).then_some(false),
        forward_client_cert_details: forward_client_cert(settings, side) as i32,
        set_current_client_cert_details: client_cert_details(settings, side),
        proxy_100_continue: settings.features.continue_from_server,
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..Default::default() }],
        normalize_path: Some(settings.path_normalization != PathNormalization::None),
        merge_slashes: connections.http_merge_slashes.unwrap_or(merge_slashes),
        path_with_escaped_slashes_action: connections.http_path_with_escaped_slashes_action.map_or(escaped, escaped_slashes) as i32,
        request_id_extension: settings.has(names::REQUEST_ID_UUID).then(|| RequestIdExtension { typed_config: Some(any(&request_id)) }),
        append_x_forwarded_port: headers.x_forwarded_port.as_ref().is_some_and(|s| s.enabled == Some(true)),
        ..Default::default()
    }
}

fn escaped_slashes(action: EscapedSlashes) -> PathWithEscapedSlashesAction {
    match action {
        EscapedSlashes::Unspecified | EscapedSlashes::KeepUnchanged => PathWithEscapedSlashesAction::KeepUnchanged,
        EscapedSlashes::RejectRequest => PathWithEscapedSlashesAction::RejectRequest,
        EscapedSlashes::UnescapeAndRedirect => PathWithEscapedSlashesAction::UnescapeAndRedirect,
        EscapedSlashes::UnescapeAndForward => PathWithEscapedSlashesAction::UnescapeAndForward,
    }
}

fn protocol_options(settings: &Settings) -> Option<HttpProtocolOptions> {
    let connections = &settings.connections;
    let limit = |time: Option<Span>| time.map(|t| duration(t.into()));
    let idle = connections.http_idle_timeout.or(settings.idle_timeout.map(Span));
    let said = [idle, connections.http_max_connection_duration, connections.http_max_stream_duration];
    if said.iter().all(Option::is_none) && connections.http_headers_with_underscores_action.is_none() {
        return None;
    }
    Some(HttpProtocolOptions {
        idle_timeout: limit(idle),
        max_connection_duration: limit(connections.http_max_connection_duration),
        max_stream_duration: limit(connections.http_max_stream_duration),
        headers_with_underscores_action: connections.http_headers_with_underscores_action.map_or(0, |a| match a {
            Underscores::Unspecified | Underscores::Allow => HeadersWithUnderscoresAction::Allow,
            Underscores::RejectRequest => HeadersWithUnderscoresAction::RejectRequest,
            Underscores::DropHeader => HeadersWithUnderscoresAction::DropHeader,
        } as i32),
        ..Default::default()
    })
}

/// Where HTTP/2 is expected, or something is said of it.
fn http2(settings: &Settings, expected: bool) -> Option<Http2ProtocolOptions> {
    let connections = &settings.connections;
    let options = Http2ProtocolOptions {
        max_concurrent_streams: connections.http_max_concurrent_streams,
        initial_stream_window_size: connections.http2_initial_stream_window_size,
        initial_connection_window_size: connections.http2_initial_connection_window_size,
        ..Default::default()
    };
    (expected || options != Http2ProtocolOptions::default()).then_some(options)
}

/// Answers to the workload's own requests keep the server's name. A stock Envoy says its own, unless the user gives one.
fn server_name(settings: &Settings, side: Side) -> String {
    let own = settings.headers.server.as_ref().map(|s| s.value.as_ref()).filter(|v| !v.is_empty());
    let usual = if settings.istio { SERVER_NAME } else { "" };
    if side == Side::Outbound { String::new() } else { own.unwrap_or(usual).to_owned() }
}

fn http1(settings: &Settings, side: Side, absolute_url: bool) -> Option<Http1ProtocolOptions> {
    let keep_case = settings.headers.preserve_http1_header_case == Some(true) && settings.has(names::PRESERVE_CASE);
    // The reference then says nothing else of HTTP/1.
    let alone = keep_case && settings.istio;
    let options = Http1ProtocolOptions {
        allow_absolute_url: (absolute_url && !alone).then_some(true),
        accept_http_10: settings.http10 && !alone,
        header_key_format: keep_case.then(preserve_case),
        ..Default::default()
    };
    (side == Side::Gateway || options != Http1ProtocolOptions::default()).then_some(options)
}

fn preserve_case() -> HeaderKeyFormat {
    let formatter =
        TypedExtensionConfig { name: "preserve_case".to_owned(), typed_config: Some(any(&PreserveCaseFormatterConfig::default())) };
    HeaderKeyFormat { header_format: Some(header_key_format::HeaderFormat::StatefulFormatter(formatter)) }
}

fn forward_client_cert(settings: &Settings, side: Side) -> ForwardClientCertDetails {
    let chosen = match side {
        Side::Outbound => return ForwardClientCertDetails::Sanitize,
        Side::Inbound => settings.headers.forwarded_client_cert,
        // Before a gateway there may be others, which is what its topology is about; the headers' own settings are not for it.
        Side::Gateway => settings.topology.forward_client_cert_details,
    };
    match chosen {
        Some(ForwardClientCert::Sanitize) => ForwardClientCertDetails::Sanitize,
        Some(ForwardClientCert::ForwardOnly) => ForwardClientCertDetails::ForwardOnly,
        Some(ForwardClientCert::AppendForward) => ForwardClientCertDetails::AppendForward,
        Some(ForwardClientCert::SanitizeSet) => ForwardClientCertDetails::SanitizeSet,
        Some(ForwardClientCert::AlwaysForwardOnly) => ForwardClientCertDetails::AlwaysForwardOnly,
        Some(ForwardClientCert::Undefined) | None if side == Side::Gateway => ForwardClientCertDetails::SanitizeSet,
        Some(ForwardClientCert::Undefined) | None => ForwardClientCertDetails::AppendForward,
    }
}

fn client_cert_details(settings: &Settings, side: Side) -> Option<SetCurrentClientCertDetails> {
    if side == Side::Outbound {
        return None;
    }
    let gateway = side == Side::Gateway;
    let sets = [ForwardClientCertDetails::AppendForward, ForwardClientCertDetails::SanitizeSet];
    if gateway && !sets.contains(&forward_client_cert(settings, side)) {
        return None;
    }
    let own = settings.headers.set_current_client_cert_details.clone().filter(|_| !gateway).unwrap_or_default();
    Some(SetCurrentClientCertDetails {
        subject: Some(own.subject.unwrap_or(true)),
        cert: own.cert.unwrap_or(gateway),
        chain: own.chain.unwrap_or(false),
        dns: own.dns.unwrap_or(true),
        uri: own.uri.unwrap_or(true),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::settings::tests::plain;
    use pilotfish_envoy::pb::envoy::config::listener::v3::filter::ConfigType;

    #[test]
    fn a_template_and_its_own_part_are_one_message() {
        let settings = plain();
        let input = Http { http2: true, ..Http::rds("outbound_0.0.0.0_80;".into(), "80".into()) };
        let parts = Parts::of(&settings);
        let filter = Templates::new(&settings, &parts).connection_manager(Side::Outbound, 80, &input);
        let Some(ConfigType::TypedConfig(packed)) = filter.config_type else { panic!("no config") };
        let decoded = HttpConnectionManager::decode(packed.value).unwrap();
        let own = own(&settings, Side::Outbound, &input);
        let shape = Shape { side: Side::Outbound, grpc_web: false, plugins: Vec::new(), caches: Vec::new() };
        let expected = HttpConnectionManager {
            stat_prefix: own.stat_prefix,
            route_specifier: own.route_specifier,
            http2_protocol_options: own.http2_protocol_options,
            tracing: traced(&settings, Side::Outbound).tracing,
            ..common(&settings, &shape, &HttpFilters::default())
        };
        assert_eq!(decoded, expected);
    }
}
