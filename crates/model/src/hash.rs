//! Content hashes: equal content has an equal hash on every replica and in every run.

use std::fmt;
use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::xxh3_128;

/// 128 bits of XXH3 over a deterministic encoding. Not for defence against forgery.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ContentHash(pub u128);

impl ContentHash {
    /// Of bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        ContentHash(xxh3_128(bytes))
    }

    /// Of any value whose `Hash` feeds the same bytes in every run (no addresses, no randomised maps).
    pub fn of<T: Hash + ?Sized>(value: &T) -> Self {
        let mut hasher = StableHasher::default();
        value.hash(&mut hasher);
        hasher.finish128()
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A [`Hasher`] without a random seed. Values write a few bytes at a time, which XXH3's own stream is slow with; so they are
/// collected in blocks small enough for its fast path, each of which begins with the hash of those before.
#[derive(Clone)]
pub struct StableHasher {
    block: [u8; BLOCK],
    len: usize,
}

/// Longest input that XXH3 hashes in one go.
const BLOCK: usize = 240;
/// Length of a hash.
const LINK: usize = 16;

impl Default for StableHasher {
    fn default() -> Self {
        StableHasher { block: [0; BLOCK], len: 0 }
    }
}

impl StableHasher {
    /// All 128 bits.
    pub fn finish128(&self) -> ContentHash {
        ContentHash(self.digest())
    }

    fn digest(&self) -> u128 {
        xxh3_128(&self.block[..self.len])
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if self.len + bytes.len() > BLOCK {
            let link = self.digest().to_le_bytes();
            self.block[..LINK].copy_from_slice(&link);
            self.len = LINK;
        }
        copy(bytes, &mut self.block[self.len..self.len + bytes.len()]);
        self.len += bytes.len();
    }
}

/// Most of what is hashed is short: two overlapping words instead of a call.
#[inline]
fn copy(from: &[u8], to: &mut [u8]) {
    match (from, from.first_chunk::<8>(), from.last_chunk::<8>()) {
        (_, Some(first), Some(last)) if from.len() <= 16 => {
            to[..8].copy_from_slice(first);
            to[from.len() - 8..].copy_from_slice(last);
        }
        ([byte], ..) => to[0] = *byte,
        _ => to.copy_from_slice(from),
    }
}

impl Hasher for StableHasher {
    fn finish(&self) -> u64 {
        self.digest() as u64
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        if bytes.len() <= BLOCK - LINK {
            self.put(bytes);
        } else {
            self.put(&xxh3_128(bytes).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_byte_counts_wherever_it_is() {
        let of = |parts: &[Vec<u8>]| {
            let mut hasher = StableHasher::default();
            parts.iter().for_each(|p| hasher.write(p));
            hasher.finish128()
        };
        let base: Vec<Vec<u8>> = [3usize, 200, 40, 1_000, 0, 224, 225, 7, 500].iter().map(|n| vec![7; *n]).collect();
        let mut seen = BTreeSet::from([of(&base)]);
        let mut count = 1;
        for part in 0..base.len() {
            for at in 0..base[part].len() {
                let mut other = base.clone();
                other[part][at] = 8;
                seen.insert(of(&other));
                count += 1;
            }
        }
        assert_eq!(seen.len(), count);
        assert_eq!(of(&base), of(&base));
    }
}
