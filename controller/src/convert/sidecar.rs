//! Sidecar.

use pilotfish_crds::networking::sidecar as api;
use pilotfish_model::sidecar::{
    CaptureMode, EgressHost, EgressListener, EgressNamespace, IngressListener, ListenerPort, OutboundMode, OutboundPolicy,
};
use pilotfish_model::{Host, Protocol, Sidecar};

use super::fields::{Path, Scope, labels, optional};
use super::{destination_rule, tls};

pub(super) fn convert(scope: &mut Scope<'_>, spec: &api::SidecarSpec) -> Sidecar {
    let root = Path::SPEC;
    let (ingress, egress) = (root.field("ingress"), root.field("egress"));
    Sidecar {
        meta: scope.meta_without_labels(),
        selector: spec.workload_selector.as_ref().filter(|s| !s.labels.is_empty()).map(|s| labels(&s.labels)),
        ingress: spec.ingress.iter().enumerate().map(|(i, l)| ingress_listener(scope, &ingress.index(i), l)).collect(),
        egress: spec.egress.iter().enumerate().map(|(i, l)| egress_listener(scope, &egress.index(i), l)).collect(),
        outbound_policy: spec.outbound_traffic_policy.as_ref().map(|p| policy(scope, &root.field("outboundTrafficPolicy"), p)),
        inbound_connection_pool: spec
            .inbound_connection_pool
            .as_ref()
            .map(|p| destination_rule::connection_pool(scope, &root.field("inboundConnectionPool"), p)),
    }
}

fn ingress_listener(scope: &mut Scope<'_>, path: &Path<'_>, l: &api::IstioIngressListener) -> IngressListener {
    let port_path = path.field("port");
    let port = l.port.as_ref().map(|p| port(scope, &port_path, p, false)).unwrap_or_else(|| {
        scope.error(&port_path, "is missing");
        ListenerPort { number: 0, protocol: Protocol::Tcp, name: "".into() }
    });
    let endpoint = l.default_endpoint.as_str();
    let is_port = |t: &str| t.parse::<u16>().is_ok_and(|p| p > 0);
    let known = ["127.0.0.1:", "[::1]:", "0.0.0.0:", "[::]:"].iter().any(|a| endpoint.strip_prefix(a).is_some_and(is_port));
    if !endpoint.is_empty() && !known && !endpoint.starts_with("unix://") {
        let message = "must be 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT, [::]:PORT or unix://PATH";
        scope.error(&path.field("defaultEndpoint"), message);
    }
    IngressListener {
        port,
        bind: optional(&l.bind),
        capture: capture(l.capture_mode),
        default_endpoint: endpoint.into(),
        tls: l.tls.as_ref().map(|t| tls::server(scope, &path.field("tls"), t)),
        connection_pool: l.connection_pool.as_ref().map(|p| destination_rule::connection_pool(scope, &path.field("connectionPool"), p)),
    }
}

fn egress_listener(scope: &mut Scope<'_>, path: &Path<'_>, l: &api::IstioEgressListener) -> EgressListener {
    let unix = l.bind.starts_with("unix://") || l.bind.starts_with('/');
    let hosts = path.field("hosts");
    if l.hosts.is_empty() {
        scope.error(&hosts, "must not be empty");
    }
    EgressListener {
        port: l.port.as_ref().map(|p| port(scope, &path.field("port"), p, unix)),
        bind: optional(&l.bind),
        capture: capture(l.capture_mode),
        hosts: l.hosts.iter().enumerate().map(|(i, h)| egress_host(scope, &hosts.index(i), h)).collect(),
    }
}

fn port(scope: &mut Scope<'_>, path: &Path<'_>, p: &api::SidecarPort, unix: bool) -> ListenerPort {
    let number = if unix { p.number.0 } else { scope.port(&path.field("number"), Some(p.number)) };
    // What is not a protocol's name is told from the traffic, as on Services.
    let protocol = Protocol::parse(&p.protocol).unwrap_or(Protocol::Auto);
    ListenerPort { number, protocol, name: p.name.as_str().into() }
}

fn capture(mode: api::CaptureMode) -> CaptureMode {
    match mode {
        api::CaptureMode::Default => CaptureMode::Default,
        api::CaptureMode::Iptables => CaptureMode::Iptables,
        api::CaptureMode::None => CaptureMode::None,
    }
}

fn egress_host(scope: &mut Scope<'_>, path: &Path<'_>, text: &str) -> EgressHost {
    let Some((namespace, host)) = text.split_once('/') else {
        scope.error(path, format!("{text:?} must have the form namespace/host"));
        return EgressHost { namespace: EgressNamespace::Nothing, host: Host::new("*"), exclude: false };
    };
    scope.check_host(path, host);
    let (exclude, namespace) = match namespace {
        "~" => (false, EgressNamespace::Nothing),
        other => {
            let (exclude, name) = other.strip_prefix('~').map_or((false, other), |n| (true, n));
            let namespace = match name {
                "*" => EgressNamespace::Any,
                "." => EgressNamespace::Own,
                name => EgressNamespace::Named(name.into()),
            };
            (exclude, namespace)
        }
    };
    EgressHost { namespace, host: Host::new(host), exclude }
}

fn policy(scope: &mut Scope<'_>, path: &Path<'_>, p: &api::OutboundTrafficPolicy) -> OutboundPolicy {
    OutboundPolicy {
        mode: match p.mode {
            api::OutboundMode::RegistryOnly => OutboundMode::RegistryOnly,
            api::OutboundMode::AllowAny => OutboundMode::AllowAny,
            api::OutboundMode::AllowAnyDynamicDns => OutboundMode::AllowAnyDynamicDns,
        },
        egress_proxy: p.egress_proxy.as_ref().map(|d| {
            let path = path.field("egressProxy");
            let port = scope.port(&path.field("port").field("number"), d.port.and_then(|p| p.number));
            (scope.host(&path.field("host"), &d.host), port, d.subset.as_str().into())
        }),
    }
}
