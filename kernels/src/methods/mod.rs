//! The operations as methods, for [`Tensor`] and for variables with a history (`Var` of `tomograd-autodiff`) alike.
//!
//! Both types are an [`Operand`], and every operand has the methods of all traits here, so the same code works on both. A
//! method is a function of its operands and arguments: it has no learned parameters, no random numbers, and no mode.
//! Functions with any of these are layers (`tomograd-nn`).
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
//! Results without a gradient (comparisons, positions) are [`Tensor`]s in both cases. The error of a method names the
//! operation, the shapes and what was expected. All methods fail when memory runs out, and when variables of different passes
//! are mixed.

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

/// A type to which operations are applied: a tensor, or a variable with a history.
///
/// ```
/// use tomograd_core::{Device, Result, Tensor};
/// use tomograd_kernels::methods::*;
/// /// The root mean square, of tensors and of variables.
/// fn rms<T: Methods>(x: &T) -> Result<T> {
///     x.square()?.mean(..)?.sqrt()
/// }
/// let x = Tensor::from_slice(&[3.0f64, 4.0], &[2], Device::Cpu)?;
/// assert_eq!(rms(&x)?.to_scalar()?, 12.5f64.sqrt());
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Operand: Clone + 'static {
    /// The tensor.
    fn value(&self) -> &Tensor;

    /// A tensor as an operand that can be combined with this one; no gradient flows into it.
    fn constant(&self, tensor: Tensor) -> Self;

    /// Applies a built-in or user-defined operation and returns all its outputs. On tensors, nothing is saved for a backward
    /// pass.
    ///
    /// # Errors
    /// When the operation fails, or the variables are of different passes.
    fn apply_all(op: impl Op, inputs: &[&Self]) -> Result<Vec<Self>>;

    /// Applies a built-in or user-defined operation and returns its first output.
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

/// All method traits: the bound of a generic function of tensors and variables.
pub trait Methods: Elementwise + Pairs + Comparisons + Reductions + Shapes + Indexing + Networks {}

impl<T: Operand> Methods for T {}
