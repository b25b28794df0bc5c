//! What a view was made of beside its scope, and what of all differs in another world.

use std::collections::BTreeSet;
use std::sync::Arc;

use pilotfish_model::endpoint::Endpoint;
use pilotfish_model::mesh::ServiceKey;
use pilotfish_model::name::Str;
use pilotfish_model::peer_authentication::PeerAuthentication;
use pilotfish_model::{ContentHash, Extension, Mesh, Resolution, Telemetry};

use super::View;
use crate::context::Context;
use crate::gateway::{self, MergedGateways, Reached};
use crate::listener::{extension, telemetry};
use crate::policy::Found;
use crate::scope::EgressScope;
use crate::security::Security;
use crate::world::Aliases;

/// What of a world a view was made of beside its scope.
pub(crate) struct Inputs {
    pub(super) config: ContentHash,
    pub(crate) aliases: Arc<Aliases>,
    accounts: imbl::OrdMap<ServiceKey, Arc<[Str]>>,
    pub(crate) gateways: MergedGateways,
    /// Services that the gateway leads to, where it gets clusters of these alone.
    pub(super) reached: Option<Reached>,
    /// Namespaces of the services, sorted.
    pub(crate) namespaces: Arc<[Str]>,
    /// PeerAuthentications of these namespaces and of the root: endpoints are of their service's namespace.
    peers: Vec<Arc<PeerAuthentication>>,
    /// Telemetry objects that apply, in order.
    pub(crate) telemetries: Vec<Arc<Telemetry>>,
    /// WasmPlugins and TrafficExtensions that apply, in order.
    pub(crate) extensions: Vec<Arc<Extension>>,
    /// Endpoints that more than assignments depend on, by service.
    live: Vec<Live>,
    /// Policies of a gateway; those of sidecars are part of what each class has for itself.
    pub(crate) security: Option<Arc<Security>>,
}

/// A service of the scope, and its endpoints.
type Live = (usize, Option<Arc<Vec<Endpoint>>>);

/// What differs from the view before.
pub(super) struct Difference {
    pub(super) scope: bool,
    pub(super) found: bool,
    /// The rules for some service differ, and one of them chooses hosts by what requests say.
    pub(super) hashes: bool,
    pub(super) services: bool,
    pub(super) units: bool,
    pub(super) live: bool,
    pub(super) gateways: bool,
    pub(super) sidecar: bool,
    pub(super) l4_rules: bool,
    pub(super) rules: bool,
    /// DestinationRules differ, or which of several services of a host is meant.
    pub(super) destinations: bool,
    pub(super) aliases: bool,
    /// What is observed, or which code of users runs.
    pub(super) telemetry: bool,
    pub(super) security: bool,
}

impl Inputs {
    pub(super) fn of(context: &Context<'_>, same_services: Option<&View>) -> Self {
        let namespaces = match same_services {
            Some(view) => view.inputs.namespaces.clone(),
            None => {
                let all: BTreeSet<&Str> = context.scope.services.iter().map(|s| &s.namespace).collect();
                all.into_iter().cloned().collect()
            }
        };
        let root = &context.config().root_namespace;
        let peers = match context.mesh.peer_authentications.is_empty() {
            true => Vec::new(),
            false => {
                let near = namespaces.iter().filter(|ns| *ns != root).chain(std::iter::once(root));
                near.flat_map(|ns| Mesh::in_namespace(&context.mesh.peer_authentications, ns)).cloned().collect()
            }
        };
        let live = context
            .scope
            .services
            .iter()
            .enumerate()
            .filter(|(_, s)| matches!(s.resolution, Resolution::Passthrough | Resolution::Dns | Resolution::DnsRoundRobin));
        let security = security(context, same_services);
        Inputs {
            reached: Reached::of(context, security.as_ref()),
            config: context.world.config,
            aliases: context.world.aliases.clone(),
            accounts: context.world.accounts.clone(),
            gateways: gateway::merged(context),
            namespaces,
            peers,
            telemetries: telemetry::applicable(context.mesh, &context.class.namespace, &context.class.labels),
            extensions: extension::applicable(context.mesh, &context.class.namespace, &context.class.labels),
            security,
            live: live.map(|(i, s)| (i, context.mesh.endpoints.get(&ServiceKey::of(s)).cloned())).collect(),
        }
    }
}

impl Difference {
    pub(super) fn of(before: &View, context: &Context<'_>, inputs: &Inputs) -> Self {
        let (old, scope) = (&before.scope, context.scope);
        let pairs = || old.egress.iter().zip(&scope.egress);
        let same_shape = old.egress.len() == scope.egress.len() && pairs().all(|(a, b)| a.listener == b.listener);
        let same_rules = |a: &EgressScope, b: &EgressScope| Arc::ptr_eq(&a.virtual_services, &b.virtual_services);
        let l4 = |e: &EgressScope, other: &EgressScope| -> bool {
            e.virtual_services.iter().any(|v| v.is_l4() && !other.virtual_services.iter().any(|o| Arc::ptr_eq(o, v)))
        };
        let rules = !same_shape || !pairs().all(|(a, b)| same_rules(a, b));
        let services =
            !same_shape || !Arc::ptr_eq(&old.services, &scope.services) || !pairs().all(|(a, b)| Arc::ptr_eq(&a.services, &b.services));
        // Where hosts have several services, rules of others than the chosen one are looked up as well.
        let shadowed = !context.world.hosts_are_unique() && !old.rules.is_same(&scope.rules);
        let found = !Arc::ptr_eq(&old.found, &scope.found) || shadowed;
        let same_live = |(a, b): (&Live, &Live)| match (&a.1, &b.1) {
            (Some(x), Some(y)) => Arc::ptr_eq(x, y),
            (x, y) => x.is_none() && y.is_none(),
        };
        let live = before.inputs.live.len() != inputs.live.len() || !before.inputs.live.iter().zip(&inputs.live).all(same_live);
        let peers = before.inputs.peers != inputs.peers;
        let gateways = before.inputs.gateways != inputs.gateways || before.inputs.reached != inputs.reached;
        let security = before.inputs.security != inputs.security;
        Difference {
            scope: services || rules,
            found,
            hashes: found && (shadowed || services || hashes_differ(&old.found, &scope.found)),
            services,
            units: services || found || live || gateways || peers || !before.inputs.accounts.ptr_eq(&inputs.accounts),
            live,
            gateways,
            sidecar: old.sidecar != scope.sidecar,
            l4_rules: rules && (!same_shape || pairs().any(|(a, b)| !same_rules(a, b) && (l4(a, b) || l4(b, a)))),
            rules,
            destinations: shadowed || !old.rules.is_same(&scope.rules),
            aliases: !Arc::ptr_eq(&before.inputs.aliases, &inputs.aliases)
                && scope.services.iter().any(|s| before.inputs.aliases.of(&s.host) != inputs.aliases.of(&s.host)),
            telemetry: before.inputs.telemetries != inputs.telemetries || before.inputs.extensions != inputs.extensions,
            security,
        }
    }

    /// Nothing differs.
    pub(super) fn is_none(&self) -> bool {
        let Difference {
            scope,
            found,
            hashes: _,
            destinations: _,
            services,
            units,
            live,
            gateways,
            sidecar,
            l4_rules,
            rules,
            aliases,
            telemetry,
            security,
        } = self;
        ![scope, found, services, units, live, gateways, sidecar, l4_rules, rules, aliases, telemetry, security].into_iter().any(|d| *d)
    }

    /// Listeners depend on what differs.
    pub(super) fn listeners(&self, gateway: bool) -> bool {
        let objects = self.services || self.found || self.live || self.gateways || self.sidecar || self.l4_rules;
        objects || self.telemetry || self.security || self.aliases || (gateway && self.rules)
    }

    /// Routes do.
    pub(super) fn routes(&self) -> bool {
        self.rules || self.routes_but_rules()
    }

    /// They do, on more than services.
    pub(super) fn routes_but_services(&self) -> bool {
        self.rules || self.destinations || self.gateways || self.sidecar || self.aliases
    }

    /// They do, on more than the rules inside VirtualServices.
    pub(super) fn routes_but_rules(&self) -> bool {
        self.services || self.hashes || self.gateways || self.sidecar || self.aliases
    }
}

/// What holds at a gateway.
fn security(context: &Context<'_>, before: Option<&View>) -> Option<Arc<Security>> {
    let class = context.class;
    if !class.is_router() {
        return None;
    }
    let security = Security::of(context.world, &class.namespace, &class.labels, true);
    match before {
        Some(b) if b.inputs.security == security => b.inputs.security.clone(),
        _ => security,
    }
}

/// Of the rules for the same services: whether one that differs hashes requests, before or now.
fn hashes_differ(before: &[Found], now: &[Found]) -> bool {
    let hashes = |f: &Found| f.rule.as_ref().is_some_and(|r| r.hashes_requests());
    before.len() != now.len() || before.iter().zip(now).any(|(a, b)| a.rule != b.rule && (hashes(a) || hashes(b)))
}
