//! The CPU's backend, and host access to tensors in CPU memory. Only code in `cpu` folders reads a tensor's memory directly.

mod access;
pub(crate) mod backend;
mod rows;
mod scratch;

pub use access::{copies_on_write, room_for};
pub use scratch::Scratch;
