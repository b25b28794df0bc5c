//! What generators work from: the mesh as one scope sees it ([`Context`]), as one class serves it ([`OwnContext`]), and
//! what both have in common ([`Common`]).

use std::sync::Arc;

use pilotfish_model::sidecar::Sidecar;
use pilotfish_model::{Mesh, MeshConfig, Service};

use crate::facts::{OwnFacts, ScopeFacts, UnitFacts};
use crate::policy::MergedRule;
use crate::scope::Scope;
use crate::world::World;

/// For outbound and gateway resources.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The world.
    pub world: &'a World,
    /// Its mesh.
    pub mesh: &'a Mesh,
    /// The client.
    pub class: &'a ScopeFacts,
    /// What it sees.
    pub scope: &'a Scope,
}

/// For what a class serves.
#[derive(Clone, Copy)]
pub struct OwnContext<'a> {
    /// The world.
    pub world: &'a World,
    /// Its mesh.
    pub mesh: &'a Mesh,
    /// What the class shares with others.
    pub class: &'a ScopeFacts,
    /// What it does not.
    pub own: &'a OwnFacts,
    /// Its Sidecar, if one applies.
    pub sidecar: Option<&'a Arc<Sidecar>>,
}

/// For the leaf inputs of both.
#[derive(Clone, Copy)]
pub struct Common<'a> {
    /// Mesh settings.
    pub config: &'a MeshConfig,
    /// The client.
    pub class: &'a UnitFacts,
}

impl<'a> Context<'a> {
    /// Of a scope that was computed in this world.
    pub fn new(world: &'a World, class: &'a ScopeFacts, scope: &'a Scope) -> Self {
        Context { world, mesh: &world.mesh, class, scope }
    }

    /// Mesh settings.
    pub fn config(&self) -> &'a MeshConfig {
        &self.mesh.config
    }

    /// The DestinationRules that apply to a service, merged; `None` if there is none.
    pub fn rule(&self, service: &Service) -> Option<Arc<MergedRule>> {
        self.scope.rule(self.world, self.class, service)
    }

    /// What leaf inputs need.
    pub fn common(&self) -> Common<'a> {
        Common { config: &self.mesh.config, class: &self.class.unit }
    }
}

impl<'a> OwnContext<'a> {
    /// Mesh settings.
    pub fn config(&self) -> &'a MeshConfig {
        &self.mesh.config
    }

    /// What leaf inputs need.
    pub fn common(&self) -> Common<'a> {
        Common { config: &self.mesh.config, class: &self.class.unit }
    }
}
