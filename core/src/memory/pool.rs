//! A pool of memory: freed blocks are kept, cut and merged for later requests.

use std::{
    ptr::NonNull,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    Statistics, capacity_for, overflow,
    ranges::{Address, Ranges, Segment},
    too_much,
};
use crate::{Error, Result};

/// Where a pool gets its memory from.
pub(crate) trait Allocator: Sync + std::fmt::Debug {
    /// A new segment of at least `size` bytes; `None` if memory has run out.
    ///
    /// # Errors
    /// When the device can't be used any more.
    fn segment(&self, size: usize) -> Result<Option<Segment>>;

    /// Frees what [`segment`](Self::segment) gave.
    fn release(&self, segment: Segment);

    /// Returns memory inside a lazy segment to the system until it is written again.
    fn discard(&self, start: Address, size: usize) {
        let _ = (start, size);
    }

    /// Whether each block is a segment of exactly the size that is asked for, and is freed rather than kept.
    fn exact(&self) -> bool {
        false
    }

    /// The pool of this memory.
    fn pool(&self) -> &Pool;

    /// The error for a request of `size` bytes when memory has run out and `live` bytes are in use. The pool is locked then.
    fn exhausted(&self, operation: &str, size: usize, live: usize) -> Error;
}

/// The memory of a device, and its statistics.
#[derive(Debug)]
pub(crate) struct Pool(Mutex<State>);

#[derive(Debug)]
struct State {
    ranges: Ranges,
    statistics: Statistics,
}

/// What a block is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The elements of a tensor.
    Tensor,
    /// Temporary memory of a running kernel.
    Scratch,
}

impl Pool {
    /// A pool without memory.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(State { ranges: Ranges::new(), statistics: Statistics::EMPTY }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic can occur while the ranges are inconsistent, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `body` with the statistics.
    pub(crate) fn with<R>(&self, body: impl FnOnce(&mut Statistics) -> R) -> R {
        body(&mut self.lock().statistics)
    }

    /// Returns the free memory to the system.
    pub(crate) fn trim(&self, allocator: &dyn Allocator) {
        self.lock().trim(allocator);
    }
}

impl State {
    fn trim(&mut self, allocator: &dyn Allocator) {
        self.ranges.trim(|segment| allocator.release(segment), |start, size| allocator.discard(start, size));
        self.statistics.cached = self.ranges.cached();
    }

    /// The start of `capacity` bytes, within the limit. Free memory is returned to the system if there is no room otherwise.
    fn place(&mut self, allocator: &dyn Allocator, operation: &str, bytes: usize, capacity: usize) -> Result<Address> {
        let growth = |state: &Self| if allocator.exact() { None } else { state.ranges.growth(capacity) };
        let mut grows = growth(self);
        if let Some(limit) = self.statistics.limit
            && grows != Some(0)
        {
            let held = |state: &Self, grows: Option<usize>| {
                let kept = state.statistics.live.saturating_add(state.statistics.cached);
                kept.saturating_add(grows.unwrap_or(capacity))
            };
            if held(self, grows) > limit {
                self.trim(allocator);
                grows = growth(self);
            }
            if held(self, grows) > limit {
                return Err(too_much(operation, bytes, self.statistics.live, limit));
            }
        }
        if grows != Some(0) {
            self.statistics.system_allocations += 1;
        }
        if grows.is_none() {
            let mut segment = allocator.segment(capacity)?;
            if segment.is_none() {
                self.trim(allocator);
                segment = allocator.segment(capacity)?;
            }
            let segment = segment.ok_or_else(|| allocator.exhausted(operation, capacity, self.statistics.live))?;
            if allocator.exact() {
                return Ok(segment.start);
            }
            self.ranges.add(segment);
        }
        self.ranges.take(capacity).ok_or_else(|| allocator.exhausted(operation, capacity, self.statistics.live))
    }
}

/// An owned block of a pool, returned to it when dropped. Its memory is uninitialised.
#[derive(Debug)]
pub(crate) struct Block {
    start: Address,
    capacity: usize,
    purpose: Purpose,
    allocator: &'static dyn Allocator,
}

impl Block {
    /// Takes a block of at least `bytes`, on behalf of `operation`.
    pub(crate) fn take(
        allocator: &'static dyn Allocator,
        operation: &str,
        bytes: usize,
        purpose: Purpose,
    ) -> Result<Self> {
        let capacity = if allocator.exact() { Some(bytes.max(1)) } else { capacity_for(bytes) };
        let capacity =
            capacity.filter(|&capacity| isize::try_from(capacity).is_ok()).ok_or_else(|| overflow(operation, bytes))?;
        let mut pool = allocator.pool().lock();
        let start = pool.place(allocator, operation, bytes, capacity)?;
        pool.statistics.cached = pool.ranges.cached();
        pool.statistics.add(capacity, purpose == Purpose::Scratch);
        Ok(Block { start, capacity, purpose, allocator })
    }

    /// The first byte.
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        self.start.0
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut pool = self.allocator.pool().lock();
        pool.statistics.remove(self.capacity, self.purpose == Purpose::Scratch);
        if self.allocator.exact() {
            return self.allocator.release(Segment { start: self.start, size: self.capacity, lazy: false });
        }
        pool.ranges.give(self.start, self.capacity);
        pool.statistics.cached = pool.ranges.cached();
    }
}
