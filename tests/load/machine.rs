//! Where and of what a measurement is.

use std::fs;
use std::process::Command;

/// Cores, processor, memory and kernel, as one line.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, |n| n.get());
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|kb| kb.split_whitespace().next()?.parse::<f64>().ok());
    let memory = memory.map_or_else(|| "unknown".to_owned(), |kb| format!("{:.0}", kb / 1024.0 / 1024.0));
    let kernel = output("uname", &["-sr"]);
    format!("Machine of the last run: {cores} cores ({cpu}), {memory} GiB, {kernel}; shared by server, load client, API server and etcd.")
}

/// Date and commit of what is measured; a `+` says that files were changed since.
pub(crate) fn commit() -> String {
    let changed = if output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty() { "" } else { "+" };
    format!("{} {}{changed}", output("date", &["--utc", "+%F"]), output("git", &["rev-parse", "--short", "HEAD"]))
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find(|line| line.starts_with(name))?.split_once(':')?.1;
    Some(value.trim().to_owned())
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
