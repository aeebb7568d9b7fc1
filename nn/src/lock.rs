//! Locking a mutex whose content stays whole after a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The content of `mutex`. Poisoning is ignored: every change in this crate is one assignment, push or insertion, which a panic
/// can't interrupt.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
