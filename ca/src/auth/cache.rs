//! [`Cache`]: what was found out about tokens. Holds their digests, never themselves, and a bounded number.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};

use super::tokens::Subject;

/// Of a token.
pub(super) type Digest = [u8; 32];

/// The most that are remembered of each kind.
const MOST: usize = 20_000;

#[derive(Default)]
pub(super) struct Cache {
    known: Mutex<HashMap<Digest, Entry>>,
}

struct Entry {
    /// `None`: it was refused.
    subject: Option<Subject>,
    until: SystemTime,
}

pub(super) fn digest_of(token: &str) -> Digest {
    let mut out = Digest::default();
    out.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    out
}

impl Cache {
    /// `Some(None)`: it is known to be bad.
    pub(super) fn get(&self, token: &Digest, now: SystemTime) -> Option<Option<Subject>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(token).filter(|e| now < e.until).map(|e| e.subject.clone())
    }

    pub(super) fn put(&self, token: Digest, subject: Option<Subject>, until: SystemTime, now: SystemTime) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, e| now < e.until);
        }
        if known.len() >= MOST {
            // Whoever floods us with bad ones loses these first.
            known.retain(|_, e| e.subject.is_some());
        }
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(token, Entry { subject, until });
    }

    /// Forgets everything: other keys hold now.
    pub(super) fn clear(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
