//! How the elements of a tensor are arranged in memory.

use crate::{Error, Result};

/// Shape, strides (in elements) and offset of a tensor in its storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
}

/// The number of elements of `shape`. The product of the sizes, and its bytes at 8 bytes an element, must fit an `isize`. An
/// axis of size 0 counts as 1 in this check, so that the product of any subset of the axes fits too.
///
/// # Errors
/// A shape error when it overflows.
pub fn element_count(operation: &str, shape: &[usize]) -> Result<usize> {
    let limit = isize::MAX as usize / 8;
    let product = |count: usize, &size: &usize| count.checked_mul(size.max(1)).filter(|&count| count <= limit);
    let count = shape.iter().try_fold(1, product).ok_or_else(|| {
        Error::shape(operation, "the number of elements overflows").expected(format!("at most {limit}")).shapes([shape])
    })?;
    Ok(if shape.contains(&0) { 0 } else { count })
}

/// Row-major strides of `shape`, in elements; `usize::MAX` where they overflow (shapes that [`element_count`] refuses).
pub fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
    }
    strides
}

/// The shape that `shapes` broadcast to, aligned at the last axis as in NumPy.
///
/// # Errors
/// A shape error when two sizes differ and neither is 1.
pub fn broadcast_shapes(operation: &str, shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for shape in shapes {
        for (size, &given) in result[rank - shape.len()..].iter_mut().zip(*shape) {
            if *size == 1 {
                *size = given;
            } else if given != 1 && given != *size {
                return Err(Error::shape(operation, format!("sizes {size} and {given} of one axis don't broadcast"))
                    .expected("equal sizes, or 1")
                    .shapes(shapes.iter().copied()));
            }
        }
    }
    Ok(result)
}

impl Layout {
    /// The row-major layout of `shape` at offset 0. For a shape that [`element_count`] refuses, strides and count saturate at
    /// `usize::MAX`, so that no storage is large enough for it.
    pub fn contiguous(shape: &[usize]) -> Self {
        Self { strides: contiguous_strides(shape), shape: shape.to_vec(), offset: 0 }
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The distance in elements between neighbours along each axis; 0 along an expanded axis.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// The index of the first element in the storage.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        if self.shape.contains(&0) { 0 } else { self.shape.iter().fold(1, |count, &size| count.saturating_mul(size)) }
    }

    /// Whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1usize;
        for (&size, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if size != 1 && stride != expected {
                return self.count() == 0;
            }
            expected = expected.saturating_mul(size);
        }
        true
    }

    /// Sizes and strides of the axes, innermost first; axes that can be walked as one are merged, and axes of size 1 left out.
    pub fn merged_axes(&self) -> Vec<[usize; 2]> {
        let mut axes: Vec<[usize; 2]> = Vec::new();
        for (&size, &stride) in self.shape.iter().zip(&self.strides).rev().filter(|&(&size, _)| size != 1) {
            match axes.last_mut() {
                Some([inner, step]) if inner.checked_mul(*step) == Some(stride) => *inner *= size,
                _ => axes.push([size, stride]),
            }
        }
        axes
    }

    /// Whether all elements have different positions in memory. In an overlapping layout one write would change several
    /// elements.
    pub fn is_injective(&self) -> bool {
        if self.count() == 0 {
            return true;
        }
        let mut axes: Vec<(usize, usize)> =
            self.strides.iter().copied().zip(self.shape.iter().copied()).filter(|&(_, size)| size > 1).collect();
        axes.sort_unstable();
        let mut reach = 0;
        for (stride, size) in axes {
            if stride <= reach {
                return false;
            }
            reach += stride * (size - 1);
        }
        true
    }

    /// One past the largest storage index of the layout.
    pub fn end(&self) -> usize {
        if self.count() == 0 {
            return self.offset;
        }
        self.offset + 1 + self.shape.iter().zip(&self.strides).map(|(size, stride)| (size - 1) * stride).sum::<usize>()
    }

    pub(crate) fn axis(&self, operation: &str, axis: usize) -> Result<()> {
        if axis < self.rank() {
            return Ok(());
        }
        Err(Error::argument(operation, format!("axis {axis} of a tensor of rank {}", self.rank()))
            .expected(format!("an axis below {}", self.rank()))
            .shapes([&self.shape[..]]))
    }

    /// The axes in the order of `axes`.
    ///
    /// # Errors
    /// When `axes` isn't a permutation of all axes.
    pub fn permute(&self, axes: &[usize]) -> Result<Self> {
        let mut seen = vec![false; self.rank()];
        for &axis in axes {
            self.axis("permute", axis)?;
            seen[axis] = true;
        }
        if axes.len() != self.rank() || seen.contains(&false) {
            return Err(Error::argument("permute", format!("axes {axes:?} don't name each axis once"))
                .expected(format!("a permutation of 0..{}", self.rank()))
                .shapes([&self.shape[..]]));
        }
        Ok(Self {
            shape: axes.iter().map(|&axis| self.shape[axis]).collect(),
            strides: axes.iter().map(|&axis| self.strides[axis]).collect(),
            offset: self.offset,
        })
    }

    /// Elements `start, start + step, ...` of `axis`, `length` of them.
    ///
    /// # Errors
    /// When the step is 0 or an element lies outside of the axis.
    pub fn slice(&self, axis: usize, start: usize, length: usize, step: usize) -> Result<Self> {
        self.axis("slice", axis)?;
        let size = self.shape[axis];
        let last = length.checked_sub(1).map_or(Some(start), |steps| steps.checked_mul(step)?.checked_add(start));
        let inside = match last {
            Some(last) => step > 0 && if length == 0 { start <= size } else { last < size },
            None => false,
        };
        if !inside {
            return Err(Error::argument(
                "slice",
                format!("{length} elements from {start} in steps of {step} leave axis {axis} of size {size}"),
            )
            .expected("a step of at least 1 and elements inside of the axis")
            .shapes([&self.shape[..]]));
        }
        let mut view = self.clone();
        view.shape[axis] = length;
        // The stride of an axis of fewer than two elements is never used, and with a large step the product could overflow.
        if length > 1 {
            view.strides[axis] = self.strides[axis] * step;
        }
        if length > 0 {
            view.offset += start * self.strides[axis];
        }
        Ok(view)
    }

    /// Repeats axes of size 1 and adds leading axes, up to `shape`, without copying (stride 0).
    ///
    /// # Errors
    /// When an axis that isn't 1 would change.
    pub fn expand(&self, shape: &[usize]) -> Result<Self> {
        let fail = || {
            Error::shape("expand", "only axes of size 1 and new leading axes can grow").shapes([&self.shape[..], shape])
        };
        let lead = shape.len().checked_sub(self.rank()).ok_or_else(fail)?;
        element_count("expand", shape)?;
        let mut strides = vec![0; shape.len()];
        for axis in 0..self.rank() {
            let size = self.shape[axis];
            if size == shape[lead + axis] {
                strides[lead + axis] = self.strides[axis];
            } else if size != 1 {
                return Err(fail());
            }
        }
        Ok(Self { shape: shape.to_vec(), strides, offset: self.offset })
    }

    /// The layout that shows the same elements in the same order as `shape`, or `None` when strides can't express it.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Option<Self>> {
        if element_count("reshape", shape)? != self.count() {
            return Err(Error::shape("reshape", "the number of elements differs").shapes([&self.shape[..], shape]));
        }
        if self.is_contiguous() {
            return Ok(Some(Self { strides: contiguous_strides(shape), shape: shape.to_vec(), offset: self.offset }));
        }
        // Old axes of size 1 don't affect the memory order and are dropped. The others are matched with new axes in groups of
        // equal product; a group of several old axes must be evenly spaced in memory, as a single axis is.
        let old: Vec<(usize, usize)> =
            self.shape.iter().copied().zip(self.strides.iter().copied()).filter(|&(size, _)| size != 1).collect();
        let mut strides = vec![1; shape.len()];
        let (mut first, mut new) = (0, 0);
        while first < old.len() {
            let (mut last, mut old_product) = (first + 1, old[first].0);
            let (new_first, mut new_product) = (new, 1);
            while new_product != old_product {
                if new_product < old_product {
                    new_product *= shape[new];
                    new += 1;
                } else {
                    old_product *= old[last].0;
                    last += 1;
                }
            }
            for pair in old[first..last].windows(2) {
                if pair[0].1 != pair[1].1 * pair[1].0 {
                    return Ok(None);
                }
            }
            let mut stride = old[last - 1].1;
            for axis in (new_first..new).rev() {
                strides[axis] = stride;
                stride *= shape[axis];
            }
            first = last;
        }
        Ok(Some(Self { shape: shape.to_vec(), strides, offset: self.offset }))
    }

    /// Inserts an axis of size 1 before `axis`.
    ///
    /// # Errors
    /// When `axis` is beyond the rank.
    pub fn unsqueeze(&self, axis: usize) -> Result<Self> {
        if axis > self.rank() {
            return Err(Error::argument("unsqueeze", format!("axis {axis} of a tensor of rank {}", self.rank()))
                .shapes([&self.shape[..]]));
        }
        let mut view = self.clone();
        view.shape.insert(axis, 1);
        view.strides.insert(axis, 0);
        Ok(view)
    }

    /// Removes `axis`, which must have size 1.
    ///
    /// # Errors
    /// When it has another size.
    pub fn squeeze(&self, axis: usize) -> Result<Self> {
        self.axis("squeeze", axis)?;
        if self.shape[axis] != 1 {
            return Err(Error::shape("squeeze", format!("axis {axis} has size {}", self.shape[axis]))
                .expected("size 1")
                .shapes([&self.shape[..]]));
        }
        let mut view = self.clone();
        view.shape.remove(axis);
        view.strides.remove(axis);
        Ok(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_without_a_copy_where_strides_allow() {
        let layout = Layout::contiguous(&[2, 3, 4]).permute(&[1, 0, 2]).unwrap();
        assert!(layout.reshape(&[3, 8]).unwrap().is_none());
        assert_eq!(layout.reshape(&[3, 2, 2, 2]).unwrap().unwrap().strides(), [4, 12, 2, 1]);
        let narrowed = Layout::contiguous(&[4, 6]).slice(1, 0, 4, 1).unwrap();
        assert!(narrowed.reshape(&[16]).unwrap().is_none());
        assert_eq!(narrowed.reshape(&[2, 2, 1, 4]).unwrap().unwrap().strides(), [12, 6, 4, 1]);
    }

    #[test]
    fn knows_layouts_whose_elements_overlap() {
        assert!(Layout::contiguous(&[2, 3]).is_injective());
        assert!(!Layout::contiguous(&[1, 3]).expand(&[2, 3]).unwrap().is_injective());
        assert!(Layout::contiguous(&[2, 6]).slice(1, 1, 3, 2).unwrap().is_injective());
    }

    #[test]
    fn refuses_slices_that_overflow() {
        let layout = Layout::contiguous(&[4]);
        assert!(layout.slice(0, usize::MAX, 2, 1).is_err());
        assert!(layout.slice(0, 1, usize::MAX, usize::MAX).is_err());
        assert!(layout.slice(0, 4, 0, 1).is_ok());
        assert!(layout.slice(0, 0, 2, 0).is_err());
    }

    #[test]
    fn counts_are_checked() {
        assert!(element_count("test", &[usize::MAX, 2]).is_err());
        assert_eq!(element_count("test", &[1 << 40, 0]).unwrap(), 0);
        assert!(element_count("test", &[usize::MAX, 0, 2]).is_err(), "the product of some axes overflows");
    }
}
