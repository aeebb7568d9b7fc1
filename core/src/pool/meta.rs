//! Memory statistics of [`Device::Meta`](crate::Device::Meta): what its tensors would take, were there memory.

use std::{
    cell::RefCell,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use super::{Statistics, capacity_for, too_much};
use crate::{Error, ErrorKind, Result};

/// Statistics that tensors hold on to, so that each is taken off where it was put down.
#[derive(Debug)]
pub(super) struct Shared(Mutex<Statistics>);

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Statistics::EMPTY)))
    }

    pub(super) fn with<R>(&self, body: impl FnOnce(&mut Statistics) -> R) -> R {
        // Every change is whole even after a panic elsewhere.
        body(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

static PROCESS: LazyLock<Arc<Shared>> = LazyLock::new(Shared::new);

thread_local! {
    static OPEN: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

/// The statistics that this thread counts in: those of the [`meter`] around, or those of the process.
pub(super) fn current() -> Arc<Shared> {
    OPEN.with_borrow(Clone::clone).unwrap_or_else(|| PROCESS.clone())
}

/// Runs `body` and gives the statistics of the meta tensors that it made on this thread, whatever other threads do; within
/// `body`, [`statistics`](super::statistics) of [`Device::Meta`](crate::Device::Meta) gives the same. A `meter` inside has
/// statistics of its own.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor, pool};
/// let (sum, statistics) = pool::meter(|| {
///     let x = Tensor::zeros(&[1024], DType::F32, Device::Meta)?;
///     Tensor::zeros(&[1024], DType::F32, Device::Meta).map(|y| x.count() + y.count())
/// });
/// assert_eq!((sum?, statistics.peak, statistics.live), (2048, 8192, 0));
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub fn meter<R>(body: impl FnOnce() -> R) -> (R, Statistics) {
    /// Counts in the former statistics again, also after a panic.
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

/// Bytes of a meta tensor, as large as a block of the host's pool would be; taken off the statistics when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Charge {
    /// Puts `bytes` down for `operation`.
    pub(crate) fn take(operation: &str, bytes: usize) -> Result<Self> {
        let overflow =
            || Error::new(ErrorKind::OutOfMemory, operation, format!("{bytes} bytes overflow the address space"));
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
