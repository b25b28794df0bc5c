//! The response's body: [`AdsBody`], which drives its stream and sends encoded resources without copying large ones.
//!
//! A gRPC library's codec keeps a buffer as large as the largest message for as long as the stream lives; here nothing
//! stays. The stream's logic is a future inside the body: it runs in the connection's task, is polled only while the
//! connection takes data, and ends with it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::mpsc;
use tonic::Status;

/// Parts below this size are copied together, so that ten thousand small resources are not ten thousand HTTP/2 frames.
const SMALL: usize = 4 << 10;
/// Size of such a copy.
const CHUNK: usize = 16 << 10;

/// One gRPC message in parts.
#[derive(Debug)]
pub struct Message {
    parts: VecDeque<Bytes>,
    len: usize,
}

impl Message {
    /// The message is the concatenation of head and parts.
    pub fn new(head: Bytes, parts: Vec<Bytes>) -> Self {
        let len = head.len() + parts.iter().map(Bytes::len).sum::<usize>();
        let mut prefix = BytesMut::with_capacity(5 + head.len());
        // Not compressed; a message beyond 4 GiB cannot be said in gRPC and is far beyond any client's limit.
        prefix.put_u8(0);
        prefix.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
        prefix.put(head);
        let mut parts = VecDeque::from(parts);
        parts.push_front(prefix.freeze());
        Message { parts, len }
    }

    /// Size without gRPC's prefix, in bytes.
    pub fn encoded_len(&self) -> usize {
        self.len
    }

    fn next_chunk(&mut self) -> Option<Bytes> {
        let first = self.parts.pop_front()?;
        if first.len() >= SMALL || self.parts.front().is_none_or(|next| next.len() >= SMALL) {
            return Some(first);
        }
        let mut chunk = BytesMut::with_capacity(CHUNK);
        chunk.put(first);
        while let Some(part) = self.parts.pop_front_if(|part| part.len() < SMALL && chunk.len() + part.len() <= CHUNK) {
            chunk.put(part);
        }
        Some(chunk.freeze())
    }
}

type Driver = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// A streaming gRPC response.
pub struct AdsBody {
    driver: Option<Driver>,
    messages: mpsc::Receiver<Message>,
    current: Option<Message>,
    status: Option<Status>,
}

impl AdsBody {
    /// A body whose messages are sent by the future that `driver` makes; its result becomes the gRPC status.
    pub fn new<F: Future<Output = Result<(), Status>> + Send + 'static>(driver: impl FnOnce(mpsc::Sender<Message>) -> F) -> Self {
        let (sender, messages) = mpsc::channel(1);
        AdsBody { driver: Some(Box::pin(driver(sender))), messages, current: None, status: None }
    }

    /// A body of nothing, for a response whose status is in its headers.
    pub fn empty() -> Self {
        AdsBody { driver: None, messages: mpsc::channel(1).1, current: None, status: None }
    }
}

impl Body for AdsBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        loop {
            if let Some(message) = &mut this.current {
                match message.next_chunk() {
                    Some(chunk) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                    None => this.current = None,
                }
            }
            if let Poll::Ready(Some(message)) = this.messages.poll_recv(cx) {
                this.current = Some(message);
                continue;
            }
            if let Some(driver) = &mut this.driver {
                if let Poll::Ready(result) = driver.as_mut().poll(cx) {
                    this.driver = None;
                    this.status = Some(result.err().unwrap_or_else(|| Status::ok("")));
                    continue;
                }
                // It may have sent a message before it went to wait.
                match this.messages.poll_recv(cx) {
                    Poll::Ready(Some(message)) => this.current = Some(message),
                    _ => return Poll::Pending,
                }
                continue;
            }
            return Poll::Ready(this.status.take().map(|status| Ok(Frame::trailers(trailers(&status)))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.driver.is_none() && self.current.is_none() && self.status.is_none() && self.messages.is_empty()
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        // Only a message that is no header value can fail.
        headers.insert("grpc-status", http::HeaderValue::from(status.code() as i32));
    }
    headers
}
