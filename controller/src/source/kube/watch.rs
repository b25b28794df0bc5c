//! The task that follows one kind, or a part of it: it asks what the [`Driver`] wants to know, and passes on what that means.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header};
use http_body::Body as _;
use kube::Client;
use kube::client::Body;
use pilotfish_model::{Kind, ObjectId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::decode::{Decoder, Format, PROTOBUF};
use super::driver::{Ask, Driver, Failure, Output, Reply};
use super::frame::Frames;
use super::path::Target;
use super::{Batch, Change, WatchId, path};
use crate::convert::Context;
use crate::index::Input;

/// After this time the server ends a watch; a new one begins where it ended. Each kind's differs a little.
const WATCH_SECONDS: u64 = 290;
/// A watch that says nothing for so long is dead: bookmarks come every minute.
const SILENCE: Duration = Duration::from_secs(180);
/// How long the head of an answer may take.
const ANSWER: Duration = Duration::from_secs(60);
/// The longest page or refusal that is read.
const MAX_BODY: usize = 512 << 20;

/// Follows a kind, or a part of it, for ever.
pub(super) struct Watch {
    id: WatchId,
    client: Client,
    target: Target,
    decoder: Decoder,
    driver: Driver<ObjectId, Input>,
    /// Versions of the API that may be served, the best one first.
    versions: Vec<&'static str>,
    /// The one that is asked for.
    version: usize,
    out: mpsc::Sender<Batch>,
    said: Option<String>,
    /// A list has been complete once.
    listed: bool,
}

/// Nobody listens any more.
struct Closed;

impl Watch {
    pub(super) fn new(id: WatchId, client: Client, target: Target, context: Context, out: mpsc::Sender<Batch>) -> Self {
        let decoder = Decoder { kind: target.kind, context };
        let versions = path::versions(target.kind);
        Watch { id, client, target, decoder, driver: Driver::new(), versions, version: 0, out, said: None, listed: false }
    }

    /// Ends when nobody listens any more.
    pub(super) async fn run(mut self) {
        loop {
            sleep(self.driver.pause(spread())).await;
            let outcome = match self.driver.ask() {
                Ask::Page { token } => self.page(token.as_deref()).await,
                ask => self.stream(&ask).await,
            };
            if outcome.is_err() {
                return;
            }
        }
    }

    async fn page(&mut self, token: Option<&str>) -> Result<(), Closed> {
        let (format, mut body) = match self.request(&path::page(&self.target, self.versions[self.version], token), false).await {
            Ok(answer) => answer,
            Err(failure) => return self.reply(Reply::Failed(failure)).await,
        };
        let reply = match read(&mut body).await.map_err(|e| e.to_string()) {
            Ok(bytes) => self.decoder.page(format, &bytes).map_err(|e| e.to_string()),
            Err(e) => Err(e),
        };
        match reply {
            Ok(reply) => self.reply(reply).await,
            Err(e) => {
                self.say(format!("a list {e}"));
                self.reply(Reply::Failed(Failure::Disconnected)).await
            }
        }
    }

    async fn stream(&mut self, ask: &Ask) -> Result<(), Closed> {
        let seconds = WATCH_SECONDS + (spread() * 20.0) as u64;
        let path = path::watch(&self.target, self.versions[self.version], ask, seconds);
        let (format, mut body) = match self.request(&path, *ask == Ask::Stream).await {
            Ok(answer) => answer,
            Err(failure) => return self.reply(Reply::Failed(failure)).await,
        };
        let mut frames = Frames::new(format);
        loop {
            let chunk = match timeout(SILENCE, chunk(&mut body)).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return self.reply(Reply::Ended).await,
                Ok(Err(e)) => {
                    self.say(format!("the watch broke: {e}"));
                    return self.reply(Reply::Failed(Failure::Disconnected)).await;
                }
                Err(_) => {
                    self.say(format!("the watch said nothing for {} s", SILENCE.as_secs()));
                    return self.reply(Reply::Failed(Failure::Disconnected)).await;
                }
            };
            let received = Instant::now();
            frames.push(&chunk);
            let mut changes = Vec::new();
            let failed = self.take(format, &mut frames, &mut changes);
            self.send(received, changes).await?;
            if failed {
                return Ok(());
            }
        }
    }

    /// Takes whole frames in; whether the stream is over.
    fn take(&mut self, format: Format, frames: &mut Frames, changes: &mut Vec<Change>) -> bool {
        loop {
            let reply = match frames.next() {
                Ok(None) => return false,
                Ok(Some(frame)) => match self.decoder.event(format, &frame) {
                    Ok(Some(reply)) => reply,
                    Ok(None) => continue,
                    Err(e) => {
                        // One event is lost, which a new list makes good.
                        self.say(format!("an event {e}"));
                        Reply::Failed(Failure::Gone)
                    }
                },
                Err(e) => {
                    self.say(e.to_string());
                    Reply::Failed(Failure::Gone)
                }
            };
            let failed = matches!(reply, Reply::Failed(_));
            self.handle(reply, changes);
            if failed {
                return true;
            }
        }
    }

    async fn reply(&mut self, reply: Reply<ObjectId, Input>) -> Result<(), Closed> {
        let mut changes = Vec::new();
        self.handle(reply, &mut changes);
        self.send(Instant::now(), changes).await
    }

    fn handle(&mut self, reply: Reply<ObjectId, Input>, changes: &mut Vec<Change>) {
        let known = self.driver.is_watching();
        changes.extend(self.driver.handle(reply).map(|output| match output {
            Output::Reset(objects) => {
                tracing::debug!(kind = %self.target, objects = objects.len(), "listed");
                self.listed = true;
                Change::Reset(self.target.clone(), objects.into_iter().map(|(_, input)| input).collect())
            }
            Output::Apply(_, input) => Change::Put(input),
            Output::Delete(id) => Change::Delete(id),
        }));
        if !known && self.driver.is_watching() && self.said.take().is_some() {
            tracing::info!(kind = %self.target, "is being watched again");
        }
    }

    async fn send(&self, received: Instant, changes: Vec<Change>) -> Result<(), Closed> {
        if changes.is_empty() {
            return if self.out.is_closed() { Err(Closed) } else { Ok(()) };
        }
        self.out.send(Batch { watch: self.id, received, changes }).await.map_err(|_| Closed)
    }

    /// Asks; the format of the answer and its body.
    async fn request(&mut self, path: &str, streams: bool) -> Result<(Format, Body), Failure> {
        let kind = self.decoder.kind;
        let accept = if path::is_protobuf(kind) { format!("{PROTOBUF}, application/json") } else { "application/json".to_owned() };
        let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).map_err(|_| Failure::Disconnected)?;
        let answer = match timeout(ANSWER, self.client.send(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => {
                self.say(format!("the API server cannot be reached: {}", chain(&e)));
                return Err(Failure::Disconnected);
            }
            Err(_) => {
                self.say("the API server does not answer".into());
                return Err(Failure::Disconnected);
            }
        };
        let format = Format::of(answer.headers().get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()));
        let status = answer.status();
        let mut body = answer.into_body();
        if status.is_success() {
            return Ok((format, body));
        }
        let said = timeout(ANSWER, read(&mut body)).await.ok().and_then(Result::ok).unwrap_or_default();
        let said = self.decoder.status(format, &said);
        Err(match status {
            StatusCode::GONE => Failure::Gone,
            StatusCode::NOT_FOUND if self.version + 1 < self.versions.len() => {
                self.version += 1;
                Failure::Elsewhere
            }
            StatusCode::NOT_FOUND => {
                self.version = 0;
                tracing::debug!(kind = kind.as_str(), "is not installed");
                Failure::Absent
            }
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY if streams => {
                tracing::debug!(kind = kind.as_str(), said, "lists are not served as streams");
                Failure::NoStreams
            }
            // Whoever may not read key material serves the rest of the mesh all the same; the names stay without an answer.
            StatusCode::FORBIDDEN if kind == Kind::Secret && !self.listed => {
                self.say(format!("the API server says {status}: {said}"));
                Failure::Absent
            }
            // Kinds that nobody asked for before take the server a moment.
            StatusCode::TOO_MANY_REQUESTS if self.driver.failures() == 0 => Failure::Refused,
            status => {
                self.say(format!("the API server says {status}: {said}"));
                Failure::Refused
            }
        })
    }

    /// Says what is wrong, once until it is something else.
    fn say(&mut self, what: String) {
        if self.said.as_ref() != Some(&what) {
            tracing::warn!(kind = %self.target, "{what}");
            self.said = Some(what);
        }
    }
}

/// The next bytes of a body.
async fn chunk(body: &mut Body) -> Result<Option<Bytes>, kube::Error> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Ok(None),
            Some(Err(e)) => return Err(e),
            // Trailers say nothing of interest.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => return Ok(Some(data)),
                Err(_) => continue,
            },
        }
    }
}

/// A whole body.
async fn read(body: &mut Body) -> Result<Bytes, kube::Error> {
    let mut all = BytesMut::new();
    while let Some(bytes) = chunk(body).await? {
        all.extend_from_slice(&bytes);
        if all.len() > MAX_BODY {
            break;
        }
    }
    Ok(all.freeze())
}

/// An error with its causes, which say more than it does itself.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = e.source();
    }
    text
}

/// A number in [0, 1) that differs between tasks and moments; nothing depends on its quality.
fn spread() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(0_u8);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
