//! The task that follows one kind, or a part of it: it asks what the [`Driver`] wants to know, and passes on what that means.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode, header};
use http_body::Body as _;
use kube::client::Body;
use pilotfish_model::{Kind, ObjectId};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::auditor::{Auditor, Step};
use super::connection::Connection;
use super::decode::{Decoder, Format, PROTOBUF};
use super::driver::{Ask, Driver, Failure, Output, Reply};
use super::frame::Frames;
use super::health::{Health, Pulse};
use super::path::Target;
use super::{Batch, Change, WatchId, path};
use crate::convert::Context;
use crate::index::Input;

/// After this time the server ends a watch; a new one begins where it ended. Each kind's differs a little.
const WATCH_SECONDS: u64 = 290;
/// A watch that says nothing for so long is dead: bookmarks come every minute or two.
const SILENCE: Duration = Duration::from_secs(180);
/// How long the head of an answer may take, and each further part of one that ends.
const ANSWER: Duration = Duration::from_secs(60);
/// How often it is said what the server does not allow.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// The longest page or refusal that is read.
const MAX_BODY: usize = 512 << 20;

/// Follows a kind, or a part of it, for ever.
pub(super) struct Watch {
    id: WatchId,
    connection: Connection,
    target: Target,
    decoder: Decoder,
    driver: Driver<ObjectId, Input>,
    auditor: Auditor,
    pulse: Pulse,
    /// Versions of the API that may be served, the best one first.
    versions: Vec<&'static str>,
    /// The one that is asked for.
    version: usize,
    out: mpsc::Sender<Batch>,
    /// What is wrong, and when that was said.
    said: Option<(String, Instant)>,
    /// A list has been complete once.
    listed: bool,
}

/// Nobody listens any more.
struct Closed;

impl Watch {
    /// Every so often it is audited; never if that is zero.
    pub(super) fn new(
        id: WatchId,
        connection: Connection,
        target: Target,
        context: Context,
        audit: Duration,
        health: &Health,
        out: mpsc::Sender<Batch>,
    ) -> Self {
        Watch {
            id,
            connection,
            decoder: Decoder { kind: target.kind, context },
            driver: Driver::new(),
            auditor: Auditor::new(audit),
            pulse: health.watch(target.kind),
            versions: path::versions(target.kind),
            target,
            version: 0,
            out,
            said: None,
            listed: false,
        }
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
        let reply = match read(&mut body).await {
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
        self.driver.known().end();
        self.auditor.restart();
        let mut heard = Instant::now();
        loop {
            let chunk = tokio::select! {
                chunk = timeout_at(heard + SILENCE, chunk(&mut body)) => chunk,
                step = self.auditor.next(), if self.auditor.is_on() && self.driver.is_watching() => {
                    if self.audit(step) {
                        return Ok(());
                    }
                    continue;
                }
            };
            let chunk = match chunk {
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
            heard = Instant::now();
            frames.push(&chunk);
            let mut changes = Vec::new();
            let failed = self.take(format, &mut frames, &mut changes);
            self.send(heard, changes).await?;
            if failed {
                return Ok(());
            }
        }
    }

    /// Goes on with the audit; whether everything is to be listed anew.
    fn audit(&mut self, step: Step) -> bool {
        match step {
            Step::Due => {
                self.driver.known().begin();
                self.auditor.list(self.connection.clone(), self.target.clone(), self.versions[self.version]);
            }
            Step::Listed(Err(error)) => {
                self.driver.known().end();
                tracing::debug!(kind = %self.target, error, "the audit was given up");
            }
            Step::Listed(Ok(listed)) => {
                let suspects = self.driver.known().suspects(&listed);
                if suspects.len() == 0 {
                    self.audited();
                } else {
                    self.auditor.suspect(suspects);
                }
            }
            Step::Confirm(suspects) => {
                let suspects = self.driver.known().cleared(suspects);
                self.audited();
                if suspects.len() > 0 {
                    tracing::warn!(kind = %self.target, objects = suspects.len(), "the watch left changes out; all is listed anew");
                    self.driver.relist(suspects);
                    return true;
                }
            }
        }
        false
    }

    fn audited(&mut self) {
        self.driver.known().end();
        self.pulse.audited();
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
        let heard = !matches!(reply, Reply::Failed(_) | Reply::Ended);
        let absent = matches!(reply, Reply::Failed(Failure::Absent));
        let output = self.driver.handle(reply);
        if heard || absent && self.driver.is_absent() {
            self.pulse.heard();
        }
        changes.extend(output.map(|output| match output {
            Output::Reset(objects) => {
                tracing::debug!(kind = %self.target, objects = objects.len(), "listed");
                self.listed = true;
                self.pulse.listed();
                Change::Reset(self.target.clone(), objects.into_iter().map(|(_, input)| input).collect())
            }
            Output::Apply(_, input) => Change::Put(input),
            Output::Delete(id) => Change::Delete(id),
        }));
        let healed = self.driver.healed();
        if healed > 0 {
            self.pulse.healed(healed);
        }
        if heard && self.driver.is_watching() && self.said.take().is_some() {
            self.pulse.set_trouble(None);
            tracing::info!(kind = %self.target, "is being watched again");
        }
    }

    async fn send(&mut self, received: Instant, changes: Vec<Change>) -> Result<(), Closed> {
        if changes.is_empty() {
            return if self.out.is_closed() { Err(Closed) } else { Ok(()) };
        }
        self.out.send(Batch { watch: self.id, received, changes }).await.map_err(|_| Closed)
    }

    /// Asks; the format of the answer and its body.
    async fn request(&mut self, path: &str, streams: bool) -> Result<(Format, Body), Failure> {
        let kind = self.decoder.kind;
        let accept = if path::is_protobuf(kind) { format!("{PROTOBUF}, application/json") } else { "application/json".to_owned() };
        let (status, format, mut body) = match ask(&self.connection, path, &accept).await {
            Ok(answer) => answer,
            Err(why) => {
                self.say(why);
                return Err(Failure::Disconnected);
            }
        };
        if status.is_success() {
            return Ok((format, body));
        }
        let said = read(&mut body).await.unwrap_or_default();
        let said = self.decoder.status(format, &said);
        Err(match status {
            StatusCode::GONE => Failure::Gone,
            // Every server has these. Whoever says otherwise is none.
            StatusCode::NOT_FOUND if path::is_core(kind) => {
                self.say(format!("the API server says {status}: {said}"));
                Failure::Refused
            }
            // Whoever may not read key material serves the rest of the mesh all the same; the names stay without an answer.
            StatusCode::FORBIDDEN if kind == Kind::Secret && !self.listed => {
                self.say(format!("the API server says {status}: {said}"));
                Failure::Absent
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                self.deny(path::denied(kind, status, &said));
                Failure::Denied
            }
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
        if self.said.as_ref().is_none_or(|(said, _)| *said != what) {
            tracing::warn!(kind = %self.target, "{what}");
            self.note(what);
        }
    }

    /// Says what is not allowed, again and again: somebody has to do something.
    fn deny(&mut self, what: String) {
        if self.said.as_ref().is_none_or(|(said, at)| *said != what || at.elapsed() >= SAY_AGAIN) {
            tracing::error!(kind = %self.target, "{what}");
            self.note(what);
        }
    }

    fn note(&mut self, what: String) {
        self.pulse.set_trouble(Some(&what));
        self.said = Some((what, Instant::now()));
    }
}

/// Asks; status, format and body of the answer. A server that does not know us is asked with new credentials next time.
pub(super) async fn ask(connection: &Connection, path: &str, accept: &str) -> Result<(StatusCode, Format, Body), String> {
    let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).map_err(|e| e.to_string())?;
    let answer = match timeout(ANSWER, connection.client().send(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => {
            // An authority or a certificate that is not good any more looks like this.
            connection.renew().await;
            return Err(format!("the API server cannot be reached: {}", chain(&e)));
        }
        Err(_) => return Err("the API server does not answer".into()),
    };
    if answer.status() == StatusCode::UNAUTHORIZED {
        connection.renew().await;
    }
    let format = Format::of(answer.headers().get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()));
    Ok((answer.status(), format, answer.into_body()))
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

/// A whole body, which comes without long breaks.
pub(super) async fn read(body: &mut Body) -> Result<Bytes, String> {
    let mut all = BytesMut::new();
    loop {
        match timeout(ANSWER, chunk(body)).await {
            Ok(Ok(Some(bytes))) => all.extend_from_slice(&bytes),
            Ok(Ok(None)) => return Ok(all.freeze()),
            Ok(Err(e)) => return Err(format!("broke off: {}", chain(&e))),
            Err(_) => return Err(format!("stopped for {} s", ANSWER.as_secs())),
        }
        if all.len() > MAX_BODY {
            return Err(format!("has more than {MAX_BODY} bytes"));
        }
    }
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
pub(super) fn spread() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(0_u8);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
