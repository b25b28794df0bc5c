//! Servers that providers of the mesh configuration name.

use pilotfish_envoy::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use pilotfish_envoy::pb::envoy::config::core::v3::{GrpcService, HeaderValue, HeaderValueOption, HttpUri, grpc_service, http_uri};
use pilotfish_model::mesh_config::ProviderHeader;
use pilotfish_model::name::{Host, Str};

use super::pack::duration;
use crate::context::Context;
use crate::naming::{self, Direction};

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server {
    pub(super) host: Host,
    pub(super) cluster: Str,
}

impl Server {
    /// By host, or `namespace/host`. `None` if the client does not see it: a cluster that does not exist would make the client
    /// refuse the listener.
    pub(super) fn find(context: &Context<'_>, service: &str, port: u16) -> Option<Self> {
        let (namespace, host) = naming::namespaced(service);
        let host = Host::new(host);
        let found = context.scope.service(&host)?;
        found.port(port).filter(|_| namespace.is_none_or(|ns| ns == &*found.namespace))?;
        Some(Server { cluster: naming::cluster(Direction::Outbound, port, "", host.as_str()).into(), host })
    }

    /// As a gRPC server.
    pub(super) fn grpc(&self) -> GrpcService {
        let target =
            grpc_service::EnvoyGrpc { cluster_name: self.cluster.to_string(), authority: self.host.to_string(), ..Default::default() };
        GrpcService { target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(target)), ..Default::default() }
    }

    /// As an HTTP server.
    pub(super) fn http(&self, uri: String, timeout: std::time::Duration) -> HttpUri {
        let cluster = http_uri::HttpUpstreamType::Cluster(self.cluster.to_string());
        HttpUri { uri, timeout: Some(duration(timeout)), http_upstream_type: Some(cluster) }
    }

    /// `host/path`.
    pub(super) fn uri(&self, path: &str) -> String {
        if path.is_empty() {
            return self.host.to_string();
        }
        format!("{}/{}", self.host, path.trim_start_matches('/'))
    }
}

/// Headers with fixed values.
pub(super) fn header_values(headers: &[ProviderHeader]) -> Vec<HeaderValue> {
    let header =
        |h: &ProviderHeader| Some(HeaderValue { key: h.name.to_string(), value: h.value.as_ref()?.to_string(), ..Default::default() });
    headers.iter().filter(|h| !h.name.is_empty()).filter_map(header).collect()
}

/// The same in place of what a client had of them.
pub(super) fn headers(headers: &[ProviderHeader]) -> Vec<HeaderValueOption> {
    let append_action = HeaderAppendAction::OverwriteIfExistsOrAdd as i32;
    let option = |header| HeaderValueOption { header: Some(header), append_action, ..Default::default() };
    header_values(headers).into_iter().map(option).collect()
}
