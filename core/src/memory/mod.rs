//! Memory of the devices: statistics and a limit for each, and the host's pool, which caches freed 64-byte aligned blocks.
//!
//! The page faults of fresh memory cost more than most elementwise kernels, so a freed block is cached and reused for the
//! next tensor of about its size. After the first training step, every tensor reuses a block and the system allocates no
//! more.

use std::{
    alloc::{Layout, alloc, dealloc},
    collections::BTreeMap,
    ptr::NonNull,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{Device, Error, ErrorKind, Result};

mod meta;

pub(crate) use meta::Charge;
pub use meta::meter;

/// Memory statistics of a device, in bytes. Blocks are counted with their capacity, which is a little more than requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Bytes in use by tensors and scratch.
    pub live: usize,
    /// The maximum of `live` since the start of the process or the last [`reset_peak`].
    pub peak: usize,
    /// The part of `live` that is scratch: temporary memory of running kernels.
    pub scratch: usize,
    /// The maximum of `live − scratch`, the tensors' part, since the start of the process or the last [`reset_peak`].
    pub tensor_peak: usize,
    /// Bytes that are free but cached for reuse.
    pub cached: usize,
    /// How many blocks were allocated from the system.
    pub system_allocations: u64,
    /// The largest allowed value of `live + cached`.
    pub limit: Option<usize>,
}

impl Statistics {
    const EMPTY: Self =
        Self { live: 0, peak: 0, scratch: 0, tensor_peak: 0, cached: 0, system_allocations: 0, limit: None };

    fn add(&mut self, bytes: usize, scratch: bool) {
        self.live += bytes;
        self.scratch += if scratch { bytes } else { 0 };
        self.peak = self.peak.max(self.live);
        self.tensor_peak = self.tensor_peak.max(self.live - self.scratch);
    }

    fn remove(&mut self, bytes: usize, scratch: bool) {
        self.live -= bytes;
        self.scratch -= if scratch { bytes } else { 0 };
    }

    fn reset_peak(&mut self) {
        self.peak = self.live;
        self.tensor_peak = self.live - self.scratch;
    }
}

struct Free {
    /// Free blocks by capacity.
    blocks: BTreeMap<usize, Vec<Address>>,
    statistics: Statistics,
}

struct Address(NonNull<u8>);
// SAFETY: the free list alone owns the memory at its addresses, and memory isn't tied to a thread.
unsafe impl Send for Address {}

static CPU: Mutex<Free> = Mutex::new(Free { blocks: BTreeMap::new(), statistics: Statistics::EMPTY });

fn cpu() -> MutexGuard<'static, Free> {
    // No panic can occur while the list is inconsistent, so a poisoned lock is safe to use.
    CPU.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `body` with the statistics of `device`.
fn with_statistics<R>(device: Device, body: impl FnOnce(&mut Statistics) -> R) -> Result<R> {
    match device {
        Device::Cpu => Ok(body(&mut cpu().statistics)),
        Device::Meta => Ok(meta::current().with(body)),
        Device::Cuda(_) => {
            device.check("pool")?;
            Err(Error::new(ErrorKind::Device, "pool", format!("no memory on {device}")))
        }
    }
}

/// The statistics of `device`'s memory.
///
/// # Errors
/// When the device can't be used.
pub fn statistics(device: Device) -> Result<Statistics> {
    with_statistics(device, |statistics| *statistics)
}

/// Sets the most bytes, live and cached, that `device` may hold; `None` removes the limit. If more is held now, all cached
/// blocks are returned to the system.
///
/// # Errors
/// When the device can't be used.
pub fn set_limit(device: Device, limit: Option<usize>) -> Result<()> {
    let beyond = with_statistics(device, |statistics| {
        statistics.limit = limit;
        limit.is_some_and(|limit| statistics.live.saturating_add(statistics.cached) > limit)
    })?;
    if beyond { trim(device) } else { Ok(()) }
}

/// Sets both peaks to the bytes that are in use now.
///
/// # Errors
/// When the device can't be used.
pub fn reset_peak(device: Device) -> Result<()> {
    with_statistics(device, Statistics::reset_peak)
}

/// Returns all cached blocks to the system.
///
/// # Errors
/// When the device can't be used.
pub fn trim(device: Device) -> Result<()> {
    with_statistics(device, |_| ())?;
    if device == Device::Cpu {
        cpu().trim();
    }
    Ok(())
}

/// The error for a request of `bytes` bytes beyond the limit of a device that holds `live` bytes.
fn too_much(operation: &str, bytes: usize, live: usize, limit: usize) -> Error {
    let what = format!("{bytes} bytes don't fit: {live} of the pool's limit {limit} are in use");
    Error::new(ErrorKind::OutOfMemory, operation, what).expected("a smaller batch or patch, or a higher limit")
}

const ALIGNMENT: usize = 64;
/// Blocks of at least twice this size are aligned to it, so that a system with transparent huge pages can use them.
const HUGE_PAGE: usize = 2 << 20;

fn memory_layout(capacity: usize) -> Option<Layout> {
    Layout::from_size_align(capacity, if capacity >= 2 * HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT }).ok()
}

/// Requests huge pages for the whole huge pages of a large block: fewer page faults at first use and far fewer TLB misses
/// later, above all where a kernel reads rows that are several pages apart.
fn ask_for_huge_pages(pointer: NonNull<u8>, layout: Layout) {
    #[cfg(target_os = "linux")]
    if layout.align() == HUGE_PAGE {
        let whole = layout.size() / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: the range lies within our block and starts at a page boundary; the advice affects only performance. A
        // system that doesn't support it returns an error, which can be ignored.
        unsafe { libc::madvise(pointer.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (pointer, layout);
}

/// The capacity of a block for `bytes`: rounded up to one of four sizes per power of two, so that requests of nearly the same
/// size share blocks and at most a fifth of a block is unused.
fn capacity_for(bytes: usize) -> Option<usize> {
    let bytes = bytes.max(ALIGNMENT);
    let step = (bytes.checked_next_power_of_two()? / 8).max(ALIGNMENT);
    bytes.checked_next_multiple_of(step)
}

impl Free {
    fn trim(&mut self) {
        for (capacity, addresses) in std::mem::take(&mut self.blocks) {
            for Address(pointer) in addresses {
                if let Some(layout) = memory_layout(capacity) {
                    // SAFETY: the block was allocated with this layout, and the free list owned its only address.
                    unsafe { dealloc(pointer.as_ptr(), layout) };
                }
            }
        }
        self.statistics.cached = 0;
    }

    /// The smallest cached block of at least `capacity` that `fit` allows.
    fn reuse(&mut self, capacity: usize, fit: Fit) -> Option<Block> {
        let most = match fit {
            Fit::Close => capacity + capacity / 4,
            Fit::Any => usize::MAX,
        };
        let (&found, addresses) = self.blocks.range_mut(capacity..=most).next()?;
        let Address(pointer) = addresses.pop()?;
        if addresses.is_empty() {
            self.blocks.remove(&found);
        }
        self.statistics.cached -= found;
        Some(Block { pointer, capacity: found, scratch: fit == Fit::Any })
    }
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

/// An owned block of the CPU pool, returned to the pool when dropped. Its memory is uninitialised.
#[derive(Debug)]
pub(crate) struct Block {
    pointer: NonNull<u8>,
    capacity: usize,
    scratch: bool,
}

// SAFETY: a block is the only owner of its memory, as a Vec is.
unsafe impl Send for Block {}
// SAFETY: a shared block only gives out its address; code that dereferences it must ensure exclusive writes itself.
unsafe impl Sync for Block {}

impl Block {
    /// Allocates a block of at least `bytes`, on behalf of `operation`.
    pub(crate) fn take(operation: &str, bytes: usize, fit: Fit) -> Result<Self> {
        let fail = |why: String| Error::new(ErrorKind::OutOfMemory, operation.to_owned(), why);
        let capacity = capacity_for(bytes).ok_or_else(|| fail(format!("{bytes} bytes overflow the address space")))?;
        let layout =
            memory_layout(capacity).ok_or_else(|| fail(format!("{bytes} bytes overflow the address space")))?;
        let mut pool = cpu();
        let block = match pool.reuse(capacity, fit) {
            Some(block) => block,
            None => {
                if let Some(limit) = pool.statistics.limit {
                    if pool.statistics.live.saturating_add(pool.statistics.cached).saturating_add(capacity) > limit {
                        pool.trim();
                    }
                    let live = pool.statistics.live;
                    if live.saturating_add(capacity) > limit {
                        return Err(too_much(operation, bytes, live, limit));
                    }
                }
                // SAFETY: the layout's size isn't zero.
                let mut pointer = NonNull::new(unsafe { alloc(layout) });
                if pointer.is_none() {
                    pool.trim();
                    // SAFETY: as above.
                    pointer = NonNull::new(unsafe { alloc(layout) });
                }
                let pointer = pointer.ok_or_else(|| fail(format!("the system has no {capacity} bytes left")))?;
                ask_for_huge_pages(pointer, layout);
                pool.statistics.system_allocations += 1;
                Block { pointer, capacity, scratch: fit == Fit::Any }
            }
        };
        pool.statistics.add(block.capacity, block.scratch);
        Ok(block)
    }

    /// The first byte.
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut pool = cpu();
        pool.statistics.remove(self.capacity, self.scratch);
        pool.statistics.cached += self.capacity;
        pool.blocks.entry(self.capacity).or_default().push(Address(self.pointer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_waste_little() {
        for bytes in [0, 1, 64, 65, 1000, 4097, 100_000, 67_108_864, 70_000_000] {
            let capacity = capacity_for(bytes).unwrap();
            assert!(capacity >= bytes && capacity.is_multiple_of(ALIGNMENT));
            assert!(bytes < 1024 || capacity - bytes <= bytes / 4, "{bytes} {capacity}");
        }
        assert!(capacity_for(usize::MAX).is_none());
    }
}
