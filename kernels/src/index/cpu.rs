//! Moving elements on the CPU: in chunks of the output, copying whole runs of contiguous elements.

use tomograd_core::{DType, Element, Error, Result, Tensor, TensorBuilder};

use super::{Pad, PadMode, split};
use crate::{
    Meta,
    parallel::{Partition, parallel_for},
    simd::Real,
};

/// Elements of a parallel chunk.
pub(super) const GRAIN: usize = 1 << 15;

/// Indices that have been checked to lie within an axis.
pub(super) struct Indices(Tensor);

impl Indices {
    /// Checks that all values of an i64 tensor are in `0..size`.
    pub(super) fn new(operation: &str, indices: &Tensor, size: usize) -> Result<Self> {
        let indices = indices.contiguous()?;
        let wrong = |&index: &i64| usize::try_from(index).map_or(true, |index| index >= size);
        let values = indices.as_slice::<i64>()?;
        let Some(flat) = values.iter().position(wrong) else { return Ok(Self(indices)) };
        let strides = tomograd_core::contiguous_strides(indices.shape());
        let place: Vec<usize> =
            strides.iter().zip(indices.shape()).map(|(stride, size)| flat / stride % size).collect();
        Err(Error::argument(operation, format!("index {} at position {place:?}", values[flat]))
            .expected(format!("0 and above, below the size of the axis, {size}"))
            .shapes([indices.shape()]))
    }

    fn values(&self) -> Result<&[i64]> {
        self.0.as_slice::<i64>()
    }
}

/// A gradient in the dtype in which it is accumulated: f32 for f16 and bf16.
pub(super) fn widened(gradient: &Tensor) -> Result<Tensor> {
    match gradient.dtype() {
        DType::F16 | DType::BF16 => crate::cast::cast(gradient, DType::F32),
        _ => Ok(gradient.clone()),
    }
}

/// An output with the metadata of `like`, written in chunks by `fill`, which receives the index of a chunk's first element
/// and the chunk, initialised with zeros.
fn filled<T: Element>(like: &Meta, grain: usize, fill: impl Fn(usize, &mut [T]) + Sync) -> Result<Tensor> {
    let mut builder = TensorBuilder::<T>::new("index", &like.shape, like.device)?;
    let out = builder.uninit()?;
    let count = out.len();
    let target = Partition::new(out, grain);
    parallel_for(count, grain, |range| {
        let start = range.start;
        let out = target.take(range);
        out.fill(std::mem::MaybeUninit::new(T::default()));
        // SAFETY: the line above wrote every element of the chunk.
        fill(start, unsafe { out.assume_init_mut() });
    })?;
    // SAFETY: the chunks cover all elements, and each writes all of its own.
    Ok(unsafe { builder.assume_init() })
}

pub(super) fn concat<T: Element>(inputs: &[&Tensor], axis: usize, output: &Meta) -> Result<Tensor> {
    let inputs: Vec<Tensor> = inputs.iter().map(|x| x.contiguous()).collect::<Result<_>>()?;
    let slices: Vec<&[T]> = inputs.iter().map(Tensor::as_slice::<T>).collect::<Result<_>>()?;
    let (_, size, inner) = split(&output.shape, axis);
    // The number of consecutive elements of each input, and of the output, for one index of the leading axes.
    let runs: Vec<usize> = inputs.iter().map(|x| x.shape()[axis] * inner).collect();
    let row = size * inner;
    filled::<T>(output, GRAIN, |start, mut out| {
        let (mut o, mut column) = (start / row, start % row);
        while !out.is_empty() {
            for (values, &run) in slices.iter().zip(&runs) {
                if column >= run {
                    column -= run;
                    continue;
                }
                let length = (run - column).min(out.len());
                let (part, rest) = out.split_at_mut(length);
                part.copy_from_slice(&values[o * run + column..][..length]);
                (out, column) = (rest, 0);
            }
            (o, column) = (o + 1, 0);
        }
    })
}

pub(super) fn pad<T: Element>(pad: &Pad, x: &Tensor, output: &Meta) -> Result<Tensor> {
    let x = x.contiguous()?;
    let values = x.as_slice::<T>()?;
    let constant = match pad.mode {
        PadMode::Constant(value) => T::from_f64(value),
        _ => T::default(),
    };
    let Some(last) = x.rank().checked_sub(1) else { return Ok(x) };
    let (size, before, row) = (x.shape()[last], pad.before[last], output.shape[last]);
    let rows = (GRAIN / row.max(1)).max(1);
    filled::<T>(output, rows * row, |start, out| {
        for (r, out) in out.chunks_exact_mut(row).enumerate() {
            // The row of the input that this row of the output copies.
            let (mut rest, mut from, mut stride) = (start / row + r, Some(0), 1);
            for axis in (0..last).rev() {
                let source = pad.mode.source(rest % output.shape[axis], pad.before[axis], x.shape()[axis]);
                from = from.zip(source).map(|(from, source)| from + source * stride);
                rest /= output.shape[axis];
                stride *= x.shape()[axis];
            }
            let Some(from) = from else {
                out.fill(constant);
                continue;
            };
            let values = &values[from * size..][..size];
            out[before..before + size].copy_from_slice(values);
            for i in (0..before).chain(before + size..row) {
                out[i] = pad.mode.source(i, before, size).map_or(constant, |source| values[source]);
            }
        }
    })
}

/// The gradient of padding along one axis: each element of the border is added to the element that it copied, in ascending
/// order.
pub(super) fn fold_border<T: Real>(
    mode: PadMode,
    gradient: &Tensor,
    axis: usize,
    before: usize,
    size: usize,
) -> Result<Tensor> {
    let gradient = gradient.contiguous()?;
    let values = gradient.as_slice::<T>()?;
    let (_, padded, inner) = split(gradient.shape(), axis);
    let mut shape = gradient.shape().to_vec();
    shape[axis] = size;
    let plane = size * inner;
    let grain = plane * (GRAIN / plane.max(1)).max(1);
    filled::<T>(&Meta::from(&gradient).with_shape(shape), grain, |start, out| {
        for (p, out) in out.chunks_exact_mut(plane).enumerate() {
            let values = &values[(start / plane + p) * padded * inner..][..padded * inner];
            out.copy_from_slice(&values[before * inner..][..plane]);
            for i in (0..before).chain(before + size..padded) {
                let Some(to) = mode.source(i, before, size) else { continue };
                for (to, value) in out[to * inner..][..inner].iter_mut().zip(&values[i * inner..]) {
                    *to += *value;
                }
            }
        }
    })
}

pub(super) fn gather<T: Element>(x: &Tensor, indices: &Indices, axis: usize) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (values, index) = (x.as_slice::<T>()?, indices.values()?);
    let ((_, size, inner), (_, length, _)) = (split(x.shape(), axis), split(indices.0.shape(), axis));
    filled::<T>(&Meta::from(&x).with_shape(indices.0.shape()), GRAIN, |start, out| {
        let index = &index[start..start + out.len()];
        for (p, (out, &i)) in (start..).zip(out.iter_mut().zip(index)) {
            *out = values[(p / (length * inner) * size + i as usize) * inner + p % inner];
        }
    })
}

pub(super) fn select<T: Element>(x: &Tensor, indices: &Indices, axis: usize) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (values, index) = (x.as_slice::<T>()?, indices.values()?);
    let (_, size, inner) = split(x.shape(), axis);
    let mut shape = x.shape().to_vec();
    shape[axis] = index.len();
    let grain = inner * (GRAIN / inner.max(1)).max(1);
    filled::<T>(&Meta::from(&x).with_shape(shape), grain, |start, out| {
        for (row, out) in (start / inner..).zip(out.chunks_exact_mut(inner)) {
            let from = row / index.len() * size + index[row % index.len()] as usize;
            out.copy_from_slice(&values[from * inner..][..inner]);
        }
    })
}

/// x plus the source added at the indices, which have the source's shape or are one row for all (rank 1). A chunk owns whole
/// planes of the axis, in which the source is added in its order.
pub(super) fn scatter_add<T: Real>(x: &Tensor, indices: &Indices, source: &Tensor, axis: usize) -> Result<Tensor> {
    let (x, source) = (x.contiguous()?, source.contiguous()?);
    let (values, added, index) = (x.as_slice::<T>()?, source.as_slice::<T>()?, indices.values()?);
    let (_, size, inner) = split(x.shape(), axis);
    let length = source.shape()[axis];
    let shared = indices.0.shape() != source.shape();
    let plane = size * inner;
    let grain = plane * (GRAIN / plane.max(1)).max(1);
    filled::<T>(&Meta::from(&x), grain, |start, out| {
        out.copy_from_slice(&values[start..start + out.len()]);
        for (o, out) in (start / plane..).zip(out.chunks_exact_mut(plane)) {
            for i in 0..length {
                let row = (o * length + i) * inner;
                let added = &added[row..][..inner];
                if shared {
                    let to = index[i] as usize * inner;
                    out[to..][..inner].iter_mut().zip(added).for_each(|(to, value)| *to += *value);
                } else {
                    for (j, (&i, value)) in index[row..][..inner].iter().zip(added).enumerate() {
                        out[i as usize * inner + j] += *value;
                    }
                }
            }
        }
    })
}

pub(super) fn one_hot<T: Element>(labels: &Indices, axis: usize, output: &Meta) -> Result<Tensor> {
    let labels = labels.values()?;
    let (_, classes, inner) = split(&output.shape, axis);
    let one = T::from_f64(1.0);
    filled::<T>(output, GRAIN, |start, mut out| {
        let mut flat = start;
        while !out.is_empty() {
            // A run of neighbouring labels for one class.
            let (row, column) = (flat / inner, flat % inner);
            let (class, first) = ((row % classes) as i64, row / classes * inner + column);
            let length = (inner - column).min(out.len());
            let (part, rest) = out.split_at_mut(length);
            for (out, &label) in part.iter_mut().zip(&labels[first..]) {
                if label == class {
                    *out = one;
                }
            }
            (out, flat) = (rest, flat + length);
        }
    })
}

pub(super) fn choose<T: Element>(condition: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (condition, yes, no) = (condition.as_slice::<bool>()?, a.as_slice::<T>()?, b.as_slice::<T>()?);
    filled::<T>(&Meta::from(a), GRAIN, |start, out| {
        let choices = condition[start..].iter().zip(yes[start..].iter().zip(&no[start..]));
        for (out, (&condition, (&yes, &no))) in out.iter_mut().zip(choices) {
            *out = if condition { yes } else { no };
        }
    })
}
