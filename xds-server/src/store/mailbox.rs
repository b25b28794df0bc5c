//! Where a stream's next target waits: [`Mailbox`]. It holds one, the newest, however long the stream takes.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::client::Target;

/// One slot between those who push and one stream.
#[derive(Default)]
pub(crate) struct Mailbox {
    target: Mutex<Option<Target>>,
    filled: Notify,
}

impl Mailbox {
    /// Replaces what waits. How long the older one has waited is not forgotten.
    pub(crate) fn put(&self, mut target: Target) {
        let mut slot = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(older) = slot.take() {
            target.since = [older.since, target.since].into_iter().flatten().min();
        }
        *slot = Some(target);
        drop(slot);
        self.filled.notify_one();
    }

    /// Takes what waits.
    pub(crate) fn take(&self) -> Option<Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns when something was put in since the last call.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }
}
