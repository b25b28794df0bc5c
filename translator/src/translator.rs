//! [`Translator`]: the entry. Its only state is what was encoded.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_model::mesh::ServiceKey;
use pilotfish_model::{ChangeSet, EndpointChange, Proxy};

use crate::class::{ProxyClass, ScopeClass};
use crate::endpoints::Endpoints;
use crate::leaf::Leaves;
use crate::own::Own;
use crate::view::View;
use crate::work::Work;
use crate::world::World;

/// See the crate.
#[derive(Default)]
pub struct Translator {
    leaves: Leaves,
}

impl Translator {
    /// One that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything about a proxy that its output depends on, resolved against the mesh (labels and services of its workload).
    pub fn classify(&self, world: &World, proxy: &Proxy) -> ProxyClass {
        ProxyClass::of(&self.leaves, world, proxy)
    }

    /// Everything that a scope sees but endpoint assignments. `before`: an earlier view of the same scope, and what
    /// changed since (at least; the world may be newer). The same view if nothing of it differs.
    pub fn view(&self, world: &World, scope: &ScopeClass, before: Option<(&Arc<View>, &ChangeSet)>) -> Arc<View> {
        View::make(&self.leaves, world, scope, before.map(|(view, _)| view))
    }

    /// The assignments of a view. With `before` of the very same view and `changed`, only these services are looked at;
    /// else all are compared with `before` by pointer.
    pub fn endpoints(
        &self,
        world: &World,
        view: &Arc<View>,
        before: Option<&Arc<Endpoints>>,
        changed: Option<&BTreeMap<ServiceKey, EndpointChange>>,
    ) -> Arc<Endpoints> {
        Endpoints::make(&self.leaves, world, view, before, changed)
    }

    /// What only this class gets. To be asked for again when its view is another, and when [`Own::touched_by`] says so.
    pub fn own(&self, world: &World, class: &ProxyClass, view: &Arc<View>, before: Option<(&Arc<Own>, &ChangeSet)>) -> Arc<Own> {
        Own::make(&self.leaves, world, class, view, before)
    }

    /// What was done so far.
    pub fn work(&self) -> Work {
        self.leaves.work.read()
    }
}
