//! `parity`: the release binary against the shared corpus of recorded xDS, and a plain Envoy against all of its scenarios.
//!
//! The corpus is no part of the project. Where it is absent the command says so and counts as skipped. [`floor`] holds what
//! must not get worse.

mod floor;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::suite::{Counts, Outcome, Summary};
use crate::{paths, setup, shell, test};
use floor::{Floor, Report};

const KNOWN_DIFFERENCES: &str = "docs/parity-known-differences.yaml";
const FLOOR: &str = "tests/parity-floor.json";

/// Arguments of `parity`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Scenarios, as globs with commas between: `06*,2?-gw*`.
    #[arg(long)]
    only: Option<String>,
    /// The state-of-the-world protocol instead of delta.
    #[arg(long)]
    sotw: bool,
    /// Print every difference in full.
    #[arg(long)]
    full: bool,
    /// Keep the server's log and folder.
    #[arg(long)]
    keep: bool,
    /// Scenarios at a time.
    #[arg(long, default_value_t = 2)]
    jobs: u32,
    /// Instead: connect a real, plain Envoy as every proxy of every scenario and count what it rejects.
    #[arg(long, conflicts_with_all = ["full", "keep", "raise_floor"])]
    plain: bool,
    /// Raise the floor to what this run reached. It is never lowered.
    #[arg(long, conflicts_with = "only")]
    raise_floor: bool,
}

impl Args {
    /// All scenarios, state of the world.
    pub(crate) fn sotw() -> Self {
        Args { sotw: true, jobs: 2, ..Args::default() }
    }

    /// All scenarios, plain Envoy.
    pub(crate) fn plain() -> Self {
        Args { plain: true, ..Args::default() }
    }
}

/// Builds the binary, compares, and says what came of it.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut summary = Summary::new(paths::in_ci());
    test::build()?;
    summary.run("parity", || check(args));
    summary.finish()
}

/// One suite, with the binary that is there.
pub(crate) fn check(args: &Args) -> Result<Outcome> {
    let Some(shared) = paths::shared() else {
        let why = "the shared parity corpus is absent (../shared, or PILOTFISH_SHARED)";
        println!("SKIPPED: {why}");
        return Ok(Outcome::Skipped(why.to_owned()));
    };
    ensure!(paths::binary().is_file(), "there is no release binary: cargo build --release --package pilotfish");
    if args.plain { plain(args, &shared) } else { compare(args, &shared) }
}

fn compare(args: &Args, shared: &Path) -> Result<Outcome> {
    let build = paths::target().join("parity");
    fs::create_dir_all(&build)?;
    let tool = build.join("xdsdump");
    // Go's own cache makes this cheap; the sources may be read-only.
    shell::run(
        shell::command("go").args(["build", "-buildvcs=false", "-o"]).arg(&tool).arg(".").current_dir(shared.join("parity/xdsdump")),
    )?;
    let report = build.join(if args.sotw { "report-sotw.json" } else { "report.json" });
    let _ = fs::remove_file(&report);
    let mut command = shell::command(&tool);
    command.arg("run").arg("--scenarios").arg(shared.join("parity/scenarios")).args(["--server-cmd", &server_command()]);
    command.args(["--ignore", KNOWN_DIFFERENCES, "--jobs", &args.jobs.max(1).to_string(), "--json"]).arg(&report);
    let switches = [("--sotw", args.sotw), ("--full", args.full), ("--keep", args.keep)];
    command.args(switches.iter().filter(|(_, on)| *on).map(|(name, _)| *name));
    command.args(args.only.iter().flat_map(|only| ["--only", only]));
    let got = shell::tee(&mut command)?;
    // Its status says whether everything is equal; whether that is enough is for the floor to say.
    let text = fs::read_to_string(&report).with_context(|| format!("xdsdump wrote no report ({})", got.status))?;
    let report = Report::parse(&text)?;
    let unanswered: Vec<&String> = got.lines.iter().filter(|line| line.contains(": no answer for ")).collect();

    let floor = Floor::parse(&fs::read_to_string(paths::workspace().join(FLOOR)).context(FLOOR)?)?;
    if args.raise_floor {
        fs::write(paths::workspace().join(FLOOR), floor.raised(&report).to_text())?;
        println!("{FLOOR} is raised where this run was better");
    }
    let mut problems = floor.problems(&report, args.only.is_some());
    problems.extend(unanswered.iter().map(|line| format!("unanswered: {line}")));
    println!("score {:.4}", report.total.share());
    if !problems.is_empty() {
        bail!("{} parity problems:\n  {}", problems.len(), problems.join("\n  "));
    }
    Ok(Outcome::Passed(Counts { passed: report.scenarios.len() as u64, ..Counts::default() }))
}

fn plain(args: &Args, shared: &Path) -> Result<Outcome> {
    setup::run(&setup::Args::default())?;
    let mut command = python();
    command.arg(shared.join("tools/plain_envoy.py")).arg("--scenarios").arg(shared.join("parity/scenarios"));
    command.args(["--server-cmd", &server_command(), "--envoy"]).arg(setup::envoy()?);
    command.args(args.sotw.then_some("--sotw")).args(args.only.iter().flat_map(|only| ["--only", only]));
    let got = shell::tee(&mut command)?;
    let last = got.lines.iter().rev().find(|line| line.starts_with("proxies=")).cloned().unwrap_or_default();
    ensure!(got.status.success(), "a plain Envoy rejected updates or got none: {last}");
    let proxies = last.split([' ', '=']).nth(1).and_then(|n| n.parse().ok()).unwrap_or_default();
    Ok(Outcome::Passed(Counts { passed: proxies, ..Counts::default() }))
}

fn python() -> Command {
    shell::command(setup::python(&paths::workspace().join(".venv")))
}

/// Placeholders are filled by the tool that starts the server.
fn server_command() -> String {
    let binary = paths::binary();
    let serve = "serve --config-dir {input} --mesh-config {mesh} --grpc-addr 127.0.0.1:{grpc_port} --http-addr 127.0.0.1:{http_port}";
    format!("'{}' {serve} --monitoring-addr 127.0.0.1:{{port:mon}} --log warn", binary.display())
}
