//! CUDA devices: the driver, memory, compiled kernels and launches.
//!
//! A device is opened when [`Device::Cuda`](crate::Device::Cuda) is used first. [`Driver`] is all that the rest needs of it;
//! tests [`attach`] an emulated one, whose kernels are the same files, launched by the same code. Kernels are compiled for the
//! device at hand by NVRTC when they are needed first, and kept on disk, unless a program [`provide`]s their machine code. A kernel is
//! launched on tensors by [`Launch`].

mod ahead;
mod backend;
mod cache;
mod compile;
mod driver;
mod gpu;
#[cfg(feature = "cust-interop")]
pub mod interop;
mod launch;
mod system;

pub use ahead::{CodeKey, compile_ahead, provide};
pub use backend::bits;
pub(crate) use backend::{Cuda, to_host};
pub use driver::{Capability, Driver, Geometry, Handle, Header, Source};
pub(crate) use gpu::Gpu;
pub use gpu::attach;
pub use launch::{Launch, Unwritten};

/// The headers that any kernel may include: half types, warp and tensor-core functions, which mean the same to NVRTC and to the
/// emulator; places of elements; sums of a block; tiles of matrix products.
pub const HEADERS: [Header; 4] = [
    Header { name: "tomograd.cuh", text: include_str!("tomograd.cuh") },
    Header { name: "indices.cuh", text: include_str!("indices.cuh") },
    Header { name: "sums.cuh", text: include_str!("sums.cuh") },
    Header { name: "tiles.cuh", text: include_str!("tiles.cuh") },
];

/// Axes of the common shape of views that a kernel walks.
pub const AXES: usize = 8;

/// A size as kernels take it to divide by it (`Divisor` of `indices.cuh`): itself, and the multiplier and the shift that give the
/// quotient of numbers below 2⁶².
///
/// ```
/// use tomograd_core::cuda::divisor;
/// let [size, multiplier, shift] = divisor(7);
/// let quotient = |n: u64| (u128::from(n << 2) * u128::from(multiplier as u64) >> 64) as u64 >> shift;
/// assert_eq!((size, quotient(6), quotient(7), quotient((1 << 62) - 1)), (7, 0, 1, ((1 << 62) - 1) / 7));
/// ```
pub fn divisor(size: usize) -> [i64; 3] {
    // Nothing is divided by a size of 0; of 2⁶² and above no tensor has one.
    let divisor = size.clamp(1, 1 << 62) as u128;
    let shift = 128 - (divisor - 1).leading_zeros();
    [size as i64, ((1u128 << (62 + shift)) / divisor + 1) as u64 as i64, i64::from(shift)]
}

/// A size below 2³¹ as kernels take it to divide numbers below 2³¹ by it (`SmallDivisor` of `indices.cuh`): itself, the multiplier and the
/// shift, as the bits of three numbers of 32 bits.
///
/// ```
/// use tomograd_core::cuda::small_divisor;
/// let [size, multiplier, shift] = small_divisor(7);
/// let quotient = |n: u32| ((u64::from(n << 1) * u64::from(multiplier as u32)) >> 32) as u32 >> shift;
/// assert_eq!((size, quotient(6), quotient(7), quotient((1 << 31) - 1)), (7, 0, 1, ((1 << 31) - 1) / 7));
/// ```
pub fn small_divisor(size: usize) -> [i32; 3] {
    // Nothing is divided by a size of 0, or by a larger one.
    let size = size.min(i32::MAX as usize);
    let divisor = size.max(1) as u64;
    let shift = 64 - (divisor - 1).leading_zeros();
    [size as i32, ((1u64 << (31 + shift)) / divisor + 1) as u32 as i32, shift as i32]
}

/// Threads of a block in kernels that treat each element alone.
pub const THREADS: u32 = 256;

/// The number of blocks of [`THREADS`] threads for a kernel over `count` elements, whose threads take several in turn where
/// that would be too many blocks.
pub fn blocks(count: usize) -> usize {
    count.div_ceil(THREADS as usize).min(1 << 20)
}
