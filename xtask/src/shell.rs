//! Starting programs: each command line is printed before it runs.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::{env, thread};

use anyhow::{Context, Result, ensure};

use crate::paths;

/// A command with its working directory at the workspace and no standard input.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(paths::workspace()).stdin(Stdio::null());
    command
}

/// The cargo that runs this program.
pub(crate) fn cargo<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Command {
    let mut command = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// Runs to success.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| missing(command))?;
    ensure!(status.success(), "{} ({status})", line(command));
    Ok(())
}

/// Runs to success without a word unless it fails; returns standard output.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| missing(command))?;
    ensure!(output.status.success(), "{} ({})", line(command), output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// What a program wrote while it was shown: the lines of both outputs, in the order in which they came.
pub(crate) struct Captured {
    pub(crate) status: ExitStatus,
    pub(crate) lines: Vec<String>,
}

/// Runs, shows both outputs line by line, and keeps them. The caller judges the status.
pub(crate) fn tee(command: &mut Command) -> Result<Captured> {
    announce(command);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| missing(command))?;
    let (out, err) = (child.stdout.take().context("no stdout")?, child.stderr.take().context("no stderr")?);
    let lines = Mutex::new(Vec::new());
    let copy = |from: &mut dyn Read, show: &dyn Fn(&str)| {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            show(&line);
            lines.lock().unwrap_or_else(|e| e.into_inner()).push(line);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| copy(&mut { err }, &|line| eprintln!("{line}")));
        copy(&mut { out }, &|line| println!("{line}"));
    });
    let status = child.wait()?;
    Ok(Captured { status, lines: lines.into_inner().unwrap_or_else(|e| e.into_inner()) })
}

/// Whether a program can be started.
pub(crate) fn exists(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn announce(command: &Command) {
    println!("+ {}", line(command));
}

/// The command as one would type it in the workspace.
fn line(command: &Command) -> String {
    let root = paths::workspace();
    let word = |text: &OsStr| {
        let text = text.to_string_lossy();
        let text = text.strip_prefix(&format!("{}/", root.display())).unwrap_or(&text).to_owned();
        match text.contains(|c: char| c.is_whitespace() || "'\"{}$*;".contains(c)) {
            true if text.contains('\'') => format!("\"{text}\""),
            true => format!("'{text}'"),
            false if text.is_empty() => "''".to_owned(),
            false => text,
        }
    };
    let program = command.get_program();
    let program = if env::var_os("CARGO").as_deref() == Some(program) { "cargo".to_owned() } else { word(program) };
    let set = command.get_envs().filter_map(|(key, value)| Some(format!("{}={}", key.to_string_lossy(), word(value?))));
    set.chain([program]).chain(command.get_args().map(word)).collect::<Vec<_>>().join(" ")
}

fn missing(command: &Command) -> String {
    format!("cannot start {}", command.get_program().to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_typed() {
        let mut it = command("go");
        it.env("A", "b c").args(["build", "'x' {input}", ""]).arg(paths::workspace().join("docs"));
        assert_eq!(line(&it), "A='b c' go build \"'x' {input}\" '' docs");
    }

    #[test]
    fn tee_keeps_both_outputs_and_the_status() {
        let got = tee(command("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap();
        let mut lines = got.lines;
        lines.sort();
        assert_eq!((lines, got.status.code()), (vec!["err".to_owned(), "out".to_owned()], Some(3)));
    }
}
