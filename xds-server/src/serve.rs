//! Connections: accept, TLS, HTTP/2, who calls, the methods, drain.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pilotfish_envoy::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::access::{Asset, Way, Who, allows};
use crate::body::{AdsBody, Message};
use crate::guard::{Peer, Port};
use crate::requests::{self, Requests};
use crate::server::Shared;
use crate::stream::Opened;
use crate::subscription::Protocol;
use crate::wire::WireRequest;
use crate::{Translate, stream};

const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// The methods of ADS.
pub(crate) const METHODS: [&str; 2] = [SOTW, DELTA];
/// The longest request of a method with one request.
const MAX_CALL: usize = 64 << 10;
/// The longest headers of a request; tokens are a few thousand bytes.
const MAX_HEADERS: u32 = 32 << 10;
/// How long a TLS handshake may take, finding out who calls, and the request of a call.
const OPENING: Duration = Duration::from_secs(10);
/// Bytes that a connection takes from its streams before the client has taken them. What is behind costs pointers only.
const SEND_BUFFER: usize = 64 << 10;
/// Unanswered probes after which a peer counts as gone.
const PROBES: u32 = 3;
/// Pause after a failed accept: mostly too many open files, which a busy loop would not cure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn serve<T: Translate>(
    shared: Arc<Shared<T>>,
    listener: TcpListener,
    port: Port,
    drain: CancellationToken,
) -> io::Result<()> {
    let port = Arc::new(port);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = drain.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    connections.spawn(connection(shared.clone(), tcp, peer, port.clone(), drain.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all_gone = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(shared.config.drain_timeout, all_gone).await.is_err() {
        tracing::warn!(connections = connections.len(), "clients did not go in time; their connections are cut");
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection<T: Translate>(shared: Arc<Shared<T>>, tcp: TcpStream, address: SocketAddr, port: Arc<Port>, drain: CancellationToken) {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(peer = %address, %error, "cannot set TCP_NODELAY");
    }
    let config = &shared.config;
    let probing = TcpKeepalive::new().with_time(config.tcp_keepalive).with_interval(config.keepalive_timeout).with_retries(PROBES);
    if let Err(error) = SockRef::from(&tcp).set_tcp_keepalive(&probing) {
        tracing::debug!(peer = %address, %error, "cannot set TCP keepalive");
    }
    let mut peer = Peer { address, way: Way::of(Some(address), port.tls.is_some()), certificate: None };
    let Some(acceptor) = &port.tls else { return drive(shared, tcp, Arc::new(peer), port, drain).await };
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(OPENING, acceptor.accept(tcp)) => accepted,
        () = drain.cancelled() => return,
    };
    match accepted {
        Ok(Ok(tls)) => {
            peer.certificate = tls.get_ref().1.peer_certificates().and_then(|all| Some(Arc::from(all.first()?.as_ref())));
            drive(shared, tls, Arc::new(peer), port, drain).await;
        }
        Ok(Err(error)) => tracing::info!(peer = %address, %error, "no TLS"),
        Err(_) => tracing::debug!(peer = %address, "the TLS handshake took too long"),
    }
}

async fn drive<T: Translate>(
    shared: Arc<Shared<T>>,
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Arc<Peer>,
    port: Arc<Port>,
    drain: CancellationToken,
) {
    let config = &shared.config;
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buf_size(SEND_BUFFER);
    let service = service_fn(|request| {
        let (shared, peer, port, drain) = (shared.clone(), peer.clone(), port.clone(), drain.clone());
        async move { Ok::<_, Infallible>(answer(shared, request, peer, port, drain).await) }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(io), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %peer.address, %error, "connection ended");
    }
}

async fn answer<T: Translate>(
    shared: Arc<Shared<T>>,
    request: Request<Incoming>,
    peer: Arc<Peer>,
    port: Arc<Port>,
    drain: CancellationToken,
) -> Response<AdsBody> {
    if request.method() != Method::POST {
        return refusal(Status::unimplemented("gRPC is POST"));
    }
    if request.headers().get("grpc-encoding").is_some_and(|v| v != "identity") {
        return refusal(Status::unimplemented("compressed requests are not supported"));
    }
    let path = request.uri().path();
    let method = port.guard.methods().iter().find(|m| **m == path).copied();
    if method.is_none() && !METHODS.contains(&path) {
        return refusal(Status::unimplemented("no such method"));
    }
    let caller = tokio::time::timeout(OPENING, port.guard.authenticate(&peer, request.headers())).await;
    let caller = match caller {
        Ok(Ok(caller)) => caller,
        Ok(Err(status)) => return refusal(status),
        Err(_) => return refusal(Status::unavailable("request authenticate failure")),
    };
    if let Some(method) = method {
        // It is about the caller itself.
        let who = if caller.is_anonymous() { Who::Anonymous } else { Who::SameNamespace };
        if !allows(Asset::Certificate, peer.way, who) {
            shared.metrics.refused();
            return refusal(Status::unauthenticated("request authenticate failure"));
        }
        let outcome = tokio::time::timeout(OPENING, async {
            let request = requests::one(request.into_body(), MAX_CALL).await?;
            port.guard.call(method, &caller, request).await
        });
        let outcome = outcome.await.unwrap_or_else(|_| Err(Status::deadline_exceeded("the request took too long")));
        return match outcome {
            Err(status) => refusal(status),
            Ok(answer) => respond(AdsBody::new(shared.store.counters.copied.clone(), |outbox| async move {
                outbox.send(Message::new(answer, Vec::new(), Protocol::Sotw)).await;
                Ok(())
            })),
        };
    }
    let opened = Opened { peer, caller, port };
    match request.uri().path() {
        SOTW => accept::<T, DiscoveryRequest>(shared, request, opened, drain),
        _ => accept::<T, DeltaDiscoveryRequest>(shared, request, opened, drain),
    }
}

fn accept<T: Translate, R: WireRequest>(
    shared: Arc<Shared<T>>,
    request: Request<Incoming>,
    opened: Opened,
    drain: CancellationToken,
) -> Response<AdsBody> {
    let requests = Requests::<R>::new(request.into_body(), shared.config.max_request_bytes);
    let copied = shared.store.counters.copied.clone();
    respond(AdsBody::new(copied, |responses| stream::run(shared, requests, responses, opened, drain)))
}

/// A response of headers only.
fn refusal(status: Status) -> Response<AdsBody> {
    let mut response = respond(AdsBody::empty());
    if status.add_header(response.headers_mut()).is_err() {
        response.headers_mut().insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    response
}

fn respond(body: AdsBody) -> Response<AdsBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
