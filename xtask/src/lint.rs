//! `fmt-lint`: formatting, arrows, clippy and documentation. Every finding is an error.

use anyhow::Result;

use crate::{arrows, shell};

/// Cheapest first.
pub(crate) fn run() -> Result<()> {
    shell::run(&mut shell::cargo(["fmt", "--all", "--check"]))?;
    arrows::run(&arrows::Args::default())?;
    shell::run(&mut shell::cargo(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    shell::run(shell::cargo(["doc", "--locked", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
}
