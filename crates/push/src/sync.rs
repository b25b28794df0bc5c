//! The few things that tasks hand over with, in one place, so that a concurrency checker can take their place: the suite
//! `tests/handover` compiles the shells against another module of this name.

use std::sync::PoisonError;

pub(crate) use std::sync::MutexGuard;
pub(crate) use tokio::time::sleep_until;

/// A mutex without poison: merging may panic; the batch then lacks a change, but the structure is whole.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
