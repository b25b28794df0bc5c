//! How the server ends: nobody who has not heard of it yet meets a closed door.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_ca::tls::{Options, Serving, serving_certificate};
use pilotfish_testkit::tls::TlsClient;
use pilotfish_testkit::until;
use pilotfish_webhook::server::{Nothing, Webhooks, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The head of an answer to one question on a connection.
async fn ask(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> std::io::Result<String> {
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n").await?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(stream.read_u8().await?));
    }
    Ok(head.to_lowercase())
}

#[tokio::test]
async fn the_last_answers_say_so_and_then_the_door_is_closed() {
    let now = std::time::SystemTime::now();
    let files = pilotfish_ca::root::generate("cluster.local", &pilotfish_ca::root::Options::default(), now).unwrap();
    let material = pilotfish_ca::material::Material::load(&files, now).unwrap();
    let (chain, key) = serving_certificate(&material, &["x.example".to_owned()], Duration::from_secs(3600), now).unwrap();
    let serving = Serving::default();
    serving.set_certificate(chain, key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let (drain, webhooks) = (CancellationToken::new(), Webhooks::new(Arc::new(Nothing)));
    let tls = serving.for_anyone(&Options::default()).unwrap();
    let server = tokio::spawn(serve(listener, tls, webhooks, drain.clone(), Duration::from_millis(300)));

    let client = TlsClient::new(material.roots()[0].clone()).alpn(&["http/1.1"]);
    let (mut old, _) = client.connect(addr, "x.example").await.unwrap();
    let (mut idle, _) = client.connect(addr, "x.example").await.unwrap();
    assert!(!ask(&mut old).await.unwrap().contains("connection: close"));
    drain.cancel();
    // Whoever has a connection is told with the answer, and new ones are still taken.
    assert!(ask(&mut old).await.unwrap().contains("connection: close"));
    let (mut late, _) = client.connect(addr, "x.example").await.unwrap();
    assert!(ask(&mut late).await.unwrap().contains("connection: close"));
    until("a closed door", async || TcpStream::connect(addr).await.err().ok_or("still open")).await;
    // What was never used again does not hold the end up.
    assert!(ask(&mut idle).await.is_err());
    server.await.unwrap().unwrap();
}
