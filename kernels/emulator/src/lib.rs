//! Runs CUDA kernels on the host, as a proof on machines without a GPU.
//!
//! The system's C++ compiler compiles a kernel's source, unchanged, behind a header that gives CUDA's words their meaning. A block's
//! threads are fibers; each runs until a barrier or an operation of its warp. The compiler calls the runtime before each access
//! (`-fsanitize=thread`, without the sanitizer's library), and shadow memory by byte finds
//!
//! - races: two accesses of one byte by two threads, one of them a write, with no barrier between; also between blocks,
//! - reads of what nobody wrote, accesses out of bounds of an allocation or a shared array, misaligned accesses,
//! - accesses to bytes whose `cp.async` wasn't waited for, which aren't there until then,
//! - barriers and warp operations that some threads don't reach.
//!
//! A launch ends at the first of these with a [`Fault`] that says kernel, block, thread, file and line. It also counts what the
//! launch costs: sectors of 32 bytes, cycles of the banks, barriers.
//!
//! What it doesn't know: the order in which a device's warps run (a race is found by its accesses, whatever the order), caches,
//! inline PTX, blocks that wait for one another, and how far a static shared array is aligned beyond its type.

mod compile;
mod device;
mod launch;
mod memory;

pub use compile::{Emulator, Library};
pub use device::{MEMORY, Measured, device, loaded, measured};
pub use launch::{Fault, FaultKind, Report, Site};
