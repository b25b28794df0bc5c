//! [`Strings`]: equal strings of different objects share one allocation.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use pilotfish_model::name::Str;

/// A pool of shared strings; clones share it. Labels, namespaces, nodes and accounts repeat in thousands of objects.
#[derive(Clone, Debug, Default)]
pub struct Strings(Arc<Mutex<Pool>>);

#[derive(Debug, Default)]
struct Pool {
    strings: HashSet<Str>,
    /// At which size those that nobody uses any more are dropped.
    limit: usize,
}

/// Below this many there is nothing to gain from dropping any.
const MIN_LIMIT: usize = 1024;

impl Strings {
    /// The one string with this text.
    pub fn share(&self, text: &str) -> Str {
        // A panic while it was held leaves a valid set.
        let mut pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pool.strings.get(text) {
            return known.clone();
        }
        if pool.strings.len() >= pool.limit {
            pool.strings.retain(|s| Arc::strong_count(s) > 1);
            // Twice what is in use: each purge is paid for by as many additions.
            pool.limit = MIN_LIMIT.max(pool.strings.len() * 2);
        }
        let new = Str::from(text);
        pool.strings.insert(new.clone());
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_are_one_and_unused_ones_go() {
        let strings = Strings::default();
        let (a, b) = (strings.share("app"), strings.clone().share("app"));
        assert!(Arc::ptr_eq(&a, &b));
        for i in 0..10 * MIN_LIMIT {
            strings.share(&i.to_string());
        }
        assert!(strings.0.lock().unwrap().strings.len() <= MIN_LIMIT);
        assert!(Arc::ptr_eq(&a, &strings.share("app")));
    }
}
