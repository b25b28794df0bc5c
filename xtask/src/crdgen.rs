//! `crdgen`: the manifests of the CustomResourceDefinitions and of our rights, written by the tests that otherwise compare them.

use anyhow::Result;

use crate::shell;

/// Arguments of `crdgen`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compare instead of rewriting.
    #[arg(long)]
    pub(crate) check: bool,
}

/// Rewrites or compares `crds/manifests` and `controller/manifests`.
pub(crate) fn run(args: &Args) -> Result<()> {
    for (package, test) in [("pilotfish-crds", "manifests"), ("pilotfish-controller", "rbac")] {
        let mut test = shell::cargo(["test", "--locked", "--quiet", "--package", package, "--test", test]);
        shell::run(if args.check { &mut test } else { test.env("UPDATE_GOLDEN", "1") })?;
    }
    Ok(())
}
