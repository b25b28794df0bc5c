//! `fmt-lint`: formatting, arrows, clippy, generated files and documentation. Every finding is an error.

use anyhow::Result;

use crate::{arrows, crdgen, shell};

/// Cheapest first.
pub(crate) fn run() -> Result<()> {
    shell::run(&mut shell::cargo(["fmt", "--all", "--check"]))?;
    arrows::run(&arrows::Args::default())?;
    shell::run(&mut shell::cargo(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    crdgen::run(&crdgen::Args { check: true })?;
    shell::run(shell::cargo(["doc", "--locked", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
}
