//! Views: other layouts of the same memory.

use super::Tensor;
use crate::{Layout, Result};

impl Tensor {
    fn view(&self, layout: Layout) -> Tensor {
        Tensor { storage: self.storage.clone(), layout, dtype: self.dtype }
    }

    /// The tensor with its axes permuted to the order of `axes`, without a copy.
    ///
    /// # Errors
    /// When `axes` isn't a permutation of all axes.
    pub fn permute(&self, axes: &[usize]) -> Result<Tensor> {
        Ok(self.view(self.layout.permute(axes)?))
    }

    /// The tensor with axes `first` and `second` exchanged, without a copy.
    ///
    /// # Errors
    /// When an axis is beyond the rank.
    pub fn transpose(&self, first: usize, second: usize) -> Result<Tensor> {
        self.layout.axis("transpose", first)?;
        self.layout.axis("transpose", second)?;
        let mut axes: Vec<usize> = (0..self.rank()).collect();
        axes.swap(first, second);
        self.permute(&axes)
    }

    /// Elements `start..start + length` of `axis`, without a copy.
    ///
    /// # Errors
    /// When the elements are outside of the axis.
    pub fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Tensor> {
        Ok(self.view(self.layout.slice(axis, start, length, 1)?))
    }

    /// `length` elements of `axis` from `start` in steps of `step`, without a copy.
    ///
    /// # Errors
    /// When the elements are outside of the axis, or the step is 0.
    pub fn slice(&self, axis: usize, start: usize, length: usize, step: usize) -> Result<Tensor> {
        Ok(self.view(self.layout.slice(axis, start, length, step)?))
    }

    /// The tensor at `index` of `axis`, without that axis and without a copy.
    ///
    /// # Errors
    /// When the index is outside of the axis.
    pub fn select(&self, axis: usize, index: usize) -> Result<Tensor> {
        self.narrow(axis, index, 1)?.squeeze(axis)
    }

    /// The tensor with axes of size 1 repeated, and leading axes added, up to `shape`, without a copy.
    ///
    /// # Errors
    /// When an axis that isn't 1 would change.
    pub fn expand(&self, shape: &[usize]) -> Result<Tensor> {
        Ok(self.view(self.layout.expand(shape)?))
    }

    /// The same elements in row-major order with another shape, without a copy where strides can express it.
    ///
    /// # Errors
    /// When the number of elements differs, or memory runs out.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        match self.layout.reshape(shape)? {
            Some(layout) => Ok(self.view(layout)),
            None => {
                let copy = self.copy()?;
                Ok(copy.view(Layout::contiguous(shape)))
            }
        }
    }

    /// The tensor with a new axis of size 1 before `axis`, without a copy.
    ///
    /// # Errors
    /// When `axis` is beyond the rank.
    pub fn unsqueeze(&self, axis: usize) -> Result<Tensor> {
        Ok(self.view(self.layout.unsqueeze(axis)?))
    }

    /// The tensor without `axis`, which must have size 1, without a copy.
    ///
    /// # Errors
    /// When it has another size.
    pub fn squeeze(&self, axis: usize) -> Result<Tensor> {
        Ok(self.view(self.layout.squeeze(axis)?))
    }
}
