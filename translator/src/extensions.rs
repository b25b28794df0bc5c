//! Names of Envoy extensions: what a filter is called in a chain, and what a client calls it in `node.extensions`.

/// HTTP router.
pub const HTTP_ROUTER: &str = "envoy.filters.http.router";
/// Fault injection.
pub const HTTP_FAULT: &str = "envoy.filters.http.fault";
/// CORS.
pub const HTTP_CORS: &str = "envoy.filters.http.cors";
/// gRPC statistics.
pub const HTTP_GRPC_STATS: &str = "envoy.filters.http.grpc_stats";
/// gRPC-Web bridge.
pub const HTTP_GRPC_WEB: &str = "envoy.filters.http.grpc_web";
/// Resolves the host that a request names.
pub const HTTP_DYNAMIC_FORWARD_PROXY: &str = "envoy.filters.http.dynamic_forward_proxy";
/// Role-based access control of requests.
pub const HTTP_RBAC: &str = "envoy.filters.http.rbac";
/// Asks a server about requests.
pub const HTTP_EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
/// Verifies tokens.
pub const HTTP_JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";
/// Role-based access control of connections.
pub const NETWORK_RBAC: &str = "envoy.filters.network.rbac";
/// Asks a server about connections.
pub const NETWORK_EXT_AUTHZ: &str = "envoy.filters.network.ext_authz";
/// Paths with operators, as the client lists it.
pub const URI_TEMPLATE: &str = "envoy.path.match.uri_template.uri_template_matcher";
/// Keeps a client with one server.
pub const HTTP_STATEFUL_SESSION: &str = "envoy.filters.http.stateful_session";
/// HTTP connection manager.
pub const HTTP_CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";
/// TCP proxy.
pub const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";
/// MongoDB statistics.
pub const MONGO_PROXY: &str = "envoy.filters.network.mongo_proxy";
/// Redis in the place of the TCP proxy.
pub const REDIS_PROXY: &str = "envoy.filters.network.redis_proxy";
/// MySQL statistics.
pub const MYSQL_PROXY: &str = "envoy.filters.network.mysql_proxy";
/// Resolves the name that TLS asks for.
pub const SNI_DYNAMIC_FORWARD_PROXY: &str = "envoy.filters.network.sni_dynamic_forward_proxy";
/// Istio's peer metadata exchange.
pub const ISTIO_METADATA_EXCHANGE: &str = "istio.metadata_exchange";
/// Istio's statistics.
pub const ISTIO_STATS: &str = "istio.stats";
/// Istio's ALPN override.
pub const ISTIO_ALPN: &str = "istio.alpn";
/// Looks for TLS and its server name.
pub const TLS_INSPECTOR: &str = "envoy.filters.listener.tls_inspector";
/// Looks for HTTP.
pub const HTTP_INSPECTOR: &str = "envoy.filters.listener.http_inspector";
/// Restores the address before iptables.
pub const ORIGINAL_DST: &str = "envoy.filters.listener.original_dst";
/// Keeps the client's address.
pub const ORIGINAL_SRC: &str = "envoy.filters.listener.original_src";
/// PROXY protocol.
pub const PROXY_PROTOCOL: &str = "envoy.filters.listener.proxy_protocol";
/// TLS over UDP.
pub const TRANSPORT_QUIC: &str = "envoy.transport_sockets.quic";
/// TLS.
pub const TRANSPORT_TLS: &str = "envoy.transport_sockets.tls";
/// Clear text.
pub const TRANSPORT_RAW: &str = "envoy.transport_sockets.raw_buffer";
/// Access log to a file.
pub const ACCESS_LOG_FILE: &str = "envoy.access_loggers.file";
/// Access log of requests to a gRPC service.
pub const ACCESS_LOG_HTTP_GRPC: &str = "envoy.access_loggers.http_grpc";
/// Access log of connections to a gRPC service, as the client lists it.
pub const ACCESS_LOG_TCP_GRPC: &str = "envoy.access_loggers.tcp_grpc";
/// Request ids as UUIDs.
pub const REQUEST_ID_UUID: &str = "envoy.request_id.uuid";
/// Keeps the case of HTTP/1 header names.
pub const PRESERVE_CASE: &str = "envoy.http.stateful_header_formatters.preserve_case";
/// Retries prefer hosts that were not tried.
pub const RETRY_PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
/// Retries prefer priorities that were not tried.
pub const RETRY_PREVIOUS_PRIORITIES: &str = "envoy.retry_priorities.previous_priorities";
/// Access log by OTLP.
pub const ACCESS_LOG_OPEN_TELEMETRY: &str = "envoy.access_loggers.open_telemetry";
/// Access log as counters. Clients that have it know custom tags by format as well, which are not listed.
pub const ACCESS_LOG_STATS: &str = "envoy.access_loggers.stats";
/// Filter of access logs by an expression.
pub const ACCESS_LOG_CEL: &str = "envoy.access_loggers.extension_filters.cel";
/// Format operator for paths without their query.
pub const FORMATTER_REQ_WITHOUT_QUERY: &str = "envoy.formatter.req_without_query";
/// Scripts for requests.
pub const HTTP_LUA: &str = "envoy.filters.http.lua";
/// Modules for requests.
pub const HTTP_WASM: &str = "envoy.filters.http.wasm";
/// Modules for connections.
pub const NETWORK_WASM: &str = "envoy.filters.network.wasm";
