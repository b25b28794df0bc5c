//! Extension: code that proxies run, as a WasmPlugin or a TrafficExtension brings it.

use crate::attachment::{Attachment, attached};
use crate::hash::ContentHash;
use crate::name::Meta;

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Extension {
    /// Identity and age.
    pub meta: Meta,
    /// Workloads.
    pub attachment: Attachment,
    /// What the rest says.
    pub content: ContentHash,
}

attached!(Extension);
