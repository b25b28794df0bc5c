//! HTTP options of clusters: which version is spoken to the server, and limits of its connections.

use std::collections::BTreeMap;

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::common::matcher::v3::match_predicate::{MatchSet, Rule};
use pilotfish_envoy::pb::envoy::config::common::matcher::v3::{HttpHeadersMatch, MatchPredicate};
use pilotfish_envoy::pb::envoy::config::core::v3::http1_protocol_options::{HeaderKeyFormat, header_key_format::HeaderFormat};
use pilotfish_envoy::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions, KeepaliveSettings, TypedExtensionConfig,
    UpstreamHttpProtocolOptions,
};
use pilotfish_envoy::pb::envoy::config::route::v3::HeaderMatcher;
use pilotfish_envoy::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use pilotfish_envoy::pb::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use pilotfish_envoy::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
};
use pilotfish_envoy::pb::envoy::extensions::upstreams::http::v3::{HttpProtocolOptions, http_protocol_options};
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::StringMatcher;
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_model::destination_rule::{ConnectionPool, H2Upgrade};
use pilotfish_model::service::Protocol;

use super::duration;

/// Extension that keeps the case of header names.
pub(super) const PRESERVE_CASE: &str = "envoy.http.stateful_header_formatters.preserve_case";
const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// HTTP towards the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UpstreamHttp {
    /// Version.
    pub version: HttpVersion,
    /// Keep the case of HTTP/1.1 header names.
    pub preserve_case: bool,
    /// Ask for the host that the request names.
    pub auto_sni: bool,
    /// And verify that the server has that name.
    pub auto_san: bool,
    /// Close connections that are idle for so long, if the policy does not say.
    pub idle_timeout: Option<std::time::Duration>,
}

/// Version of HTTP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.1, or not HTTP at all.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
    /// As the client does.
    AsClient,
}

impl HttpVersion {
    /// Of a port, under a connection pool and the mesh's upgrade policy. `sniffs`: a sidecar, which looks at what clients
    /// say on ports of unknown protocol.
    pub fn of(protocol: Protocol, pool: Option<&ConnectionPool>, mesh: H2Upgrade, sniffs: bool) -> Self {
        if pool.is_some_and(|p| p.use_client_protocol) {
            return HttpVersion::AsClient;
        }
        // A user who upgrades a port knows that it is HTTP; the mesh's policy is for ports that say so.
        let own = pool.and_then(|p| p.h2_upgrade).filter(|u| *u != H2Upgrade::Default);
        let upgrade = match own {
            Some(own) => own == H2Upgrade::Upgrade,
            None => mesh == H2Upgrade::Upgrade && protocol.is_http(),
        };
        match protocol {
            _ if upgrade || protocol.is_http2() => HttpVersion::Http2,
            Protocol::Auto if sniffs => HttpVersion::AsClient,
            _ => HttpVersion::Http1,
        }
    }
}

/// Whether the proxy's wish to keep the case of header names is about a port: only HTTP/1.1 has any.
pub(super) fn keeps_case(protocol: Protocol, version: HttpVersion) -> bool {
    !protocol.is_tcp() && !protocol.is_http2() && version != HttpVersion::Http2
}

/// The options; empty where Envoy's defaults do.
pub(super) fn options(http: &UpstreamHttp, pool: Option<&ConnectionPool>, errors: Option<&[u16]>) -> BTreeMap<String, Any> {
    let common = common(pool, http);
    let outlier_detection = errors.and_then(error_matcher).map(|m| http_protocol_options::OutlierDetection { error_matcher: Some(m) });
    let upstream = UpstreamHttpProtocolOptions { auto_sni: http.auto_sni, auto_san_validation: http.auto_san, ..Default::default() };
    let plain = http.version == HttpVersion::Http1 && !http.preserve_case;
    if plain && common.is_none() && upstream == UpstreamHttpProtocolOptions::default() && outlier_detection.is_none() {
        return BTreeMap::new();
    }
    let options = HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_http_protocol_options: (upstream != UpstreamHttpProtocolOptions::default()).then_some(upstream),
        upstream_protocol_options: Some(match http.version {
            HttpVersion::Http1 => explicit(ProtocolConfig::HttpProtocolOptions(http1(http))),
            HttpVersion::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions {
                max_concurrent_streams: streams(pool),
                ..http2(pool)
            })),
            HttpVersion::AsClient => UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(http1(http)),
                http2_protocol_options: Some(http2(pool)),
                ..Default::default()
            }),
        }),
        outlier_detection,
        ..Default::default()
    };
    BTreeMap::from([(KEY.to_owned(), any(&options))])
}

fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
}

/// `None` if nothing is said of connections.
fn common(pool: Option<&ConnectionPool>, http: &UpstreamHttp) -> Option<CommonOptions> {
    let idle = pool.and_then(|p| p.http_idle_timeout.or(p.tcp_idle_timeout)).or(http.idle_timeout);
    let options = CommonOptions {
        idle_timeout: idle.map(duration),
        max_connection_duration: pool.and_then(|p| p.max_connection_duration).map(duration),
        max_requests_per_connection: pool.and_then(|p| p.max_requests_per_connection).filter(|n| *n > 0),
        ..Default::default()
    };
    (options != CommonOptions::default() || streams(pool).is_some()).then_some(options)
}

fn streams(pool: Option<&ConnectionPool>) -> Option<u32> {
    pool.and_then(|p| p.max_concurrent_streams).filter(|n| *n > 0)
}

/// Matches responses with one of these statuses; `None` for none, where Envoy's own idea of an error holds.
fn error_matcher(statuses: &[u16]) -> Option<MatchPredicate> {
    let one = |status: &u16| {
        let exact = StringMatcher { match_pattern: Some(MatchPattern::Exact(status.to_string())), ..Default::default() };
        let header = HeaderMatcher {
            name: ":status".to_owned(),
            header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact)),
            ..Default::default()
        };
        MatchPredicate { rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch { headers: vec![header] })) }
    };
    match statuses {
        [] => None,
        // Envoy wants two of what it chooses from.
        [status] => Some(one(status)),
        statuses => Some(MatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules: statuses.iter().map(one).collect() })) }),
    }
}

/// HTTP/1.1 options.
fn http1(http: &UpstreamHttp) -> Http1ProtocolOptions {
    Http1ProtocolOptions { header_key_format: http.preserve_case.then(preserve_case), ..Default::default() }
}

/// The formatter that keeps the case of header names.
pub(crate) fn preserve_case() -> HeaderKeyFormat {
    HeaderKeyFormat {
        header_format: Some(HeaderFormat::StatefulFormatter(TypedExtensionConfig {
            name: "preserve_case".to_owned(),
            typed_config: Some(any(&PreserveCaseFormatterConfig::default())),
        })),
    }
}

fn http2(pool: Option<&ConnectionPool>) -> Http2ProtocolOptions {
    let keepalive = pool.and_then(|p| p.http2_keepalive);
    Http2ProtocolOptions {
        connection_keepalive: keepalive.map(|k| KeepaliveSettings {
            interval: k.interval.map(duration),
            timeout: k.timeout.map(duration),
            ..Default::default()
        }),
        ..Default::default()
    }
}
