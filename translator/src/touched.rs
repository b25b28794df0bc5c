//! Whether a change concerns what was made before. Asked for every scope and every change, so it looks up names and makes
//! nothing. It may say yes too often: what is then looked up again comes out the same.
//!
//! Two questions decide: is what changed in the lists that were recorded, and would it be in them now? What was neither
//! seen nor is seen cannot matter, whichever world the change belongs to.

use std::sync::Arc;

use pilotfish_model::attachment::Attached;
use pilotfish_model::mesh::{ObjectKey, ServiceKey};
use pilotfish_model::name::{Host, selects};
use pilotfish_model::{ChangeSet, Kind, ObjectId, Service};

use crate::facts::ScopeFacts;
use crate::own::Own;
use crate::patch::Patches;
use crate::policy::Found;
use crate::scope::{sees_routes, sees_service, sidecar_for};
use crate::security::Security;
use crate::view::View;
use crate::world::World;

impl View {
    /// Whether anything but assignments may differ after `changes`, which `world` (at least) contains.
    pub fn touched_by(&self, world: &World, changes: &ChangeSet) -> bool {
        changes.everything
            || changes.services.iter().any(|key| self.touched_by_service(world, key))
            || changes.objects.iter().any(|id| self.touched_by_object(world, id))
    }

    fn facts(&self) -> &ScopeFacts {
        self.class.facts()
    }

    fn touched_by_service(&self, world: &World, key: &ServiceKey) -> bool {
        // Services of one host stand in for each other.
        let seen = |host: &Host| self.scope.index(host).is_some() || self.scope.outside.binary_search(host).is_ok();
        let asked = || self.inputs.security.as_ref().is_some_and(|s| s.asks_for(&key.host));
        if seen(&key.host) || asked() || self.facts().targets().iter().any(|t| t.service == *key) {
            return true;
        }
        let (old, new) = (&self.inputs.aliases, &world.aliases);
        let renamed = !Arc::ptr_eq(old, new) && [old, new].into_iter().filter_map(|a| a.end(&key.host)).any(seen);
        let now = world.mesh.services.get(key);
        renamed || now.is_some_and(|service| sees_service(self.facts(), self.scope.sidecar.as_deref(), service))
    }

    fn touched_by_object(&self, world: &World, id: &ObjectId) -> bool {
        let root = &world.mesh.config.root_namespace;
        match id.kind {
            Kind::VirtualService => self.touched_by_routes(world, id),
            Kind::DestinationRule => self.touched_by_rule(world, id),
            Kind::Sidecar if self.facts().is_sidecar() => {
                let old = self.scope.sidecar.as_ref();
                let near = id.namespace == self.facts().namespace || id.namespace == *root;
                old.is_some_and(|s| s.meta.is(id)) || (near && sidecar_for(&world.mesh, self.facts()).as_ref() != old)
            }
            Kind::Gateway if self.facts().is_router() => {
                let servers = self.inputs.gateways.ports.iter().flat_map(|p| &p.servers);
                let now = world.mesh.gateways.get(&ObjectKey::of(id));
                now.is_some_and(|g| selects(&g.selector, &self.facts().labels)) || servers.into_iter().any(|s| s.gateway.meta.is(id))
            }
            Kind::EnvoyFilter => {
                let near = id.namespace == self.facts().namespace || id.namespace == *root;
                near && Patches::of(world, self.facts()) != self.patches
            }
            Kind::PeerAuthentication => id.namespace == *root || self.inputs.namespaces.binary_search(&id.namespace).is_ok(),
            Kind::Telemetry => {
                let now = world.mesh.telemetries.get(&ObjectKey::of(id));
                self.is_near(world, id) && (now.is_some_and(|o| self.covers(&**o)) || self.inputs.telemetries.iter().any(|o| o.meta.is(id)))
            }
            Kind::WasmPlugin | Kind::TrafficExtension => {
                let all = if id.kind == Kind::WasmPlugin { &world.mesh.wasm_plugins } else { &world.mesh.traffic_extensions };
                let now = all.get(&ObjectKey::of(id));
                let then = || self.inputs.extensions.iter().any(|o| o.kind == id.kind && o.meta.is(id));
                self.is_near(world, id) && (now.is_some_and(|o| self.covers(&**o)) || then())
            }
            Kind::AuthorizationPolicy | Kind::RequestAuthentication if self.facts().is_router() => {
                Security::is_touched(self.inputs.security.as_ref(), world, id, &self.facts().namespace, &self.facts().labels)
            }
            _ => false,
        }
    }

    /// Objects of that namespace may be for its workloads.
    fn is_near(&self, world: &World, id: &ObjectId) -> bool {
        id.namespace == self.facts().namespace || id.namespace == world.mesh.config.root_namespace
    }

    fn covers(&self, object: &impl Attached) -> bool {
        object.attachment().covers(&self.facts().labels)
    }

    fn touched_by_routes(&self, world: &World, id: &ObjectId) -> bool {
        let key = ObjectKey::of(id);
        let now = world.routes.get(&key);
        if now.is_some_and(|r| sees_routes(world, self.facts(), self.scope.sidecar.as_deref(), r)) {
            return true;
        }
        let mut seen = self.scope.egress.iter().flat_map(|e| &*e.virtual_services);
        seen.any(|r| r.meta.is(id) || r.delegates.contains(&key))
    }

    fn touched_by_rule(&self, world: &World, id: &ObjectId) -> bool {
        if self.scope.found.iter().any(|f| names(f, id)) {
            return true;
        }
        let Some(now) = world.mesh.destination_rules.get(&ObjectKey::of(id)) else { return !world.hosts_are_unique() };
        let wide = !world.hosts_are_unique() || concerns_all(world, self.facts(), id);
        let concerned = |service: &Service| now.host.covers(&service.host) && (wide || service.namespace == id.namespace);
        match now.host.is_wildcard() {
            true => self.scope.services.iter().any(|s| concerned(s)),
            false => self.scope.service(&now.host).is_some_and(|s| concerned(s)),
        }
    }
}

impl Own {
    /// Whether anything of it may differ after `changes`, beside what a newer view brings.
    pub fn touched_by(&self, world: &World, changes: &ChangeSet) -> bool {
        let facts = self.class.facts();
        let (scope, own) = (facts.scope.facts(), &facts.own);
        let first = own.targets.first().filter(|_| scope.settings.self_discovery);
        let by_object = |id: &ObjectId| match id.kind {
            Kind::PeerAuthentication => id.namespace == scope.namespace || id.namespace == world.mesh.config.root_namespace,
            Kind::DestinationRule => self.touched_by_rule(world, id),
            Kind::AuthorizationPolicy | Kind::RequestAuthentication => {
                !scope.is_router() && Security::is_touched(self.security.as_ref(), world, id, &scope.namespace, &own.labels)
            }
            _ => false,
        };
        let asked = |host: &Host| self.security.as_ref().is_some_and(|s| s.asks_for(host));
        changes.everything
            || first.is_some_and(|t| changes.endpoints.contains_key(&t.service))
            || own.targets.iter().any(|t| changes.services.contains(&t.service))
            || (self.security.is_some() && changes.services.iter().any(|s| asked(&s.host)))
            || changes.objects.iter().any(by_object)
    }

    fn touched_by_rule(&self, world: &World, id: &ObjectId) -> bool {
        let facts = self.class.facts();
        let now = world.mesh.destination_rules.get(&ObjectKey::of(id));
        let wide = concerns_all(world, facts.scope.facts(), id);
        self.found.iter().any(|f| names(f, id))
            || now.is_some_and(|rule| {
                let mut targets = facts.own.targets.iter().map(|t| &t.service);
                targets.any(|t| rule.host.covers(&t.host) && (wide || t.namespace == id.namespace))
            })
    }
}

/// Whether a rule was chosen, or chosen from.
fn names(found: &Found, id: &ObjectId) -> bool {
    found.from.iter().flat_map(|twins| &**twins).flat_map(|r| &r.sources).any(|s| s == id)
}

/// Whether clients look for rules of that namespace, whoever the service belongs to.
fn concerns_all(world: &World, class: &ScopeFacts, id: &ObjectId) -> bool {
    id.namespace == class.namespace || id.namespace == world.mesh.config.root_namespace
}
