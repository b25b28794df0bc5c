//! Suites that need something that not every machine has. They skip with one clear line on a person's machine and fail in
//! CI (`CI=true`), where a skipped suite would hide a regression.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder with the workspace's `Cargo.toml`.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate is two levels below the workspace").to_owned()
}

/// The build folder.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The folder of shared test data: `PILOTFISH_SHARED`, or `shared` beside the workspace.
pub fn shared(suite: &str) -> Option<PathBuf> {
    let given = env::var_os("PILOTFISH_SHARED").map(PathBuf::from);
    let path = given.or_else(|| workspace().parent().map(|parent| parent.join("shared"))).filter(|path| path.is_dir());
    needed(suite, path, "the shared test data (../shared, or PILOTFISH_SHARED)")
}

/// Passes `found` on; says that `suite` is skipped, or fails in CI, if there is nothing.
pub fn needed<T>(suite: &str, found: Option<T>, what: &str) -> Option<T> {
    // Not by `eprintln!`: the test harness would keep the line of a test that passes to itself.
    needed_if(suite, found, what, env::var("CI").is_ok_and(|v| v == "true"), &mut std::io::stderr())
}

fn needed_if<T>(suite: &str, found: Option<T>, what: &str, required: bool, out: &mut impl Write) -> Option<T> {
    if found.is_none() {
        assert!(!required, "{suite} needs {what}; a skipped suite fails in CI");
        let _ = writeln!(out, "SKIPPED: {suite} needs {what}");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_on_a_desk() {
        let mut out = Vec::new();
        assert_eq!(needed_if("suite 1", Some(1), "a thing", true, &mut out), Some(1));
        assert_eq!(needed_if::<()>("suite 2", None, "a thing", false, &mut out), None);
        assert_eq!(String::from_utf8(out).unwrap(), "SKIPPED: suite 2 needs a thing\n");
    }

    #[test]
    #[should_panic(expected = "a suite needs a thing")]
    fn fails_in_ci() {
        needed_if::<()>("a suite", None, "a thing", true, &mut Vec::new());
    }

    #[test]
    fn the_workspace_is_found() {
        assert!(workspace().join("Cargo.lock").is_file());
    }
}
