//! The response's body: [`AdsBody`], which drives its stream and sends encoded resources without copying large ones.
//!
//! A gRPC library's codec keeps a buffer as large as the largest message for as long as the stream lives; here nothing
//! stays. The stream's logic is a future inside the body: it runs in the connection's task, is polled only while the
//! connection takes data, and ends with it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use pilotfish_envoy::Resource;
use tonic::Status;

use crate::subscription::Protocol;
use crate::wire::PREFIX;

/// Parts below this size are copied together, so that ten thousand small resources are not ten thousand HTTP/2 frames.
const SMALL: usize = 4 << 10;
/// Size of such a copy.
const CHUNK: usize = 16 << 10;

/// One gRPC message: a head, and resources whose bytes are shared. What is not sent yet costs a pointer per resource.
#[derive(Debug)]
pub struct Message {
    protocol: Protocol,
    resources: std::vec::IntoIter<Resource>,
    /// Taken from the resources, or the head, and not sent yet.
    parts: VecDeque<Bytes>,
    len: usize,
}

impl Message {
    /// The message is the concatenation of head and resources.
    pub fn new(head: Bytes, resources: Vec<Resource>, protocol: Protocol) -> Self {
        let of_resource = |r: &Resource| match protocol {
            Protocol::Delta => r.delta_len(),
            Protocol::Sotw => r.sotw_len(),
        };
        let len = head.len() + resources.iter().map(of_resource).sum::<usize>();
        let mut prefix = BytesMut::with_capacity(PREFIX + head.len());
        // Not compressed; a message beyond 4 GiB cannot be said in gRPC and is far beyond any client's limit.
        prefix.put_u8(0);
        prefix.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
        prefix.put(head);
        Message { protocol, resources: resources.into_iter(), parts: VecDeque::from([prefix.freeze()]), len }
    }

    /// Size without gRPC's prefix, in bytes.
    pub fn encoded_len(&self) -> usize {
        self.len
    }

    /// The first part that is not sent yet.
    fn front(&mut self) -> Option<&Bytes> {
        while self.parts.is_empty() {
            let resource = self.resources.next()?;
            match self.protocol {
                Protocol::Sotw => self.parts.extend(resource.sotw_parts()),
                Protocol::Delta => self.parts.extend(resource.delta_parts()),
            }
        }
        self.parts.front()
    }

    /// What goes into the next frame; adds to `copied` the bytes that were copied for it.
    fn next_chunk(&mut self, copied: &AtomicU64) -> Option<Bytes> {
        if self.front()?.len() >= SMALL {
            return self.parts.pop_front();
        }
        let mut chunk = BytesMut::with_capacity(CHUNK.min(self.len + PREFIX));
        while let Some(part) = self.front().filter(|part| part.len() < SMALL && chunk.len() + part.len() <= CHUNK) {
            chunk.put_slice(part);
            self.parts.pop_front();
        }
        copied.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Some(chunk.freeze())
    }
}

/// Where a stream's logic puts the next message: one at a time. It is polled by the body that takes it, so nobody needs to be woken.
#[derive(Clone, Default)]
pub struct Outbox(Arc<Mutex<Option<Message>>>);

impl Outbox {
    /// Puts a message in once the one before is on its way.
    pub async fn send(&self, message: Message) {
        let mut message = Some(message);
        poll_fn(|_| {
            let mut slot = self.slot();
            if slot.is_some() {
                return Poll::Pending;
            }
            *slot = message.take();
            Poll::Ready(())
        })
        .await;
    }

    fn slot(&self) -> MutexGuard<'_, Option<Message>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Driver = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

/// A streaming gRPC response.
pub struct AdsBody {
    driver: Option<Driver>,
    outbox: Outbox,
    current: Option<Message>,
    status: Option<Status>,
    copied: Arc<AtomicU64>,
}

impl AdsBody {
    /// A body whose messages are sent by the future that `driver` makes; its result becomes the gRPC status. Bytes that are
    /// copied on the way are added to `copied`.
    pub fn new<F>(copied: Arc<AtomicU64>, driver: impl FnOnce(Outbox) -> F) -> Self
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let outbox = Outbox::default();
        AdsBody { driver: Some(Box::pin(driver(outbox.clone()))), outbox, current: None, status: None, copied }
    }

    /// A body of nothing, for a response whose status is in its headers.
    pub fn empty() -> Self {
        AdsBody { driver: None, outbox: Outbox::default(), current: None, status: None, copied: Arc::default() }
    }
}

impl Body for AdsBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        loop {
            if let Some(message) = &mut this.current {
                match message.next_chunk(&this.copied) {
                    Some(chunk) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                    None => this.current = None,
                }
            }
            let waiting = this.outbox.slot().take();
            if waiting.is_some() {
                this.current = waiting;
                continue;
            }
            if let Some(driver) = &mut this.driver {
                if let Poll::Ready(result) = driver.as_mut().poll(cx) {
                    this.driver = None;
                    this.status = Some(result.err().unwrap_or_else(|| Status::ok("")));
                } else if this.outbox.slot().is_none() {
                    return Poll::Pending;
                }
                continue;
            }
            return Poll::Ready(this.status.take().map(|status| Ok(Frame::trailers(trailers(&status)))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.driver.is_none() && self.current.is_none() && self.status.is_none() && self.outbox.slot().is_none()
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
