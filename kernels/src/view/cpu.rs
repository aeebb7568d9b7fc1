//! The gradient of a slice on the CPU, and transposing copies.

use std::{mem::MaybeUninit, ops::Range};

use tomograd_core::{DType, Element, Result, Tensor, TensorBuilder};

use crate::{
    parallel::{Partition, parallel_for},
    simd::{Kernel, Real, Simd, dispatch, transpose},
};

/// Elements of a parallel chunk of a transposing copy.
const GRAIN: usize = 1 << 14;

/// Exchanges the first two axes of (outer, inner, length).
pub(crate) fn exchange<T: Real>(
    from: &[T],
    [outer, inner]: [usize; 2],
    length: usize,
    to: &mut [MaybeUninit<T>],
) -> Result<()> {
    assert!(from.len() == to.len() && from.len() == outer * inner * length, "all elements are exchanged");
    match length {
        _ if from.is_empty() => Ok(()),
        4 => exchange_rows(from.as_chunks::<4>().0, [outer, inner], to),
        8 => exchange_rows(from.as_chunks::<8>().0, [outer, inner], to),
        16 => exchange_rows(from.as_chunks::<16>().0, [outer, inner], to),
        _ => exchange_rows(&from.chunks_exact(length).collect::<Vec<_>>(), [outer, inner], to),
    }
}

/// [`exchange`] of rows, with fewer instructions where their length is known at compile time.
fn exchange_rows<T: Real, R: AsRef<[T]> + Sync>(
    rows: &[R],
    [outer, inner]: [usize; 2],
    to: &mut [MaybeUninit<T>],
) -> Result<()> {
    let block = to.len() / inner.max(1);
    let grain = (GRAIN / block.max(1)).max(1);
    let target = Partition::new(to, grain * block);
    parallel_for(inner, grain, |range| {
        let to = target.take(range.start * block..range.end * block);
        for (i, to) in range.zip(to.chunks_exact_mut(block)) {
            for (o, to) in to.chunks_exact_mut(block / outer).enumerate() {
                to.write_copy_of_slice(rows[o * inner + i].as_ref());
            }
        }
    })
}

/// The tensor in row-major order: itself if it is contiguous, otherwise a copy.
pub(crate) fn contiguous(x: &Tensor) -> Result<Tensor> {
    match transposed(x)? {
        Some(copy) => Ok(copy),
        None => x.contiguous(),
    }
}

/// A copy in row-major order of a view whose two innermost axes are exchanged in memory, as those of channels and voxels are
/// after a permutation to channels last; `None` for other views.
pub(crate) fn transposed(x: &Tensor) -> Result<Option<Tensor>> {
    match &x.layout().merged_axes()[..] {
        &[[columns, stride], [rows, 1], ref outer @ ..] if stride >= rows && x.count() > 0 => Ok(match x.dtype() {
            DType::F32 => Some(transpose_of::<f32>(x, stride, [rows, columns], outer)?),
            DType::F64 => Some(transpose_of::<f64>(x, stride, [rows, columns], outer)?),
            _ => None,
        }),
        _ => Ok(None),
    }
}

/// `y[..., i, j] = x[... + j * stride + i]` for matrices y of `sizes` rows and columns; `outer` are sizes and strides of the
/// other axes, innermost first.
fn transpose_of<T: Real>(x: &Tensor, stride: usize, sizes: [usize; 2], outer: &[[usize; 2]]) -> Result<Tensor> {
    let [rows, columns] = sizes;
    let from = &x.as_storage_slice::<T>()?[x.layout().offset()..];
    let mut builder = TensorBuilder::<T>::new("copy", x.shape(), x.device())?;
    let grain = (GRAIN / columns).max(1);
    let target = Partition::new(builder.uninit()?, grain * columns);
    parallel_for(x.count() / columns, grain, |chunk| {
        let mut to = target.take(chunk.start * columns..chunk.end * columns);
        let mut row = chunk.start;
        while row < chunk.end {
            let (mut matrix, first) = (row / rows, row % rows);
            let mut start = 0;
            for &[size, stride] in outer {
                start += matrix % size * stride;
                matrix /= size;
            }
            let range = first..rows.min(first + chunk.end - row);
            row += range.len();
            let (part, later) = to.split_at_mut(range.len() * columns);
            dispatch(Rows { from: &from[start..], stride, range, columns, to: part });
            to = later;
        }
    })?;
    drop(target);
    // SAFETY: the chunks cover all rows, and each writes its rows completely.
    Ok(unsafe { builder.assume_init() })
}

/// Some rows of a transposed matrix.
struct Rows<'a, T> {
    from: &'a [T],
    stride: usize,
    range: Range<usize>,
    columns: usize,
    to: &'a mut [MaybeUninit<T>],
}

impl<T: Real> Kernel for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Rows { from, stride, range, columns, to } = self;
        assert!((columns - 1) * stride + range.end <= from.len() && to.len() == range.len() * columns, "a matrix");
        // SAFETY: by the check above, all elements lie inside the slices.
        unsafe {
            let (from, to) = (from.as_ptr().add(range.start), to.as_mut_ptr().cast());
            transpose::<T::Vec<S>>(from, stride, [columns, range.len()], to, columns);
        }
    }
}

/// Zeros of `shape`, with `gradient` at elements `start, start + step, ...` of `axis`.
pub(super) fn unslice(gradient: &Tensor, shape: &[usize], axis: usize, start: usize, step: usize) -> Result<Tensor> {
    crate::op::with_element!(gradient.dtype(), T => place::<T>(gradient, shape, axis, start, step))
}

fn place<T: Element>(gradient: &Tensor, shape: &[usize], axis: usize, start: usize, step: usize) -> Result<Tensor> {
    let contiguous = gradient.contiguous()?;
    let values = contiguous.as_slice::<T>()?;
    let mut builder = TensorBuilder::<T>::new("slice", shape, gradient.device())?;
    let target = builder.uninit()?;
    for element in target.iter_mut() {
        element.write(T::default());
    }
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let length = gradient.shape()[axis];
    for (o, i) in (0..outer).flat_map(|o| (0..length).map(move |i| (o, i))) {
        let from = &values[(o * length + i) * inner..][..inner];
        target[(o * shape[axis] + start + i * step) * inner..][..inner].write_copy_of_slice(from);
    }
    // SAFETY: the first loop wrote every element.
    Ok(unsafe { builder.assume_init() })
}
