//! Reductions on the CPU, in f64. Adjacent reduced axes form a group; groups are reduced one after the other, the last one
//! first.
//!
//! For one group the input is (outer, terms, inner). Along the last axis (inner = 1) a row is reduced in sixteen lanes;
//! otherwise rows are combined in sequence, column by column. Long reductions are divided into segments whose length depends
//! only on the shape, and the results of the segments are combined in order.

use std::{marker::PhantomData, mem::MaybeUninit};

use tomograd_core::{DType, Element, Result, Scratch, Tensor, TensorBuilder};

use super::Combine;
use crate::{
    op::with_real,
    parallel::{Partition, parallel_for},
    simd::{Kernel, Real, Simd, dispatch},
};

/// Elements of a chunk or segment: about 50 µs of work.
pub(super) const GRAIN: usize = 1 << 16;
/// The number of columns whose results stay in the L1 cache.
pub(super) const BLOCK: usize = 1024;

/// A binary function that combines partial results.
trait Fold: Send + Sync {
    const START: f64;
    fn step(so_far: f64, value: f64) -> f64;
}

struct Add;
struct Larger;
struct Smaller;

impl Fold for Add {
    const START: f64 = 0.0;
    #[inline(always)]
    fn step(so_far: f64, value: f64) -> f64 {
        so_far + value
    }
}

// A NaN is larger than every number.
impl Fold for Larger {
    const START: f64 = f64::NEG_INFINITY;
    #[inline(always)]
    fn step(so_far: f64, value: f64) -> f64 {
        if (value > so_far) | value.is_nan() { value } else { so_far }
    }
}

impl Fold for Smaller {
    const START: f64 = f64::INFINITY;
    #[inline(always)]
    fn step(so_far: f64, value: f64) -> f64 {
        if (value < so_far) | value.is_nan() { value } else { so_far }
    }
}

/// factor · the reduction along `axes`, as a tensor of the remaining axes in their order.
pub(super) fn reduce(x: &Tensor, axes: &[usize], combine: Combine, factor: f64) -> Result<Tensor> {
    if matches!(x.dtype(), DType::F16 | DType::BF16) {
        let wide = crate::cast::cast(x, DType::F32)?;
        return crate::cast::cast(&reduce(&wide, axes, combine, factor)?, x.dtype());
    }
    let shape: Vec<usize> = (0..x.rank()).filter(|axis| !axes.contains(axis)).map(|axis| x.shape()[axis]).collect();
    let x = x.contiguous()?;
    // Groups of adjacent axes that are all reduced or all kept: (size, whether it is reduced).
    let mut groups: Vec<(usize, bool)> = Vec::new();
    for (axis, &size) in x.shape().iter().enumerate().filter(|&(_, &size)| size != 1) {
        match groups.last_mut() {
            Some((group, reduced)) if *reduced == axes.contains(&axis) => *group *= size,
            _ => groups.push((size, axes.contains(&axis))),
        }
    }
    with_real!("reduce", x.dtype(), T => {
        let mut builder = TensorBuilder::<T>::new("reduce", &shape, x.device())?;
        let (x, out) = (x.as_slice::<T>()?, builder.uninit()?);
        match combine {
            Combine::Sum | Combine::Mean => groups_of::<T, T, Add>(x, &groups, factor, out)?,
            Combine::Max => groups_of::<T, T, Larger>(x, &groups, factor, out)?,
            Combine::Min => groups_of::<T, T, Smaller>(x, &groups, factor, out)?,
        }
        // SAFETY: the reduction of the first group writes every output.
        Ok(unsafe { builder.assume_init() })
    })
}

fn groups_of<I: Element, O: Element, F: Fold>(
    x: &[I],
    groups: &[(usize, bool)],
    factor: f64,
    out: &mut [MaybeUninit<O>],
) -> Result<()> {
    let product = |part: &[(usize, bool)]| part.iter().map(|(size, _)| size).product::<usize>();
    let Some(last) = groups.iter().rposition(|&(_, reduced)| reduced) else {
        return group::<I, O, F>(x, [x.len(), 1, 1], factor, out);
    };
    let sizes @ [outer, _, inner] = [product(&groups[..last]), groups[last].0, product(&groups[last + 1..])];
    let rest: Vec<(usize, bool)> = groups[..last].iter().chain(&groups[last + 1..]).copied().collect();
    if !rest.iter().any(|&(_, reduced)| reduced) {
        return group::<I, O, F>(x, sizes, factor, out);
    }
    let mut partial = Scratch::<f64>::new("reduce", outer * inner)?;
    group::<I, f64, F>(x, sizes, 1.0, partial.uninit())?;
    // SAFETY: the group's reduction wrote every element.
    groups_of::<f64, O, F>(unsafe { partial.assume_init() }, &rest, factor, out)
}

/// Writes factor · the reduction along the middle axis of (outer, terms, inner).
fn group<I: Element, O: Element, F: Fold>(
    x: &[I],
    [outer, terms, inner]: [usize; 3],
    factor: f64,
    out: &mut [MaybeUninit<O>],
) -> Result<()> {
    // The number of terms of a segment: a block of its columns is the work of a chunk. With many outputs, there are enough
    // chunks without segments.
    let length = if outer * inner >= GRAIN { terms.max(1) } else { (GRAIN / inner.clamp(1, BLOCK)).max(1) };
    let segments = terms.div_ceil(length).max(1);
    if segments == 1 {
        return segments_of::<I, O, F>(x, [outer, terms, inner], length, factor, out);
    }
    let mut partial = Scratch::<f64>::new("reduce", outer * segments * inner)?;
    segments_of::<I, f64, F>(x, [outer, terms, inner], length, 1.0, partial.uninit())?;
    // SAFETY: each segment wrote its results.
    group::<f64, O, F>(unsafe { partial.assume_init() }, [outer, segments, inner], factor, out)
}

/// Writes (outer, segments, inner): factor · the reduction of each segment of `length` terms.
fn segments_of<I: Element, O: Element, F: Fold>(
    x: &[I],
    [outer, terms, inner]: [usize; 3],
    length: usize,
    factor: f64,
    out: &mut [MaybeUninit<O>],
) -> Result<()> {
    debug_assert_eq!(out.len(), outer * terms.div_ceil(length).max(1) * inner);
    // Outputs of a chunk: at least some cache lines of each row.
    let grain = (GRAIN / length.min(terms).max(1)).max(inner.min(64));
    let count = out.len();
    let target = Partition::new(out, grain);
    parallel_for(count, grain, |range| {
        let start = range.start;
        let out = target.take(range);
        dispatch(Segments { x, terms, inner, length, factor, start, out, fold: PhantomData::<F> });
    })
}

/// The outputs of [`segments_of`] from index `start` on.
struct Segments<'a, I, O, F> {
    x: &'a [I],
    terms: usize,
    inner: usize,
    length: usize,
    factor: f64,
    start: usize,
    out: &'a mut [MaybeUninit<O>],
    fold: PhantomData<F>,
}

impl<I: Element, O: Element, F: Fold> Kernel for Segments<'_, I, O, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let segments = self.terms.div_ceil(self.length).max(1);
        let (mut flat, mut out) = (self.start, self.out);
        let mut results = [0.0; BLOCK];
        while !out.is_empty() {
            let (row, column) = (flat / self.inner, flat % self.inner);
            let (plane, first) = (row / segments, row % segments * self.length);
            let width = (self.inner - column).min(out.len()).min(BLOCK);
            let x = &self.x[plane * self.terms * self.inner..];
            let terms = self.length.min(self.terms - first);
            if self.inner == 1 {
                results[0] = combined::<I, F>(&x[first..first + terms]);
            } else {
                let results = &mut results[..width];
                results.fill(F::START);
                for term in first..first + terms {
                    for (result, value) in results.iter_mut().zip(&x[term * self.inner + column..][..width]) {
                        *result = F::step(*result, value.to_f64());
                    }
                }
            }
            let (part, rest) = out.split_at_mut(width);
            for (out, result) in part.iter_mut().zip(&results) {
                out.write(O::from_f64(*result * self.factor));
            }
            (flat, out) = (flat + width, rest);
        }
    }
}

/// Reduces a row in sixteen lanes, which are combined in a fixed order. Each lane is a sequential reduction, the same on all
/// instruction sets.
#[inline(always)]
fn combined<I: Element, F: Fold>(row: &[I]) -> f64 {
    let mut lanes = [F::START; 16];
    let mut blocks = row.chunks_exact(16);
    for block in &mut blocks {
        for (lane, value) in lanes.iter_mut().zip(block) {
            *lane = F::step(*lane, value.to_f64());
        }
    }
    for (lane, value) in lanes.iter_mut().zip(blocks.remainder()) {
        *lane = F::step(*lane, value.to_f64());
    }
    let mut width = 8;
    while width > 0 {
        for i in 0..width {
            lanes[i] = F::step(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The gradient of a maximum or minimum: the output's gradient at the first element, in row-major order, that equals the
/// output.
pub(super) fn first_equal(x: &Tensor, y: &Tensor, gradient: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let kept = (0..x.rank()).filter(|axis| !axes.contains(axis));
    let order: Vec<usize> = kept.chain((0..x.rank()).filter(|axis| axes.contains(axis))).collect();
    let mut inverse = vec![0; order.len()];
    order.iter().enumerate().for_each(|(to, &from)| inverse[from] = to);
    let (x, y, gradient) = (x.permute(&order)?.contiguous()?, y.contiguous()?, gradient.contiguous()?);
    let terms = x.count() / y.count().max(1);
    let rows = (GRAIN / terms.max(1)).max(1);
    with_real!("reduce", x.dtype(), T => {
        let (values, y, gradient) = (x.as_slice::<T>()?, y.as_slice::<T>()?, gradient.as_slice::<T>()?);
        let mut builder = TensorBuilder::<T>::new("reduce", x.shape(), x.device())?;
        let target = Partition::new(builder.uninit()?, rows * terms);
        parallel_for(y.len(), rows, |range| {
            let out = target.take(range.start * terms..range.end * terms);
            out.fill(MaybeUninit::new(T::ZERO));
            for (row, output) in range.enumerate() {
                let same = |x: &T| x.partial_cmp(&y[output]).is_none_or(|order| order.is_eq());
                if let Some(first) = values[output * terms..][..terms].iter().position(same) {
                    out[row * terms + first].write(gradient[output]);
                }
            }
        })?;
        drop(target);
        // SAFETY: the chunks cover all rows, and each is filled.
        unsafe { builder.assume_init() }.permute(&inverse)
    })
}

/// The position of the first maximum along the middle axis of (outer, size, inner); a NaN counts as the largest.
pub(super) fn arg_max(x: &Tensor, axis: usize, shape: &[usize]) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (size, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    let mut builder = TensorBuilder::<i64>::new("arg_max", shape, x.device())?;
    let out = builder.uninit()?;
    let grain = (GRAIN / size.max(1)).max(64);
    let count = out.len();
    let target = Partition::new(out, grain);
    with_real!("arg_max", x.dtype(), T => {
        let values = x.as_slice::<T>()?;
        parallel_for(count, grain, |range| {
            let start = range.start;
            dispatch(ArgMaxima { x: values, size, inner, start, out: target.take(range) });
        })
    })?;
    drop(target);
    // SAFETY: the chunks cover all outputs, and each writes all of its own.
    Ok(unsafe { builder.assume_init() })
}

struct ArgMaxima<'a, T> {
    x: &'a [T],
    size: usize,
    inner: usize,
    start: usize,
    out: &'a mut [MaybeUninit<i64>],
}

impl<T: Real> Kernel for ArgMaxima<'_, T> {
    type Output = ();

    #[inline(always)]
    #[allow(clippy::eq_op, reason = "a NaN isn't equal to itself")]
    fn run<S: Simd>(self, _: S) {
        let (mut flat, mut out) = (self.start, self.out);
        let (mut best, mut place) = ([T::ZERO; BLOCK], [0i64; BLOCK]);
        while !out.is_empty() {
            let (plane, column) = (flat / self.inner, flat % self.inner);
            let width = (self.inner - column).min(out.len()).min(BLOCK);
            let x = &self.x[plane * self.size * self.inner + column..];
            let (best, place) = (&mut best[..width], &mut place[..width]);
            best.copy_from_slice(&x[..width]);
            place.fill(0);
            for i in 1..self.size {
                for ((best, place), &value) in best.iter_mut().zip(&mut *place).zip(&x[i * self.inner..][..width]) {
                    let larger = (value > *best) | ((value != value) & (*best == *best));
                    *best = if larger { value } else { *best };
                    *place = if larger { i as i64 } else { *place };
                }
            }
            let (part, rest) = out.split_at_mut(width);
            part.write_copy_of_slice(place);
            (flat, out) = (flat + width, rest);
        }
    }
}
