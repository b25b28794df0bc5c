//! `bench load`: the release binary under the load of thousands of proxies, compared with the reference's recorded figures.
//!
//! Builds what a run needs; `tests/load` does the rest, because it drives servers and this program knows no async runtime.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{paths, setup, shell, test};

/// Arguments of `bench load`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The sources of the load client. Default: `tools/xload` of the shared test data.
    #[arg(long)]
    xload: Option<PathBuf>,
    /// Measure this binary instead of a fresh release build. Nobody knows its commit, so the page is left alone.
    #[arg(long)]
    pilotfish: Option<PathBuf>,
    /// For tests/load: `--only RUN,RUN`, `--limit 12m`, `--files`, `--no-write`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
}

/// Builds everything, then runs.
pub(crate) fn run(args: &Args) -> Result<()> {
    let sources = match &args.xload {
        Some(path) => path.canonicalize().with_context(|| path.display().to_string())?,
        None => paths::shared().context("no load client: give --xload, or PILOTFISH_SHARED")?.join("tools/xload"),
    };
    setup::kube()?;
    let binary = match &args.pilotfish {
        Some(path) => path.canonicalize().with_context(|| path.display().to_string())?,
        None => {
            test::build()?;
            paths::binary()
        }
    };
    let xload = build_client(&sources)?;
    let mut load = shell::cargo(["run", "--locked", "--quiet", "--package", "pilotfish-tests", "--bin", "load", "--"]);
    load.arg("--pilotfish").arg(binary).arg("--xload").arg(xload).arg("--scenarios").arg(sources.join("scenarios"));
    load.arg("--out").arg(paths::target().join("bench-load")).arg("--page").arg(paths::workspace().join(super::BASELINE));
    load.args(args.pilotfish.as_ref().map(|_| "--no-write"));
    shell::run(load.args(&args.rest))
}

fn build_client(sources: &Path) -> Result<PathBuf> {
    let program = paths::target().join("tools/xload");
    // Go's own cache makes this cheap; the sources may be read-only.
    shell::run(shell::command("go").args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".").current_dir(sources))?;
    Ok(program)
}
