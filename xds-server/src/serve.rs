//! Connections: accept, HTTP/2, the two methods of the service, drain.

use std::convert::Infallible;
use std::future::ready;
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
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::body::AdsBody;
use crate::requests::Requests;
use crate::server::Shared;
use crate::wire::WireRequest;
use crate::{Translate, stream};

const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// Bytes that a connection takes from its streams before the client has taken them. What is behind costs pointers only.
const SEND_BUFFER: usize = 64 << 10;
/// Unanswered probes after which a peer counts as gone.
const PROBES: u32 = 3;
/// Pause after a failed accept: mostly too many open files, which a busy loop would not cure.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) async fn serve<T: Translate>(shared: Arc<Shared<T>>, listener: TcpListener, drain: CancellationToken) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = drain.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => {
                    connections.spawn(connection(shared.clone(), tcp, peer, drain.clone()));
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

async fn connection<T: Translate>(shared: Arc<Shared<T>>, tcp: TcpStream, peer: SocketAddr, drain: CancellationToken) {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    let config = &shared.config;
    let probing = TcpKeepalive::new().with_time(config.tcp_keepalive).with_interval(config.keepalive_timeout).with_retries(PROBES);
    if let Err(error) = SockRef::from(&tcp).set_tcp_keepalive(&probing) {
        tracing::debug!(%peer, %error, "cannot set TCP keepalive");
    }
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .keep_alive_interval(config.keepalive_interval)
        .keep_alive_timeout(config.keepalive_timeout)
        .max_concurrent_streams(config.max_streams)
        .max_send_buf_size(SEND_BUFFER);
    let service = service_fn(|request| ready(Ok::<_, Infallible>(answer(&shared, request, peer, &drain))));
    let mut connection = pin!(http.serve_connection(TokioIo::new(tcp), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

fn answer<T: Translate>(
    shared: &Arc<Shared<T>>,
    request: Request<Incoming>,
    peer: SocketAddr,
    drain: &CancellationToken,
) -> Response<AdsBody> {
    if request.method() != Method::POST {
        return refusal(Status::unimplemented("gRPC is POST"));
    }
    if request.headers().get("grpc-encoding").is_some_and(|v| v != "identity") {
        return refusal(Status::unimplemented("compressed requests are not supported"));
    }
    match request.uri().path() {
        SOTW => accept::<T, DiscoveryRequest>(shared.clone(), request, peer, drain.clone()),
        DELTA => accept::<T, DeltaDiscoveryRequest>(shared.clone(), request, peer, drain.clone()),
        path => refusal(Status::unimplemented(format!("no method {path}"))),
    }
}

fn accept<T: Translate, R: WireRequest>(
    shared: Arc<Shared<T>>,
    request: Request<Incoming>,
    peer: SocketAddr,
    drain: CancellationToken,
) -> Response<AdsBody> {
    let requests = Requests::<R>::new(request.into_body(), shared.config.max_request_bytes);
    let copied = shared.store.counters.copied.clone();
    respond(AdsBody::new(copied, |responses| stream::run(shared, requests, responses, Some(peer), drain)))
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
