//! Where objects come from: files now.

pub mod file;
pub mod watch;
pub mod yaml;

pub use file::{FileSource, Problem, SourceError, SourceEvent};
