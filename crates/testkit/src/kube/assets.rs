//! Where the programs of the test cluster are.

use std::env;
use std::path::PathBuf;

use crate::skip;

/// What a folder of assets must hold. `kubectl` is in it, too, for tests to do what a person would.
const PROGRAMS: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];

/// A folder with the programs.
#[derive(Clone, Debug)]
pub struct Assets(PathBuf);

impl Assets {
    /// The path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// The programs to test with: those in `KUBEBUILDER_ASSETS`, or those that `cargo xtask setup` built. Without any, says that
/// `suite` is skipped (see [`skip`]).
pub fn assets(suite: &str) -> Option<Assets> {
    let given = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let found = Some(given.unwrap_or_else(|| skip::target().join("tools/kube")));
    let found = found.filter(|dir| PROGRAMS.iter().all(|name| dir.join(name).is_file())).map(Assets);
    skip::needed(suite, found, "a Kubernetes API server (`cargo xtask setup`, or KUBEBUILDER_ASSETS with kubectl)")
}
