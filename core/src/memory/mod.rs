//! Memory of the devices: statistics and a limit for each, and the pools of the host and of CUDA devices, which keep what is
//! freed.
//!
//! The page faults of fresh memory cost more than most elementwise kernels, so freed memory is kept: it merges with its free
//! neighbours, and the next tensors are cut out of it. After the first training step the system provides no more. The host's
//! tensors lie in one reserved range of addresses, so that a process holds little more than its tensors need at their peak
//! (docs/decisions/0015).

use crate::{Device, Error, ErrorKind, Result, cuda::Gpu};

mod host;
mod meta;
mod pool;
mod ranges;

pub(crate) use meta::Charge;
pub use meta::meter;
pub(crate) use pool::{Allocator, Block, Pool, Purpose};
pub(crate) use ranges::{Address, Segment};

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
    /// Bytes that are free but kept for reuse.
    pub cached: usize,
    /// How many requests needed memory that the system hadn't provided before.
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

/// Calls `body` with the statistics of `device`.
fn with_statistics<R>(device: Device, body: impl FnOnce(&mut Statistics) -> R) -> Result<R> {
    match device {
        Device::Cpu => Ok(host::POOL.with(body)),
        Device::Meta => Ok(meta::current().with(body)),
        Device::Cuda(index) => Ok(Gpu::open(index, "pool")?.pool().with(body)),
    }
}

/// The statistics of `device`'s memory.
///
/// # Errors
/// When the device can't be used.
pub fn statistics(device: Device) -> Result<Statistics> {
    with_statistics(device, |statistics| *statistics)
}

/// Sets the most bytes, live and cached, that `device` may hold; `None` removes the limit. If more is held now, all free
/// memory is returned to the system.
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

/// Returns all free memory to the system; on CUDA devices, what is free as a whole segment.
///
/// # Errors
/// When the device can't be used.
pub fn trim(device: Device) -> Result<()> {
    match device {
        Device::Cpu => host::POOL.trim(&host::Allocator),
        Device::Meta => {}
        Device::Cuda(index) => {
            let gpu = Gpu::open(index, "pool")?;
            gpu.pool().trim(gpu);
        }
    }
    Ok(())
}

/// The error for a request of `bytes` bytes beyond the limit of a device that holds `live` bytes.
fn too_much(operation: &str, bytes: usize, live: usize, limit: usize) -> Error {
    let what = format!("{bytes} bytes don't fit: {live} of the pool's limit {limit} are in use");
    Error::new(ErrorKind::OutOfMemory, operation, what).expected("a smaller batch or patch, or a higher limit")
}

/// The error for a request whose size no address can have.
fn overflow(operation: &str, bytes: usize) -> Error {
    Error::new(ErrorKind::OutOfMemory, operation, format!("{bytes} bytes overflow the address space"))
}

/// Every capacity and address is a multiple of this: two cache lines, which the processor fetches as a pair.
const ALIGNMENT: usize = 128;

/// The capacity of a block for `bytes`.
fn capacity_for(bytes: usize) -> Option<usize> {
    bytes.max(1).checked_next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_are_aligned() {
        for bytes in [0, 1, 64, 65, 1000, 4097, 100_000, 67_108_864, 70_000_000] {
            let capacity = capacity_for(bytes).unwrap();
            assert!(
                capacity >= bytes.max(1) && capacity < bytes.max(1) + ALIGNMENT && capacity.is_multiple_of(ALIGNMENT)
            );
        }
        assert!(capacity_for(usize::MAX).is_none());
    }
}
