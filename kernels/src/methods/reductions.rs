//! Reductions along axes.

use tomograd_core::{Error, Result};

use super::{Axes, Comparisons, Elementwise, Indexing, Operand, Pairs, keep};
use crate::reduce::{Combine, Reduce};

fn reduced<T: Operand>(combine: Combine, name: &str, x: &T, axes: impl Into<Axes>) -> Result<T> {
    let axes = axes.into();
    T::apply(Reduce { combine, axes: axes.of(name, x.rank())?, keep_axes: axes.kept() }, &[x])
}

/// Reductions along the given axes, which are removed from the shape, or stay with size 1 if they are [kept](keep). A NaN
/// among the reduced elements gives NaN. `axes` is any type that converts to [`Axes`].
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_kernels::methods::*;
///
/// let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3], Device::Cpu)?;
/// assert_eq!(x.sum(..)?.to_scalar()?, 21.0);
/// assert_eq!(x.max(1)?.to_vec::<f32>()?, [3.0, 6.0]);
/// assert_eq!(x.mean(keep([0]))?.shape(), [1, 3]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Reductions: Operand {
    /// Σ x, accumulated in f64 in an order that depends only on the shape; 0 if there are no elements.
    ///
    /// # Errors
    /// When an axis is beyond the rank or given twice, or the dtype isn't floating point.
    fn sum(&self, axes: impl Into<Axes>) -> Result<Self> {
        reduced(Combine::Sum, "sum", self, axes)
    }

    /// Σ x / n; NaN if there are no elements.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    fn mean(&self, axes: impl Into<Axes>) -> Result<Self> {
        reduced(Combine::Mean, "mean", self, axes)
    }

    /// The mean over all axes but the first two, which stay with size 1: (N, C, 1, ...).
    ///
    /// # Errors
    /// When there are fewer than two axes, or the dtype isn't floating point.
    fn mean_spatial(&self) -> Result<Self> {
        self.mean(keep(2..))
    }

    /// The largest element; the gradient goes to the first element that equals it. The larger of two operands is
    /// [`maximum`](super::Pairs::maximum).
    ///
    /// # Errors
    /// As [`sum`](Self::sum), and when there are no elements to choose from.
    fn max(&self, axes: impl Into<Axes>) -> Result<Self> {
        reduced(Combine::Max, "max", self, axes)
    }

    /// The smallest element; the gradient goes to the first element that equals it. The smaller of two operands is
    /// [`minimum`](super::Pairs::minimum).
    ///
    /// # Errors
    /// As [`max`](Self::max).
    fn min(&self, axes: impl Into<Axes>) -> Result<Self> {
        reduced(Combine::Min, "min", self, axes)
    }

    /// Σ (x − mean)² / (n − correction). A correction of 0 gives the variance of the n elements, and 1 the unbiased estimate
    /// of the variance of their distribution (the default of torch.var).
    ///
    /// # Errors
    /// As [`sum`](Self::sum), and when n isn't greater than the correction.
    fn variance(&self, axes: impl Into<Axes>, correction: usize) -> Result<Self> {
        let axes = axes.into();
        let indices = axes.of("variance", self.rank())?;
        let terms: usize = indices.iter().map(|&axis| self.shape()[axis]).product();
        if terms <= correction {
            return Err(Error::argument("variance", format!("a correction of {correction} for {terms} elements"))
                .expected("more elements than the correction")
                .shapes([self.shape()]));
        }
        let squares = self.sub(&self.mean(keep(indices))?)?.square()?;
        if correction == 0 {
            return squares.mean(axes);
        }
        squares.sum(axes)?.div((terms - correction) as f64)
    }

    /// √(Σ x²), the Euclidean norm; its gradient is x / norm, and 0 where the norm is 0.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    fn norm(&self, axes: impl Into<Axes>) -> Result<Self> {
        let squares = self.square()?.sum(axes)?;
        // The square root has no derivative at 0, so it is taken of 1 instead, and the result is replaced by 0.
        let positive = squares.ne(0.0)?;
        squares.where_(&positive, 1.0)?.sqrt()?.where_(&positive, 0.0)
    }
}

impl<T: Operand> Reductions for T {}
