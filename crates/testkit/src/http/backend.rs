//! The backend.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

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
}

/// An HTTP/1.1 and cleartext HTTP/2 server that answers every request with an [`Echo`]: status 200, or NNN for a path
/// that starts with `/status/NNN`. Dropping it closes its connections.
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
        let listener = TcpListener::bind(addr).await.unwrap_or_else(|e| panic!("backend {name} on {addr}: {e}"));
        let addr = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(serve(listener, name.into(), requests.clone()));
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

async fn serve(listener: TcpListener, name: Arc<str>, requests: Arc<AtomicU64>) {
    // Connections end with this set, and the set with the task.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (name, requests) = (name.clone(), requests.clone());
        connections.spawn(async move {
            let service = service_fn(|request| {
                requests.fetch_add(1, Ordering::Relaxed);
                let response = answer(&name, &request);
                async { Ok::<_, Infallible>(response) }
            });
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn answer(name: &str, request: &Request<Incoming>) -> Response<String> {
    let header = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    let headers: BTreeMap<String, String> = request.headers().iter().map(|(k, v)| (k.to_string(), header(v))).collect();
    let path = request.uri().path_and_query().map_or_else(|| request.uri().path().to_owned(), |p| p.to_string());
    let host = request.uri().authority().map(|a| a.to_string()).or_else(|| headers.get("host").cloned()).unwrap_or_default();
    let status = path.strip_prefix("/status/").and_then(|rest| rest.get(..3)?.parse().ok());
    let echo = Echo { backend: name.to_owned(), method: request.method().to_string(), path, host, headers };
    let mut response = Response::new(serde_json::to_string(&echo).unwrap());
    *response.status_mut() = status.unwrap_or(StatusCode::OK);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
