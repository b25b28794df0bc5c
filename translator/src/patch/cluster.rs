//! Patches of clusters.

use pilotfish_envoy::merge::{Lists, MergeError};
use pilotfish_envoy::pb::envoy::config::cluster::v3::{Cluster, cluster::TransportSocketMatch};
use pilotfish_envoy::pb::envoy::config::core::v3::{TransportSocket, transport_socket::ConfigType};
use pilotfish_model::envoy_filter::{ApplyTo, ClusterMatch, Matching, Operation};
use prost::Message;
use prost_types::value::Kind;

use super::compile::Ready;
use super::merge;
use super::run::Run;

/// Merges and removals.
pub(super) fn patch(run: &Run<'_>, mut cluster: Cluster) -> Option<Cluster> {
    for (at, ready) in run.of_kind(ApplyTo::Cluster) {
        if !fits(ready, &cluster.name) || !is_for_services(ready, &cluster) {
            continue;
        }
        if ready.patch.operation == Operation::Remove {
            run.applied(at);
            return None;
        }
        if let Some(lists) = merge::lists(ready.patch.operation) {
            run.note(at, merged(&mut cluster, ready, lists));
        }
    }
    Some(cluster)
}

fn merged(cluster: &mut Cluster, ready: &Ready, lists: Lists) -> Result<(), MergeError> {
    let Some(socket) = ready.value::<Cluster>().transport_socket else { return merge::into(cluster, ready, lists) };
    // A transport socket is all that such a patch is about.
    let known = match cluster.transport_socket_matches.is_empty() {
        true => cluster.transport_socket.as_mut(),
        // Beside a choice there is no other: the patch goes into the first of its name.
        false => {
            for choice in &mut cluster.transport_socket_matches {
                // Ours, so it decodes.
                let mut matching = TransportSocketMatch::decode(choice.clone()).unwrap_or_default();
                let Some(found) = matching.transport_socket.as_mut().filter(|s| s.name == socket.name) else { continue };
                merged_socket(found, &socket, lists)?;
                *choice = matching.encode_to_vec().into();
                break;
            }
            return Ok(());
        }
    };
    match known.filter(|s| s.name == socket.name) {
        Some(found) => merged_socket(found, &socket, lists),
        None => {
            cluster.transport_socket = Some(socket);
            Ok(())
        }
    }
}

/// Merges the config of a transport socket into one of the same name.
pub(super) fn merged_socket(target: &mut TransportSocket, patch: &TransportSocket, lists: Lists) -> Result<(), MergeError> {
    match (&mut target.config_type, &patch.config_type) {
        (Some(ConfigType::TypedConfig(target)), Some(ConfigType::TypedConfig(patch))) => merge::config(target, patch, lists),
        _ => Ok(()),
    }
}

/// What the name of a cluster says.
struct Parts<'a> {
    inbound: bool,
    port: u32,
    subset: &'a str,
    host: &'a str,
}

impl<'a> Parts<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let by_sni = name.starts_with("outbound_.") || name.starts_with("inbound_.");
        let mut parts = name.splitn(4, if by_sni { "_." } else { "|" });
        let (direction, port, subset, host) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(Parts { inbound: direction == "inbound", port: port.parse().ok()?, subset, host })
    }
}

/// The port that the name of an inbound cluster says.
pub(super) fn inbound_port(name: &str) -> Option<u32> {
    Parts::of(name).filter(|p| p.inbound).map(|p| p.port)
}

/// Whether a patch may be of a cluster of that name. The services of inbound clusters are not in their names.
pub(super) fn fits(ready: &Ready, name: &str) -> bool {
    let Some(Matching::Cluster(ClusterMatch { port, service, subset, name: wanted })) = &ready.patch.matching else { return true };
    if !wanted.is_empty() {
        return **wanted == *name;
    }
    let Parts { inbound, port: own_port, subset: own_subset, host } =
        Parts::of(name).unwrap_or(Parts { inbound: false, port: 0, subset: "", host: "" });
    (subset.is_empty() || **subset == *own_subset)
        && (*port == 0 || *port == own_port)
        && (service.is_empty() || inbound || **service == *host)
}

fn is_for_services(ready: &Ready, cluster: &Cluster) -> bool {
    match &ready.patch.matching {
        Some(Matching::Cluster(m)) if m.name.is_empty() && !m.service.is_empty() && inbound_port(&cluster.name).is_some() => {
            serves(cluster, &m.service)
        }
        _ => true,
    }
}

/// Whether a host is among those of the services behind a cluster, as its metadata list them for telemetry.
fn serves(cluster: &Cluster, host: &str) -> bool {
    let fields = cluster.metadata.as_ref().and_then(|m| m.filters().remove("istio"));
    let services = fields.and_then(|mut s| s.fields.remove("services")?.kind);
    let Some(Kind::ListValue(services)) = services else { return false };
    services.values.iter().any(|service| match &service.kind {
        Some(Kind::StructValue(s)) => matches!(s.fields.get("host").map(|h| &h.kind), Some(Some(Kind::StringValue(h))) if h == host),
        _ => false,
    })
}
