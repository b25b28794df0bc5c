//! Listeners for what the workload serves: one that takes all captured connections, with chains by port; where nothing is
//! captured, one per port of a Sidecar's ingress.

mod chains;
mod ports;

use std::collections::BTreeSet;

use pilotfish_model::name::{Kind, ObjectId};
use pilotfish_model::proxy::Interception;

use super::spec::{ChainSpec, Content, ListenerSpec, Matching, Role};
use crate::context::OwnContext;
use crate::listener::captured_binds;
use crate::listener::network_filters::TcpProxy;
use crate::naming;
use crate::policy;
use crate::scope::sidecar_object;

/// Chain for connections to the listener's own port.
const BLACK_HOLE: &str = "virtualInbound-blackhole";

/// All of a sidecar.
pub(super) fn listeners(context: &OwnContext<'_>) -> Vec<ListenerSpec> {
    let (bound, captured): (Vec<_>, Vec<_>) = ports::served(context).into_iter().partition(|p| p.bind_to_port);
    let mut specs: Vec<ListenerSpec> = bound.iter().map(|port| bound_listener(context, port)).collect();
    if context.class.interception != Interception::None {
        specs.push(virtual_inbound(context, &captured));
    }
    specs
}

fn virtual_inbound(context: &OwnContext<'_>, served: &[ports::InboundPort]) -> ListenerSpec {
    let class = context.class;
    let port = context.config().proxy_inbound_listen_port;
    let to_itself = Matching { destination_port: Some(port), ..Matching::default() };
    let nowhere = TcpProxy { exchange_metadata: true, ..TcpProxy::black_hole() };
    let mut chains = vec![ChainSpec {
        name: BLACK_HOLE.into(),
        matching: to_itself,
        tls: None,
        content: Content::Tcp(nowhere),
        config: None,
        handshake_limit: false,
    }];
    chains.extend(ports::passthrough(context).iter().flat_map(|p| chains::chains(context, p)));
    chains.extend(served.iter().flat_map(|p| chains::chains(context, p)));
    ListenerSpec {
        name: naming::VIRTUAL_INBOUND.to_owned(),
        binds: captured_binds(context.config(), class, false),
        port,
        role: Role::VirtualInbound { transparent: class.interception == Interception::Tproxy },
        bind_to_port: true,
        exact_balance: class.settings.inbound_exact_balance,
        chains,
        fallback: None,
        sources: sources(context),
    }
}

fn bound_listener(context: &OwnContext<'_>, port: &ports::InboundPort) -> ListenerSpec {
    let chains = chains::chains(context, port);
    ListenerSpec {
        name: naming::listener(&port.bind, port.target_port.unwrap_or_default()),
        binds: vec![port.bind.clone()],
        port: port.target_port.unwrap_or_default(),
        role: Role::Inbound,
        bind_to_port: true,
        exact_balance: context.class.settings.inbound_exact_balance,
        chains,
        fallback: None,
        sources: sources(context),
    }
}

/// The objects that say what a workload serves.
pub(crate) fn sources(context: &OwnContext<'_>) -> BTreeSet<ObjectId> {
    let policies = policy::policies(context.mesh, &context.class.namespace, &context.own.labels);
    let policies = policies.map(|p| p.meta.id(Kind::PeerAuthentication));
    let services = context.own.targets.iter().filter_map(|t| context.mesh.services.get(&t.service)).map(|s| s.source.clone());
    services.chain(context.sidecar.map(|s| sidecar_object(s))).chain(policies).collect()
}
