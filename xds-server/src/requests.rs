//! Requests of one stream: [`Requests`], which takes gRPC messages out of a body and keeps no buffer between them.
//!
//! Proxies say little and seldom; a buffer per stream that waits for more would be most of what an idle one costs.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use hyper::body::Incoming;
use tonic::Status;

use crate::wire::PREFIX;

/// Messages of type `R`.
pub(crate) struct Requests<R> {
    body: Incoming,
    /// What has arrived of the next message.
    buffer: BytesMut,
    max_bytes: usize,
    messages: PhantomData<fn() -> R>,
}

impl<R: prost::Message + Default> Requests<R> {
    /// Refuses messages above `max_bytes`.
    pub(crate) fn new(body: Incoming, max_bytes: usize) -> Self {
        Requests { body, buffer: BytesMut::new(), max_bytes, messages: PhantomData }
    }

    /// The next message; `None` after the last. Nothing is lost if the future is dropped.
    pub(crate) async fn message(&mut self) -> Result<Option<R>, Status> {
        loop {
            if let Some(message) = take(&mut self.buffer, self.max_bytes)? {
                return Ok(Some(message));
            }
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            match frame {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::internal("the stream ended within a message")),
                Some(Err(error)) => return Err(Status::unavailable(format!("the stream broke: {error}"))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// The one message of a body that ends with it.
pub(crate) async fn one(mut body: Incoming, max_bytes: usize) -> Result<Bytes, Status> {
    let mut buffer = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| Status::unavailable(format!("the stream broke: {error}")))?;
        if let Ok(data) = frame.into_data() {
            buffer.extend_from_slice(&data);
        }
        if buffer.len() > max_bytes + PREFIX {
            return Err(Status::out_of_range(format!("a request is larger than the limit of {max_bytes}")));
        }
    }
    match buffer.split_first_chunk::<PREFIX>() {
        Some((&[0, a, b, c, d], rest)) if u32::from_be_bytes([a, b, c, d]) as usize == rest.len() => {
            buffer.advance(PREFIX);
            Ok(buffer.freeze())
        }
        Some((&[compressed, ..], _)) if compressed != 0 => Err(Status::unimplemented("compressed requests are not supported")),
        _ => Err(Status::internal("not one message")),
    }
}

/// The first message in a buffer, if it is whole.
fn take<R: prost::Message + Default>(buffer: &mut BytesMut, max_bytes: usize) -> Result<Option<R>, Status> {
    let Some((&[compressed, a, b, c, d], rest)) = buffer.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let len = u32::from_be_bytes([a, b, c, d]) as usize;
    if compressed != 0 {
        return Err(Status::unimplemented("compressed requests are not supported"));
    }
    if len > max_bytes {
        return Err(Status::out_of_range(format!("a request of {len} bytes is larger than the limit of {max_bytes}")));
    }
    let Some(message) = rest.get(..len) else { return Ok(None) };
    let message = R::decode(message).map_err(|e| Status::invalid_argument(format!("a request cannot be decoded: {e}")))?;
    buffer.advance(PREFIX + len);
    if buffer.is_empty() {
        *buffer = BytesMut::new();
    }
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_envoy::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
    use prost::Message as _;
    use tonic::Code;

    const MAX: usize = 1_000;

    fn framed(nonce: &str) -> Vec<u8> {
        let message = DeltaDiscoveryRequest { response_nonce: nonce.into(), ..Default::default() }.encode_to_vec();
        [&[0], &(message.len() as u32).to_be_bytes()[..], &message].concat()
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let bytes = [framed("a"), framed(""), framed("ccc")].concat();
        for cut in 1..bytes.len() {
            let (mut buffer, mut nonces) = (BytesMut::new(), Vec::new());
            for part in bytes.chunks(cut) {
                buffer.extend_from_slice(part);
                while let Some(message) = take::<DeltaDiscoveryRequest>(&mut buffer, MAX).unwrap() {
                    nonces.push(message.response_nonce);
                }
            }
            assert_eq!((nonces.join("|").as_str(), buffer.capacity()), ("a||ccc", 0));
        }
    }

    #[test]
    fn what_is_no_request_is_refused_before_it_is_read() {
        let code = |bytes: &[u8]| take::<DeltaDiscoveryRequest>(&mut BytesMut::from(bytes), MAX).unwrap_err().code();
        assert_eq!(code(&[0, 0xff, 0xff, 0xff, 0xff]), Code::OutOfRange);
        assert_eq!(code(&[1, 0, 0, 0, 1]), Code::Unimplemented);
        assert_eq!(code(&[0, 0, 0, 0, 2, 0xff, 0xff]), Code::InvalidArgument);
    }
}
