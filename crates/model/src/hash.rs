//! Content hashes: equal content has an equal hash on every replica and in every run.

use std::fmt;
use std::hash::{Hash, Hasher};

use xxhash_rust::xxh3::Xxh3;

/// 128 bits of XXH3 over a deterministic encoding. Not for defence against forgery.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ContentHash(pub u128);

impl ContentHash {
    /// Of bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        ContentHash(xxhash_rust::xxh3::xxh3_128(bytes))
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

/// A [`Hasher`] without a random seed.
#[derive(Clone, Default)]
pub struct StableHasher(Xxh3);

impl StableHasher {
    /// All 128 bits.
    pub fn finish128(&self) -> ContentHash {
        ContentHash(self.0.digest128())
    }
}

impl Hasher for StableHasher {
    fn finish(&self) -> u64 {
        self.0.digest()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}
