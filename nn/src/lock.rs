//! Locking a mutex whose content stays whole after a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The content of `mutex`. Each change in this crate is one assignment, push or insertion, so the content is whole also after a
/// panic of another thread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
