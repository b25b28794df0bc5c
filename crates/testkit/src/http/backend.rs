//! The backend.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::tls::{Seen, TlsServer};

/// What a backend answers, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Name of the backend.
    pub backend: String,
    /// Of the request that reached it.
    pub method: String,
    /// With query.
    pub path: String,
    /// `:authority` or `Host`.
    pub host: String,
    /// Lower-case names; of repeated headers the last.
    pub headers: BTreeMap<String, String>,
    /// Of the connection, if it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Seen>,
}

/// An HTTP/1.1 and HTTP/2 server that answers every request with an [`Echo`]. Dropping it closes its connections.
///
/// The path may ask for more: `/status/NNN...` for that status, `/sleep/MS` for a pause before, `/fail/NAME` for a 503 of
/// the backend of that name, `/flaky/KEY/N` for N times 503 before each answer.
pub struct Backend {
    addr: SocketAddr,
    requests: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Backend {
    /// On a free port of 127.0.0.1.
    pub async fn start(name: &str) -> Self {
        Self::start_on(name, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// On an address of one's choice, such as another one of 127.0.0.0/8.
    pub async fn start_on(name: &str, addr: SocketAddr) -> Self {
        Self::spawn(name, addr, None).await
    }

    /// Encrypted, on a free port of 127.0.0.1.
    pub async fn start_tls(name: &str, server: &TlsServer) -> Self {
        Self::spawn(name, (Ipv4Addr::LOCALHOST, 0).into(), Some(server.clone())).await
    }

    async fn spawn(name: &str, addr: SocketAddr, tls: Option<TlsServer>) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap_or_else(|e| panic!("backend {name} on {addr}: {e}"));
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicU64::new(0));
        let state = Arc::new(State { name: name.into(), requests: requests.clone(), flaky: Mutex::default() });
        let task = tokio::spawn(serve(listener, state, tls));
        Backend { addr, requests, task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many requests it has answered.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct State {
    name: String,
    requests: Arc<AtomicU64>,
    flaky: Mutex<BTreeMap<String, u32>>,
}

async fn serve(listener: TcpListener, state: Arc<State>, tls: Option<TlsServer>) {
    // Connections end with this set, and the set with the task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (state, tls) = (state.clone(), tls.clone());
        connections.spawn(async move {
            match tls {
                None => state.connection(stream, None).await,
                Some(tls) => {
                    if let Ok((stream, seen)) = tls.accept(stream).await {
                        state.connection(stream, Some(seen)).await;
                    }
                }
            }
        });
    }
}

impl State {
    async fn connection(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, tls: Option<Seen>) {
        let service = service_fn(move |request| {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let (state, tls) = (self.clone(), tls.clone());
            async move { Ok::<_, Infallible>(state.answer(&request, tls).await) }
        });
        let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: &Request<Incoming>, tls: Option<Seen>) -> Response<String> {
        let header = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
        let headers: BTreeMap<String, String> = request.headers().iter().map(|(k, v)| (k.to_string(), header(v))).collect();
        let path = request.uri().path_and_query().map_or_else(|| request.uri().path().to_owned(), |p| p.to_string());
        let host = request.uri().authority().map(|a| a.to_string()).or_else(|| headers.get("host").cloned()).unwrap_or_default();
        let status = self.wish(&path).await;
        let echo = Echo { backend: self.name.clone(), method: request.method().to_string(), path, host, headers, tls };
        let mut response = Response::new(serde_json::to_string(&echo).unwrap());
        *response.status_mut() = status;
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        response.headers_mut().insert("x-backend", http::HeaderValue::from_str(&self.name).unwrap());
        response
    }

    async fn wish(&self, path: &str) -> StatusCode {
        let words: Vec<&str> = path.split(['/', '?']).skip(1).collect();
        let failing = match words[..] {
            ["status", code, ..] => return code.parse().unwrap_or(StatusCode::OK),
            ["sleep", ms, ..] => {
                tokio::time::sleep(Duration::from_millis(ms.parse().unwrap_or_default())).await;
                false
            }
            ["fail", name, ..] => name == self.name,
            ["flaky", key, times, ..] => {
                let mut flaky = self.flaky.lock().unwrap();
                let failed = flaky.entry(key.to_owned()).or_default();
                *failed += 1;
                let fails = *failed <= times.parse().unwrap_or_default();
                if !fails {
                    *failed = 0;
                }
                fails
            }
            _ => false,
        };
        if failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    }
}
