//! A pool of memory: freed blocks by size, kept for reuse.

use std::{
    collections::BTreeMap,
    ptr::NonNull,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Statistics, capacity_for, overflow, too_much};
use crate::{Error, Result};

/// The address of a block's first byte, on the host or on a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address(pub(crate) NonNull<u8>);
// SAFETY: an address isn't tied to a thread; who may use the memory is up to its owner.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

/// Where a pool gets its blocks from.
pub(crate) trait Allocator: Sync + std::fmt::Debug {
    /// A new block of `capacity` bytes; `None` if memory has run out.
    ///
    /// # Errors
    /// When the device can't be used any more.
    fn allocate(&self, capacity: usize) -> Result<Option<Address>>;

    /// Frees what [`allocate`](Self::allocate) gave for `capacity`.
    fn free(&self, address: Address, capacity: usize);

    /// Whether blocks have exactly the size that is asked for, and are freed rather than cached.
    fn exact(&self) -> bool {
        false
    }

    /// The pool of these blocks.
    fn pool(&self) -> &Pool;

    /// The error for a request of `capacity` bytes when memory has run out and `live` bytes are in use. The pool is locked then.
    fn exhausted(&self, operation: &str, capacity: usize, live: usize) -> Error;
}

/// The free blocks of a device, and its statistics.
#[derive(Debug)]
pub(crate) struct Pool(Mutex<Free>);

#[derive(Debug)]
struct Free {
    /// Free blocks by capacity.
    blocks: BTreeMap<usize, Vec<Address>>,
    statistics: Statistics,
}

/// How much larger a reused block may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    /// At most a quarter larger: for tensors, which live long.
    Close,
    /// Any size: for scratch, which is freed soon. The number of threads that hold scratch of one size at once varies from
    /// step to step; a thread that finds no block of that size should take a larger one rather than ask the system.
    Any,
}

impl Pool {
    /// A pool without blocks.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Free { blocks: BTreeMap::new(), statistics: Statistics::EMPTY }))
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        // No panic can occur while the list is inconsistent, so a poisoned lock is safe to use.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `body` with the statistics.
    pub(crate) fn with<R>(&self, body: impl FnOnce(&mut Statistics) -> R) -> R {
        body(&mut self.lock().statistics)
    }

    /// Frees all cached blocks.
    pub(crate) fn trim(&self, allocator: &dyn Allocator) {
        self.lock().trim(allocator);
    }
}

impl Free {
    fn trim(&mut self, allocator: &dyn Allocator) {
        for (capacity, addresses) in std::mem::take(&mut self.blocks) {
            for address in addresses {
                allocator.free(address, capacity);
            }
        }
        self.statistics.cached = 0;
    }

    /// The smallest cached block of at least `capacity` that `fit` allows, with its capacity.
    fn reuse(&mut self, capacity: usize, fit: Fit) -> Option<(Address, usize)> {
        let most = match fit {
            Fit::Close => capacity + capacity / 4,
            Fit::Any => usize::MAX,
        };
        let (&found, addresses) = self.blocks.range_mut(capacity..=most).next()?;
        let address = addresses.pop()?;
        if addresses.is_empty() {
            self.blocks.remove(&found);
        }
        self.statistics.cached -= found;
        Some((address, found))
    }

    /// A new block of `capacity` bytes within the limit. Cached blocks are freed if there is no room for it otherwise.
    fn fresh(
        &mut self,
        allocator: &dyn Allocator,
        operation: &str,
        bytes: usize,
        capacity: usize,
    ) -> Result<(Address, usize)> {
        if let Some(limit) = self.statistics.limit {
            if self.statistics.live.saturating_add(self.statistics.cached).saturating_add(capacity) > limit {
                self.trim(allocator);
            }
            let live = self.statistics.live;
            if live.saturating_add(capacity) > limit {
                return Err(too_much(operation, bytes, live, limit));
            }
        }
        let mut address = allocator.allocate(capacity)?;
        if address.is_none() {
            self.trim(allocator);
            address = allocator.allocate(capacity)?;
        }
        let address = address.ok_or_else(|| allocator.exhausted(operation, capacity, self.statistics.live))?;
        self.statistics.system_allocations += 1;
        Ok((address, capacity))
    }
}

/// An owned block of a pool, returned to it when dropped. Its memory is uninitialised.
#[derive(Debug)]
pub(crate) struct Block {
    address: Address,
    capacity: usize,
    scratch: bool,
    allocator: &'static dyn Allocator,
}

impl Block {
    /// Takes a block of at least `bytes`, on behalf of `operation`.
    pub(crate) fn take(allocator: &'static dyn Allocator, operation: &str, bytes: usize, fit: Fit) -> Result<Self> {
        let capacity = if allocator.exact() { Some(bytes.max(1)) } else { capacity_for(bytes) };
        let capacity =
            capacity.filter(|&capacity| isize::try_from(capacity).is_ok()).ok_or_else(|| overflow(operation, bytes))?;
        let mut free = allocator.pool().lock();
        let (address, capacity) = match free.reuse(capacity, fit) {
            Some(block) => block,
            None => free.fresh(allocator, operation, bytes, capacity)?,
        };
        let scratch = fit == Fit::Any;
        free.statistics.add(capacity, scratch);
        Ok(Block { address, capacity, scratch, allocator })
    }

    /// The first byte.
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        self.address.0
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut free = self.allocator.pool().lock();
        free.statistics.remove(self.capacity, self.scratch);
        if self.allocator.exact() {
            return self.allocator.free(self.address, self.capacity);
        }
        free.statistics.cached += self.capacity;
        free.blocks.entry(self.capacity).or_default().push(self.address);
    }
}
