//! The host: its backend, and access to tensors in its memory. Code outside of a `cpu` folder never reads a tensor's memory
//! itself.

mod access;
pub(crate) mod backend;
mod rows;
mod scratch;

pub use access::{copies_on_write, room_for};
pub use scratch::Scratch;
