//! The window between tasks: [`channel`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::merge::{Batch, Merge};
use crate::window::{Config, Window};

/// Two ends: senders merge changes, the receiver gets batches.
pub fn channel<C: Merge>(config: Config) -> (Sender<C>, Debounced<C>) {
    let window = Arc::new(Mutex::new(Window::new(config)));
    let (wake, woken) = watch::channel(());
    (Sender { window: window.clone(), wake }, Debounced { window, woken })
}

/// Where changes go in. Clones feed the same window.
pub struct Sender<C> {
    window: Arc<Mutex<Window<C>>>,
    wake: watch::Sender<()>,
}

impl<C> Clone for Sender<C> {
    fn clone(&self) -> Self {
        Sender { window: self.window.clone(), wake: self.wake.clone() }
    }
}

impl<C: Merge> Sender<C> {
    /// Adds a change. Never waits: a change that comes during a push joins the next batch.
    pub fn send(&self, change: C) {
        lock(&self.window).add(change, Instant::now());
        self.wake.send_replace(());
    }
}

/// Where batches come out.
pub struct Debounced<C> {
    window: Arc<Mutex<Window<C>>>,
    woken: watch::Receiver<()>,
}

impl<C: Merge> Debounced<C> {
    /// The next batch, when it is due. After the last sender is gone: what is left at once, then `None`. Nothing is lost if
    /// the future is dropped.
    pub async fn next(&mut self) -> Option<Batch<C>> {
        loop {
            let due = lock(&self.window).due();
            let due_passed = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = due_passed => {
                    let batch = lock(&self.window).take(Instant::now());
                    if batch.is_some() {
                        return batch;
                    }
                }
                woken = self.woken.changed() => {
                    if woken.is_err() {
                        return lock(&self.window).flush(Instant::now());
                    }
                }
            }
        }
    }
}

/// Merging may panic; the batch then lacks a change, but the window is whole.
fn lock<C>(window: &Mutex<Window<C>>) -> MutexGuard<'_, Window<C>> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::{advance, timeout};

    const CONFIG: Config = Config { quiet: Duration::from_millis(100), ceiling: Duration::from_millis(1_000) };

    #[tokio::test(start_paused = true)]
    async fn batches_come_when_they_are_due() {
        let start = Instant::now();
        let (sender, mut batches) = channel::<Vec<u32>>(CONFIG);
        sender.send(vec![1]);
        assert_eq!(batches.next().await, Some(Batch { change: vec![1], since: start, queued_at: start, count: 1 }));
        assert_eq!(start.elapsed(), Duration::ZERO);
        sender.send(vec![2]);
        advance(Duration::from_millis(50)).await;
        sender.send(vec![3]);
        assert_eq!(batches.next().await, Some(Batch { change: vec![2, 3], since: start, queued_at: start, count: 2 }));
        assert!(start.elapsed() >= Duration::from_millis(150) && start.elapsed() < Duration::from_millis(160), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn changes_during_a_push_are_one_batch() {
        let (sender, mut batches) = channel::<Vec<u32>>(CONFIG);
        sender.send(vec![0]);
        batches.next().await.unwrap();
        // The push takes its time.
        for i in 1..=1_000 {
            sender.send(vec![i]);
            advance(Duration::from_millis(7)).await;
        }
        let before = Instant::now();
        assert_eq!(batches.next().await.unwrap().count, 1_000);
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_wait_loses_nothing_and_the_rest_comes_at_the_end() {
        let (sender, mut batches) = channel::<Vec<u32>>(CONFIG);
        sender.send(vec![1]);
        batches.next().await.unwrap();
        sender.send(vec![2]);
        assert!(timeout(Duration::from_millis(20), batches.next()).await.is_err());
        drop(sender);
        assert_eq!(batches.next().await.unwrap().change, [2]);
        assert_eq!(batches.next().await, None);
    }
}
