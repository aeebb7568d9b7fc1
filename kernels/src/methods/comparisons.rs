//! Elementwise comparisons.

use tomograd_core::{Result, Tensor};

use super::{Operand, Other};
use crate::{Op, compare::Compare};

fn compared<'a, T: Operand>(compare: Compare, x: &'a T, other: impl Into<Other<'a, T>>) -> Result<Tensor> {
    let other = other.into().beside(compare.name(), x)?;
    Ok(T::apply(compare, &[x, &other])?.value().clone())
}

/// Elementwise comparisons of two broadcast operands, or of an operand with a number. The result is a bool tensor, for
/// variables too, since it has no gradient; [`where_`](super::Indexing::where_) selects by it.
///
/// Operands have the same dtype, which may be an integer or bool too; a number must be representable in that dtype. A NaN is
/// unequal to everything, and neither less nor greater than anything.
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_kernels::methods::*;
///
/// let label = Tensor::from_slice(&[0i64, 2, 1, 2], &[4], Device::Cpu)?;
/// assert_eq!(label.eq(2.0)?.to_vec::<bool>()?, [false, true, false, true]);
/// assert!(label.lt(0.5).is_err());
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Comparisons: Operand {
    /// x = y.
    ///
    /// # Errors
    /// When shapes don't broadcast, dtypes differ, or the number isn't representable in the dtype.
    fn eq<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Tensor> {
        compared(Compare::Equal, self, other)
    }

    /// x ≠ y.
    ///
    /// # Errors
    /// As [`eq`](Self::eq).
    fn ne<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Tensor> {
        compared(Compare::NotEqual, self, other)
    }

    /// x < y.
    ///
    /// # Errors
    /// As [`eq`](Self::eq).
    fn lt<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Tensor> {
        compared(Compare::Less, self, other)
    }

    /// x ≤ y.
    ///
    /// # Errors
    /// As [`eq`](Self::eq).
    fn le<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Tensor> {
        compared(Compare::LessEqual, self, other)
    }

    /// x > y.
    ///
    /// # Errors
    /// As [`eq`](Self::eq).
    fn gt<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Tensor> {
        compared(Compare::Greater, self, other)
    }

    /// x ≥ y.
    ///
    /// # Errors
    /// As [`eq`](Self::eq).
    fn ge<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Tensor> {
        compared(Compare::GreaterEqual, self, other)
    }
}

impl<T: Operand> Comparisons for T {}
