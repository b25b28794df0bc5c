//! [`Frame`]: a message in a message in a message, of which only the innermost differs from one to the next.

use crate::field;

/// What stands around an innermost message. Made once, while its levels are added from the outside to the inside.
#[derive(Debug, Default)]
pub struct Frame {
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    /// Encoded fields before the field that holds the next level, and behind it.
    before: Vec<u8>,
    tag: u32,
    behind: Vec<u8>,
}

impl Frame {
    /// Adds a level: a message of these encoded fields, whose field `tag` (below 16) holds the next.
    pub fn level(mut self, before: impl Into<Vec<u8>>, tag: u32, behind: impl Into<Vec<u8>>) -> Self {
        self.levels.push(Level { before: before.into(), tag, behind: behind.into() });
        self
    }

    /// Length of the outermost message around one of `inner` bytes.
    pub fn len(&self, inner: usize) -> usize {
        Self::len_of(&self.levels, inner)
    }

    /// Writes the outermost message. `write` writes the innermost, which has `inner` bytes.
    pub fn put(&self, inner: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        for (at, level) in self.levels.iter().enumerate() {
            out.extend_from_slice(&level.before);
            field::open(level.tag, Self::len_of(&self.levels[at + 1..], inner), out);
        }
        write(out);
        self.levels.iter().rev().for_each(|level| out.extend_from_slice(&level.behind));
    }

    fn len_of(levels: &[Level], inner: usize) -> usize {
        levels.iter().rev().fold(inner, |len, level| level.before.len() + field::len(len) + level.behind.len())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Nested {
        #[prost(string, tag = "1")]
        before: String,
        #[prost(message, optional, boxed, tag = "2")]
        inner: Option<Box<Nested>>,
        #[prost(string, tag = "3")]
        behind: String,
    }

    #[test]
    fn a_frame_has_the_bytes_that_messages_have() {
        let texts = |before: &str, behind: &str| Nested { before: before.into(), inner: None, behind: behind.into() };
        let frame = Frame::default().level(texts("a", "").encode_to_vec(), 2, texts("", "b").encode_to_vec()).level(
            texts("", "").encode_to_vec(),
            2,
            texts("", "c").encode_to_vec(),
        );
        for payload in ["".to_owned(), "x".repeat(200)] {
            let innermost = texts(&payload, &payload);
            let middle = Nested { inner: Some(innermost.clone().into()), ..texts("", "c") };
            let whole = Nested { inner: Some(middle.into()), ..texts("a", "b") };
            let mut out = Vec::new();
            frame.put(innermost.encoded_len(), &mut out, |out| innermost.encode_raw(out));
            assert_eq!(out, whole.encode_to_vec());
            assert_eq!(frame.len(innermost.encoded_len()), out.len());
        }
        assert_eq!(Frame::default().len(7), 7);
    }
}
