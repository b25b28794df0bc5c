//! [`Sound`]: what was checked before. Most of what is packed in one listener is packed in every other.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::hashed::Hashed;

/// How many hashes a generation has: 16 bytes each, in a table that is up to half empty.
const GENERATION: usize = 4096;

/// Hashes of packed messages that break no rule. Those that nobody asks for drop out.
#[derive(Default)]
pub(super) struct Sound(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: Keys,
    old: Keys,
}

type Keys = HashSet<u128, BuildHasherDefault<Hashed>>;

impl Sound {
    /// The key of an encoded Any that lies so deep: how deep, too, is a rule.
    pub(super) fn key(any: &[u8], depth: usize) -> u128 {
        xxh3_128_with_seed(any, depth as u64)
    }

    pub(super) fn has(&self, key: u128) -> bool {
        let generations = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !generations.young.contains(&key) && generations.old.remove(&key) {
            generations.young.insert(key);
        }
        generations.young.contains(&key)
    }

    pub(super) fn put(&self, key: u128) {
        let generations = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= GENERATION {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_drops_out() {
        let sound = Sound::default();
        sound.put(0);
        for key in 1..10 * GENERATION as u128 {
            sound.put(key);
            assert!(sound.has(0));
        }
        assert!(!sound.has(1));
        let generations = sound.0.lock().unwrap();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
    }
}
