//! `bench chaos`: the release binary follows a mesh that never rests, from an API server that is killed every half minute.
//!
//! Builds what a run needs; `tests/chaos` does the rest, because it drives servers and this program knows no async runtime.

use anyhow::Result;

use crate::{paths, setup, shell, test};

/// Arguments of `bench chaos`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long. Runs of five minutes and more are recorded in docs/measurements.md.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
}

/// Builds everything, then runs.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::kube()?;
    test::build()?;
    go(args.minutes)
}

/// As long as a suite may take. What it needs is built.
pub(crate) fn short() -> Result<()> {
    go(1.25)
}

fn go(minutes: f64) -> Result<()> {
    let mut chaos = shell::cargo(["run", "--locked", "--quiet", "--package", "pilotfish-tests", "--bin", "chaos", "--"]);
    chaos.arg("--pilotfish").arg(paths::binary()).arg("--minutes").arg(minutes.to_string());
    if minutes >= 5.0 {
        chaos.arg("--page").arg(paths::workspace().join(super::BASELINE));
    }
    shell::run(&mut chaos)
}
