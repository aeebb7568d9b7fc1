//! Products of tensors: maps their axes to batches of strided matrices for the kernel.

use tomograd_core::{Result, Scratch, Tensor, TensorBuilder};

use super::{GemmShape, Start, View, gemm, gemm_add};
use crate::{parallel::PartialSlots, simd::Real};

/// The least number of steps of a segment of a long sum, and the largest number of segments.
pub(in crate::matmul) const SEGMENT: usize = 512;
const SEGMENTS: usize = 8;

/// A batch axis of a product: its size, and the stride of each operand along it.
#[derive(Clone, Copy)]
struct BatchAxis {
    size: usize,
    a: usize,
    b: usize,
}

/// The elements of the tensor's storage, from the tensor's first element on.
fn elements<T: Real>(tensor: &Tensor) -> Result<&[T]> {
    Ok(&tensor.as_storage_slice::<T>()?[if tensor.count() == 0 { 0 } else { tensor.layout().offset() }..])
}

/// `x · weight` (+ `bias` for each column), for each row of x, (..., in).
pub(in crate::matmul) fn rows_times<T: Real>(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let x = as_matrix(x)?;
    let batch = &x.shape()[..x.rank() - 2];
    let bias = bias.map(Tensor::contiguous).transpose()?;
    let bias = bias.as_ref().map(Tensor::as_slice::<T>).transpose()?;
    product(&x, &weight.expand(&[batch, weight.shape()].concat())?, bias)
}

/// The tensor with at least two axes.
fn as_matrix(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 1 { x.unsqueeze(0) } else { Ok(x.clone()) }
}

/// `a · b` (+ `bias` for each column) of `(batch..., m, k)` and `(batch..., k, n)` with equal batch axes.
pub(in crate::matmul) fn product<T: Real>(a: &Tensor, b: &Tensor, bias: Option<&[T]>) -> Result<Tensor> {
    let rank = a.rank() - 2;
    let (batch, k, n) = (&a.shape()[..rank], a.shape()[rank + 1], b.shape()[rank + 1]);
    let mut m = a.shape()[rank];
    let mut builder = TensorBuilder::<T>::new("matmul", &[batch, &[m, n]].concat(), a.device())?;
    let mut out = builder.uninit()?;
    let (mut a_rows, b_rows) = (a.strides()[rank], b.strides()[rank]);
    let mut axes: Vec<BatchAxis> = (0..rank)
        .map(|axis| BatchAxis { size: batch[axis], a: a.strides()[axis], b: b.strides()[axis] })
        .filter(|axis| axis.size != 1)
        .collect();
    // A batch axis along which b is shared can be merged into the rows of a, if the rows stay evenly spaced.
    while let Some(&last) = axes.last()
        && (last.b == 0 && (m == 1 || last.a == m * a_rows))
    {
        a_rows = if m == 1 { last.a } else { a_rows };
        m *= last.size;
        axes.pop();
    }
    // The remaining axes are merged into one batch axis for the kernel where strides allow it; the others become a loop.
    let mut inner = axes.pop().unwrap_or(BatchAxis { size: 1, a: 0, b: 0 });
    while let Some(&last) = axes.last()
        && (last.a == inner.a * inner.size && last.b == inner.b * inner.size)
    {
        inner.size *= last.size;
        axes.pop();
    }
    let shape = GemmShape { batch: inner.size, m, n, k };
    let (a_elements, b_elements) = (elements::<T>(a)?, elements::<T>(b)?);
    let size = inner.size * m * n;
    let outer: usize = axes.iter().map(|axis| axis.size).product();
    for index in 0..if size == 0 { 0 } else { outer } {
        let (mut rest, mut a_start, mut b_start) = (index, 0, 0);
        for axis in axes.iter().rev() {
            a_start += rest % axis.size * axis.a;
            b_start += rest % axis.size * axis.b;
            rest /= axis.size;
        }
        // With k = 0 no element is read.
        let from = |elements, start| if k == 0 { &[] } else { tail(elements, start) };
        let a_view = View {
            data: from(a_elements, a_start),
            batch_stride: inner.a,
            row_stride: a_rows,
            column_stride: a.strides()[rank + 1],
        };
        let b_view = View {
            data: from(b_elements, b_start),
            batch_stride: inner.b,
            row_stride: b_rows,
            column_stride: b.strides()[rank + 1],
        };
        let (part, later) = out.split_at_mut(size);
        gemm(shape, a_view, b_view, bias.map_or(Start::Zero, Start::Columns), part)?;
        out = later;
    }
    // SAFETY: each product wrote its whole part, and the parts cover the output.
    Ok(unsafe { builder.assume_init() })
}

fn tail<T>(elements: &[T], start: usize) -> &[T] {
    &elements[start..]
}

/// `Σ_r a[r, i] b[r, j]` of `(rows..., p)` and `(rows..., q)`, as (p, q): the gradient of a matrix that all rows share. A sum
/// over many rows is split into segments that run in parallel, so that a small matrix keeps all threads busy too.
pub(in crate::matmul) fn outer_sum<T: Real>(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (p, q) = (a.shape()[a.rank() - 1], b.shape()[b.rank() - 1]);
    let rows: usize = a.shape()[..a.rank() - 1].iter().product();
    let (a, b) = (a.reshape(&[rows, p])?, b.reshape(&[rows, q])?);
    let mut builder = TensorBuilder::<T>::new("matmul", &[p, q], a.device())?;
    let (a_elements, b_elements) = (elements::<T>(&a)?, elements::<T>(&b)?);
    let view = |tensor: &Tensor, elements| View {
        data: elements,
        batch_stride: 0,
        row_stride: tensor.strides()[0],
        column_stride: tensor.strides()[1],
    };
    let (a_view, b_view) = (view(&a, a_elements).transposed(), view(&b, b_elements));
    let segments = (rows / SEGMENT).clamp(1, SEGMENTS);
    let out = builder.uninit()?;
    if segments == 1 || p * q == 0 || p * q > 1 << 18 {
        gemm(GemmShape { batch: 1, m: p, n: q, k: rows }, a_view, b_view, Start::Zero, out)?;
    } else {
        let length = rows / segments;
        let mut partial = Scratch::<T>::new("matmul", segments * p * q)?;
        let shape = GemmShape { batch: segments, m: p, n: q, k: length };
        let a_parts = View { batch_stride: length * a.strides()[0], ..a_view };
        let b_parts = View { batch_stride: length * b.strides()[0], ..b_view };
        gemm(shape, a_parts, b_parts, Start::Zero, partial.uninit())?;
        // SAFETY: the products wrote all segments.
        let partial = unsafe { partial.uninit().assume_init_mut() };
        let done = segments * length;
        if done < rows {
            let shape = GemmShape { batch: 1, m: p, n: q, k: rows - done };
            let a_rest = View { data: tail(a_view.data, done * a.strides()[0]), ..a_view };
            let b_rest = View { data: tail(b_view.data, done * b.strides()[0]), ..b_view };
            gemm_add(shape, a_rest, b_rest, &mut partial[..p * q])?;
        }
        out.write_copy_of_slice(PartialSlots::filled(partial, p * q)?.sum());
    }
    // SAFETY: either branch wrote the whole output.
    Ok(unsafe { builder.assume_init() })
}
