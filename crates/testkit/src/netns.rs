//! [`Namespace`]: a network of a test's own, with a thread that lives in it.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::skip;

/// Start of all names; the id of the process that made it follows.
const PREFIX: &str = "pilotfish-";
const FOLDER: &str = "/run/netns";

type Job = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// A network namespace that ends with its handle. What [`run`](Self::run) does happens in it: sockets that are opened and
/// programs that are started belong to it.
pub struct Namespace {
    name: String,
    jobs: Option<mpsc::UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// Whether namespaces with interception can be made here; says that `suite` is skipped if not (see [`skip`]).
pub fn possible(suite: &str) -> Option<()> {
    remove_left_behind();
    let probe = name("probe");
    let run = |program: &str, args: &[&str]| Command::new(program).args(args).output().is_ok_and(|o| o.status.success());
    let made = run("ip", &["netns", "add", &probe]);
    let redirects = ["netns", "exec", &probe, "iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "-j", "REDIRECT", "--to-ports", "1"];
    let able = made && run("ip", &redirects);
    if made {
        run("ip", &["netns", "del", &probe]);
    }
    skip::needed(suite, able.then_some(()), "network namespaces and iptables, which root has (`cargo xtask setup` installs iptables)")
}

fn name(role: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Namespaces of test processes that were killed.
fn remove_left_behind() {
    for entry in std::fs::read_dir(FOLDER).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

impl Namespace {
    /// A new one in which only loopback is up.
    pub fn new(role: &str) -> Self {
        let name = name(role);
        ip(&["netns", "add", &name]);
        // From here on the handle takes it away again.
        let mut namespace = Namespace { name, jobs: None, thread: None };
        namespace.ip(&["link", "set", "lo", "up"]);
        let (jobs, work) = mpsc::unbounded_channel();
        let path = namespace.path();
        namespace.jobs = Some(jobs);
        namespace.thread = Some(std::thread::spawn(move || live_in(&path, work)));
        namespace
    }

    /// Lays a cable between two. Each end gets its address of a /24.
    pub fn connect(&self, address: Ipv4Addr, other: &Namespace, other_address: Ipv4Addr) {
        self.connect_to(address, &other.name, other_address);
    }

    /// The same to a namespace of this name.
    pub fn connect_to(&self, address: Ipv4Addr, other: &str, other_address: Ipv4Addr) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Names of devices are short.
        let cable = format!("pf{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (here, there) = (format!("{cable}a"), format!("{cable}b"));
        let ends = ["type", "veth", "peer", "name", &there, "netns", other];
        ip(&[&["link", "add", &here, "netns", &self.name][..], &ends].concat());
        for (name, device, address) in [(&*self.name, &here, address), (other, &there, other_address)] {
            ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", device]);
            ip(&["-n", name, "link", "set", device, "up"]);
        }
    }

    /// What the machine calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes an address its own.
    pub fn address(&self, address: Ipv4Addr) {
        self.ip(&["addr", "add", &format!("{address}/32"), "dev", "lo"]);
    }

    /// Sends what is for nobody else to an address that a cable leads to.
    pub fn default_route(&self, via: Ipv4Addr) {
        self.ip(&["route", "add", "default", "via", &via.to_string()]);
    }

    /// One rule of the firewall's `nat` table, as one would type it after `iptables -t nat`.
    pub fn nat(&self, rule: &str) {
        let words: Vec<&str> = rule.split_whitespace().collect();
        ip(&[&["netns", "exec", &self.name, "iptables", "-t", "nat"][..], &words].concat());
    }

    /// Does something inside. Panics if that does.
    pub async fn run<T: Send + 'static>(&self, job: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        let (done, result) = oneshot::channel();
        let boxed: Job = Box::new(move || {
            Box::pin(async move {
                let _ = done.send(job().await);
            })
        });
        self.jobs.as_ref().and_then(|jobs| jobs.send(boxed).ok()).expect("the namespace's thread");
        result.await.unwrap_or_else(|_| panic!("what ran in {} panicked", self.name))
    }

    fn ip(&self, args: &[&str]) {
        ip(&[&["-n", &self.name][..], args].concat());
    }

    fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        let ended = self.thread.take().map(JoinHandle::join);
        let deleted = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !std::thread::panicking() {
            assert!(ended.is_none_or(|e| e.is_ok()) && deleted.is_ok_and(|s| s.success()), "{} stays behind", self.name);
        }
    }
}

fn live_in(path: &Path, mut work: mpsc::UnboundedReceiver<Job>) {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        while let Some(job) = work.recv().await {
            tokio::task::spawn_local(job());
        }
    });
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap_or_else(|e| panic!("ip: {e}"));
    assert!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::{TcpBackend, say};

    #[tokio::test]
    async fn two_are_connected_and_leave_nothing_behind() {
        let Some(()) = possible("netns") else { return };
        let (a, b) = (Namespace::new("a"), Namespace::new("b"));
        let [ip_a, ip_b] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
        a.connect(ip_a, &b, ip_b);
        let backend = b.run(async move || TcpBackend::start_on("b", (ip_b, 9000).into()).await).await;
        let addr = backend.addr();
        assert_eq!(a.run(async move || say(addr, "hello").await.unwrap()).await, "b: hello");
        // Captured on its way to where nobody is.
        b.nat("-A PREROUTING -p tcp --dport 1234 -j REDIRECT --to-ports 9000");
        assert_eq!(a.run(async move || say((ip_b, 1234).into(), "hello").await.unwrap()).await, "b: hello");
        let path = a.path();
        drop((a, b));
        assert!(!path.exists());
    }
}
