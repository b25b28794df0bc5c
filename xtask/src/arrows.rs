//! `arrows`: which crate may know which, and that each compiles alone.
//!
//! The rules are data in [`rules`]; [`check`] is pure. Direct dependencies come from the manifests, what a crate reaches
//! from `cargo tree -p CRATE`, because a crate that is built alone has other features than the workspace as a whole.

mod check;
mod rules;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell;
use check::{Crate, Graph};

/// Arguments of `arrows`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Only the dependency graph, without compiling each crate alone.
    #[arg(long)]
    graph_only: bool,
}

/// Checks the graph, then that each crate compiles with the features that it asks for itself.
pub(crate) fn run(args: &Args) -> Result<()> {
    let crates = members()?;
    let mut violations = check::members(rules::RULES, &crates);
    for krate in &crates {
        let tree = shell::read(&mut shell::cargo([
            "tree",
            "--locked",
            "--package",
            &krate.name,
            "--edges",
            "normal",
            "--prefix",
            "depth",
            "--format",
            " {p}",
        ]))?;
        violations.extend(check::reach(rules::RULES, &krate.name, &Graph::of_cargo_tree(&tree)));
    }
    if !violations.is_empty() {
        bail!("forbidden dependencies:\n  {}", violations.join("\n  "));
    }
    println!("arrows: {} crates, none knows what it must not", crates.len());
    if !args.graph_only {
        for krate in crates.iter().filter(|krate| krate.has_lib) {
            shell::run(&mut shell::cargo(["check", "--locked", "--quiet", "--lib", "--package", &krate.name]))?;
        }
    }
    Ok(())
}

/// The workspace's crates with their declared dependencies.
fn members() -> Result<Vec<Crate>> {
    let json: Value = serde_json::from_str(&shell::read(&mut shell::cargo(["metadata", "--locked", "--no-deps", "--format-version=1"]))?)?;
    let packages = json["packages"].as_array().context("cargo metadata lists no packages")?;
    packages.iter().map(member).collect()
}

fn member(package: &Value) -> Result<Crate> {
    let name = package["name"].as_str().context("a package without a name")?.to_owned();
    let targets = package["targets"].as_array().into_iter().flatten();
    let has_lib = targets.flat_map(|target| target["kind"].as_array().into_iter().flatten()).any(|kind| kind == "lib");
    let mut dependencies = BTreeMap::new();
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        if dependency["kind"] != "dev" {
            let name = dependency["name"].as_str().context("a dependency without a name")?;
            dependencies.insert(name.to_owned(), dependency["kind"].as_str().unwrap_or("normal").to_owned());
        }
    }
    Ok(Crate { name, has_lib, dependencies })
}
