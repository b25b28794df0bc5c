//! Other names of services: ExternalName Services that point at them, through others as well.

use std::collections::HashMap;

use pilotfish_model::mesh::ServiceKey;
use pilotfish_model::name::Host;
use pilotfish_model::{Mesh, Resolution};

/// Aliases by service, and the other way round.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    by_service: HashMap<Host, Vec<Host>>,
    /// The service at the end; `None`: a circle.
    ends: HashMap<Host, Option<Host>>,
}

impl Aliases {
    pub(super) fn new(mesh: &Mesh) -> Self {
        let pairs = mesh.services.values().filter(|s| s.resolution == Resolution::Alias);
        let targets: HashMap<&Host, &Host> = pairs.filter_map(|s| Some((&s.host, s.external_name.as_ref()?))).collect();
        let mut aliases = Aliases::default();
        for (alias, target) in &targets {
            let mut last = *target;
            // A chain is at most as long as there are aliases, else it is a circle.
            for _ in 0..targets.len() {
                last = targets.get(last).copied().unwrap_or(last);
            }
            let end = (!targets.contains_key(last)).then(|| last.clone());
            if let Some(end) = &end {
                aliases.by_service.entry(end.clone()).or_default().push((*alias).clone());
            }
            aliases.ends.insert((*alias).clone(), end);
        }
        aliases.by_service.values_mut().for_each(|names| names.sort());
        aliases
    }

    /// Other names of a service, sorted.
    pub fn of(&self, host: &Host) -> &[Host] {
        self.by_service.get(host).map_or(&[], Vec::as_slice)
    }

    /// The service that an alias stands for in the end.
    pub fn end(&self, alias: &Host) -> Option<&Host> {
        self.ends.get(alias)?.as_ref()
    }

    /// Whether a service is an alias here.
    pub fn concerns(&self, service: &ServiceKey) -> bool {
        self.ends.contains_key(&service.host)
    }
}
