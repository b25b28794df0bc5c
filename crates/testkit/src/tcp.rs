//! [`TcpBackend`]: the other end of traffic that is not HTTP.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(10);

/// A server that reads one line (or, of HTTP, one request's head), and answers with its name and what it read. Dropping it
/// closes its connections.
pub struct TcpBackend {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl TcpBackend {
    /// On a free port of 127.0.0.1.
    pub async fn start(name: &str) -> Self {
        Self::start_on(name, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// On an address of one's choice.
    pub async fn start_on(name: &str, addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap_or_else(|e| panic!("backend {name} on {addr}: {e}"));
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, name.to_owned()));
        TcpBackend { addr, task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for TcpBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, name: String) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let name = name.clone();
        connections.spawn(async move {
            // A proxy that tunnels speaks first and waits for the word; what it carries comes after.
            let mut heard = head(&mut stream).await?;
            if heard.starts_with("CONNECT ") || heard.starts_with("POST ") {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                heard = format!("{} then {}", heard.lines().next().unwrap_or_default(), head(&mut stream).await?);
            } else if heard.starts_with("PROXY ") {
                heard = format!("{} then {}", heard.trim_end(), head(&mut stream).await?);
            }
            stream.write_all(format!("{name}: {}\n", heard.trim_end()).as_bytes()).await?;
            stream.shutdown().await
        });
    }
}

/// Up to the end of a line, or of a head.
async fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut heard = Vec::new();
    loop {
        let byte = stream.read_u8().await?;
        heard.push(byte);
        let http = heard.starts_with(b"CONNECT ") || heard.starts_with(b"POST ");
        if byte == b'\n' && (!http || heard.ends_with(b"\r\n\r\n")) {
            return Ok(String::from_utf8_lossy(&heard).into_owned());
        }
    }
}

/// Sends a line to `addr` and reads to the end, within 10 s.
pub async fn say(addr: SocketAddr, line: &str) -> anyhow::Result<String> {
    let exchange = async {
        let stream = TcpStream::connect(addr).await.with_context(|| format!("connect to {addr}"))?;
        say_on(stream, line).await
    };
    timeout(LIMIT, exchange).await.with_context(|| format!("no answer of {addr} in {LIMIT:?}"))?
}

/// The same on a connection that is open.
pub async fn say_on(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, line: &str) -> anyhow::Result<String> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("read the answer")?;
    Ok(answer.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_backend_tells_what_it_heard() {
        let backend = TcpBackend::start("b").await;
        assert_eq!(say(backend.addr(), "hello").await.unwrap(), "b: hello");
        assert_eq!(
            say(backend.addr(), "PROXY TCP4 1.1.1.1 2.2.2.2 3 4\r\nhello").await.unwrap(),
            "b: PROXY TCP4 1.1.1.1 2.2.2.2 3 4 then hello"
        );
    }
}
