//! The only way to go parallel.
//!
//! [`parallel_for`] cuts a range into chunks whose boundaries come from the range and the grain alone. Each chunk owns
//! what it writes — a part of a [`Partition`] or a tile of a [`Grid`] — or one of the numbered [`PartialSlots`], which are
//! summed in a fixed tree. So the bits of a result don't depend on how many threads there are or which of them ran what.

mod partition;
mod settings;
mod threads;

#[cfg(test)]
mod tests;

pub use partition::{Grid, PartialSlots, Partition, Tile, as_uninit};
pub use settings::{Order, Settings, current_isa, with_settings};
pub(crate) use threads::or_give_up;
pub use threads::{parallel_for, reset_workers_seen, threads, with_threads, workers_seen};
