//! [`Windows`] between tasks: [`channel`].

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::merge::{Batch, Merge};
use crate::sync::{Mutex, now, sleep_until};
use crate::windows::{Timing, Windows};

/// Two ends: senders merge changes, the receiver gets batches.
pub fn channel<K: Hash + Eq + Clone, C: Merge>() -> (Sender<K, C>, Receiver<K, C>) {
    let windows = Arc::new(Mutex::new(Windows::default()));
    let (wake, woken) = watch::channel(());
    (Sender { windows: windows.clone(), wake }, Receiver { windows, woken })
}

/// Where changes go in. Clones feed the same windows.
pub struct Sender<K, C> {
    windows: Arc<Mutex<Windows<K, C>>>,
    wake: watch::Sender<()>,
}

impl<K, C> Clone for Sender<K, C> {
    fn clone(&self) -> Self {
        Sender { windows: self.windows.clone(), wake: self.wake.clone() }
    }
}

impl<K: Hash + Eq + Clone, C: Merge> Sender<K, C> {
    /// Adds a change of an event at `since`. Never waits: a change that comes during a rebuild joins the next batch of its key.
    pub fn send(&self, key: K, change: C, timing: Timing, since: Instant) {
        let mut windows = self.windows.lock();
        let before = windows.due();
        windows.add(key, change, timing, since, now());
        let after = windows.due();
        drop(windows);
        // A receiver that sleeps too short looks again by itself.
        if before.is_none_or(|before| after.is_some_and(|after| after < before)) {
            self.wake.send_replace(());
        }
    }
}

/// Where batches come out.
pub struct Receiver<K, C> {
    windows: Arc<Mutex<Windows<K, C>>>,
    woken: watch::Receiver<()>,
}

impl<K: Hash + Eq + Clone, C: Merge> Receiver<K, C> {
    /// The batch of the key that is due first, when it is. After the last sender is gone: what is left at once, then `None`.
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<(K, Batch<C>)> {
        loop {
            let due = self.windows.lock().due();
            let due_passed = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = due_passed => {
                    let taken = self.windows.lock().take(now());
                    if taken.is_some() {
                        return taken;
                    }
                }
                woken = self.woken.changed() => {
                    if woken.is_err() {
                        return self.windows.lock().flush(now());
                    }
                }
            }
        }
    }

    /// Tells what the rebuild for the last batch of a key cost, which sets how long its next changes wait for each other.
    pub fn spent(&self, key: &K, cost: Duration) {
        self.windows.lock().spent(key, cost);
    }

    /// How many keys have a batch.
    pub fn len(&self) -> usize {
        self.windows.lock().len()
    }

    /// True if no key has a batch.
    pub fn is_empty(&self) -> bool {
        self.windows.lock().is_empty()
    }
}
