//! Something between a program and the API server that does what networks and servers in trouble do.
//!
//! Clear text on loopback to the program, Pilotfish's rights before the server. Connections are closed after each answer:
//! what is open is a request.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body::Body as _;
use kube::client::Body;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::KubeCluster;

/// See the module's documentation. Dropping it ends it.
pub struct ApiProxy {
    shared: Arc<Shared>,
    addr: SocketAddr,
    dir: TempDir,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    client: kube::Client,
    faults: Mutex<Faults>,
    /// Goes up when open requests are to be cut off.
    epoch: watch::Sender<u64>,
}

#[derive(Default)]
struct Faults {
    down: bool,
    answer: Option<u16>,
    delays: BTreeMap<String, Duration>,
    slow: Duration,
    swallow: Vec<String>,
    swallowed: usize,
    requests: Vec<String>,
    /// Time between two requests, and when the next may pass.
    pace: Option<(Duration, Instant)>,
}

impl Faults {
    /// How long a request that comes now waits.
    fn turn(&mut self) -> Duration {
        let Some((pause, next)) = &mut self.pace else { return Duration::ZERO };
        let now = Instant::now();
        let turn = (*next).max(now);
        *next = turn + *pause;
        turn - now
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

impl ApiProxy {
    /// Stands in front of this cluster, and does nothing yet.
    pub async fn start(cluster: &KubeCluster) -> ApiProxy {
        let shared = Arc::new(Shared { client: cluster.pilotfish_client().await, faults: Mutex::default(), epoch: watch::channel(0).0 });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{addr}")}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        std::fs::write(dir.path().join("kubeconfig"), config.to_string()).unwrap();
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if !serving.lock().down {
                    tokio::spawn(serve(stream, serving.clone()));
                }
            }
        });
        ApiProxy { shared, addr, dir, task }
    }

    /// A kubeconfig that leads here.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Cuts off all that is open, in the middle of whatever is said.
    pub fn cut(&self) {
        self.shared.epoch.send_modify(|n| *n += 1);
    }

    /// Cuts off everything, and hangs up on whoever comes, until it is up again.
    pub fn set_down(&self, down: bool) {
        self.shared.lock().down = down;
        if down {
            self.cut();
        }
    }

    /// Answers every request with this status; those that are open are cut off.
    pub fn set_answer(&self, status: Option<u16>) {
        self.shared.lock().answer = status;
        self.cut();
    }

    /// Lets requests for a resource wait.
    pub fn delay(&self, plural: &str, delay: Duration) {
        self.shared.lock().delays.insert(plural.to_owned(), delay);
    }

    /// Lets no more requests pass than that many a second; others wait their turn.
    pub fn limit(&self, per_second: u32) {
        self.shared.lock().pace = Some((Duration::from_secs(1) / per_second, Instant::now()));
    }

    /// Lets each part of an answer wait.
    pub fn set_slow(&self, pause: Duration) {
        self.shared.lock().slow = pause;
    }

    /// Keeps the next event to itself that has this text in it. The watch goes on as if nothing had happened.
    pub fn swallow(&self, text: &str) {
        self.shared.lock().swallow.push(text.to_owned());
    }

    /// How many events were kept.
    pub fn swallowed(&self) -> usize {
        self.shared.lock().swallowed
    }

    /// Path and query of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.clone()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }
}

/// Errors mean that one side hung up, which is how requests end.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut epoch = shared.epoch.subscribe();
    epoch.mark_unchanged();
    tokio::select! {
        served = answer(&mut stream, &shared) => served,
        _ = epoch.changed() => Ok(()),
    }
}

async fn answer(stream: &mut TcpStream, shared: &Shared) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
    let mut request = Request::builder().method(method).uri(&target);
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let (name, value) = (name.to_ascii_lowercase(), value.trim());
        match name.as_str() {
            "accept" | "content-type" => request = request.header(name, value),
            "content-length" => length = value.parse()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;

    let resource = target.split('?').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    let (refusal, delay) = {
        let mut faults = shared.lock();
        faults.requests.push(target.clone());
        let turn = faults.turn();
        (faults.answer, faults.delays.get(resource).copied().unwrap_or_default() + turn)
    };
    sleep(delay).await;
    if let Some(status) = refusal {
        let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": "so it was ordered"});
        let text = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{body}");
        return Ok(stream.write_all(text.as_bytes()).await?);
    }
    let mut answer = shared.client.send(request.body(Body::from(body))?).await?;
    let head =
        format!("HTTP/1.1 {} X\r\nContent-Type: {}\r\nConnection: close\r\n\r\n", answer.status().as_u16(), content_type(answer.headers()));
    stream.write_all(head.as_bytes()).await?;
    let mut frames = target.contains("watch=1").then(|| Frames::of(content_type(answer.headers())));
    while let Some(bytes) = next(answer.body_mut()).await? {
        let slow = shared.lock().slow;
        sleep(slow).await;
        let Some(frames) = &mut frames else {
            stream.write_all(&bytes).await?;
            continue;
        };
        frames.pending.extend_from_slice(&bytes);
        while let Some(frame) = frames.next() {
            if !shared.swallows(&frame) {
                stream.write_all(&frame).await?;
            }
        }
    }
    Ok(())
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|t| t.to_str().ok()).unwrap_or("application/json")
}

/// The next bytes of a body.
async fn next(body: &mut Body) -> anyhow::Result<Option<Bytes>> {
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await.transpose()?.map(|frame| frame.into_data()) {
            None => return Ok(None),
            Some(Ok(bytes)) => return Ok(Some(bytes)),
            Some(Err(_trailers)) => {}
        }
    }
}

impl Shared {
    fn swallows(&self, frame: &[u8]) -> bool {
        let mut faults = self.lock();
        let found = faults.swallow.iter().position(|text| frame.windows(text.len()).any(|w| w == text.as_bytes()));
        if let Some(i) = found {
            faults.swallow.swap_remove(i);
            faults.swallowed += 1;
        }
        found.is_some()
    }
}

/// The events of a watch: lines of JSON, or protobuf with its length before.
struct Frames {
    protobuf: bool,
    pending: BytesMut,
}

impl Frames {
    fn of(content_type: &str) -> Self {
        Frames { protobuf: content_type.contains("protobuf"), pending: BytesMut::new() }
    }

    /// With what tells where it ends.
    fn next(&mut self) -> Option<Bytes> {
        let length = if self.protobuf {
            4 + usize::try_from(self.pending.as_ref().try_get_u32().ok()?).unwrap()
        } else {
            1 + self.pending.iter().position(|b| *b == b'\n')?
        };
        (self.pending.len() >= length).then(|| self.pending.split_to(length).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_as_they_are_written() {
        for (content_type, stream) in [
            ("application/json;stream=watch", &b"{1}\n{22}\n{3"[..]),
            ("application/vnd.kubernetes.protobuf;stream=watch", b"\0\0\0\x01a\0\0\0\x02bb\0\0\0\x09c"),
        ] {
            let mut frames = Frames::of(content_type);
            frames.pending.extend_from_slice(stream);
            let found: Vec<Bytes> = std::iter::from_fn(|| frames.next()).collect();
            assert_eq!(found.len(), 2);
            assert_eq!([&found[0][..], &found[1][..], &frames.pending[..]].concat(), stream);
        }
    }
}
