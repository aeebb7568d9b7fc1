//! Selecting elements by position, and finding the positions of elements.

use tomograd_core::{DType, Result, Tensor};

use super::{Elementwise, Operand, Other};
use crate::{
    cumulative::CumulativeSum,
    index::{Gather, IndexSelect, OneHot, ScatterAdd, Where},
    reduce::ArgMax,
    sort::Sort,
};

/// Selecting elements by index or condition, sorting, and the positions of the largest elements. Indices are i64 tensors and
/// conditions bool tensors; neither has a gradient.
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_kernels::methods::*;
///
/// let logits = Tensor::from_slice(&[0.1f32, 2.0, 0.3, 1.5, 0.2, 0.9], &[2, 3], Device::Cpu)?;
/// let best = logits.argmax(1)?;
/// assert_eq!(best.to_vec::<i64>()?, [1, 0]);
/// assert_eq!(logits.gather(1, &best.unsqueeze(1)?)?.to_vec::<f32>()?, [2.0, 1.5]);
/// let (values, places) = logits.top_k(1, 2)?;
/// assert_eq!(values.to_vec::<f32>()?, [2.0, 0.3, 1.5, 0.9]);
/// assert_eq!(places.to_vec::<i64>()?, [1, 2, 0, 2]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub trait Indexing: Operand {
    /// The element where the condition is true, otherwise the element of `other`; all three are broadcast. Equivalent to
    /// torch.where, written as `x.where_(condition, other)`.
    ///
    /// # Errors
    /// When the condition isn't bool, shapes don't broadcast, dtypes differ, or the number isn't representable in the dtype.
    fn where_<'a>(&'a self, condition: &Tensor, other: impl Into<Other<'a, Self>>) -> Result<Self> {
        let other = other.into().beside("where", self)?;
        Self::apply(Where, &[&self.constant(condition.clone()), self, &other])
    }

    /// `y[.., i, ..] = x[.., index[.., i, ..], ..]` along `axis`. `index` is an i64 tensor whose shape equals x's except
    /// along the axis.
    ///
    /// # Errors
    /// When an index is outside of the axis, or shapes don't fit.
    fn gather(&self, axis: usize, index: &Tensor) -> Result<Self> {
        Self::apply(Gather { axis }, &[self, &self.constant(index.clone())])
    }

    /// `y[.., i, ..] = x[.., index[i], ..]` along `axis`. `index` is an i64 tensor of rank 1.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    fn index_select(&self, axis: usize, index: &Tensor) -> Result<Self> {
        Self::apply(IndexSelect { axis }, &[self, &self.constant(index.clone())])
    }

    /// A copy of x to whose elements `[.., index[.., i, ..], ..]` along `axis` the source's elements `[.., i, ..]` are added,
    /// for ascending i. `index` is an i64 tensor of the source's shape, which equals x's except along the axis.
    ///
    /// # Errors
    /// As [`gather`](Self::gather), and when the dtypes differ or aren't floating point.
    fn scatter_add(&self, axis: usize, index: &Tensor, source: &Self) -> Result<Self> {
        Self::apply(ScatterAdd { axis }, &[self, &self.constant(index.clone()), source])
    }

    /// One-hot encoding of i64 labels: a new axis of `classes` elements of `dtype` before `axis`, 1 at the label and 0
    /// elsewhere. It has no gradient.
    ///
    /// # Errors
    /// When a label isn't below the number of classes, or the axis is beyond the rank.
    fn one_hot(&self, classes: usize, axis: usize, dtype: DType) -> Result<Tensor> {
        Ok(Self::apply(OneHot { classes, axis, dtype }, &[self])?.value().clone())
    }

    /// The position (i64) of the largest element along `axis`, which is removed from the shape. Of several equal elements it
    /// is the first one; if there is a NaN, it is the first NaN.
    ///
    /// # Errors
    /// When the axis is empty or beyond the rank, or the dtype isn't floating point.
    fn argmax(&self, axis: usize) -> Result<Tensor> {
        Ok(Self::apply(ArgMax { axis }, &[self])?.value().clone())
    }

    /// The position of the smallest element along `axis`; otherwise like [`argmax`](Self::argmax).
    ///
    /// # Errors
    /// As [`argmax`](Self::argmax).
    fn argmin(&self, axis: usize) -> Result<Tensor> {
        // The smallest element is the largest after negation, and NaN stays NaN.
        self.neg()?.argmax(axis)
    }

    /// The elements along `axis` in ascending order, and their positions in x (i64). The sort is stable, and NaN comes last.
    /// The gradient of each element goes to its original position.
    ///
    /// # Errors
    /// When the axis is beyond the rank, or the dtype isn't floating point.
    fn sort(&self, axis: usize) -> Result<(Self, Tensor)> {
        sorted(self, Sort { axis, descending: false, count: None })
    }

    /// The elements along `axis` in descending order, NaN first; otherwise like [`sort`](Self::sort).
    ///
    /// # Errors
    /// As [`sort`](Self::sort).
    fn sort_descending(&self, axis: usize) -> Result<(Self, Tensor)> {
        sorted(self, Sort { axis, descending: true, count: None })
    }

    /// The `count` largest elements along `axis` in descending order, and their positions: the first elements of
    /// [`sort_descending`](Self::sort_descending), without sorting the others.
    ///
    /// # Errors
    /// As [`sort`](Self::sort), and when the axis has fewer elements.
    fn top_k(&self, axis: usize, count: usize) -> Result<(Self, Tensor)> {
        sorted(self, Sort { axis, descending: true, count: Some(count) })
    }

    /// The cumulative sum along `axis`, accumulated in f64.
    ///
    /// # Errors
    /// When the axis is beyond the rank, or the dtype isn't floating point.
    fn cumsum(&self, axis: usize) -> Result<Self> {
        Self::apply(CumulativeSum { axis, reverse: false }, &[self])
    }
}

fn sorted<T: Operand>(x: &T, sort: Sort) -> Result<(T, Tensor)> {
    let mut outputs = T::apply_all(sort, &[x])?.into_iter();
    match (outputs.next(), outputs.next()) {
        (Some(values), Some(places)) => Ok((values, places.value().clone())),
        _ => Err(tomograd_core::Error::argument("sort", "the operation gave too few outputs")),
    }
}

impl<T: Operand> Indexing for T {}
