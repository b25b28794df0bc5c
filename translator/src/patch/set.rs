//! [`Patches`]: what one scope gets, in the order in which it is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilotfish_model::ContentHash;
use pilotfish_model::envoy_filter::{ApplyTo, PatchContext};
use pilotfish_model::proxy::Flavour;

use super::compile::Ready;
use crate::attach::attached;
use crate::facts::ScopeFacts;
use crate::gateway::{MergedGateways, RouteServers};
use crate::world::World;

/// See the module. Of a scope for which some patch is meant, if only by the labels of its workloads.
pub(crate) struct Patches {
    pub(super) list: Vec<Arc<Ready>>,
    /// Those that are for proxies with other metadata.
    pub(super) others: Vec<Arc<Ready>>,
    /// Those that need an extension that the client does not have.
    pub(super) lacking: Vec<Arc<Ready>>,
    /// What Envoy would refuse beyond the rules of its protos is looked for as well.
    pub(super) strict: bool,
    /// Of all of it.
    pub(super) hash: ContentHash,
}

impl PartialEq for Patches {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

/// Ports of gateway servers by the port in the name of their route configuration.
pub(crate) type PortNames = BTreeMap<u16, BTreeSet<u16>>;

impl Patches {
    /// `None`: nothing is patched.
    pub(crate) fn of(world: &World, facts: &ScopeFacts) -> Option<Arc<Patches>> {
        if world.patches.filters.is_empty() || facts.flavour == Flavour::Grpc {
            return None;
        }
        let root = &world.mesh.config.root_namespace;
        let mut filters = attached(&world.patches.filters, root, &facts.namespace, &facts.labels);
        filters.sort_by_cached_key(|f| {
            let meta = &f.object.meta;
            (f.object.priority, meta.namespace != *root, meta.created, format!("{}.{}", meta.name, meta.namespace))
        });
        let (wanted, others): (Vec<Arc<Ready>>, _) = filters.iter().flat_map(|f| &f.patches).cloned().partition(|p| p.is_for(&facts.texts));
        if wanted.is_empty() && others.is_empty() {
            return None;
        }
        let can = |p: &Arc<Ready>| p.extension.as_ref().is_none_or(|e| facts.has_extension(e));
        let (list, lacking): (Vec<Arc<Ready>>, Vec<Arc<Ready>>) = wanted.into_iter().partition(can);
        let strict = !facts.is_istio();
        let hashes = |of: &[Arc<Ready>]| of.iter().map(|p| p.hash).collect::<Vec<_>>();
        let hash = ContentHash::of(&(strict, hashes(&list), hashes(&lacking), hashes(&others)));
        Some(Arc::new(Patches { list, others, lacking, strict, hash }))
    }

    /// Patches of one thing in a context, with their places in the list.
    pub(super) fn of_kind(&self, apply_to: ApplyTo, context: PatchContext) -> impl Iterator<Item = (usize, &Ready)> {
        self.list
            .iter()
            .enumerate()
            .filter(move |(_, p)| p.patch.apply_to == apply_to && p.patch.context.is_none_or(|c| c == context))
            .map(|(i, p)| (i, &**p))
    }

    /// Some patch is of one of these things.
    pub(super) fn has(&self, kinds: &[ApplyTo]) -> bool {
        self.list.iter().any(|p| kinds.contains(&p.patch.apply_to))
    }
}

/// By which ports the route configurations of a gateway are found.
pub(crate) fn port_names(gateways: &MergedGateways) -> PortNames {
    let mut names = PortNames::new();
    for (name, RouteServers { servers, .. }) in gateways.by_route_name() {
        if let Some(port) = super::routes::GatewayRoute::parse(&name).map(|r| r.port) {
            names.entry(port).or_default().extend(servers.iter().map(|s| s.server().port));
        }
    }
    names
}
