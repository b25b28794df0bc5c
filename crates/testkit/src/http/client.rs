//! The client: one request on a connection of its own, so that nothing outlives an edit of the proxy in between.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Echo;

const LIMIT: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Lower-case names; of repeated headers the last.
    pub headers: BTreeMap<String, String>,
    /// As text.
    pub body: String,
}

impl Response {
    /// The body of a [`super::Backend`]; panics if it is anything else.
    pub fn echo(&self) -> Echo {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("no echo ({e}): {self:?}"))
    }

    /// The body as JSON; panics if it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }
}

/// A request under construction: `Ask::get("/").header("x-user", "ann")`.
#[derive(Clone, Debug)]
pub struct Ask {
    method: String,
    path: String,
    host: String,
    headers: Vec<(String, String)>,
    body: String,
    from: Option<IpAddr>,
}

impl Ask {
    /// `GET path`, for the host that the test's rules are about unless [`host`](Self::host) says another.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// Any method, without a body.
    pub fn new(method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Ask { method, path, host: String::new(), headers: Vec::new(), body: String::new(), from: None }
    }

    /// The Host header.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = host.to_owned();
        self
    }

    /// The same where none was said.
    #[must_use]
    pub fn default_host(self, host: &str) -> Self {
        if self.host.is_empty() { self.host(host) } else { self }
    }

    /// One more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The local address to connect from, another one of 127.0.0.0/8.
    #[must_use]
    pub fn from(mut self, ip: impl Into<IpAddr>) -> Self {
        self.from = Some(ip.into());
        self
    }

    /// Sends it on a connection of its own and reads the answer, within 10 s.
    pub async fn send(&self, addr: SocketAddr) -> anyhow::Result<Response> {
        let exchange = async { self.exchange(self.connect(addr).await?).await };
        timeout(LIMIT, exchange).await.with_context(|| format!("{} {} of {addr}: no answer in {LIMIT:?}", self.method, self.path))?
    }

    async fn connect(&self, addr: SocketAddr) -> anyhow::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(ip) = self.from {
            socket.bind((ip, 0).into())?;
        }
        socket.connect(addr).await.with_context(|| format!("connect to {addr}"))
    }

    /// Sends it on a connection that is open, and reads the answer.
    pub async fn exchange(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<Response> {
        let Ask { method, path, host, headers, body, .. } = self;
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(body);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        // Not to the connection's end, which a proxy may hold back for a second.
        while !is_whole(&answer) {
            let mut part = vec![0; 16 * 1024];
            match stream.read(&mut part).await {
                Ok(0) => break,
                Ok(n) => answer.extend_from_slice(&part[..n]),
                // TLS whose end was not announced: whether the answer is whole its length tells.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof && !answer.is_empty() => break,
                Err(e) => return Err(e).with_context(|| format!("read the answer to {path}")),
            }
        }
        parse(&answer)
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        self.headers.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

/// Sends `GET path` with that Host to `addr`, within 10 s.
pub async fn get(addr: SocketAddr, host: &str, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
    headers.iter().fold(Ask::get(path).host(host), |ask, (name, value)| ask.header(name, value)).send(addr).await
}

/// Sends `POST path` without a body: how one changes something at Envoy's admin interface.
pub(crate) async fn post(addr: SocketAddr, path: &str) -> anyhow::Result<Response> {
    Ask::new("POST", path).host("admin").header("content-length", "0").send(addr).await
}

/// Sends `POST path` with this JSON.
pub async fn post_json(addr: SocketAddr, path: &str, json: &serde_json::Value) -> anyhow::Result<Response> {
    let body = json.to_string();
    let ask = Ask::new("POST", path).host("localhost").header("content-type", "application/json");
    Ask { body: body.clone(), ..ask.header("content-length", &body.len().to_string()) }.send(addr).await
}

/// Whether nothing can follow. Without a length only the connection's end tells.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    match header("content-length").and_then(|v| v.parse::<usize>().ok()) {
        Some(length) => answer.len() >= end + 4 + length,
        None => header("transfer-encoding") == Some("chunked") && answer.ends_with(b"0\r\n\r\n"),
    }
}

fn parse(answer: &[u8]) -> anyhow::Result<Response> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").context("the answer has no header")?;
    let head = std::str::from_utf8(&answer[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    let headers: BTreeMap<String, String> = lines.filter_map(header).collect();
    let body = &answer[end + 4..];
    let body = if headers.get("transfer-encoding").is_some_and(|v| v == "chunked") {
        unchunk(body)?
    } else {
        let length = headers.get("content-length").map_or(Ok(body.len()), |v| v.parse())?;
        if body.len() != length {
            bail!("the body has {} bytes instead of {length}", body.len());
        }
        body.to_vec()
    };
    Ok(Response { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

fn unchunk(mut body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let line = body.windows(2).position(|w| w == b"\r\n").context("the last chunk is missing")?;
        let size = std::str::from_utf8(&body[..line])?.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(whole);
        }
        whole.extend_from_slice(body.get(line + 2..line + 2 + size).context("a chunk is cut short")?);
        body = body.get(line + 2 + size + 2..).context("a chunk is cut short")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Backend;

    #[tokio::test]
    async fn a_backend_tells_what_reached_it() {
        let backend = Backend::start("b1").await;
        let response = get(backend.addr(), "shop.example", "/status/418/x?q=1", &[("X-User", "ann")]).await.unwrap();
        let headers = [("host", "shop.example"), ("connection", "close"), ("x-user", "ann")];
        let expected = Echo {
            backend: "b1".into(),
            method: "GET".into(),
            path: "/status/418/x?q=1".into(),
            host: "shop.example".into(),
            headers: headers.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
            tls: None,
        };
        assert_eq!((response.status, response.echo(), backend.requests()), (418, expected, 1));
    }

    #[test]
    fn chunks_are_joined_and_short_bodies_refused() {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap().body, "abcd");
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").is_err());
        assert!(parse(b"").is_err());
    }
}
