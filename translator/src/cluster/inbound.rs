//! Clusters from a sidecar to the workload beside it, one per port that it serves.

use std::collections::BTreeSet;
use std::net::IpAddr;

use pilotfish_model::Service;
use pilotfish_model::destination_rule::{ConnectionPool, H2Upgrade, TrafficPolicy};
use pilotfish_model::mesh_config::InboundMode;
use pilotfish_model::name::Str;
use pilotfish_model::proxy::Interception;
use pilotfish_model::service::{Protocol, ServicePort};
use pilotfish_model::sidecar::{IngressListener, Sidecar};

use super::input::{Balanced, ClusterInput, ClusterLabels, Discovery, StaticEndpoint};
use super::outbound::{preserve_case, rule_path, service_label, stat_name};
use super::protocol::{HttpVersion, UpstreamHttp, keeps_case};
use super::special::{base, inbound_source};
use crate::context::OwnContext;
use crate::naming::{self, Direction, StatLabels};
use crate::policy::Found;

/// A port of the workload and the service that it first serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundTarget {
    /// The service.
    pub service: std::sync::Arc<Service>,
    /// The service's port.
    pub port: ServicePort,
    /// Where the workload listens.
    pub target_port: u16,
    /// Further services with the same port number on the same target, the first one included.
    pub services: Vec<std::sync::Arc<Service>>,
}

/// The workload's ports in the order of numbers. Of services that share one, the oldest decides.
pub fn inbound_targets(context: &OwnContext<'_>) -> Vec<InboundTarget> {
    let mut targets: Vec<InboundTarget> = Vec::new();
    for target in &context.own.targets {
        let Some(service) = context.mesh.services.get(&target.service) else { continue };
        let Some(port) = service.port_of_any(target.port).filter(|p| p.protocol != Protocol::Udp) else { continue };
        match targets.iter_mut().find(|t| t.target_port == target.target_port) {
            None => targets.push(InboundTarget {
                service: service.clone(),
                port: port.clone(),
                target_port: target.target_port,
                services: vec![service.clone()],
            }),
            Some(first) if first.port.port == port.port => first.services.push(service.clone()),
            Some(_) => {}
        }
    }
    targets.sort_by_key(|t| t.target_port);
    targets
}

/// The rule for inbound traffic of a service: selectors of clients do not count.
pub(crate) fn inbound_rule(context: &OwnContext<'_>, service: &Service) -> Found {
    context.world.rules.lookup(&context.config().root_namespace, context.class, service, Direction::Inbound)
}

pub(super) fn inbound(context: &OwnContext<'_>, add: &mut impl FnMut(ClusterInput)) {
    if !context.class.is_sidecar() {
        return;
    }
    match context.sidecar {
        Some(sidecar) if !sidecar.ingress.is_empty() => of_sidecar(context, sidecar, add),
        // Without capture nothing arrives but what a Sidecar opens a port for.
        _ if context.class.interception == Interception::None => {}
        _ => of_services(context, None, add),
    }
}

/// `beside`: a Sidecar, whose ingress has its own.
fn of_services(context: &OwnContext<'_>, beside: Option<&Sidecar>, add: &mut impl FnMut(ClusterInput)) {
    let local = context.config().inbound_traffic_policy.mode == InboundMode::Localhost;
    let is_ingress = |port: u16| beside.is_some_and(|s| s.ingress.iter().any(|i| i.port.number == port));
    for target in inbound_targets(context).into_iter().filter(|t| !is_ingress(t.target_port)) {
        let to = if local { Some(StaticEndpoint::Ip(context.class.localhost_ip().into(), target.target_port)) } else { None };
        add(input(context, target.target_port, target.port.protocol, Some(&target), to, None));
    }
}

fn of_sidecar(context: &OwnContext<'_>, sidecar: &Sidecar, add: &mut impl FnMut(ClusterInput)) {
    if context.config().features.ingress_beside_services && context.class.interception != Interception::None {
        of_services(context, Some(sidecar), add);
    }
    let targets = inbound_targets(context);
    let mut seen = BTreeSet::new();
    for ingress in &sidecar.ingress {
        if !seen.insert(ingress.port.number) {
            continue;
        }
        let port = &ingress.port;
        // The oldest service decides; it is reached by the port that the Sidecar opens.
        let target = targets.iter().find(|t| t.target_port == port.number).map(|t| InboundTarget {
            service: t.service.clone(),
            port: ServicePort { name: port.name.clone(), port: port.number, protocol: port.protocol, target_port: None },
            target_port: port.number,
            services: vec![t.service.clone()],
        });
        let to = endpoint(context, ingress);
        let pool = ingress.connection_pool.as_ref().or(sidecar.inbound_connection_pool.as_ref());
        let input = input(context, port.number, port.protocol, target.as_ref(), to, pool);
        let pattern = &context.config().inbound_cluster_stat_name;
        if target.is_some() || pattern.is_empty() {
            add(input);
            continue;
        }
        let host = format!("{}.{}", sidecar.meta.name, sidecar.meta.namespace);
        let named = StatLabels { short: &host, name: &sidecar.meta.name, host: &host, port: port.number, port_name: &port.name };
        add(ClusterInput { stat_name: named.fill(pattern, "", port.number).into(), ..input });
    }
}

/// Where an ingress listener sends to; `None`: where the client wanted to go.
fn endpoint(context: &OwnContext<'_>, ingress: &IngressListener) -> Option<StaticEndpoint> {
    let text = &*ingress.default_endpoint;
    if let Some(path) = text.strip_prefix("unix://") {
        return Some(StaticEndpoint::Pipe(path.into()));
    }
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let own = |wanted: fn(&IpAddr) -> bool| context.own.own_ips.iter().find(|ip| wanted(ip)).map(|ip| ip.to_string());
    let ip = match host {
        "0.0.0.0" => own(IpAddr::is_ipv4).unwrap_or_else(|| "127.0.0.1".to_owned()),
        "::" => own(IpAddr::is_ipv6).unwrap_or_else(|| "::1".to_owned()),
        "::1" if context.class.ipv6 => "::1".to_owned(),
        "127.0.0.1" | "::1" => context.class.localhost_ip().to_owned(),
        // Nothing else is the workload.
        _ => return None,
    };
    Some(StaticEndpoint::Ip(ip.into(), port.parse().ok()?))
}

fn input(
    context: &OwnContext<'_>,
    port: u16,
    protocol: Protocol,
    target: Option<&InboundTarget>,
    to: Option<StaticEndpoint>,
    pool: Option<&ConnectionPool>,
) -> ClusterInput {
    let name: Str = naming::inbound_cluster(port).into();
    let rule = target.and_then(|t| inbound_rule(context, &t.service).rule);
    // Rules for the service hold for its servers as well, as far as connections go; port settings do too.
    let own = |t: &InboundTarget| rule.as_ref().and_then(|r| r.policy_for(None, t.port.port).connection_pool);
    let wide = context.sidecar.and_then(|s| s.inbound_connection_pool.clone());
    let mesh = || context.config().default_traffic_policy.as_ref().and_then(|p| p.connection_pool.clone());
    let pool = pool.cloned().or(wide).or_else(|| target.and_then(own)).or_else(mesh);
    let local = matches!(&to, Some(StaticEndpoint::Ip(ip, _)) if &**ip == "127.0.0.1" || &**ip == "::1");
    let as_client = pool.as_ref().is_some_and(|p| p.use_client_protocol);
    let version = if as_client { HttpVersion::AsClient } else { HttpVersion::of(protocol, None, H2Upgrade::DoNotUpgrade, true) };
    let pattern = &context.config().inbound_cluster_stat_name;
    let stat = target.filter(|_| !pattern.is_empty()).map(|t| stat_name(pattern, &t.service, &t.port, "", port));
    ClusterInput {
        stat_name: stat.unwrap_or_else(|| name.clone()),
        no_cleanup: to.is_none(),
        bind: if local { Vec::new() } else { inbound_source(context.common()) },
        http: UpstreamHttp {
            version,
            preserve_case: preserve_case(context.common()) && keeps_case(protocol, version),
            ..UpstreamHttp::default()
        },
        pool,
        labels: ClusterLabels {
            config: rule.as_deref().filter(|r| r.policy != TrafficPolicy::default()).map(rule_path),
            services: target
                .filter(|t| context.config().features.telemetry_label && !t.service.mesh_external)
                .map(|t| t.services.iter().map(|s| service_label(s)).collect())
                .unwrap_or_default(),
            ..ClusterLabels::default()
        },
        balanced: Some(Balanced { inbound: true, ..Balanced::default() }),
        ..base(context.common(), &name, to.map_or(Discovery::OriginalDst { port: None }, |e| Discovery::Static(Some(e))))
    }
}
