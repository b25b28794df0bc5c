//! What the webhooks of the real binary do with requests that are meant to hurt: a 4xx or a refusal, soon, and in little memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilotfish_testkit::pilotfish::{self, Options, Pilotfish};
use pilotfish_testkit::until;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How much one request may take, in KiB.
const GROWTH: u64 = 20 << 10;
/// How long one may take, in a build that is not optimized and on a machine with company.
const PATIENCE: Duration = Duration::from_secs(20);

/// A figure of the process, in KiB.
fn memory(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().unwrap()
}

/// Status and body.
async fn post(addr: SocketAddr, path: &str, body: &[u8], announced: bool) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let length = if announced { format!("content-length: {}", body.len()) } else { "transfer-encoding: chunked".to_owned() };
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let send = async {
        // One that refuses early does not read the rest.
        if announced {
            let _ = write.write_all(body).await;
            return;
        }
        for chunk in body.chunks(1 << 16) {
            let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
            if write.write_all(&framed).await.is_err() {
                return;
            }
        }
        let _ = write.write_all(b"0\r\n\r\n").await;
    };
    let mut answer = Vec::new();
    let (_, _) = tokio::join!(send, read.read_to_end(&mut answer));
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    (status, text.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default())
}

fn review(object: &str) -> Vec<u8> {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","operation":"CREATE","namespace":"a","kind":{{"kind":"x"}},"object":{object}}}}}"#
    )
    .into_bytes()
}

fn routes(http: &[Value]) -> Vec<u8> {
    let object = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "a", "namespace": "b"},
        "spec": {"hosts": ["a.example.com"], "http": http}});
    review(&object.to_string())
}

fn matching(regex: &str) -> Value {
    json!({"match": [{"uri": {"regex": regex}}], "route": [{"destination": {"host": "b"}}]})
}

#[tokio::test]
async fn requests_that_are_meant_to_hurt() {
    let Some(binary) = pilotfish::binary("limits") else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config"), "policy: enabled\n").unwrap();
    std::fs::write(dir.path().join("values"), "{}").unwrap();
    let args = ["--https-addr", "", "--injection-dir", dir.path().to_str().unwrap()].map(Into::into).into();
    let mut server = Pilotfish::serve(&binary, Options { args, ..Options::default() }).await;
    let (addr, pid) = (server.http(), server.process().pid().unwrap());
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
    let harmless = review(&pod.to_string());
    until("injection", async || match post(addr, "/inject", &harmless, true).await {
        (200, body) if body.contains("JSONPatch") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    post(addr, "/validate", &routes(&[matching("/a.*")]), true).await;

    let ten = 10 << 20;
    let listed = format!("{{\"spec\":[{}0]}}", "0,".repeat(3_400_000));
    let mapped: String = (0..110_000).map(|n| format!("\"{n}\":0,")).collect();
    let annotated = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"a","annotations":{{{}"z":0}}}},"spec":{{"containers":[]}}}}"#,
        mapped
    );
    let mut large_pod = pod.clone();
    let some = (0..14_900).map(|n| (n.to_string(), json!(""))).chain([("z".to_owned(), json!("x".repeat(1 << 20)))]);
    large_pod["metadata"]["annotations"] = some.collect();
    let bombs: Vec<Value> = (0..500).map(|n| matching(&format!("(x{{1000}}){{{}}}", 500 + n % 400))).collect();
    let nested = "(".repeat(1 << 20);
    let plain: Vec<Value> = (0..1_000).map(|n| matching(&format!("/a{n}/[a-z]+/.*"))).collect();
    let mut too_much = Vec::new();
    for (name, body, announced, is_refused) in [
        ("ten megabytes", vec![b' '; ten], true, true),
        ("ten megabytes of unknown length", vec![b' '; ten], false, true),
        ("one hundred thousand deep", review(&"[".repeat(100_000)), true, true),
        ("a million deep", review(&"[".repeat(1_000_000)), true, true),
        ("millions of values", review(&listed), true, true),
        ("as many fields as may be", review(&annotated), true, false),
        ("a large Pod", review(&large_pod.to_string()), true, false),
        ("patterns that grow", routes(&bombs), true, false),
        ("a pattern that is deep", routes(&[matching(&nested)]), true, false),
        ("many patterns", routes(&plain), true, false),
    ] {
        for path in ["/validate", "/inject"] {
            // From here on the peak is counted anew.
            std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
            let (before, began) = (memory(pid, "VmRSS"), Instant::now());
            let (status, answer) = post(addr, path, &body, announced).await;
            let (took, growth) = (began.elapsed(), memory(pid, "VmHWM").saturating_sub(before));
            let start: String = answer.chars().take(160).collect();
            println!("{name}, {path}: {status} after {took:?}, {growth} KiB: {start}");
            let told = status == 200 && serde_json::from_str::<Value>(&answer).is_ok_and(|a| a["response"]["allowed"].is_boolean());
            // A Pod may be smaller than what is validated.
            let expected = if is_refused { (400..500).contains(&status) } else { told || path == "/inject" && status == 400 };
            assert!(expected, "{name}: {status} {start}");
            if growth >= GROWTH || took >= PATIENCE {
                too_much.push(format!("{name}, {path}: {growth} KiB, {took:?}"));
            }
        }
    }
    assert_eq!(too_much, Vec::<String>::new());
    // What is refused for its patterns says so, and the next in line is answered.
    let (_, answer) = post(addr, "/validate", &routes(&bombs), true).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["response"]["allowed"], false);
    assert!(post(addr, "/inject", &harmless, true).await.1.contains("JSONPatch"));
}
