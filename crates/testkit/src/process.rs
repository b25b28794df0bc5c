//! A program under test: its log is kept in a folder of its own and shown if the test fails, and it dies with its handle.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::poll;

/// A running program. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    dir: TempDir,
}

impl Process {
    /// Starts `command` with standard output and error in one log.
    pub fn start(name: &str, dir: TempDir, mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::start_with_input(name, dir, command)
    }

    /// [`start`](Self::start) with the standard input that `command` has: a pipe stays open until the handle is dropped or
    /// this process ends, in whatever way.
    pub fn start_with_input(name: &str, dir: TempDir, mut command: Command) -> Self {
        let log = File::create(log_path(dir.path())).unwrap();
        let command = command.stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true);
        let child = command.spawn().unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        Process { name: name.to_owned(), child, dir }
    }

    /// A folder of the program's own, removed when it is dropped.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// All that it wrote.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(log_path(self.dir.path())).unwrap_or_default()).into_owned()
    }

    /// Its exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM").await;
        let what = format!("{} to end after SIGTERM", self.name);
        poll::until(&what, async || self.child.try_wait().unwrap().ok_or("still running")).await
    }

    /// Sends a signal, by its name.
    pub async fn signal(&self, name: &str) {
        if let Some(pid) = self.pid() {
            // Through the `kill` program: signals without it need unsafe code or a crate.
            let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().await;
            assert!(sent.is_ok_and(|status| status.success()), "cannot signal {}", self.name);
        }
    }

    /// Ends it without a chance to clean up, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until `ask` answers. Panics, with the log, at the deadline or as soon as the program has ended.
    pub async fn until<T>(&mut self, what: &str, ask: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
        self.until_within(poll::DEADLINE, what, ask).await
    }

    /// [`until`](Self::until) with a deadline of its own.
    pub async fn until_within<T>(&mut self, deadline: Duration, what: &str, mut ask: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
        let what = format!("{}: {what}", self.name);
        poll::until_within(deadline, &what, async || {
            let answer = ask().await;
            if let (Err(refusal), Some(status)) = (&answer, self.ended()) {
                panic!("{what}: ended with {status}: {refusal}");
            }
            answer.map_err(|refusal| format!("{refusal:#}"))
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- the end of the log of {} ---\n{}\n--- end of log ---", self.name, tail.join("\n"));
        }
    }
}

fn log_path(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// A loopback address whose port is free: for programs that cannot tell which port they took. No port is given out twice in
/// one process, and none is in the range from which the kernel takes ports for connections: both would be taken between
/// this call and the program's start, now and then.
pub fn free_addr() -> SocketAddr {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test binaries that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(97) % COUNT;
    let free = |port: &u16| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let candidates = (0..COUNT).map(|_| {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        u16::try_from(port).unwrap()
    });
    let port = candidates.into_iter().find(free).expect("a free port");
    (Ipv4Addr::LOCALHOST, port).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_out_twice() {
        let ports: std::collections::BTreeSet<u16> = (0..200).map(|_| free_addr().port()).collect();
        assert_eq!(ports.len(), 200);
        assert!(ports.iter().all(|p| (20_000..32_000).contains(p)));
    }

    #[tokio::test]
    async fn logs_and_ends_on_sigterm() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done"]);
        let mut process = Process::start("a shell", tempfile::tempdir().unwrap(), command);
        let log = log_path(process.dir());
        let first_line = async || {
            anyhow::ensure!(std::fs::read_to_string(&log)? == "up\n", "not yet");
            Ok(())
        };
        process.until("its first line", first_line).await;
        assert_eq!(process.terminate().await.code(), Some(3));
        assert_eq!(process.log(), "up\nbye\n");
    }

    #[tokio::test]
    #[should_panic(expected = "ended with exit status: 7: not ready")]
    async fn an_early_end_fails_at_once() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 7"]);
        Process::start("a shell", tempfile::tempdir().unwrap(), command).until("ready", async || anyhow::bail!("not ready")).await
    }
}
