//! `test`: every suite, one after the other, with a summary. CI runs exactly this.

use std::ffi::OsString;
use std::fs;

use anyhow::{Context, Result, ensure};

use crate::bench::chaos;
use crate::setup::Static;
use crate::suite::{Counts, Outcome, Summary};
use crate::{bench, lint, parity, paths, setup, shell};

/// Arguments of `test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out what needs real programs or the shared corpus.
    #[arg(long)]
    quick: bool,
}

/// Arguments of `e2e`.
#[derive(clap::Args)]
pub(crate) struct E2eArgs {
    /// Only these suites, each with its own line in the summary.
    #[arg(value_enum)]
    group: Option<Group>,
    /// Passed on to `cargo test`, such as `-- --test gateway`.
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Suites that belong together.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Group {
    /// Against a real Kubernetes API, with a short chaos run.
    Kube,
    /// What traffic does under each kind of rule, and between sidecars in networks of their own.
    Behaviour,
}

/// Suites with a Kubernetes API, and with several replicas.
const KUBE: [&str; 16] = [
    "kube",
    "charts",
    "kube_webhooks",
    "kube_installed",
    "kube_upgrade",
    "image",
    "kube_injected",
    "crds",
    "kube_source",
    "kube_references",
    "kube_status",
    "kube_identity",
    "kube_requests",
    "mesh_identity",
    "replicas",
    "kube_survival",
];

/// Suites that send traffic through stock Envoys, one per group of fields.
const BEHAVIOUR: [&str; 12] = [
    "behaviour_routes",
    "behaviour_destinations",
    "behaviour_gateways",
    "behaviour_sidecars",
    "behaviour_mesh",
    "behaviour_security",
    "behaviour_switches",
    "behaviour_balancing",
    "behaviour_patches",
    "behaviour_telemetry",
    "behaviour_identities",
    "netns",
];

/// Runs every suite.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut summary = Summary::new(paths::in_ci());
    let plain = |run: fn() -> Result<()>| move || run().map(|()| Outcome::Passed(Counts::default()));
    if !args.quick {
        summary.run("setup", plain(|| setup::run(&setup::Args::default())));
    }
    summary.run("fmt-lint", plain(lint::run));
    summary.run("release build", plain(build));
    summary.run("workspace tests", || cargo_test(["--workspace", "--exclude", "pilotfish-tests"].map(OsString::from)));
    if !args.quick {
        summary.run("static build", plain(build_static));
        summary.run("real programs", || e2e(&[]));
        summary.run("parity, delta", || parity::check(&parity::Args::default()));
        summary.run("parity, state of the world", || parity::check(&parity::Args::sotw()));
        summary.run("parity, plain Envoy", || parity::check(&parity::Args::plain()));
        summary.run("benches, against the record", plain(|| bench::run(&bench::Args::compare())));
    }
    summary.finish()
}

/// The suites with real programs alone.
pub(crate) fn run_e2e(args: &E2eArgs) -> Result<()> {
    let mut summary = Summary::new(paths::in_ci());
    match args.group {
        None => {
            setup::run(&setup::Args::default())?;
            build()?;
            build_static()?;
            summary.run("real programs", || e2e(&args.args));
        }
        Some(Group::Kube) => {
            setup::kube()?;
            build()?;
            build_static()?;
            suites(&mut summary, &KUBE, &args.args);
            summary.run("chaos, short", || chaos::short().map(|()| Outcome::Passed(Counts::default())));
        }
        Some(Group::Behaviour) => {
            setup::run(&setup::Args::default())?;
            build()?;
            suites(&mut summary, &BEHAVIOUR, &args.args);
        }
    }
    summary.finish()
}

fn suites(summary: &mut Summary, names: &[&'static str], args: &[OsString]) {
    for name in names {
        summary.run(name, || e2e(&[&["--test".into(), (*name).into()], args].concat()));
    }
}

/// Builds the binary that ships.
pub(crate) fn build() -> Result<()> {
    shell::run(&mut shell::cargo(["build", "--locked", "--release", "--package", "pilotfish"]))
}

/// Builds what the Dockerfile makes an image of, without the time that the optimizer takes. Whoever is not root cannot run it.
fn build_static() -> Result<()> {
    let Static { target, flags } = setup::static_target();
    let mut build = shell::cargo(["build", "--locked", "--package", "pilotfish", "--target", &target]);
    shell::run(if flags.is_empty() { &mut build } else { build.env("RUSTFLAGS", flags) })?;
    let built = paths::target().join(target).join("debug/pilotfish");
    let binary = paths::static_binary();
    fs::create_dir_all(binary.with_file_name(""))?;
    fs::copy(&built, &binary).with_context(|| built.display().to_string())?;
    Ok(())
}

fn e2e(args: &[OsString]) -> Result<Outcome> {
    cargo_test([OsString::from("--package"), "pilotfish-tests".into()].into_iter().chain(args.iter().cloned()))
}

fn cargo_test(args: impl IntoIterator<Item = OsString>) -> Result<Outcome> {
    // Without --no-fail-fast the first crate that fails hides the others.
    let mut test = shell::cargo(["test", "--locked", "--no-fail-fast"]);
    let got = shell::tee(test.args(args).env("PILOTFISH_BIN", paths::binary()).env("PILOTFISH_STATIC", paths::static_binary()))?;
    let counts = Counts::of_cargo_test(&got.lines);
    ensure!(got.status.success(), "{counts}");
    Ok(Outcome::Passed(counts))
}
