//! What users read on their objects: whether they were understood, and whether proxies took them.
//!
//! ```text
//! Snapshot (what the API server has: Observed; diagnostics) ─┐
//! Reports (what proxies confirmed or refused) ───────────────┼─> Writer ─> read, merge, apply, one object at a time
//! Allocator (addresses of ServiceEntries) ───────────────────┘   (when, whether)
//! ```
//!
//! A consumer at the end: nothing here reaches back. [`Writer`] is pure and decides what is written and when; [`Task`] does it
//! while this replica leads. Conditions of other types, and all other fields, belong to others: the list of conditions cannot
//! be merged by the server (in Istio's definitions it is one value), so it is read, merged and applied with the version that
//! was read, under the field manager `pilotfish`. Whoever came in between wins, and the merge is done again.
//!
//! Nothing is read until a write is wanted: of each object the watch leaves an [`Observed`], a few hashes that tell whether
//! what it has is what it should have. A writer that reverts shows there, too.

mod condition;
mod desired;
mod report;
mod task;
mod writer;

use pilotfish_model::Kind;

pub use condition::{Condition, Observed, State, Type};
pub use desired::Desired;
pub use report::{Applied, Reports};
pub use task::{Between, Options, Task};
pub use writer::{Counts, Limits, Outcome, Plan, Writer};

/// Kinds whose objects get conditions: those that are translated.
pub const WRITTEN: &[Kind] = &[
    Kind::DestinationRule,
    Kind::Gateway,
    Kind::ServiceEntry,
    Kind::Sidecar,
    Kind::VirtualService,
    Kind::WorkloadEntry,
    Kind::EnvoyFilter,
    Kind::PeerAuthentication,
    Kind::RequestAuthentication,
    Kind::AuthorizationPolicy,
    Kind::Telemetry,
    Kind::WasmPlugin,
    Kind::TrafficExtension,
];

/// Under which name fields are owned.
pub const FIELD_MANAGER: &str = "pilotfish";

#[cfg(test)]
mod tests;
