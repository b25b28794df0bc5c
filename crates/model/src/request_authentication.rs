//! RequestAuthentication: which tokens requests to a workload may carry.

use crate::attachment::{Attachment, attached};
use crate::hash::ContentHash;
use crate::name::Meta;

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestAuthentication {
    /// Identity and age.
    pub meta: Meta,
    /// Workloads.
    pub attachment: Attachment,
    /// What the rest says.
    pub content: ContentHash,
}

attached!(RequestAuthentication);
