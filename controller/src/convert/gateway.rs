//! Gateway.

use pilotfish_crds::networking::gateway as api;
use pilotfish_model::gateway::{GatewayHost, GatewayServer};
use pilotfish_model::{Gateway, Host, Protocol};

use super::fields::{Path, Scope, labels, optional};
use super::tls;

pub(super) fn convert(scope: &mut Scope<'_>, spec: &api::GatewaySpec) -> Gateway {
    let root = Path::SPEC;
    let path = root.field("servers");
    if spec.servers.is_empty() {
        scope.error(&path, "must not be empty");
    }
    let servers = spec.servers.iter().enumerate().map(|(i, s)| server(scope, &path.index(i), s)).collect();
    Gateway { meta: scope.meta_without_labels(), selector: labels(&spec.selector), servers }
}

fn server(scope: &mut Scope<'_>, path: &Path<'_>, s: &api::Server) -> GatewayServer {
    let port_path = path.field("port");
    let port = s.port.clone().unwrap_or_default();
    let number = scope.port(&port_path.field("number"), s.port.as_ref().map(|p| p.number));
    let protocol = Protocol::parse(&port.protocol).unwrap_or_else(|| {
        scope.error(&port_path.field("protocol"), format!("{:?} is not a protocol", port.protocol));
        Protocol::Tcp
    });
    let hosts_path = path.field("hosts");
    if s.hosts.is_empty() {
        scope.error(&hosts_path, "must not be empty");
    }
    if s.bind.starts_with("unix:") {
        scope.error(&path.field("bind"), "a gateway cannot listen on a Unix socket");
    }
    let tls_path = path.field("tls");
    let tls = s.tls.as_ref().map(|t| {
        let secure = matches!(protocol, Protocol::Https | Protocol::Tls | Protocol::Hbone);
        // Clear-text servers may only redirect; everything else in their TLS settings is ignored.
        if secure || !t.https_redirect {
            tls::server(scope, &tls_path, t)
        } else {
            tls::server(
                scope,
                &tls_path,
                &pilotfish_crds::networking::tls::ServerTlsSettings { https_redirect: true, ..Default::default() },
            )
        }
    });
    if tls.is_none() && matches!(protocol, Protocol::Https | Protocol::Tls) {
        scope.error(&tls_path, format!("is missing for protocol {}", protocol.as_str()));
    }
    GatewayServer {
        port: number,
        port_name: port.name.as_str().into(),
        protocol,
        bind: optional(&s.bind),
        hosts: s.hosts.iter().enumerate().map(|(i, h)| host(scope, &hosts_path.index(i), h)).collect(),
        tls,
        name: s.name.as_str().into(),
    }
}

fn host(scope: &mut Scope<'_>, path: &Path<'_>, text: &str) -> GatewayHost {
    let (namespace, name) = text.split_once('/').unwrap_or(("*", text));
    scope.check_host(path, name);
    let namespace = match namespace {
        "*" => None,
        "." => Some(scope.namespace().into()),
        other => Some(other.into()),
    };
    GatewayHost { namespace, host: Host::new(name) }
}
