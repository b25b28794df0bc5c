//! The client: one request on a connection of its own, so that nothing outlives an edit of the proxy in between.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
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

/// Sends `GET path` with that Host to `addr`, within 10 s.
pub async fn get(addr: SocketAddr, host: &str, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response> {
    timeout(LIMIT, exchange("GET", addr, host, path, headers, ""))
        .await
        .with_context(|| format!("GET {path} of {addr}: no answer in {LIMIT:?}"))?
}

/// Sends `POST path` without a body: how one changes something at Envoy's admin interface.
pub(crate) async fn post(addr: SocketAddr, path: &str) -> anyhow::Result<Response> {
    timeout(LIMIT, exchange("POST", addr, "admin", path, &[("content-length", "0")], "")).await?
}

/// Sends `POST path` with this JSON.
pub async fn post_json(addr: SocketAddr, path: &str, json: &serde_json::Value) -> anyhow::Result<Response> {
    let body = json.to_string();
    let headers = [("content-type", "application/json"), ("content-length", &body.len().to_string())];
    timeout(LIMIT, exchange("POST", addr, "localhost", path, &headers, &body)).await?
}

async fn exchange(
    method: &str,
    addr: SocketAddr,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Response> {
    let mut stream = TcpStream::connect(addr).await.with_context(|| format!("connect to {addr}"))?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(body);
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.with_context(|| format!("read the answer to {path}"))?;
    parse(&answer)
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
