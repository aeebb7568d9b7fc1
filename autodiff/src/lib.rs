//! Reverse-mode automatic differentiation for tomograd.
//!
//! A [`Var`] is a tensor together with its place on a [`Tape`]. Every operation on a `Var` goes through the dispatcher of
//! `tomograd-kernels`. The tape records each operation with what its backward function needs, and [`Tape::backward`] visits
//! the records in reverse order and frees each one when it is done.
//!
//! ```
//! use tomograd_autodiff::{Tape, methods::*};
//! use tomograd_core::{Device, Tensor};
//! let tape = Tape::recording(Default::default());
//! let x = tape.leaf(Tensor::from_slice(&[1.0f64, 2.0, 3.0], &[3], Device::Cpu)?)?;
//! let loss = x.mul(&x)?.sum(..)?;
//! let gradients = tape.backward(&loss)?;
//! assert_eq!(gradients.get(&x).unwrap().to_vec::<f64>()?, [2.0, 4.0, 6.0]);
//! # Ok::<(), tomograd_core::Error>(())
//! ```

#![forbid(unsafe_code)]

mod activation_checkpoint;
mod backward;
mod custom;
pub mod gradcheck;
mod graph;
mod tape;
mod var;

pub use backward::Gradients;
pub use graph::GraphNode;
pub use tape::Tape;
pub use tomograd_kernels::methods;
pub use var::Var;
