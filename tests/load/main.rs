//! The load runs behind `cargo xtask bench load`: a real Kubernetes API, the release binary, and thousands of simulated
//! sidecars that the load client `xload` connects to it.
//!
//! [`runs`] says what is run, [`targets`] what must come out, [`report`] reads what xload measured, [`page`] writes it down.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod drive;
mod machine;
mod page;
mod report;
mod runs;
mod targets;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser;
use report::Report;
use runs::{RUNS, Run};

/// Arguments, as `cargo xtask bench load` passes them.
#[derive(Parser)]
struct Args {
    /// The binary to measure.
    #[arg(long)]
    pilotfish: PathBuf,
    /// The load client.
    #[arg(long)]
    xload: PathBuf,
    /// The folder of its scenarios.
    #[arg(long)]
    scenarios: PathBuf,
    /// Where the reports and logs of all runs go.
    #[arg(long)]
    out: PathBuf,
    /// The page with the table.
    #[arg(long)]
    page: PathBuf,
    /// Runs, with commas between. Without it: all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Longest time of one run, as xload writes durations.
    #[arg(long, default_value = "12m")]
    limit: String,
    /// From files instead of a Kubernetes API: first sync, idle time and reconnect only. The page is left alone.
    #[arg(long)]
    files: bool,
    /// Leave the page alone.
    #[arg(long)]
    no_write: bool,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let unknown: Vec<&String> = args.only.iter().filter(|name| RUNS.iter().all(|run| run.name != **name)).collect();
    let known: Vec<&str> = RUNS.iter().map(|run| run.name).collect();
    assert!(unknown.is_empty(), "there is no run {unknown:?}; there are {}", known.join(", "));
    std::fs::create_dir_all(&args.out).unwrap();
    let wanted: Vec<&Run> = RUNS.iter().filter(|run| args.only.is_empty() || args.only.iter().any(|name| name == run.name)).collect();

    let mut reports: BTreeMap<&str, Report> = BTreeMap::new();
    // One cluster for all runs of a mesh: filling it takes longer than most runs.
    for mesh in runs::meshes(&wanted) {
        let runs: Vec<&Run> = wanted.iter().copied().filter(|run| run.mesh == *mesh).collect();
        reports.extend(drive::mesh(&args, mesh, &runs).await);
    }
    let rows = page::rows(&reports, &machine::commit());
    println!("\n{}", page::table(&rows));
    if !args.files && !args.no_write {
        page::write(&args.page, &rows, &machine::describe());
        println!("written to {}", args.page.display());
    }
    let failed: Vec<&str> = wanted.iter().map(|run| run.name).filter(|name| !reports.contains_key(name)).collect();
    assert!(failed.is_empty(), "without a report: {}", failed.join(", "));
}
