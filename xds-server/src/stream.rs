//! One ADS stream: requests and targets in, responses out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use pilotfish_envoy::TypeUrl;
use pilotfish_envoy::pb::envoy::config::core::v3 as core;
use pilotfish_model::Proxy;
use pilotfish_push::{Permit, Urgency};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::Instrument;

use crate::body::Outbox;
use crate::client::{Client, Next};
use crate::node::NodeError;
use crate::requests::Requests;
use crate::server::Shared;
use crate::store::{Connected, Session, count};
use crate::subscription::{Rejection, Verdict};
use crate::wire::{WireRequest, encode};
use crate::{Translate, node, secret};

/// Health reports of virtual machines; they may come before the node and are never answered.
const HEALTH: &str = "type.googleapis.com/istio.v1.HealthInformation";
/// How many suspects of a NACK are logged.
const LOGGED_NAMES: usize = 10;

/// Runs a stream until the client leaves, the server drains, or one of them misbehaves.
pub(crate) async fn run<T: Translate, R: WireRequest>(
    shared: Arc<Shared<T>>,
    requests: Requests<R>,
    responses: Outbox,
    peer: Option<SocketAddr>,
    drain: CancellationToken,
) -> Result<(), Status> {
    tokio::select! {
        result = open_and_serve(shared, requests, responses, peer) => result,
        () = drain.cancelled() => Err(Status::unavailable("the server is shutting down")),
    }
}

async fn open_and_serve<T: Translate, R: WireRequest>(
    shared: Arc<Shared<T>>,
    mut requests: Requests<R>,
    responses: Outbox,
    peer: Option<SocketAddr>,
) -> Result<(), Status> {
    let mut first = loop {
        match requests.message().await? {
            None => return Ok(()),
            Some(request) if request.type_url() == HEALTH => {}
            Some(request) => break request,
        }
    };
    let node = first.take_node();
    let id = shared.next_stream();
    let (proxy, metadata) = understand(&shared, node).await?;
    let urgency = if first.is_resumed() { Urgency::Config } else { Urgency::Unconfigured };
    let admitted = Admitted { _permit: shared.gate.admit(urgency).await, until: Instant::now() + shared.config.patience };
    let client = Client::new(R::PROTOCOL, id, shared.config.patience);
    let connected = shared.store.connect(Session::new(id, proxy, metadata, peer, client));
    let session = connected.session.clone();
    let span = tracing::info_span!("ads", proxy = %session.connection_id);
    let stream = Stream { shared, connected, responses, wave: None, admitted: Some(admitted) };
    async move {
        let proxy = &session.proxy;
        tracing::info!(protocol = ?R::PROTOCOL, kind = ?proxy.kind, flavour = ?proxy.flavour, ns = %proxy.namespace, "connected");
        stream.serve(first, requests).await
    }
    .instrument(span)
    .await
}

async fn understand<T: Translate>(shared: &Shared<T>, node: Option<core::Node>) -> Result<(Proxy, Vec<u8>), Status> {
    let node = node.unwrap_or_default();
    let refuse = |error: NodeError| {
        tracing::warn!(node = %node.id, %error, "refused");
        Status::invalid_argument(error.to_string())
    };
    let metadata = node.metadata.as_ref().map(|m| m.encode_to_vec()).unwrap_or_default();
    let understood = node::read(&node).map_err(refuse)?;
    // Which namespace is the root one is known with the first world. Nothing is served before it either.
    let (translate, world) = (&shared.store.translate, shared.store.world().await);
    let proxy = Proxy::parse(understood, translate.root_namespace(&world), translate.domain(&world));
    Ok((proxy.map_err(|error| refuse(error.into()))?, metadata))
}

struct Stream<T: Translate> {
    shared: Arc<Shared<T>>,
    connected: Connected<T>,
    responses: Outbox,
    /// The push that is under way: its generation and when it began for this client.
    wave: Option<(u64, Instant)>,
    /// Until the first exchange is over.
    admitted: Option<Admitted>,
}

/// A place among the streams that are in their first exchange. A stream that gets nothing gives it up after a while.
struct Admitted {
    _permit: Permit,
    until: Instant,
}

enum Event<R> {
    Request(Option<R>),
    Target,
    Patience,
}

impl<T: Translate> Stream<T> {
    async fn serve<R: WireRequest>(mut self, first: R, mut requests: Requests<R>) -> Result<(), Status> {
        self.on_request(first);
        self.shared.store.place(&self.connected.session);
        loop {
            self.retarget();
            let mut wake = self.send_all::<R>().await?;
            let served = self.connected.session.client().target().is_some();
            self.admitted.take_if(|a| served || a.until <= Instant::now());
            if let Some(admitted) = &self.admitted {
                wake = Some(wake.map_or(admitted.until, |wake| wake.min(admitted.until)));
            }
            let event = tokio::select! {
                request = requests.message() => Event::Request(request?),
                () = self.connected.mailbox.filled() => Event::Target,
                () = sleep_until(wake) => Event::Patience,
            };
            match event {
                Event::Request(None) => return Ok(()),
                Event::Request(Some(request)) => self.on_request(request),
                Event::Target | Event::Patience => {}
            }
        }
    }

    fn retarget(&mut self) {
        let Some(target) = self.connected.mailbox.take() else { return };
        let mut client = self.connected.session.client();
        let began = target.since.unwrap_or_else(Instant::now);
        self.wave = Some((target.generation, self.wave.map_or(began, |(_, earlier)| earlier.min(began))));
        client.retarget(target);
        drop(client);
        secret::refresh(&self.shared.store, &self.connected.session);
    }

    async fn send_all<R: WireRequest>(&mut self) -> Result<Option<Instant>, Status> {
        loop {
            let began = Instant::now();
            let (next, compared) = {
                let mut client = self.connected.session.client();
                (client.next(began, SystemTime::now()), client.take_compared())
            };
            count(&self.shared.store.counters.compared, compared);
            let response = match next {
                Next::Send(response) => response,
                Next::Idle(wake) => {
                    if let Some((generation, began)) = self.wave
                        && self.connected.session.client().has_reached(generation)
                    {
                        self.shared.metrics.convergence_time.observe(began.elapsed().as_secs_f64());
                        self.wave = None;
                    }
                    return Ok(wake);
                }
            };
            let (type_url, since, resources) = (response.type_url, response.since, response.resources.len());
            tracing::debug!(r#type = type_url.short(), nonce = %response.nonce, resources, removed = response.removed.len(), "push");
            let message = encode(response, R::PROTOCOL);
            let bytes = message.encoded_len();
            let sending = Instant::now();
            self.responses.send(message).await;
            let (metrics, counters) = (&self.shared.metrics, &self.shared.store.counters);
            metrics.sent(type_url, bytes, began.elapsed(), sending.elapsed());
            if let Some(since) = since {
                metrics.told(type_url, since.elapsed());
            }
            count(&counters.responses, 1);
            count(&counters.resources, resources);
            count(&counters.bytes, bytes);
        }
    }

    fn on_request<R: WireRequest>(&self, request: R) {
        let metrics = &self.shared.metrics;
        metrics.received(request.encoded_len());
        let Some(type_url) = TypeUrl::parse(request.type_url()) else {
            if request.type_url() != HEALTH {
                metrics.unknown_types.inc();
                tracing::warn!(type_url = request.type_url(), "asked for a type that is not served; it gets no answer");
            }
            return;
        };
        let (verdict, confirmed) = {
            let mut client = self.connected.session.client();
            (client.on_request(type_url, request.into_request()), client.take_confirmed(type_url))
        };
        self.shared.store.heard();
        if let Some(since) = confirmed {
            metrics.confirmed(type_url, since.elapsed());
        }
        if type_url == TypeUrl::Secret {
            secret::refresh(&self.shared.store, &self.connected.session);
        }
        tracing::trace!(r#type = type_url.short(), ?verdict, "request");
        match verdict {
            Verdict::None | Verdict::Ack => {}
            Verdict::Stale => metrics.stale(type_url),
            Verdict::Nack(rejection) => {
                metrics.rejected(type_url);
                log_rejection(type_url, &rejection);
            }
        }
    }
}

fn log_rejection(type_url: TypeUrl, rejection: &Rejection) {
    let mut names: Vec<String> = rejection.suspects().iter().map(|n| n.to_string()).collect();
    let more = names.len().saturating_sub(LOGGED_NAMES);
    names.truncate(LOGGED_NAMES);
    tracing::warn!(r#type = type_url.short(), nonce = %rejection.nonce, ?names, more, message = %rejection.message, "rejected by the proxy");
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
