//! Memory statistics of [`Device::Meta`](crate::Device::Meta): the memory that its tensors would need on a real device.

use std::{
    cell::RefCell,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use super::{Statistics, capacity_for, overflow, too_much};
use crate::Result;

/// Statistics that every tensor counted in them refers to, so that its bytes are subtracted where they were added.
#[derive(Debug)]
pub(super) struct Shared(Mutex<Statistics>);

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Statistics::EMPTY)))
    }

    pub(super) fn with<R>(&self, body: impl FnOnce(&mut Statistics) -> R) -> R {
        // Every change is complete even if another thread panicked, so a poisoned lock is safe to use.
        body(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

static PROCESS: LazyLock<Arc<Shared>> = LazyLock::new(Shared::new);

thread_local! {
    static OPEN: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// The statistics that this thread adds to: those of the innermost running [`meter`], otherwise those of the process.
pub(super) fn current() -> Arc<Shared> {
    OPEN.with_borrow(Clone::clone).unwrap_or_else(|| PROCESS.clone())
}

/// Runs `body` and returns its result with the statistics of the meta tensors that it made on this thread; other threads
/// don't affect them. Within `body`, [`statistics`](super::statistics) of [`Device::Meta`](crate::Device::Meta) returns the
/// same statistics. A nested `meter` counts separately.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor, memory};
/// let (sum, statistics) = memory::meter(|| {
///     let x = Tensor::zeros(&[1024], DType::F32, Device::Meta)?;
///     Tensor::zeros(&[1024], DType::F32, Device::Meta).map(|y| x.count() + y.count())
/// });
/// assert_eq!((sum?, statistics.peak, statistics.live), (2048, 8192, 0));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub fn meter<R>(body: impl FnOnce() -> R) -> (R, Statistics) {
    /// Restores the previous statistics, also after a panic.
    struct Restore(Option<Arc<Shared>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OPEN.set(self.0.take());
        }
    }
    let shared = Shared::new();
    let restore = Restore(OPEN.replace(Some(shared.clone())));
    let result = body();
    drop(restore);
    (result, shared.with(|statistics| *statistics))
}

/// The bytes of a meta tensor, rounded up as the host's pool would; subtracted from the statistics when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Charge {
    /// Adds `bytes` to the current statistics, on behalf of `operation`.
    pub(crate) fn take(operation: &str, bytes: usize) -> Result<Self> {
        let overflow = || overflow(operation, bytes);
        let capacity = capacity_for(bytes).ok_or_else(overflow)?;
        let shared = current();
        shared.with(|statistics| {
            let live = statistics.live.checked_add(capacity).ok_or_else(overflow)?;
            if let Some(limit) = statistics.limit.filter(|&limit| live > limit) {
                return Err(too_much(operation, bytes, statistics.live, limit));
            }
            statistics.add(capacity, false);
            Ok(())
        })?;
        Ok(Self { shared, bytes: capacity })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shared.with(|statistics| statistics.remove(self.bytes, false));
    }
}
