//! Starts what a run needs, runs the load client, and keeps what came of it. Everything ends with the run.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pilotfish_testkit::kube::{self, Options};
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::{KubeCluster, Pilotfish, pilotfish};
use tokio::process::Command;

use crate::Args;
use crate::report::Report;
use crate::runs::{Mesh, Run, What};

/// Runs of one mesh, in a cluster of their own. A run that fails is told, and missing in what comes back.
pub(crate) async fn mesh<'a>(args: &Args, mesh: &Mesh, runs: &[&'a Run]) -> BTreeMap<&'a str, Report> {
    println!("\n== a mesh of {} services{}", mesh.services, if mesh.isolated { ", namespaces isolated" } else { "" });
    let source = Source::fill(args, mesh).await;
    let mut reports = BTreeMap::new();
    for run in runs {
        println!("\n== {}", run.name);
        if let Some(report) = one(args, &source, run).await {
            reports.insert(run.name, report);
        }
    }
    reports
}

/// Where the server gets the mesh from.
enum Source {
    Cluster(Box<KubeCluster>),
    Files(PathBuf),
}

impl Source {
    async fn fill(args: &Args, mesh: &Mesh) -> Self {
        let mut populate = Command::new(&args.xload);
        populate.arg("populate").args(mesh.flags());
        let source = if args.files {
            let dir = args.out.join(format!("mesh-{}{}", mesh.services, if mesh.isolated { "-isolated" } else { "" }));
            let _ = fs::remove_dir_all(&dir);
            populate.arg("--emit-dir").arg(&dir);
            Source::Files(dir)
        } else {
            let assets = kube::assets("bench load").expect("a Kubernetes API server");
            let cluster = KubeCluster::start(&assets, Options::default()).await;
            cluster.install_crds().await;
            populate.arg("--kubeconfig").arg(cluster.kubeconfig());
            Source::Cluster(Box::new(cluster))
        };
        assert!(shown(&mut populate).await, "the mesh could not be made");
        source
    }

    /// The arguments that make the server read it.
    fn args(&self) -> [OsString; 2] {
        match self {
            Source::Cluster(cluster) => ["--kubeconfig".into(), cluster.pilotfish_kubeconfig().into()],
            Source::Files(dir) => ["--config-dir".into(), dir.into()],
        }
    }
}

async fn one(args: &Args, source: &Source, run: &Run) -> Option<Report> {
    let (out, log) = (args.out.join(format!("{}.json", run.name)), args.out.join(format!("{}.log", run.name)));
    let _ = fs::remove_file(&out);
    let good = match run.what {
        What::ColdStart => cold_start(args, source, &out, &log).await,
        What::Full(proxies) => load(args, source, run, proxies, "full.yaml", &out, &log).await,
        What::EditCost(proxies) => load(args, source, run, proxies, "edit-cost.yaml", &out, &log).await,
    };
    if !good {
        println!("FAILED: {}: see {}", run.name, log.display());
    }
    // A run that broke off has reported the steps until then.
    Some(Report(serde_json::from_str(&fs::read_to_string(&out).ok()?).ok()?))
}

async fn cold_start(args: &Args, source: &Source, out: &Path, log: &Path) -> bool {
    let (http, grpc, monitoring) = (free_addr(), free_addr(), free_addr());
    let mut command = Command::new(&args.xload);
    command.args(["coldstart", "--ready", &format!("http://{http}/ready")]).arg("--log").arg(log).arg("--out").arg(out);
    command.arg("--").arg(&args.pilotfish).arg("serve").args(source.args());
    for (flag, addr) in [("--http-addr", http), ("--grpc-addr", grpc), ("--monitoring-addr", monitoring)] {
        command.arg(flag).arg(addr.to_string());
    }
    shown(&mut command).await
}

async fn load(args: &Args, source: &Source, run: &Run, proxies: u32, scenario: &str, out: &Path, log: &Path) -> bool {
    let mut options = pilotfish::Options { args: source.args().into(), ..Default::default() };
    // As with the reference: its defaults write no status.
    options.args.extend(["--status".into(), "false".into()]);
    let mut server = Pilotfish::serve(&args.pilotfish, options).await;
    let pid = server.process().pid().expect("the server runs");
    let mut command = Command::new(&args.xload);
    match source {
        Source::Cluster(cluster) => {
            command.args(["bench", "--scenario"]).arg(args.scenarios.join(scenario)).arg("--kubeconfig").arg(cluster.kubeconfig())
        }
        Source::Files(_) => command.args(["reconnect", "--kubeconfig", ""]),
    };
    command.args(["--address", &server.grpc().to_string(), "--server-pid", &pid.to_string(), "--proxies", &proxies.to_string()]);
    command.args(run.mesh.flags()).args(["--limit", &args.limit]).arg("--out").arg(out);
    let good = shown(&mut command).await;
    let ended = server.process().ended();
    fs::write(log, server.process().log()).unwrap();
    if let Some(status) = ended {
        println!("FAILED: the server ended with {status}");
    }
    good && ended.is_none()
}

/// Runs to the end, with its output for all to see. It ends with this process.
async fn shown(command: &mut Command) -> bool {
    let std = command.as_std();
    let words = std::iter::once(std.get_program()).chain(std.get_args()).map(|word| word.to_string_lossy());
    println!("+ {}", words.collect::<Vec<_>>().join(" "));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command.status().await.is_ok_and(|status| status.success())
}
