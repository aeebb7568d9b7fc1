//! Parallel execution; no other code starts threads for kernels.
//!
//! [`parallel_for`] cuts a range into chunks, whose boundaries depend only on the range and the grain size. Each chunk has
//! exclusive access to what it writes: a block of a [`Partition`], a tile of a [`Grid`], or one of the numbered
//! [`PartialSlots`], which are summed in a fixed tree. So results are bitwise independent of the number of threads and of
//! scheduling.

mod partition;
mod settings;
mod team;
mod threads;

#[cfg(test)]
mod tests;

pub use partition::{Grid, PartialSlots, Partition, Tile, as_uninit};
pub use settings::{Order, Settings, current_isa, with_settings};
pub(crate) use threads::or_give_up;
pub use threads::{parallel_for, reset_workers_seen, threads, with_threads, workers_seen};
