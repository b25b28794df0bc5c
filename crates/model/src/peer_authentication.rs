//! PeerAuthentication: which connections a workload accepts.

use std::collections::BTreeMap;

use crate::name::{Labels, Meta};

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerAuthentication {
    /// Identity and age.
    pub meta: Meta,
    /// Workloads; empty: all of the namespace (of the mesh, in the root namespace).
    pub selector: Labels,
    /// Mode; `None`: from the next wider object.
    pub mode: Option<MtlsMode>,
    /// Modes of single workload ports.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}

/// What is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MtlsMode {
    /// Clear text only.
    Disable,
    /// Both.
    Permissive,
    /// Mutual TLS only.
    Strict,
}
