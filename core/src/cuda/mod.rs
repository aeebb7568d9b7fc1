//! CUDA devices: the driver, memory, compiled kernels and launches.
//!
//! A device is opened when [`Device::Cuda`](crate::Device::Cuda) is used first. [`Driver`] is all that the rest needs of it;
//! tests [`attach`] an emulated one, whose kernels are the same files, launched by the same code. Kernels are compiled for the
//! device at hand by NVRTC when they are needed first, and kept on disk. A kernel is launched on tensors by [`Launch`].

mod backend;
mod cache;
mod compile;
mod driver;
mod gpu;
mod launch;
mod system;

pub use backend::bits;
pub(crate) use backend::{Cuda, to_host};
pub use driver::{Capability, Driver, Geometry, Handle, Header, Source};
pub(crate) use gpu::Gpu;
pub use gpu::attach;
pub use launch::{Launch, Unwritten};

/// The header that kernels include by the name `tomograd.cuh`: half types, warp and tensor-core functions, which mean the same
/// to NVRTC and to the emulator.
pub const HEADER: &str = include_str!("tomograd.cuh");

/// Threads of a block in kernels that treat each element alone.
pub const THREADS: u32 = 256;

/// The number of blocks of [`THREADS`] threads for a kernel over `count` elements, whose threads take several in turn where
/// that would be too many blocks.
pub fn blocks(count: usize) -> usize {
    count.div_ceil(THREADS as usize).min(1 << 20)
}
