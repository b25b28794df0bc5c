//! The programs of the test cluster: `tests/kube` built into `target/tools/kube`, with one link per program.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};

use crate::{paths, shell};

const SOURCES: &str = "tests/kube";
const HELM: &str = "tests/helm";
const PROGRAMS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"];

/// Builds them if their sources changed. Who has programs of his own says so in `KUBEBUILDER_ASSETS`.
pub(super) fn install() -> Result<()> {
    helm()?;
    if env::var_os("KUBEBUILDER_ASSETS").is_some() {
        return Ok(());
    }
    let sources = paths::workspace().join(SOURCES);
    let dir = paths::target().join("tools/kube");
    let (stamp, wanted) = (dir.join("built-from.txt"), content(&sources)?);
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    println!("Building a Kubernetes control plane from {SOURCES}: minutes the first time");
    fs::create_dir_all(&dir)?;
    // A build that is broken off must not pass for a whole one.
    let _ = fs::remove_file(&stamp);
    build(&sources, &dir.join("kube"))?;
    for name in PROGRAMS {
        let link = dir.join(name);
        let _ = fs::remove_file(&link);
        fs::hard_link(dir.join("kube"), &link).with_context(|| link.display().to_string())?;
    }
    fs::write(stamp, wanted)?;
    Ok(())
}

/// Helm, for tests of the charts. Who has one says so in `HELM`.
fn helm() -> Result<()> {
    if env::var_os("HELM").is_some() {
        return Ok(());
    }
    let sources = paths::workspace().join(HELM);
    let dir = paths::target().join("tools/helm");
    let (stamp, wanted) = (dir.join("built-from.txt"), content(&sources)?);
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    println!("Building Helm from {HELM}: minutes the first time");
    fs::create_dir_all(&dir)?;
    let _ = fs::remove_file(&stamp);
    let mut go = shell::command("go");
    go.args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", "-s -w", "-o"]).arg(dir.join("helm"));
    shell::run(go.arg("helm.sh/helm/v3/cmd/helm").current_dir(&sources).env("CGO_ENABLED", "0"))?;
    fs::write(stamp, wanted)?;
    Ok(())
}

fn build(sources: &Path, binary: &Path) -> Result<()> {
    let module = fs::read_to_string(sources.join("go.mod"))?;
    let version = required(&module, "k8s.io/kubernetes").context("tests/kube/go.mod requires no k8s.io/kubernetes")?;
    let flags = format!("-s -w -X k8s.io/component-base/version.gitVersion={version}");
    let mut go = shell::command("go");
    go.args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", &flags, "-o"]).arg(binary).arg(".");
    // Nothing of it needs a C compiler.
    shell::run(go.current_dir(sources).env("CGO_ENABLED", "0"))
}

/// All that the build depends on, as one text.
fn content(sources: &Path) -> Result<String> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(sources).with_context(|| sources.display().to_string())?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut all = shell::read(shell::command("go").arg("version").current_dir(sources)).context("Go is needed: https://go.dev/dl")?;
    for file in files {
        let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
        all.push_str(&format!("-- {name}\n{}\n", fs::read_to_string(&file)?));
    }
    Ok(all)
}

/// The version of a module that a `go.mod` requires directly.
fn required(module: &str, name: &str) -> Option<String> {
    let mut lines = module.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()).flatten().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_say_which_version_they_are() {
        let module = include_str!("../../../tests/kube/go.mod");
        assert!(required(module, "k8s.io/kubernetes").is_some_and(|version| version.starts_with("v1.")));
        assert_eq!(required(module, "k8s.io/absent"), None);
    }
}
