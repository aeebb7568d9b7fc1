//! The tensor core of tomograd: tensors, storage, layout, dtypes, devices, memory pools, random numbers and errors.
//!
//! This crate has no mathematical operations. A [`Tensor`] is a shared block of memory (its storage) and a [`Layout`] that
//! maps the elements of a shape to that block. Views share storage; writing to a shared storage copies it first.
//!
//! ```
//! use tomograd_core::{Device, Tensor};
//! let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], Device::Cpu)?;
//! let y = x.transpose(0, 1)?;
//! assert_eq!(y.shape(), [3, 2]);
//! assert_eq!(y.to_vec::<f32>()?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
//! # Ok::<(), tomograd_core::Error>(())
//! ```

mod backend;
mod cpu;
pub mod cuda;
mod device;
mod dispatch;
mod dtype;
mod error;
mod layout;
pub mod memory;
mod meta;
mod names;
pub mod pieces;
pub mod random;
mod storage;
mod tensor;

pub use cpu::{Scratch, copies_on_write, room_for};
pub use device::Device;
pub use dispatch::{Work, set_hook};
pub use dtype::{DType, Element};
pub use error::{Error, ErrorKind, Result, shape_text};
pub use half::{bf16, f16};
pub use layout::{Layout, broadcast_shapes, contiguous_strides, element_count};
pub use names::{edit_distance, nearest_name, unknown_name};
pub use random::{Random, Seed};
pub use tensor::{Tensor, TensorBuilder};
