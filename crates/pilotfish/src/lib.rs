//! The control plane: arguments, wiring, supervision, command line.
//!
//! Owns what connects the stages and nothing of what they do: [`cli`] reads the command line, [`serve`] starts sources,
//! pipeline and servers under one supervisor, [`http`] exposes what they know. Enter at [`run`].

pub mod bootstrap;
pub mod cli;
pub mod debug;
pub mod environment;
pub mod findings;
pub mod http;
pub mod identity;
pub mod manifests;
pub mod mesh_config;
pub mod metrics;
pub mod offline;
pub mod patches;
pub mod pipeline;
pub mod serve;
pub mod status;
pub mod supervise;
pub mod webhooks;
pub mod work;

use clap::Parser;

/// Version of this build, as `pilotfish version`, `/version` and metrics show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs the command line; the exit code of the process.
pub fn run() -> std::process::ExitCode {
    let cli = cli::Cli::parse();
    let outcome = match cli.command {
        cli::Command::Serve(args) => serve::main(*args),
        cli::Command::Bootstrap(args) => bootstrap::main(&args),
        cli::Command::Translate(args) => offline::main(&args),
        cli::Command::Analyze(args) => match offline::analyze(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        cli::Command::Inject(args) => manifests::inject(&args),
        cli::Command::Validate(args) => match manifests::validate(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        cli::Command::Version => {
            println!("pilotfish {VERSION}");
            Ok(())
        }
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // One line: the causes in order, the root last.
            eprintln!("pilotfish: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
