//! Ports that the workload serves: of its Services, or of its Sidecar's ingress; and what stands for all others.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pilotfish_model::name::{Host, Str};
use pilotfish_model::peer_authentication::MtlsMode;
use pilotfish_model::proxy::Interception;
use pilotfish_model::service::{Protocol, Registry};
use pilotfish_model::sidecar::{CaptureMode, IngressListener, Sidecar};

use crate::context::OwnContext;
use crate::listener::stat_prefix::StatName;
use crate::naming;
use crate::policy;
use crate::route::inbound::InboundRoute;
use crate::tls::GatewayTls;

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct InboundPort {
    /// Address, part of the chain's name.
    pub bind: Str,
    /// Where the workload listens; `None`: all ports that nothing is said about.
    pub target_port: Option<u16>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Name of a chain that is not named by address and port, for HTTP and for bytes.
    pub names: Option<(&'static str, &'static str)>,
    /// Where requests go.
    pub route: InboundRoute,
    /// What statistics of connections are called.
    pub stat_prefix: Str,
    /// What is accepted.
    pub mtls: MtlsMode,
    /// TLS of the user's that ends here, where there is none of the mesh's.
    pub tls: Option<GatewayTls>,
    /// Opens its port.
    pub bind_to_port: bool,
    /// Path of the Sidecar behind it.
    pub config: Option<Str>,
}

/// By port; of several Services on one port the oldest decides.
pub(super) fn served(context: &OwnContext<'_>) -> Vec<InboundPort> {
    if let Some(sidecar) = context.sidecar.filter(|s| !s.ingress.is_empty()) {
        let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
        for listener in sidecar.ingress.iter().filter(|l| can_open(context, l)) {
            ports.entry(listener.port.number).or_insert_with(|| of_ingress(context, sidecar, listener));
        }
        let mut ports: Vec<_> = ports.into_values().collect();
        if context.config().features.ingress_beside_services && context.class.interception != Interception::None {
            let own = |p: &InboundPort| sidecar.ingress.iter().all(|i| p.target_port != Some(i.port.number));
            ports.extend(of_services(context).into_iter().filter(own));
            ports.sort_by_key(|p| p.target_port);
        }
        return ports;
    }
    // Without capture the workload's own ports are its own; there is nothing to listen on.
    if context.class.interception == Interception::None {
        return Vec::new();
    }
    of_services(context)
}

/// Ports below 1024 are not for everybody, and the proxy listens on some for all addresses itself.
fn can_open(context: &OwnContext<'_>, listener: &IngressListener) -> bool {
    let (settings, number) = (&context.class.settings, listener.port.number);
    let wide = match listener.bind.as_deref().unwrap_or_default() {
        "" => listener.port.protocol.is_http(),
        bind => bind == context.class.wildcard_ip(),
    };
    let is_taken = wide && settings.reserved_ports.contains(&number);
    let is_refused = opens(context, listener) && settings.unprivileged_pod && number < 1024;
    !is_taken && !is_refused
}

/// Unlike that of egress listeners, what is said here weighs more than how the proxy intercepts.
fn opens(context: &OwnContext<'_>, listener: &IngressListener) -> bool {
    match listener.capture {
        CaptureMode::Default => context.class.interception == Interception::None,
        capture => capture == CaptureMode::None,
    }
}

fn of_services(context: &OwnContext<'_>) -> Vec<InboundPort> {
    let class = context.class;
    let bind: Str = class.wildcard_ip().into();
    let mut ports: BTreeMap<u16, InboundPort> = BTreeMap::new();
    for target in &context.own.targets {
        let Some(service) = context.mesh.services.get(&target.service) else { continue };
        let Some(port) = service.port_of_any(target.port).filter(|p| p.protocol != Protocol::Udp) else { continue };
        // What the proxy itself listens on is not the workload's.
        let own = [context.config().proxy_listen_port, context.config().proxy_inbound_listen_port];
        if own.contains(&target.target_port) || class.settings.reserved_ports.contains(&target.target_port) {
            continue;
        }
        ports.entry(target.target_port).or_insert_with(|| {
            let cluster: Str = naming::inbound_cluster(target.target_port).into();
            let kubernetes = service.registry == Registry::Kubernetes;
            let name = StatName {
                pattern: &context.config().inbound_cluster_stat_name,
                host: &service.host,
                name: if kubernetes { &service.name } else { service.host.as_str() },
                namespace: if kubernetes { &service.namespace } else { "" },
                subset: "",
                port: port.port,
                target_port: target.target_port,
                port_name: &port.name,
            };
            InboundPort {
                bind: bind.clone(),
                target_port: Some(target.target_port),
                protocol: port.protocol,
                names: None,
                stat_prefix: name.resolve().map_or_else(|| cluster.clone(), Into::into),
                route: InboundRoute { cluster, host: service.host.as_str().into(), service_port: port.port, protocol: port.protocol },
                mtls: policy::workload_mtls_mode(context.mesh, &class.namespace, context.own, Some(target.target_port)),
                tls: None,
                bind_to_port: false,
                config: None,
            }
        });
    }
    ports.into_values().collect()
}

fn of_ingress(context: &OwnContext<'_>, sidecar: &Sidecar, listener: &IngressListener) -> InboundPort {
    let class = context.class;
    let number = listener.port.number;
    let unicast = |ip: &&IpAddr| !(ip.is_loopback() || ip.is_multicast() || ip.is_unspecified());
    let own = || context.own.own_ips.iter().find(unicast).map_or_else(|| class.wildcard_ip().into(), |ip| ip.to_string().into());
    let cluster: Str = naming::inbound_cluster(number).into();
    // One of the root namespace stands in each namespace as if it were its own.
    let host = format!("{}.{}", sidecar.meta.name, class.namespace);
    let name = StatName {
        pattern: &context.config().inbound_cluster_stat_name,
        host: &Host::new(&host),
        name: &host,
        namespace: "",
        subset: "",
        port: number,
        target_port: number,
        port_name: &listener.port.name,
    };
    let mtls = policy::workload_mtls_mode(context.mesh, &class.namespace, context.own, Some(number));
    let own_tls = listener.tls.as_ref().filter(|_| context.config().features.sidecar_ingress_tls);
    let protocol = match listener.port.protocol {
        Protocol::Https if own_tls.is_some() => Protocol::Http,
        Protocol::Tls if own_tls.is_some() => Protocol::Tcp,
        said => said,
    };
    InboundPort {
        bind: listener.bind.clone().filter(|b| !b.is_empty()).unwrap_or_else(own),
        target_port: Some(number),
        protocol,
        names: None,
        stat_prefix: name.resolve().map_or_else(|| cluster.clone(), Into::into),
        route: InboundRoute { cluster, host: host.into(), service_port: number, protocol },
        tls: own_tls.filter(|_| mtls == MtlsMode::Disable).map(|t| GatewayTls::of(context.config(), &class.unit, t)),
        mtls,
        bind_to_port: opens(context, listener),
        config: Some(naming::config_path("networking.istio.io", "sidecar", &class.namespace, &sidecar.meta.name).into()),
    }
}

/// What stands for ports without a Service: all of them, and those that the workload's PeerAuthentication singles out.
pub(super) fn passthrough(context: &OwnContext<'_>) -> Vec<InboundPort> {
    // What a Sidecar opens itself does not arrive here.
    let is_served = |port: u16| match context.sidecar.filter(|s| !s.ingress.is_empty()) {
        Some(sidecar) if sidecar.ingress.iter().any(|i| i.port.number == port) => true,
        Some(_) if !context.config().features.ingress_beside_services => false,
        _ => context.own.targets.iter().any(|t| t.target_port == port),
    };
    let special = policy::workload_mtls_ports(context.mesh, &context.class.namespace, context.own);
    let special = special.into_iter().filter(|port| !is_served(*port));
    std::iter::once(None).chain(special.map(Some)).map(|port| of_unknown(context, port)).collect()
}

fn of_unknown(context: &OwnContext<'_>, port: Option<u16>) -> InboundPort {
    let cluster: Str = naming::INBOUND_PASSTHROUGH.into();
    let name = StatName {
        pattern: &context.config().inbound_cluster_stat_name,
        host: &Host::new(""),
        name: "",
        namespace: "",
        subset: "",
        port: 0,
        target_port: 0,
        port_name: naming::VIRTUAL_INBOUND,
    };
    InboundPort {
        bind: context.class.wildcard_ip().into(),
        target_port: port,
        protocol: Protocol::Auto,
        names: Some(("virtualInbound-catchall-http", naming::VIRTUAL_INBOUND)),
        stat_prefix: name.resolve().map_or_else(|| cluster.clone(), Into::into),
        route: InboundRoute { cluster, host: "".into(), service_port: 0, protocol: Protocol::Auto },
        mtls: policy::workload_mtls_mode(context.mesh, &context.class.namespace, context.own, port),
        tls: None,
        bind_to_port: false,
        config: None,
    }
}
