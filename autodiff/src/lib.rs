//! Reverse-mode automatic differentiation for tomograd.
//!
//! A [`Var`] is a tensor together with its place on a [`Tape`]. Every operation on a `Var` goes through the dispatch of
//! `tomograd-kernels`; the tape writes down what passed, with what the backward run needs, and [`Tape::backward`] walks it
//! from the end, freeing as it goes.
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

mod backward;
mod checkpoint;
mod custom;
pub mod gradcheck;
mod tape;
mod var;

pub use backward::Gradients;
pub use tape::Tape;
pub use tomograd_kernels::methods;
pub use var::Var;
