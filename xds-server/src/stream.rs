//! One ADS stream: requests and targets in, responses out.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pilotfish_envoy::TypeUrl;
use pilotfish_envoy::pb::envoy::config::core::v3 as core;
use pilotfish_model::{Caller, Proxy};
use pilotfish_push::{Permit, Urgency};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::Instrument;

use crate::access::{Who, may_connect};
use crate::body::Outbox;
use crate::client::{Client, Next};
use crate::guard::{Peer, Port};
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

/// How long a stream may be open before it says what it is.
const FIRST_REQUEST: Duration = Duration::from_secs(60);

/// What is known of a stream before its first request.
pub(crate) struct Opened {
    pub(crate) peer: Arc<Peer>,
    pub(crate) caller: Caller,
    pub(crate) port: Arc<Port>,
}

/// Runs a stream until the client leaves, the server drains, or one of them misbehaves.
pub(crate) async fn run<T: Translate, R: WireRequest>(
    shared: Arc<Shared<T>>,
    requests: Requests<R>,
    responses: Outbox,
    opened: Opened,
    drain: CancellationToken,
) -> Result<(), Status> {
    tokio::select! {
        result = open_and_serve(shared, requests, responses, opened) => result,
        () = drain.cancelled() => Err(Status::unavailable("the server is shutting down")),
    }
}

async fn open_and_serve<T: Translate, R: WireRequest>(
    shared: Arc<Shared<T>>,
    mut requests: Requests<R>,
    responses: Outbox,
    opened: Opened,
) -> Result<(), Status> {
    let first = tokio::time::timeout(FIRST_REQUEST, first(&mut requests)).await;
    let Some(mut first) = first.map_err(|_| Status::deadline_exceeded("no first request"))?? else { return Ok(()) };
    let node = first.take_node();
    let id = shared.next_stream();
    let (proxy, metadata, who) = understand(&shared, node, &opened).await?;
    let urgency = if first.is_resumed() { Urgency::Config } else { Urgency::Unconfigured };
    let admitted = Admitted { _permit: shared.gate.admit(urgency).await, until: Instant::now() + shared.config.patience };
    let client = Client::new(R::PROTOCOL, id, shared.config.patience);
    let connected = shared.store.connect(Session::new(id, proxy, metadata, &opened, who, client));
    let session = connected.session.clone();
    let span = tracing::info_span!("ads", proxy = %session.connection_id);
    let stream = Stream { shared, connected, port: opened.port, responses, wave: None, admitted: Some(admitted), recheck: None };
    async move {
        let proxy = &session.proxy;
        tracing::info!(protocol = ?R::PROTOCOL, kind = ?proxy.kind, flavour = ?proxy.flavour, ns = %proxy.namespace, "connected");
        stream.serve(first, requests).await
    }
    .instrument(span)
    .await
}

async fn first<R: WireRequest>(requests: &mut Requests<R>) -> Result<Option<R>, Status> {
    loop {
        match requests.message().await? {
            Some(request) if request.type_url() == HEALTH => {}
            request => return Ok(request),
        }
    }
}

async fn understand<T: Translate>(shared: &Shared<T>, node: Option<core::Node>, opened: &Opened) -> Result<(Proxy, Vec<u8>, Who), Status> {
    let node = node.unwrap_or_default();
    let refuse = |error: NodeError| {
        tracing::warn!(node = %node.id, %error, "refused");
        Status::invalid_argument(error.to_string())
    };
    let metadata = node.metadata.as_ref().map(|m| m.encode_to_vec()).unwrap_or_default();
    let mut understood = node::read(&node).map_err(refuse)?;
    // A plain Envoy that has proved what it is need not say it. An id in Istio's form says it.
    if let [only] = &*opened.caller.identities
        && !node.id.contains('~')
    {
        understood.metadata.namespace.get_or_insert_with(|| only.namespace.clone());
    }
    // Which namespace is the root one is known with the first world. Nothing is served before it either.
    let (translate, world) = (&shared.store.translate, shared.store.world().await);
    let root_namespace = translate.root_namespace(&world);
    let proxy = Proxy::parse(understood, root_namespace, translate.domain(&world)).map_err(|error| refuse(error.into()))?;
    let account = proxy.metadata.service_account.as_deref();
    let who = Who::speaks_for(&opened.caller, &proxy.namespace, account, root_namespace);
    if may_connect(opened.peer.way, who) {
        return Ok((proxy, metadata, who));
    }
    shared.metrics.refused();
    let identities: Vec<String> = opened.caller.identities.iter().map(ToString::to_string).collect();
    tracing::warn!(node = %node.id, ns = %proxy.namespace, ?identities, peer = %opened.peer.address, "refused: not who it says it is");
    Err(match who {
        Who::Anonymous => Status::unauthenticated("authentication required"),
        _ => Status::permission_denied("the proxy is not who it says it is"),
    })
}

struct Stream<T: Translate> {
    shared: Arc<Shared<T>>,
    connected: Connected<T>,
    port: Arc<Port>,
    responses: Outbox,
    /// The push that is under way: its generation and when it began for this client.
    wave: Option<(u64, Instant)>,
    /// Until the first exchange is over.
    admitted: Option<Admitted>,
    /// When it is to be asked again whether key material may be had.
    recheck: Option<Instant>,
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
        let mut keys = self.on_request(first)?;
        let mut roots = self.shared.roots.watch();
        self.shared.store.place(&self.connected.session);
        loop {
            keys |= self.retarget() | self.recheck.is_some_and(|at| at <= Instant::now());
            if keys {
                self.refresh_secrets().await;
            }
            if let Some(roots) = &*roots.borrow_and_update() {
                self.connected.session.client().set_roots(roots);
            }
            let mut wake = self.send_all::<R>().await?;
            let served = self.connected.session.client().target().is_some();
            self.admitted.take_if(|a| served || a.until <= Instant::now());
            if let Some(admitted) = &self.admitted {
                wake = Some(wake.map_or(admitted.until, |wake| wake.min(admitted.until)));
            }
            if let Some(recheck) = self.recheck {
                wake = Some(wake.map_or(recheck, |wake| wake.min(recheck)));
            }
            let event = tokio::select! {
                request = requests.message() => Event::Request(request?),
                () = self.connected.mailbox.filled() => Event::Target,
                // The sender lives as long as the server.
                Ok(()) = roots.changed() => Event::Target,
                () = sleep_until(wake) => Event::Patience,
            };
            keys = match event {
                Event::Request(None) => return Ok(()),
                Event::Request(Some(request)) => self.on_request(request)?,
                Event::Target | Event::Patience => false,
            };
        }
    }

    /// Whether there is something new.
    fn retarget(&mut self) -> bool {
        let Some(target) = self.connected.mailbox.take() else { return false };
        let mut client = self.connected.session.client();
        let began = target.since.unwrap_or_else(Instant::now);
        self.wave = Some((target.generation, self.wave.map_or(began, |(_, earlier)| earlier.min(began))));
        client.retarget(target);
        true
    }

    /// Looks key material up that is asked for, if it may be had.
    async fn refresh_secrets(&mut self) {
        let session = &self.connected.session;
        let names = secret::asked(session);
        let mut right = session.who == Who::Anonymous;
        self.recheck = None;
        if session.may_have(TypeUrl::Secret) && names.iter().any(|n| secret::needs_right(n)) {
            for identity in session.caller.identities.iter().filter(|i| i.namespace == session.proxy.namespace) {
                let (may, again) = self.port.rights.of(&*self.port.guard, identity, Instant::now()).await;
                right |= may;
                self.recheck = Some(self.recheck.map_or(again, |at| at.min(again)));
            }
        }
        secret::refresh(&self.shared.store, session, names, right);
        secret::refresh_credentials(&self.shared.store, session);
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

    /// Whether key material is to be looked up.
    fn on_request<R: WireRequest>(&self, request: R) -> Result<bool, Status> {
        let metrics = &self.shared.metrics;
        metrics.received(request.encoded_len());
        let Some(type_url) = TypeUrl::parse(request.type_url()) else {
            if request.type_url() != HEALTH {
                metrics.unknown_types.inc();
                tracing::warn!(type_url = request.type_url(), "asked for a type that is not served; it gets no answer");
            }
            return Ok(false);
        };
        // Of key material, that there is none for somebody is never told; see `secret`.
        if !self.connected.session.may_have(type_url) && !secret::is_silent(type_url) {
            metrics.refused();
            return Err(Status::permission_denied(format!("{} is not for this proxy", type_url.as_str())));
        }
        let (verdict, confirmed) = {
            let mut client = self.connected.session.client();
            (client.on_request(type_url, request.into_request()), client.take_confirmed(type_url))
        };
        self.shared.store.heard();
        if let Some(since) = confirmed {
            metrics.confirmed(type_url, since.elapsed());
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
        Ok(type_url == TypeUrl::Secret)
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
