//! Where objects come from: files, and a Kubernetes API.

pub mod file;
pub mod kube;
pub mod watch;
pub mod yaml;

pub use file::{FileSource, Problem, SourceError, SourceEvent};
pub use kube::{Cluster, ClusterError};
