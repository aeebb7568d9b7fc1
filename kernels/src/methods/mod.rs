//! The operations as methods: one vocabulary for [`Tensor`] and for variables with a history (`Var` of `tomograd-autodiff`).
//!
//! What can be written with the one can be written with the other: both are an [`Operand`], and every operand has the methods of
//! the families here. A method is a function of its operands and of what is written in the call: it has no parameters that
//! are learned, no random numbers, and no mode. What has one of those is a layer (`tomograd-nn`).
//!
//! ```
//! use tomograd_core::{Device, Result, Tensor};
//! use tomograd_kernels::methods::*;
//!
//! /// Works on tensors and on variables.
//! fn standardised<T: Methods>(x: &T) -> Result<T> {
//!     let spatial = keep(2..);
//!     let deviation = x.variance(spatial.clone(), 0)?.add(1e-5)?.sqrt()?;
//!     x.sub(&x.mean(spatial)?)?.div(&deviation)
//! }
//!
//! let x = Tensor::from_slice(&[1.0f32, 3.0, 5.0, 5.0], &[1, 2, 2], Device::Cpu)?;
//! let y = standardised(&x)?;
//! assert_eq!(y.gt(0.5)?.to_vec::<bool>()?, [false, true, false, false]);
//! assert_eq!(x.max(..)?.to_scalar()?, 5.0);
//! # Ok::<(), tomograd_core::Error>(())
//! ```
//!
//! What has no gradient (a comparison, a position) is a [`Tensor`] for both. A method that fails names its operation, the
//! shapes and what was expected; all fail when memory runs out, and when variables of two passes are mixed.

mod axes;
mod comparisons;
mod elementwise;
mod indexing;
mod networks;
mod pairs;
mod reductions;
mod shapes;

pub use axes::{Axes, keep};
pub use comparisons::Comparisons;
pub use elementwise::Elementwise;
pub use indexing::Indexing;
pub use networks::{Networks, ScanInputs};
pub use pairs::{Other, Pairs};
pub use reductions::Reductions;
pub use shapes::Shapes;

use tomograd_core::{DType, Device, Error, Result, Tensor};

use crate::{Context, Op, run};

/// What operations are applied to: a tensor, or a variable with a history.
pub trait Operand: Clone + 'static {
    /// The tensor.
    fn value(&self) -> &Tensor;

    /// A tensor as an operand that can stand beside this one; no gradient flows into it.
    fn constant(&self, tensor: Tensor) -> Self;

    /// Runs an operation, a built-in one or one's own, and gives all its outputs. On tensors it runs without a thought of a
    /// backward run.
    ///
    /// # Errors
    /// When the operation fails, or variables are of different passes.
    fn apply_all(op: impl Op, inputs: &[&Self]) -> Result<Vec<Self>>;

    /// Runs an operation, a built-in one or one's own, and gives its first output.
    ///
    /// # Errors
    /// As [`apply_all`](Self::apply_all), and when the operation has no output.
    fn apply(op: impl Op, inputs: &[&Self]) -> Result<Self> {
        let name = op.name();
        let mut outputs = Self::apply_all(op, inputs)?.into_iter();
        outputs.next().ok_or_else(|| Error::argument(name, "the operation has no output"))
    }

    /// The sizes of the axes.
    fn shape(&self) -> &[usize] {
        self.value().shape()
    }

    /// The number of axes.
    fn rank(&self) -> usize {
        self.value().rank()
    }

    /// The type of the elements.
    fn dtype(&self) -> DType {
        self.value().dtype()
    }

    /// The device that holds the elements.
    fn device(&self) -> Device {
        self.value().device()
    }
}

impl Operand for Tensor {
    fn value(&self) -> &Tensor {
        self
    }

    fn constant(&self, tensor: Tensor) -> Self {
        tensor
    }

    fn apply_all(op: impl Op, inputs: &[&Self]) -> Result<Vec<Self>> {
        Ok(run(&op, inputs, &Context { inference: true, ..Context::default() })?.outputs)
    }
}

/// All families: the bound of a function that takes tensors and variables alike.
pub trait Methods: Elementwise + Pairs + Comparisons + Reductions + Shapes + Indexing + Networks {}

impl<T: Operand> Methods for T {}
