//! Elementwise functions of two numbers.

use std::borrow::Cow;

use tomograd_core::{Device, Error, Result, Tensor};

use super::Operand;
use crate::elementwise::{BinaryFunction, Chain, Function};

/// The second operand of a method: an operand, or a number that is combined with every element of the first operand.
#[derive(Debug, Clone, Copy)]
pub enum Other<'a, T> {
    /// `x.add(&y)`: axes of size 1 and missing leading axes are broadcast, as in NumPy.
    Operand(&'a T),
    /// `x.add(0.5)`: a number, in the dtype of the first operand.
    Number(f64),
}

impl<'a, T: Operand> From<&'a T> for Other<'a, T> {
    fn from(operand: &'a T) -> Self {
        Other::Operand(operand)
    }
}

impl<T> From<f64> for Other<'_, T> {
    fn from(number: f64) -> Self {
        Other::Number(number)
    }
}

impl<'a, T: Operand> Other<'a, T> {
    /// The operand, or the number as an operand of rank 0 with the dtype and device of `first`.
    pub(super) fn beside(self, operation: &str, first: &T) -> Result<Cow<'a, T>> {
        let number = match self {
            Other::Operand(operand) => return Ok(Cow::Borrowed(operand)),
            Other::Number(number) => number,
        };
        let dtype = first.dtype();
        let tensor = Tensor::full(&[], number, dtype, Device::Cpu)?;
        // A number that the dtype can't represent (0.5 as a label, 300 as a byte) is an error, and so is NaN.
        if number.is_nan() || !dtype.is_float() && tensor.to_scalar()? != number {
            return Err(Error::argument(operation, format!("the number {number} beside {dtype}"))
                .expected(format!("a number that {dtype} holds"))
                .shapes([first.shape()]));
        }
        Ok(Cow::Owned(first.constant(Tensor::full(&[], number, dtype, first.device())?)))
    }
}

fn pair<'a, T: Operand>(function: BinaryFunction, x: &'a T, other: impl Into<Other<'a, T>>) -> Result<T> {
    let unary = match (function, other.into()) {
        (BinaryFunction::Add, Other::Number(number)) => Function::Add(number),
        (BinaryFunction::Sub, Other::Number(number)) => Function::Add(-number),
        (BinaryFunction::Mul, Other::Number(number)) => Function::Multiply(number),
        (_, other) => {
            let other = other.beside(function.name(), x)?;
            return T::apply(Chain::binary(function), &[x, &other]);
        }
    };
    T::apply(Chain::unary(unary), &[x])
}

/// Elementwise functions of two broadcast operands, or of an operand and a number. NaN gives NaN.
///
/// Both operands have the same floating-point dtype. There are no operators `+ − * /`: an addition can fail, and
/// `(&(&a + &b)? * &c)?` is less readable than `a.add(&b)?.mul(&c)?`.
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_kernels::methods::*;
///
/// let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], Device::Cpu)?;
/// let row = Tensor::from_slice(&[10.0f32, 20.0], &[2], Device::Cpu)?;
/// assert_eq!(x.add(&row)?.mul(0.5)?.to_vec::<f32>()?, [5.5, 11.0, 6.5, 12.0]);
/// assert_eq!(x.maximum(2.5)?.to_vec::<f32>()?, [2.5, 2.5, 3.0, 4.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Pairs: Operand {
    /// x + y.
    ///
    /// # Errors
    /// When shapes don't broadcast, dtypes differ or aren't floating point, or the number is NaN.
    fn add<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Self> {
        pair(BinaryFunction::Add, self, other)
    }

    /// x − y.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    fn sub<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Self> {
        pair(BinaryFunction::Sub, self, other)
    }

    /// x · y, element by element.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    fn mul<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Self> {
        pair(BinaryFunction::Mul, self, other)
    }

    /// x / y.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    fn div<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Self> {
        pair(BinaryFunction::Div, self, other)
    }

    /// y − x: `x.reverse_sub(1.0)` is 1 − x.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    fn reverse_sub<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Self> {
        pair(BinaryFunction::ReverseSub, self, other)
    }

    /// y / x.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    fn reverse_div<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Self> {
        pair(BinaryFunction::ReverseDiv, self, other)
    }

    /// The larger of both; if they are equal, each gets half of the gradient. The largest element is
    /// [`max`](super::Reductions::max).
    ///
    /// # Errors
    /// As [`add`](Self::add).
    fn maximum<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Self> {
        pair(BinaryFunction::Max, self, other)
    }

    /// The smaller of both; if they are equal, each gets half of the gradient. The smallest element is
    /// [`min`](super::Reductions::min).
    ///
    /// # Errors
    /// As [`add`](Self::add).
    fn minimum<'a>(&'a self, other: impl Into<Other<'a, Self>>) -> Result<Self> {
        pair(BinaryFunction::Min, self, other)
    }
}

impl<T: Operand> Pairs for T {}
