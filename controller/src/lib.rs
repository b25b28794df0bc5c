//! Sources of configuration, and the synchronous index that joins them into a mesh.
//!
//! ```text
//! files, Kubernetes API -> Object -> convert -> Fact -> Index (joins) -> (Mesh, ChangeSet)
//! ```
//!
//! A source only reads; [`convert`] only understands one object at a time; [`Index`] only joins, knows no client and does
//! no I/O. Each of them keeps the last good form of what is broken and says what is wrong.
//!
//! Enter at [`Controller`] (the task that runs it all) or [`Index`] (the core).

pub mod addresses;
pub mod api;
pub mod convert;
pub mod debug;
pub mod index;
pub mod jwks;
mod layers;
pub mod lease;
pub mod mesh_config;
pub mod object;
pub mod rbac;
pub mod registries;
pub mod roots;
pub mod run;
pub mod source;
pub mod status;
pub mod strings;
pub mod webhooks;

pub use index::{Index, Settings, Snapshot, Stats};
pub use mesh_config::{Layer, MeshConfigError, load_mesh_config};
pub use object::Object;
pub use registries::Registries;
pub use run::{Controller, Handle, Options, RunError, State, Update};
pub use source::{Cluster, ClusterError, Problem, SourceError};
