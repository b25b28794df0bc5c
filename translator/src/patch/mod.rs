//! EnvoyFilter: patches of finished resources.
//!
//! ```text
//!  compile.rs   objects -> Ready patches, once per object (World)
//!  set.rs       which of them a scope gets, in order: Patches; none for most scopes, which then pay nothing
//!  layers.rs    layers of resources -> patched layers: each resource once, kept by its content and that of the patches
//!  run.rs       one resource: all its patches, and without those that would break it
//!  cluster.rs, listener.rs, routes.rs   what they do to it; list.rs, filter.rs, merge.rs its parts
//!  sound.rs     what a client would refuse
//! ```
//!
//! Views and owns are built as if there were no patches; what is built stays theirs, so that an increment starts from it. What
//! proxies get is made of that here. A patch that cannot be applied leaves the resource as if it were not there.

mod cluster;
mod compile;
mod extension;
mod filter;
mod layers;
mod list;
mod listener;
mod merge;
mod report;
mod routes;
mod run;
mod set;
mod sound;
#[cfg(test)]
mod tests;

pub(crate) use compile::PatchIndex;
pub(crate) use layers::{Outcome, Patched, Place};
pub use report::{Applied, diagnostics};
pub(crate) use set::{Patches, port_names};
