//! Reshaping, views, slicing, concatenation and padding.

use tomograd_core::{Error, Result};

use super::{Axes, Operand};
use crate::{
    index::{Concat, Pad, PadMode},
    view::View,
};

/// Checks that the operand has this axis.
fn check_axis<T: Operand>(operation: &str, x: &T, axis: usize) -> Result<()> {
    if axis < x.rank() {
        return Ok(());
    }
    Err(Error::argument(operation, format!("axis {axis} of a tensor of rank {}", x.rank()))
        .expected("an axis below the rank")
        .shapes([x.shape()]))
}

/// Views and concatenations. A view copies nothing, except for a [`reshape`](Self::reshape) that strides can't express.
///
/// ```
/// use tomograd_core::{DType, Device, Tensor};
/// use tomograd_kernels::methods::*;
/// let x = Tensor::arange(6, DType::I64, Device::Cpu)?.reshape(&[2, 3])?;
/// let y = Shapes::transpose(&x, 0, 1)?;
/// assert_eq!(y.to_vec::<i64>()?, [0, 3, 1, 4, 2, 5]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Shapes: Operand {
    /// The same elements in row-major order with another shape.
    ///
    /// # Errors
    /// When the number of elements differs.
    fn reshape(&self, shape: &[usize]) -> Result<Self> {
        Self::apply(View::Reshape(shape.to_vec()), &[self])
    }

    /// Merges adjacent axes: `x.flatten(1..)` of (N, C, H, W) is (N, C·H·W), and `x.flatten(..)` has rank 1.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Tensor};
    /// use tomograd_kernels::methods::*;
    ///
    /// let x = Tensor::zeros(&[2, 3, 4, 5], DType::F32, Device::Cpu)?;
    /// assert_eq!(x.flatten(1..)?.shape(), [2, 60]);
    /// assert_eq!(x.flatten(1..3)?.shape(), [2, 12, 5]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the axes aren't adjacent and in order, or are beyond the rank.
    fn flatten(&self, axes: impl Into<Axes>) -> Result<Self> {
        let axes = axes.into().of("flatten", self.rank())?;
        let Some(&first) = axes.first() else {
            // A tensor of rank 0 becomes one of rank 1 with one element.
            return match self.rank() {
                0 => self.reshape(&[1]),
                _ => Err(Error::argument("flatten", "no axes").expected("one at least").shapes([self.shape()])),
            };
        };
        if axes.iter().enumerate().any(|(i, &axis)| axis != first + i) {
            return Err(Error::argument("flatten", format!("axes {axes:?}"))
                .expected("axes that follow one another")
                .shapes([self.shape()]));
        }
        let (before, rest) = self.shape().split_at(first);
        let (flat, behind) = rest.split_at(axes.len());
        self.reshape(&[before, &[flat.iter().product()], behind].concat())
    }

    /// The operand without `axis`, which must have size 1.
    ///
    /// # Errors
    /// When it has another size, or is beyond the rank.
    fn squeeze(&self, axis: usize) -> Result<Self> {
        check_axis("squeeze", self, axis)?;
        let mut shape = self.shape().to_vec();
        if shape.remove(axis) != 1 {
            return Err(Error::shape("squeeze", format!("axis {axis} has size {}", self.shape()[axis]))
                .expected("size 1")
                .shapes([self.shape()]));
        }
        self.reshape(&shape)
    }

    /// The operand with a new axis of size 1 before `axis`.
    ///
    /// # Errors
    /// When `axis` is beyond the rank.
    fn unsqueeze(&self, axis: usize) -> Result<Self> {
        let mut shape = self.shape().to_vec();
        if axis > shape.len() {
            return Err(Error::argument("unsqueeze", format!("axis {axis} of a tensor of rank {}", self.rank()))
                .expected("at most the rank")
                .shapes([self.shape()]));
        }
        shape.insert(axis, 1);
        self.reshape(&shape)
    }

    /// The operand with its axes permuted to the order of `axes`.
    ///
    /// # Errors
    /// When `axes` isn't a permutation of all axes.
    fn permute(&self, axes: &[usize]) -> Result<Self> {
        Self::apply(View::Permute(axes.to_vec()), &[self])
    }

    /// The operand with axes `first` and `second` exchanged.
    ///
    /// # Errors
    /// When an axis is beyond the rank.
    fn transpose(&self, first: usize, second: usize) -> Result<Self> {
        check_axis("transpose", self, first)?;
        check_axis("transpose", self, second)?;
        let mut axes: Vec<usize> = (0..self.rank()).collect();
        axes.swap(first, second);
        self.permute(&axes)
    }

    /// The operand with axes of size 1 repeated, and leading axes added, up to `shape`.
    ///
    /// # Errors
    /// When an axis that isn't 1 would change.
    fn expand(&self, shape: &[usize]) -> Result<Self> {
        Self::apply(View::Expand(shape.to_vec()), &[self])
    }

    /// `length` elements of `axis` from `start` in steps of `step`.
    ///
    /// # Errors
    /// When the elements are outside of the axis, or the step is 0.
    fn slice(&self, axis: usize, start: usize, length: usize, step: usize) -> Result<Self> {
        Self::apply(View::Slice { axis, start, length, step }, &[self])
    }

    /// Elements `start..start + length` of `axis`.
    ///
    /// # Errors
    /// When the elements are outside of the axis.
    fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Self> {
        Shapes::slice(self, axis, start, length, 1)
    }

    /// The operand at `index` of `axis`, without that axis.
    ///
    /// # Errors
    /// When the index is outside of the axis.
    fn select(&self, axis: usize, index: usize) -> Result<Self> {
        Shapes::squeeze(&Shapes::narrow(self, axis, index, 1)?, axis)
    }

    /// Parts of the given sizes along `axis`: the inverse of [`concat`](Self::concat).
    ///
    /// # Errors
    /// When the axis is beyond the rank, or the sizes don't add up to the size of the axis.
    fn split(&self, sizes: &[usize], axis: usize) -> Result<Vec<Self>> {
        let whole = self.shape().get(axis).copied();
        if whole.is_none_or(|whole| sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size)) != Some(whole)) {
            return Err(Error::shape("split", format!("parts of {sizes:?} along axis {axis}"))
                .shapes([self.shape()])
                .expected("sizes that add up to the axis"));
        }
        let starts = sizes.iter().scan(0, |next, size| Some(std::mem::replace(next, *next + size)));
        starts.zip(sizes).map(|(start, &size)| self.narrow(axis, start, size)).collect()
    }

    /// Concatenates operands along `axis`.
    ///
    /// # Errors
    /// When `parts` is empty, shapes differ along another axis, or dtypes differ.
    fn concat(parts: &[&Self], axis: usize) -> Result<Self> {
        Self::apply(Concat { axis }, parts)
    }

    /// Stacks operands of the same shape along a new axis before `axis`.
    ///
    /// ```
    /// use tomograd_core::{Device, Tensor};
    /// use tomograd_kernels::methods::*;
    ///
    /// let x = Tensor::from_slice(&[1.0f32, 2.0], &[2], Device::Cpu)?;
    /// let y = Tensor::stack(&[&x, &x.neg()?], 1)?;
    /// assert_eq!((y.shape(), y.to_vec::<f32>()?), (&[2, 2][..], vec![1.0, -1.0, 2.0, -2.0]));
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When `parts` is empty, shapes or dtypes differ, or the axis is beyond the rank.
    fn stack(parts: &[&Self], axis: usize) -> Result<Self> {
        if let [first, others @ ..] = parts
            && let Some(other) = others.iter().find(|other| other.shape() != first.shape())
        {
            return Err(Error::shape("stack", "the shapes differ")
                .expected("one shape")
                .shapes([first.shape(), other.shape()]));
        }
        let parts: Vec<Self> = parts.iter().map(|part| part.unsqueeze(axis)).collect::<Result<_>>()?;
        Self::concat(&parts.iter().collect::<Vec<_>>(), axis)
    }

    /// The elements shifted by `shift` positions along `axis`. Elements shifted past the end reappear at the start. A
    /// negative shift moves them backwards.
    ///
    /// ```
    /// use tomograd_core::{DType, Device, Tensor};
    /// use tomograd_kernels::methods::*;
    ///
    /// let x = Tensor::arange(5, DType::I64, Device::Cpu)?;
    /// assert_eq!(x.roll(0, 2)?.to_vec::<i64>()?, [3, 4, 0, 1, 2]);
    /// assert_eq!(x.roll(0, -1)?.to_vec::<i64>()?, [1, 2, 3, 4, 0]);
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the axis is beyond the rank.
    fn roll(&self, axis: usize, shift: isize) -> Result<Self> {
        check_axis("roll", self, axis)?;
        let size = self.shape()[axis];
        // The size of an axis always fits into `isize`.
        let shift = shift.checked_rem_euclid(size as isize).unwrap_or(0) as usize;
        if shift == 0 {
            return Ok(self.clone());
        }
        let (end, start) = (self.narrow(axis, size - shift, shift)?, self.narrow(axis, 0, size - shift)?);
        Self::concat(&[&end, &start], axis)
    }

    /// The padded operand: `before[a]` elements in front of axis `a` and `after[a]` behind it.
    ///
    /// # Errors
    /// When there isn't one number for each axis, or a reflected border isn't narrower than its axis.
    fn pad(&self, before: &[usize], after: &[usize], mode: PadMode) -> Result<Self> {
        Self::apply(Pad { before: before.to_vec(), after: after.to_vec(), mode }, &[self])
    }
}

impl<T: Operand> Shapes for T {}
