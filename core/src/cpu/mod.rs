//! Host access to tensors in the CPU's memory. Code outside of a `cpu` folder never reads a tensor's memory itself.

mod access;
mod copy;
mod scratch;

pub use access::{copies_on_write, room_for};
pub(crate) use copy::copy;
pub use scratch::Scratch;
