//! Corners where objects meet: what a proxy gets of a small mesh.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "corners/gateways.rs"]
mod gateways;
#[path = "corners/seen.rs"]
mod seen;
#[path = "corners/services.rs"]
mod services;
#[path = "corners/sidecars.rs"]
mod sidecars;
