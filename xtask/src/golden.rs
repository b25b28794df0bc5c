//! `golden`: the project's own golden files, written by the test that otherwise compares them.

use anyhow::Result;

use crate::shell;

/// Arguments of `golden`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Compare instead of rewriting.
    #[arg(long)]
    check: bool,
}

/// Rewrites or compares. Read `git diff` after a rewrite: every changed line is a change of behaviour.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut test = shell::cargo(["test", "--quiet", "--package", "pilotfish-translator", "--test", "golden"]);
    shell::run(if args.check { &mut test } else { test.env("UPDATE_GOLDEN", "1") })
}
