//! Where things are, relative to the workspace.

use std::env;
use std::path::{Path, PathBuf};

/// The folder with the workspace's `Cargo.toml`.
pub(crate) fn workspace() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// The build folder.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// The release binary of the control plane.
pub(crate) fn binary() -> PathBuf {
    target().join("release").join(format!("pilotfish{}", env::consts::EXE_SUFFIX))
}

/// The binary whose C library is part of it, however it was built.
pub(crate) fn static_binary() -> PathBuf {
    target().join("static").join("pilotfish")
}

/// Shared test data that is no part of the project: `PILOTFISH_SHARED`, or `shared` beside the workspace. A person's clone
/// usually has none.
pub(crate) fn shared() -> Option<PathBuf> {
    let given = env::var_os("PILOTFISH_SHARED").map(PathBuf::from);
    let path = given.or_else(|| workspace().parent().map(|parent| parent.join("shared")))?;
    // Absolute, because programs are started in other folders. Fails for what does not exist.
    path.canonicalize().ok().filter(|path| path.is_dir())
}

/// Whether skipped suites are errors.
pub(crate) fn in_ci() -> bool {
    env::var("CI").is_ok_and(|v| v == "true")
}
