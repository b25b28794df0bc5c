//! Gateways without workload, and servers that do not go together with older ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use pilotfish_model::gateway::{Gateway, GatewayServer};
use pilotfish_model::mesh::ObjectKey;
use pilotfish_model::name::{Kind, Labels, Str, selects};
use pilotfish_model::tls::ServerTlsMode;
use pilotfish_model::virtual_service::{GatewayRef, VirtualService};

use super::workloads::{Workloads, shown};
use super::{Report, full_name, id};
use crate::gateway::{is_http, is_passthrough, merge};
use crate::route::l4::serves;
use crate::world::World;

pub(super) fn look(world: &World, workloads: &Workloads, report: &mut Report) {
    let mesh = &world.mesh;
    let mut gateways: Vec<&Arc<Gateway>> = mesh.gateways.values().collect();
    gateways.sort_by(|a, b| a.meta.age_order().cmp(&b.meta.age_order()));
    // Workloads that some Gateway asks for by labels; which others may be gateways, nobody says.
    let is_asked = |labels: &Labels| gateways.iter().any(|g| !g.selector.is_empty() && selects(&g.selector, labels));
    let routers: BTreeSet<(&Str, &Labels)> = workloads.within(None).filter(|(_, labels)| is_asked(labels)).collect();
    let mut served: BTreeSet<(usize, usize)> = BTreeSet::new();
    let sets: BTreeSet<&Labels> = routers.iter().map(|(_, labels)| *labels).collect();
    for labels in &sets {
        let selecting: Vec<(usize, &Arc<Gateway>)> =
            gateways.iter().enumerate().filter(|(_, g)| selects(&g.selector, labels)).map(|(i, g)| (i, *g)).collect();
        let merged = merge(selecting.iter().map(|(_, g)| *g), &|port| port);
        for server in merged.ports.iter().flat_map(|p| &p.servers) {
            let at = selecting.iter().find(|(_, g)| Arc::ptr_eq(g, &server.gateway)).map(|(i, _)| *i);
            served.extend(at.map(|i| (i, server.index)));
        }
    }
    for (at, gateway) in gateways.iter().enumerate() {
        let object = id(Kind::Gateway, &gateway.meta);
        let selected: Vec<&(&Str, &Labels)> = routers.iter().filter(|(_, labels)| selects(&gateway.selector, labels)).collect();
        if selected.is_empty() {
            if !gateway.selector.is_empty() {
                let message = format!("has no effect: no workload has the labels {}", shown(&gateway.selector));
                report.warn(&object, "spec.selector", message);
            }
            continue;
        }
        let namespaces: BTreeSet<&Str> = selected.iter().map(|(ns, _)| *ns).collect();
        for (index, server) in gateway.servers.iter().enumerate() {
            if !served.contains(&(at, index)) {
                let message =
                    format!("is not served: an older server of port {} has another protocol, or one of these server names", server.port);
                report.warn(&object, format!("spec.servers[{index}]"), message);
            }
            if !is_http(server) && !is_auto_passthrough(server) && !is_routed(world, gateway, server) {
                let message = "has no effect: no VirtualService of this Gateway has rules for its connections";
                report.warn(&object, format!("spec.servers[{index}]"), message);
            }
            let names = server.tls.iter().flat_map(|t| &t.credential_names).filter(|name| !name.is_empty() && !name.contains("://"));
            for name in names.filter(|_| !is_passthrough(server)) {
                let secret = |ns: &Str| mesh.secrets.get(&ObjectKey { namespace: ns.clone(), name: name.clone() });
                let field = || format!("spec.servers[{index}].tls.credentialName");
                for namespace in namespaces.iter() {
                    match secret(namespace) {
                        None => report.warn(&object, field(), format!("namespace {namespace} of its workloads has no Secret {name:?}")),
                        Some(secret) => {
                            if let Some(mistake) = secret.mistake {
                                report.warn(&object, field(), format!("Secret {namespace}/{name} is not served: {mistake}"));
                            }
                        }
                    }
                }
            }
        }
    }
    twice(&gateways, report);
}

fn is_auto_passthrough(server: &GatewayServer) -> bool {
    server.tls.as_ref().is_some_and(|t| t.mode == ServerTlsMode::AutoPassthrough)
}

/// Whether bytes that come in lead anywhere.
fn is_routed(world: &World, gateway: &Gateway, server: &GatewayServer) -> bool {
    let at = GatewayRef::Gateway { namespace: gateway.meta.namespace.clone(), name: gateway.meta.name.clone() };
    let has_rules = |v: &VirtualService| if is_passthrough(server) { !v.tls.is_empty() } else { !v.tcp.is_empty() };
    world.mesh.virtual_services.values().any(|v| v.gateways.contains(&at) && serves(server, v) && has_rules(v))
}

/// A Gateway that says what an older one says.
fn twice(gateways: &[&Arc<Gateway>], report: &mut Report) {
    for (i, gateway) in gateways.iter().enumerate() {
        let same = |g: &&&Arc<Gateway>| g.selector == gateway.selector && g.servers == gateway.servers;
        if let Some(older) = gateways[..i].iter().find(same) {
            report.warn(&id(Kind::Gateway, &gateway.meta), "", format!("says what the older {} says", full_name(&older.meta)));
        }
    }
}
