//! What `src/sync.rs` provides, where every lock is a point at which the checker may switch tasks.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;
use std::time::Duration;

use shuttle::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

/// How time goes during a test.
#[derive(Clone, Copy)]
pub(crate) enum Clock {
    /// Whoever sleeps for a moment finds that it has come, after others may have run.
    Passes,
    /// Sleeping helps nobody.
    Stands,
}

thread_local! {
    // The checker runs all tasks of a test on one thread, one at a time.
    static CLOCK: Cell<(Clock, Duration)> = const { Cell::new((Clock::Stands, Duration::ZERO)) };
}

pub(crate) fn start(clock: Clock) {
    CLOCK.set((clock, Duration::ZERO));
}

pub(crate) fn now() -> Instant {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    *ZERO.get_or_init(|| Instant::now() + Duration::from_secs(3_600)) + CLOCK.get().1
}

pub(crate) async fn sleep_until(due: Instant) {
    if now() >= due {
        return;
    }
    let (clock, passed) = CLOCK.get();
    if matches!(clock, Clock::Stands) {
        std::future::pending::<()>().await;
    }
    shuttle::future::yield_now().await;
    CLOCK.set((clock, passed.max(CLOCK.get().1 + due.saturating_duration_since(now()))));
}

#[derive(Debug, Default)]
pub(crate) struct Mutex<T> {
    inner: shuttle::sync::Mutex<T>,
    released: AtomicBool,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex { inner: shuttle::sync::Mutex::new(value), released: AtomicBool::new(false) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { guard: Some(self.inner.lock().unwrap()), released: &self.released }
    }
}

/// Others may run right after its release too, before whatever the task does next. The checker's own has no such point.
pub(crate) struct MutexGuard<'a, T> {
    guard: Option<shuttle::sync::MutexGuard<'a, T>>,
    released: &'a AtomicBool,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().unwrap()
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.guard = None;
        if !std::thread::panicking() {
            self.released.load(Ordering::SeqCst);
        }
    }
}
