//! The run behind `cargo xtask bench chaos`: a real API server that is killed again and again, a mesh that changes all the time, and
//! clients that remember what must not happen.
//!
//! [`mesh`] makes the changes, [`verdict`] compares with a fresh process and writes it down.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../load/machine.rs"]
mod machine;
mod mesh;
mod verdict;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use mesh::{Changes, MeshWriter};
use pilotfish_testkit::ads::{Watcher, node};
use pilotfish_testkit::kube::{self, Options};
use pilotfish_testkit::{KubeCluster, Pilotfish, pilotfish};
use tokio::time::{MissedTickBehavior, interval, sleep};
use verdict::Verdict;

/// Arguments, as `cargo xtask bench chaos` passes them.
#[derive(Parser)]
struct Args {
    /// The binary to test.
    #[arg(long)]
    pilotfish: PathBuf,
    /// How long.
    #[arg(long)]
    minutes: f64,
    /// Where to write it down.
    #[arg(long)]
    page: Option<PathBuf>,
    /// Changes per second.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// Seconds from one kill to the next.
    #[arg(long, default_value_t = 30)]
    every: u64,
    /// Connected clients.
    #[arg(long, default_value_t = 20)]
    clients: usize,
}

#[tokio::main]
async fn main() {
    let args = Args::parse();
    let assets = kube::assets("chaos").expect("a Kubernetes API server");
    let mut cluster = KubeCluster::start(&assets, Options::default()).await;
    cluster.install_crds().await;
    let writer = cluster.writer().await;
    mesh::fill(&cluster, &writer).await;
    let options = pilotfish::Options { args: vec!["--kubeconfig".into(), cluster.pilotfish_kubeconfig().into()], ..Default::default() };
    let mut server = Pilotfish::serve(&args.pilotfish, options.clone()).await;
    let pid = server.process().pid().expect("the server runs");
    let mut clients = Vec::new();
    for i in 0..args.clients {
        clients.push(connect(&server, i).await);
    }
    println!("{} clients are connected; {} changes/s for {} minutes, a kill every {} s", args.clients, args.rate, args.minutes, args.every);

    let changes = Changes::start(MeshWriter::new(writer.clone()), args.rate);
    let memory = tokio::spawn(sample(pid));
    let (end, mut recoveries) = (Instant::now() + Duration::from_secs_f64(args.minutes * 60.0), Vec::new());
    let mut kills = interval(Duration::from_secs(args.every));
    kills.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once.
    kills.tick().await;
    while Instant::now() + Duration::from_secs(args.every) <= end {
        kills.tick().await;
        cluster.stop_api_server().await;
        let killed = Instant::now();
        cluster.start_api_server().await;
        let up = Instant::now();
        let probe = recoveries.len() % 5 + 1;
        while writer.apply(&mesh::slice("probe", probe, 9)).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
        while clients[0].seen().endpoints.get(&mesh::cluster("probe")) != Some(&probe) {
            assert!(up.elapsed() < Duration::from_secs(60), "a change did not arrive within a minute after the API server came back");
            sleep(Duration::from_millis(10)).await;
        }
        recoveries.push(up.elapsed());
        println!(
            "killed; up again after {:.1} s; a change arrived {:.2} s later; {} changes so far",
            (up - killed).as_secs_f64(),
            up.elapsed().as_secs_f64(),
            changes.accepted()
        );
    }
    sleep(end.saturating_duration_since(Instant::now())).await;
    let (tried, accepted) = changes.stop().await;
    memory.abort();
    let samples = RSS.lock().unwrap().clone();

    let mut fresh = Pilotfish::serve(&args.pilotfish, options).await;
    let verdict = Verdict::of(&args, &mut server, &mut fresh, &clients, tried, accepted, &recoveries, &samples).await;
    println!("\n{}", verdict.table());
    if let Some(page) = &args.page {
        verdict.write(page, &machine::describe(), &machine::commit());
    }
    let faults = verdict.faults();
    if !faults.is_empty() {
        println!("--- the end of the server's log ---");
        let log = server.process().log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].iter().for_each(|line| println!("{line}"));
    }
    assert!(faults.is_empty(), "{}", faults.join("; "));
}

async fn connect(server: &Pilotfish, i: usize) -> Watcher {
    let name = format!("sidecar~10.9.{}.{}~client-{i}.shop~shop.svc.cluster.local", i / 250, i % 250 + 1);
    Watcher::connect(&format!("http://{}", server.grpc()), node(&name), &["80"]).await
}

/// Resident memory in MiB, every second.
static RSS: std::sync::Mutex<Vec<f64>> = std::sync::Mutex::new(Vec::new());

async fn sample(pid: u32) {
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        if let Some(kib) = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()) {
            RSS.lock().unwrap().push(kib / 1024.0);
        }
    }
}
