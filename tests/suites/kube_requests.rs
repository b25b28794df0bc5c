//! Two thousand requests for certificates in ten seconds, with an API server that takes fifty requests a second: who has a
//! token of the cluster's is known without asking anybody.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use pilotfish_testkit::KubeCluster;
use pilotfish_testkit::ads::tls_channel;
use pilotfish_testkit::csr::{Ask, sign};
use pilotfish_testkit::kube::{self, ApiProxy};
use pilotfish_testkit::pilotfish::{self, Options, Pilotfish};
use pilotfish_testkit::poll::until_within;
use pilotfish_testkit::tls::TlsClient;
use pilotfish_tests::NAMESPACE;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

const NAME: &str = "istiod.istio-system.svc";
const ACCOUNTS: usize = 200;
const REQUESTS: usize = 2_000;
const WITHIN: Duration = Duration::from_secs(10);
const PER_SECOND: u32 = 50;
/// The part of all processors, in percent, that other work may take.
const OTHERS: u64 = 40;

/// One agent after another: a connection of its own, a request, an answer. How long that took.
async fn one(addr: std::net::SocketAddr, client: &TlsClient<'_>, token: &str, csr: String) -> Result<Duration, String> {
    let began = Instant::now();
    let exchange = async {
        let channel = tls_channel(addr, NAME, client).await.map_err(|e| format!("{e:#}"))?;
        sign(channel, &Ask { token: Some(token), ..Ask::default() }, csr).await.map_err(|e| e.to_string())
    };
    let chain = timeout(WITHIN, exchange).await.map_err(|_| "no answer in time".to_owned())??;
    if chain.len() == 2 { Ok(began.elapsed()) } else { Err(format!("a chain of {}", chain.len())) }
}

/// Clock ticks that all processors have spent on work, on nothing, and on these processes.
fn spent(processes: &[u32]) -> [u64; 3] {
    let numbers = |text: &str, skip: usize| -> Vec<u64> { text.split_whitespace().skip(skip).filter_map(|n| n.parse().ok()).collect() };
    let all = std::fs::read_to_string("/proc/stat").unwrap();
    let all = numbers(all.lines().next().unwrap(), 1);
    let idle = all[3] + all[4];
    let of = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After the name, which may have blanks in it: fields 14 and 15.
        numbers(stat.rsplit_once(')').unwrap().1, 11)[..2].iter().sum::<u64>()
    };
    [all[..8].iter().sum::<u64>() - idle, idle, processes.iter().map(of).sum()]
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_agents_come_at_once() {
    let (Some(binary), Some(assets)) = (pilotfish::binary("kube_requests"), kube::assets("kube_requests")) else { return };
    let cluster = KubeCluster::start(&assets, kube::Options::default()).await;
    cluster.install_crds().await;
    let account = |i: usize| format!("web-{i}");
    let accounts = (0..ACCOUNTS)
        .map(|i| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account(i), "namespace": NAMESPACE}}));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    cluster.apply(&std::iter::once(namespace).chain(accounts).collect::<Vec<_>>()).await;
    let (writer, mut tokens) = (cluster.writer().await, Vec::new());
    for i in 0..REQUESTS {
        tokens.push(writer.token(NAMESPACE, &account(i % ACCOUNTS), "istio-ca").await.unwrap());
    }
    let requests: Vec<String> = (0..REQUESTS)
        .map(|_| {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
        })
        .collect();

    let proxy = ApiProxy::start(&cluster).await;
    proxy.limit(PER_SECOND);
    let args = vec!["--kubeconfig".into(), proxy.kubeconfig().into()];
    let mut pilotfish = Pilotfish::serve(&binary, Options { args, ..Options::default() }).await;
    let secret = || async {
        cluster
            .try_kubectl(&["get", "configmap", "istio-ca-root-cert", "-n", NAMESPACE, "-o", "jsonpath={.data.root-cert\\.pem}"], "")
            .await
    };
    let root = until_within(Duration::from_secs(60), "a root", async || {
        let pem = secret().await.map_err(|e| format!("{e:#}"))?;
        Ok::<_, String>(pilotfish_ca::pem::certificates(pem.as_bytes()).map_err(|e| e.to_string())?.remove(0))
    })
    .await;
    let client = TlsClient::new(root);
    until_within(Duration::from_secs(60), "a first certificate", async || {
        one(pilotfish.secure(), &client, &tokens[0], requests[0].clone()).await
    })
    .await;

    let processes = [std::process::id(), pilotfish.process().pid().unwrap()];
    let (asked, before) = (proxy.requests().len(), spent(&processes));
    let (began, mut tasks) = (Instant::now(), JoinSet::new());
    for (i, (token, csr)) in (0..).zip(tokens.into_iter().zip(requests)) {
        let (addr, client) = (pilotfish.secure(), client.clone());
        tasks.spawn(async move {
            sleep_until(began + WITHIN * i / REQUESTS as u32).await;
            one(addr, &client, &token, csr).await
        });
    }
    let outcomes = tasks.join_all().await;
    let took = began.elapsed();
    let [busy, idle, own] = [0, 1, 2].map(|i| spent(&processes)[i] - before[i]);
    let others = 100 * busy.saturating_sub(own) / (busy + idle);
    let refused: Vec<&String> = outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
    assert!(refused.is_empty(), "{} of {REQUESTS} have no certificate, such as {:?}", refused.len(), refused[0]);
    let mut times: Vec<Duration> = outcomes.into_iter().flatten().collect();
    times.sort();
    let part = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let asked = &proxy.requests()[asked..];
    let reviews = asked.iter().filter(|path| path.contains("tokenreviews")).count();
    println!(
        "{REQUESTS} certificates in {took:?}: half within {:?}, 99 % within {:?}, all within {:?}; {} requests to the API server, {reviews} about tokens",
        part(50),
        part(99),
        part(100),
        asked.len()
    );
    assert_eq!(reviews, 0);
    // Times are ours only where the processors are.
    if others < OTHERS {
        assert!(part(99) < Duration::from_secs(1), "99 % within {:?}", part(99));
        assert!(took < WITHIN + Duration::from_secs(1), "{took:?}");
    } else {
        println!("other work took {others} % of the processors: no word about times");
    }
    assert_eq!(pilotfish.figure("citadel_server_success_cert_issuance_count").await, (REQUESTS + 1) as f64);
}
