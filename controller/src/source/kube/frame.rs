//! Cuts a stream of bytes into the frames of a watch: lines of JSON, or messages with their length before.

use bytes::{Buf, Bytes, BytesMut};

use super::decode::Format;

/// The longest frame that is taken: etcd stores nothing that comes near.
const MAX_FRAME: usize = 64 << 20;

/// The stream does not consist of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {MAX_FRAME} bytes")]
pub(super) struct TooLong;

/// What has come and was not taken yet.
pub(super) struct Frames {
    format: Format,
    pending: BytesMut,
    /// How much of `pending` is known to hold no end of a line.
    searched: usize,
}

impl Frames {
    pub(super) fn new(format: Format) -> Self {
        Frames { format, pending: BytesMut::new(), searched: 0 }
    }

    /// Takes the next bytes in.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        let frame = match self.format {
            Format::Protobuf => {
                let Some(head) = self.pending.first_chunk::<4>() else { return Ok(None) };
                let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
                if length > MAX_FRAME {
                    return Err(TooLong);
                }
                (self.pending.len() - 4 >= length).then(|| {
                    self.pending.advance(4);
                    self.pending.split_to(length)
                })
            }
            Format::Json => {
                let end = self.pending[self.searched..].iter().position(|b| *b == b'\n').map(|i| self.searched + i);
                self.searched = if end.is_some() { 0 } else { self.pending.len() };
                end.map(|end| {
                    let line = self.pending.split_to(end);
                    self.pending.advance(1);
                    line
                })
            }
        };
        if frame.is_none() && self.pending.len() > MAX_FRAME {
            return Err(TooLong);
        }
        Ok(frame.map(BytesMut::freeze))
    }
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;
    use proptest::prelude::*;

    use super::*;

    fn all(frames: &mut Frames) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| frames.next().unwrap()).map(|f| f.to_vec()).collect()
    }

    proptest! {
        /// However the bytes are cut up on their way, the frames are the same.
        #[test]
        fn cuts_do_not_matter(contents in prop::collection::vec("[a-z]{0,20}", 0..8), cuts in prop::collection::vec(1..10usize, 1..40)) {
            for format in [Format::Json, Format::Protobuf] {
                let mut stream = Vec::new();
                for c in &contents {
                    match format {
                        Format::Json => stream.extend([c.as_bytes(), b"\n"].concat()),
                        Format::Protobuf => stream.extend([&u32::try_from(c.len()).unwrap().to_be_bytes()[..], c.as_bytes()].concat()),
                    }
                }
                let (mut frames, mut found, mut rest) = (Frames::new(format), Vec::new(), &stream[..]);
                for cut in cuts.iter().cycle() {
                    let (now, later) = rest.split_at(rest.len().min(*cut));
                    frames.push(now);
                    found.extend(all(&mut frames));
                    rest = later;
                    if rest.is_empty() {
                        break;
                    }
                }
                prop_assert_eq!(&found, &contents.iter().map(|c| c.as_bytes().to_vec()).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn an_endless_frame_is_refused() {
        let mut frames = Frames::new(Format::Protobuf);
        frames.push(&[0xff; 5]);
        assert_eq!(frames.next(), Err(TooLong));
    }
}
