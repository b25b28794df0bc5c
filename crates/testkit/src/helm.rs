//! The real Helm: rendering our charts as a user would.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use crate::skip;

/// Helm with the charts of the workspace.
#[derive(Clone, Debug)]
pub struct Helm(PathBuf);

/// The Helm to test with: `HELM`, or what `cargo xtask setup` built. Without any, says that `suite` is skipped (see [`skip`]).
pub fn helm(suite: &str) -> Option<Helm> {
    let path = env::var_os("HELM").map_or_else(|| skip::target().join("tools/helm/helm"), PathBuf::from);
    skip::needed(suite, Some(path).filter(|p| p.is_file()).map(Helm), "Helm (`cargo xtask setup`, or HELM)")
}

impl Helm {
    /// Runs it in the folder of charts.
    pub async fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.0);
        let charts = charts();
        // Nothing of the user's own settings, and nothing left in them.
        let home = tempfile::tempdir().unwrap();
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME"] {
            command.env(name, home.path());
        }
        command.args(args).current_dir(charts).kill_on_drop(true).output().await.unwrap()
    }

    /// The documents of a chart for a release in `istio-system`, with further arguments. Panics with Helm's complaint.
    pub async fn render(&self, release: &str, chart: &str, more: &[&str]) -> Vec<Value> {
        let args = [&["template", release, chart, "--namespace", "istio-system"], more].concat();
        let output = self.run(&args).await;
        assert!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let all = yaml_serde::Deserializer::from_str(&text).map(|d| Value::deserialize(d).unwrap());
        all.filter(|v| !v.is_null()).collect()
    }
}

/// The folder of charts.
pub fn charts() -> PathBuf {
    Path::new(&skip::workspace()).join("charts")
}
