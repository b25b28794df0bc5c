//! Whether a change concerns what was made before. Asked for every scope and every change, so it looks at names only, and
//! may say yes too often: what is then computed is the same.

use pilotfish_model::ChangeSet;

use crate::own::Own;
use crate::view::View;
use crate::world::World;

impl View {
    /// Whether anything but assignments may differ after `changes`, which `world` (at least) contains.
    pub fn touched_by(&self, _world: &World, changes: &ChangeSet) -> bool {
        !changes.is_endpoints_only()
    }
}

impl Own {
    /// Whether anything of it may differ after `changes`, beside what a newer view brings.
    pub fn touched_by(&self, _world: &World, changes: &ChangeSet) -> bool {
        let first = self.class.facts().own.targets.first();
        !changes.is_endpoints_only() || first.is_some_and(|t| changes.endpoints.contains_key(&t.service))
    }
}
