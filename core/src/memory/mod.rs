//! Memory of the devices: statistics and a limit for each, and the pools of the host and of CUDA devices, which cache freed
//! blocks.
//!
//! The page faults of fresh memory cost more than most elementwise kernels, so a freed block is cached and reused for the
//! next tensor of about its size. After the first training step, every tensor reuses a block and the system allocates no
//! more.

use crate::{Device, Error, ErrorKind, Result, cuda::Gpu};

mod host;
mod meta;
mod pool;

pub(crate) use meta::Charge;
pub use meta::meter;
pub(crate) use pool::{Address, Allocator, Block, Fit, Pool};

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

/// Every capacity is a multiple of this, and every block of the host is aligned to it.
const ALIGNMENT: usize = 64;

/// The capacity of a block for `bytes`: rounded up to one of four sizes per power of two, so that requests of nearly the same
/// size share blocks and at most a fifth of a block is unused.
fn capacity_for(bytes: usize) -> Option<usize> {
    let bytes = bytes.max(ALIGNMENT);
    let step = (bytes.checked_next_power_of_two()? / 8).max(ALIGNMENT);
    bytes.checked_next_multiple_of(step)
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
