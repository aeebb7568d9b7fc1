//! The tensor core of tomograd: tensors, storage, layout, dtypes, devices, memory pools, random numbers and errors.
//!
//! This crate holds no mathematics. A [`Tensor`] is a value: a shared block of memory (its storage), and a [`Layout`] that
//! says how the elements of a shape lie in it. Views share storage; a write needs storage of its own and copies otherwise.
//!
//! ```
//! use tomograd_core::{Device, Tensor};
//! let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], Device::Cpu)?;
//! let y = x.transpose(0, 1)?;
//! assert_eq!(y.shape(), [3, 2]);
//! assert_eq!(y.to_vec::<f32>()?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
//! # Ok::<(), tomograd_core::Error>(())
//! ```

mod cpu;
mod device;
mod dtype;
mod error;
mod layout;
mod names;
pub mod pool;
pub mod random;
mod storage;
mod tensor;

pub use cpu::{Scratch, copies_on_write, room_for};
pub use device::Device;
pub use dtype::{DType, Element};
pub use error::{Error, ErrorKind, Result, shape_text};
pub use half::{bf16, f16};
pub use layout::{Layout, broadcast_shapes, contiguous_strides, element_count};
pub use names::{nearest_name, unknown_name};
pub use random::{Random, Seed};
pub use tensor::{Tensor, TensorBuilder};
