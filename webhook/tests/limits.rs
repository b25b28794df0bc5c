//! What the server does with requests that are no reviews: the status, and that it is not impressed by size or depth.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;

use pilotfish_webhook::server::{Nothing, Webhooks};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = Webhooks::new(Arc::new(Nothing)).router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    addr
}

/// Status and body of the answer.
async fn post(addr: SocketAddr, path: &str, content_type: &str, length: usize, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // One that refuses early does not read the rest.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{answer}"));
    (status, answer.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default())
}

fn review(object: &Value) -> String {
    let request = json!({"uid": "u", "operation": "CREATE", "kind": {"group": "g", "version": "v", "kind": "k"}, "object": object});
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string()
}

#[tokio::test]
async fn requests_that_are_no_reviews() {
    let addr = serve().await;
    let json_type = "application/json";
    let deep = review(&json!(0)).replace("\"object\":0", &format!("\"object\":{}", "[".repeat(100_000)));
    let large = vec![b' '; 1 << 20];
    for (name, content_type, length, body, wanted) in [
        ("empty", json_type, 0, &b""[..], 400),
        ("another type", "text/plain", 2, b"{}", 415),
        ("no review", json_type, 2, b"{}", 200),
        ("deep", json_type, deep.len(), deep.as_bytes(), 400),
        // Refused by what it announces: none of it is kept.
        ("ten megabytes", json_type, 10 << 20, &large, 400),
    ] {
        let (status, body) = post(addr, "/validate", content_type, length, body).await;
        assert_eq!(status, wanted, "{name}: {body}");
        if wanted == 200 {
            let answer: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(answer["response"]["allowed"], false);
            assert!(answer["response"]["status"]["message"].as_str().unwrap().starts_with("could not decode body:"), "{answer}");
        }
    }
    assert_eq!(post(addr, "/inject", json_type, 2, b"{}").await.0, 404, "there is no configuration");
}

#[tokio::test]
async fn hostile_patterns_cost_little() {
    let addr = serve().await;
    for regex in ["(a+)+$".repeat(50), "(x{1000}){1000}".to_owned(), "(".repeat(5000)] {
        let object = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "a", "namespace": "b"},
            "spec": {"hosts": ["a.example.com"], "http": [{"match": [{"uri": {"regex": regex}}], "route": [{"destination": {"host": "b"}}]}]}});
        let text = review(&object);
        let (status, body) = post(addr, "/validate", "application/json", text.len(), text.as_bytes()).await;
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert!(answer["response"]["allowed"].is_boolean(), "{answer}");
    }
}
