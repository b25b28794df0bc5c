//! The HTTPS server that the API server calls: `/inject`, `/validate` and `/ready`.
//!
//! A thin shell: [`Webhooks`] answers, this reads, limits and counts. It is meant for a runtime of its own, so that busy
//! translators do not slow admission.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use pilotfish_model::Diagnostic;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::admission::{Answer, Question, Request, ReviewError};
use crate::inject::{self, Config, Outcome, ProxyConfigObject};
use crate::metrics::Metrics;
use crate::validate::{self, Verdict};

/// Largest body. The API server takes objects of 3 MiB at most, and shows the old one as well.
const BODY: usize = 7 << 20;
/// Largest body with a Pod: more than any store of a cluster takes, and no old one beside it.
const POD: usize = 2 << 20;
/// Most values in a Pod. Injection looks at it in several forms at once.
const POD_VALUES: usize = 15_000;
/// What is judged on a thread of its own.
const LARGE: usize = 64 << 10;
/// Longest time for a body to arrive, and for a handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at a time. The API server keeps few; whoever else reaches the port shares the rest.
const CONNECTIONS: usize = 256;
/// Requests whose bodies are in memory at a time.
const BODIES: usize = 16;

/// What the control plane knows beside the object in question. Answers at once: it is asked on every request.
pub trait Surroundings: Send + Sync + 'static {
    /// Annotations of a namespace.
    fn namespace_annotations(&self, namespace: &str) -> BTreeMap<String, String>;
    /// ProxyConfig objects of the namespaces.
    fn proxy_configs(&self, namespaces: &[&str]) -> Vec<ProxyConfigObject>;
    /// What the translator would say about an object that is valid.
    fn diagnose(&self, object: &Value) -> Vec<Diagnostic>;
}

/// Knows nothing; for tests and for files.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Surroundings for Nothing {
    fn namespace_annotations(&self, _: &str) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn proxy_configs(&self, _: &[&str]) -> Vec<ProxyConfigObject> {
        Vec::new()
    }

    fn diagnose(&self, _: &Value) -> Vec<Diagnostic> {
        Vec::new()
    }
}

/// Both webhooks. Clones share everything.
#[derive(Clone)]
pub struct Webhooks {
    injector: Arc<RwLock<Option<Arc<Config>>>>,
    surroundings: Arc<dyn Surroundings>,
    metrics: Metrics,
    bodies: Arc<Semaphore>,
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhooks")
    }
}

impl Webhooks {
    /// Validation only; injection begins with [`Webhooks::set_injector`].
    pub fn new(surroundings: Arc<dyn Surroundings>) -> Webhooks {
        let injector = Arc::new(RwLock::new(None));
        Webhooks { injector, surroundings, metrics: Metrics::default(), bodies: Arc::new(Semaphore::new(BODIES)) }
    }

    /// Injects with this configuration from now on.
    pub fn set_injector(&self, config: Arc<Config>) {
        *self.injector.write().unwrap_or_else(PoisonError::into_inner) = Some(config);
    }

    fn injector(&self) -> Option<Arc<Config>> {
        self.injector.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is counted.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Answers a request for injection; `path` is what follows `/inject`.
    pub fn inject(&self, request: &Request, path: &str, config: &Config) -> Answer {
        let started = Instant::now();
        self.metrics.requests.inc();
        let pod = &request.object;
        let namespace = request.namespace.as_str();
        if count(pod) > POD_VALUES {
            self.metrics.failures.inc();
            return Answer::Denied(format!("sidecar injection failed: a Pod with more than {POD_VALUES} values is not looked at").into());
        }
        let root = config.mesh.get("rootNamespace").and_then(Value::as_str).unwrap_or("istio-system");
        let outcome = inject::inject(
            &inject::Request {
                pod,
                namespace,
                namespace_annotations: &self.surroundings.namespace_annotations(namespace),
                variables: &inject::parse_variables(path),
                proxy_configs: &self.surroundings.proxy_configs(&[root, namespace]),
            },
            config,
        );
        let answer = match outcome {
            Ok(Outcome::Skipped(why)) => {
                tracing::debug!(ns = namespace, name = request.name, why, "not injected");
                self.metrics.skips.inc();
                Ok(Answer::Allowed(Vec::new()))
            }
            Ok(Outcome::Injected(after)) => inject::patch(pod, &after).map(|p| p.map_or(Answer::Allowed(Vec::new()), Answer::Patched)),
            Err(e) => Err(e),
        };
        self.metrics.seconds.observe(started.elapsed().as_secs_f64());
        match answer {
            Ok(answer) => {
                self.metrics.successes.inc();
                answer
            }
            Err(e) => {
                tracing::warn!(ns = namespace, name = request.name, error = %e, "injection failed");
                self.metrics.failures.inc();
                Answer::Denied(format!("sidecar injection failed: {e}").into())
            }
        }
    }

    /// Answers a request for validation.
    pub fn validate(&self, request: &Request) -> Answer {
        if !["CREATE", "UPDATE"].contains(&request.operation.as_str()) {
            self.metrics.failed(&request.kind, "unsupported_operation");
            return Answer::Allowed(Vec::new());
        }
        match validate::review(&request.object) {
            Verdict::Valid(mut warnings) => {
                self.metrics.passed(&request.kind);
                warnings.extend(self.surroundings.diagnose(&request.object).into_iter().map(|d| format!("{}: {}", d.field, d.message)));
                Answer::Allowed(warnings)
            }
            Verdict::Invalid { reason, message } => {
                self.metrics.failed(&request.kind, reason);
                if !validate::is_probe(&request.object) {
                    tracing::info!(ns = request.namespace, name = request.name, kind = request.kind.kind, message, "refused");
                }
                Answer::Denied(message.into())
            }
        }
    }

    /// All pages.
    pub fn router(&self) -> Router {
        self.pages().route("/ready", get(|| async { StatusCode::OK }))
    }

    /// The webhooks' pages, also for a plain port where something else ends TLS.
    pub fn pages(&self) -> Router {
        Router::new()
            .route("/inject", any(inject_page))
            .route("/inject/{*path}", any(inject_page))
            .route("/validate", any(validate_page))
            .route("/validate/{*path}", any(validate_page))
            .with_state(self.clone())
    }
}

/// How many values a value has, itself among them.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(map) => map.values().map(count).sum(),
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

async fn inject_page(State(webhooks): State<Webhooks>, request: HttpRequest) -> Response {
    let Some(config) = webhooks.injector() else { return StatusCode::NOT_FOUND.into_response() };
    let path = request.uri().path().trim_start_matches("/inject").to_owned();
    let answers = webhooks.clone();
    page(&webhooks, request, POD, move |question| answers.inject(question, &path, &config)).await
}

async fn validate_page(State(webhooks): State<Webhooks>, request: HttpRequest) -> Response {
    let answers = webhooks.clone();
    page(&webhooks, request, BODY, move |question| answers.validate(question)).await
}

/// Reads a review within the limits and answers it.
async fn page(
    webhooks: &Webhooks,
    request: HttpRequest,
    most: usize,
    answer: impl FnOnce(&Request) -> Answer + Send + 'static,
) -> Response {
    let refuse = |status: StatusCode, text: &'static str| {
        webhooks.metrics.http_error(status.as_u16());
        (status, text).into_response()
    };
    let json = request.headers().get(header::CONTENT_TYPE).is_some_and(|v| v == "application/json");
    let (parts, body) = request.into_parts();
    let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|n| n > most) {
        return refuse(StatusCode::BAD_REQUEST, "the body is too large");
    }
    let Ok(_turn) = webhooks.bodies.acquire().await else { return refuse(StatusCode::SERVICE_UNAVAILABLE, "ending") };
    let body = match tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, most)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refuse(StatusCode::BAD_REQUEST, "the body cannot be read, or is too large"),
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "the body takes too long"),
    };
    if body.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, "no body found");
    }
    if !json {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the content type must be application/json");
    }
    // What takes long must not hold up the answers to others.
    let large = body.len() > LARGE;
    let judge = move || Question::parse(&body).map(|question| question.answer(&answer(&question.request)));
    let judged = if large { tokio::task::spawn_blocking(judge).await } else { Ok(judge()) };
    let Ok(judged) = judged else { return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the answer failed") };
    let text = match judged {
        Ok(text) => text,
        Err(ReviewError::TooMany) => return refuse(StatusCode::BAD_REQUEST, "the body has too many values"),
        Err(ReviewError::TooDeep) => return refuse(StatusCode::BAD_REQUEST, "the body is nested too deeply"),
        Err(e) => serde_json::json!({"response": Answer::Denied(e.to_string().into()).response()}).to_string(),
    };
    ([(header::CONTENT_TYPE, "application/json")], Body::from(text)).into_response()
}

/// Serves until the drain, and `linger` longer: an API server goes on asking for a moment after it was told of our end.
///
/// Meanwhile every answer says that its connection is done with. A connection that is closed while nobody knows may just be taken
/// for the next question; API servers speak HTTP/1.1 here and do not ask again. Requests that came in are still answered.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    webhooks: Webhooks,
    drain: CancellationToken,
    linger: Duration,
) -> std::io::Result<()> {
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let router = webhooks.router().layer(from_fn_with_state(drain.clone(), last_answer));
    let (asked, drain) = (drain, CancellationToken::new());
    let _timer = tokio_util::task::AbortOnDropHandle::new(tokio::spawn({
        let drain = drain.clone();
        async move {
            asked.cancelled().await;
            tokio::time::sleep(linger).await;
            drain.cancel();
        }
    }));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = drain.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Such as too many open files: others may end meanwhile.
                tracing::warn!(error = %e, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, router, drain) = (acceptor.clone(), router.clone(), drain.clone());
        connections.spawn(async move {
            let _place = place;
            let stream = match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(e)) => return tracing::debug!(%peer, error = %e, "handshake failed"),
                Err(_) => return tracing::debug!(%peer, "handshake takes too long"),
            };
            let builder = auto::Builder::new(TokioExecutor::new());
            let service = TowerToHyperService::new(router);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let outcome = tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = drain.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.as_mut().await
                }
            };
            if let Err(e) = outcome {
                tracing::debug!(%peer, error = %e, "connection ended");
            }
        });
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// After the drain began, a connection is for one answer.
async fn last_answer(State(drain): State<CancellationToken>, request: HttpRequest, next: Next) -> Response {
    let ends = request.version() <= Version::HTTP_11;
    let mut response = next.run(request).await;
    if ends && drain.is_cancelled() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

type Accepted = (tokio::net::TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> std::io::Result<Accepted> {
    let place = room.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}
