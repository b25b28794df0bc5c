//! `crdgen`: the manifests of the CustomResourceDefinitions, written by the test that otherwise compares them.

use anyhow::Result;

use crate::shell;

/// Arguments of `crdgen`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compare instead of rewriting.
    #[arg(long)]
    pub(crate) check: bool,
}

/// Rewrites or compares `crds/manifests`.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut test = shell::cargo(["test", "--locked", "--quiet", "--package", "pilotfish-crds", "--test", "manifests"]);
    shell::run(if args.check { &mut test } else { test.env("UPDATE_GOLDEN", "1") })
}
