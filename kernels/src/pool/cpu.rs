//! Max pooling on the CPU: a vector of outputs at a time, looping over the taps of their windows.

use std::mem::MaybeUninit;

use tomograd_core::{DType, Element, Result, Tensor, TensorBuilder};

use super::window::{Windows, winner_dtype};
use crate::{
    parallel::{Partition, parallel_for},
    simd::{Kernel, Real, Simd, Vector, dispatch},
};

/// Comparisons in a parallel chunk: about 50 µs of work.
const GRAIN: usize = 1 << 14;

/// The maxima and, if `keep`, the index of each maximum in its window.
pub(super) fn maximum<T: Real>(
    operation: &str,
    x: &Tensor,
    windows: &[Windows; 3],
    shape: &[usize],
    keep: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let x = x.contiguous()?;
    if !keep {
        return Ok((rows::<T, u8>(operation, &x, windows, shape, None)?, None));
    }
    fn with_winners<T: Real, I: Element>(
        operation: &str,
        x: &Tensor,
        windows: &[Windows; 3],
        shape: &[usize],
    ) -> Result<(Tensor, Option<Tensor>)> {
        let mut winners = TensorBuilder::<I>::new(operation, shape, x.device())?;
        let y = rows::<T, I>(operation, x, windows, shape, Some(winners.uninit()?))?;
        // SAFETY: `rows` writes every index.
        Ok((y, Some(unsafe { winners.assume_init() })))
    }
    match winner_dtype(windows) {
        DType::U8 => with_winners::<T, u8>(operation, &x, windows, shape),
        _ => with_winners::<T, i32>(operation, &x, windows, shape),
    }
}

fn rows<T: Real, I: Element>(
    operation: &str,
    x: &Tensor,
    windows: &[Windows; 3],
    shape: &[usize],
    winners: Option<&mut [MaybeUninit<I>]>,
) -> Result<Tensor> {
    let mut builder = TensorBuilder::<T>::new(operation, shape, x.device())?;
    let [depth, height, width] = windows;
    let row = width.output();
    let grain = (GRAIN / (depth.most() * height.most() * width.most() * row).max(1)).max(1);
    let target = builder.uninit()?;
    let count = if target.is_empty() { 0 } else { target.len() / row };
    let (out, winners) = (Partition::new(target, grain * row), winners.map(|slice| Partition::new(slice, grain * row)));
    let (x, interior) = (x.as_slice::<T>()?, interior(width));
    parallel_for(count, grain, |chunk| {
        let range = chunk.start * row..chunk.end * row;
        let winners = winners.as_ref().map(|winners| winners.take(range.clone()));
        let out = out.take(range);
        dispatch(Rows { x, windows, interior, first: chunk.start, out, winners });
    })?;
    drop(out);
    // SAFETY: the chunks cover all rows, and each writes all of its own.
    Ok(unsafe { builder.assume_init() })
}

/// The range of outputs of a row whose windows lie completely inside the input, and the stride between windows.
#[derive(Clone, Copy)]
struct Interior {
    from: usize,
    to: usize,
    stride: usize,
}

fn interior(width: &Windows) -> Interior {
    let (most, output) = (width.most(), width.output());
    let from = width.counts.iter().position(|&count| count == most).unwrap_or(output);
    // Where the dilation is above the stride, the window behind one that was clipped may start before it.
    let stride = match width.starts.get(from..from + 2) {
        Some(&[first, second]) if second > first => second - first,
        _ => 1,
    };
    let regular = |o: &usize| width.counts[*o] == most && width.starts[*o] == width.starts[from] + (*o - from) * stride;
    let to = (from..output).take_while(regular).last().map_or(from, |last| last + 1);
    Interior { from, to, stride }
}

/// A range of rows of the output.
struct Rows<'a, T, I> {
    x: &'a [T],
    windows: &'a [Windows; 3],
    interior: Interior,
    first: usize,
    out: &'a mut [MaybeUninit<T>],
    winners: Option<&'a mut [MaybeUninit<I>]>,
}

impl<T: Real, I: Element> Kernel for Rows<'_, T, I> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let [depth, height, width] = self.windows;
        let row = width.output();
        let (mut h, plane) = (self.first % height.output(), self.first / height.output());
        let (mut d, mut image) = (plane % depth.output(), plane / depth.output());
        // The rows of x in the windows of an output row.
        let mut rows: Vec<&[T]> = Vec::new();
        for (local, out) in self.out.chunks_exact_mut(row).enumerate() {
            rows.clear();
            for i in 0..depth.counts[d] {
                for j in 0..height.counts[h] {
                    let (z, y) = (depth.starts[d] + i * depth.step, height.starts[h] + j * height.step);
                    let from = ((image * depth.input + z) * height.input + y) * width.input;
                    rows.push(&self.x[from..][..width.input]);
                }
            }
            match &mut self.winners {
                Some(winners) => {
                    let winners = &mut winners[local * row..][..row];
                    maxima::<S, T, I, true>(&rows, width, self.interior, out, winners);
                }
                None => maxima::<S, T, I, false>(&rows, width, self.interior, out, &mut []),
            }
            h += 1;
            if h == height.output() {
                (h, d) = (0, d + 1);
            }
            if d == depth.output() {
                (d, image) = (0, image + 1);
            }
        }
    }
}

/// The running maxima of a vector of windows, and their indices in the windows.
#[derive(Clone, Copy)]
struct Largest<V>(V, V);

impl<V: Vector> Largest<V> {
    /// Compares with the next voxel of each window, and records its index if `KEEP`. A NaN replaces any number, and a later
    /// NaN replaces an earlier one.
    #[inline(always)]
    fn update<const KEEP: bool>(&mut self, values: V, number: usize) {
        let Largest(largest, winner) = *self;
        let is_number = values.eq(values);
        if KEEP {
            let this = V::splat(V::Elem::from_f64(number as f64));
            self.1 = V::select(is_number, V::select(largest.lt(values), this, winner), this);
        }
        self.0 = V::select(is_number, values.max(largest), values);
    }
}

/// The first two vectors of a row, which may end before them.
#[inline(always)]
fn pair<S: Simd, T: Real>(row: &[T]) -> [T::Vec<S>; 2] {
    let lanes = T::Vec::<S>::LANES;
    if row.len() < lanes {
        return [T::Vec::<S>::load_partial(row), T::Vec::<S>::zero()];
    }
    [T::Vec::<S>::load(row), T::Vec::<S>::load_partial(&row[lanes..])]
}

/// The maxima of a row of windows over the given rows of x, and their indices if `KEEP`.
#[inline(always)]
fn maxima<S: Simd, T: Real, I: Element, const KEEP: bool>(
    rows: &[&[T]],
    width: &Windows,
    Interior { from, to, stride }: Interior,
    out: &mut [MaybeUninit<T>],
    winners: &mut [MaybeUninit<I>],
) {
    let lanes = T::Vec::<S>::LANES;
    let mut done = from..from;
    if stride == 1 || stride == 2 {
        let most = width.most();
        // A row of fewer windows than lanes is a single vector, the rest of which isn't used.
        let count = lanes.min(to - from);
        while done.end < to {
            // The last vector may overlap the one before; computing these windows again changes nothing.
            let o = done.end.min(to - count);
            let nothing = Largest(T::Vec::<S>::splat(-T::INFINITY), T::Vec::<S>::zero());
            let mut best = nothing;
            if stride == 2 && width.step == 1 && !KEEP {
                // First the maximum over the rows, which needs no shuffling of lanes.
                for t in (0..most).step_by(2) {
                    let (mut first, mut second) = (nothing, nothing);
                    for x in rows {
                        let [low, high] = pair::<S, T>(&x[width.starts[o] + t..]);
                        first.update::<KEEP>(low, 0);
                        // The last odd element may lie beyond the row; it isn't used then.
                        second.update::<KEEP>(high, 0);
                    }
                    best.update::<KEEP>(first.0.even(second.0), 0);
                    if t + 1 < most {
                        best.update::<KEEP>(first.0.odd(second.0), 0);
                    }
                }
            } else {
                for (i, x) in rows.iter().enumerate() {
                    let mut t = 0;
                    while t < most {
                        let [first, second] = pair::<S, T>(&x[width.starts[o] + t * width.step..]);
                        if stride == 1 {
                            best.update::<KEEP>(first, i * most + t);
                            t += 1;
                            continue;
                        }
                        best.update::<KEEP>(first.even(second), i * most + t);
                        t += 1;
                        if width.step == 1 && t < most {
                            best.update::<KEEP>(first.odd(second), i * most + t);
                            t += 1;
                        }
                    }
                }
            }
            let place = out[o..o + count].as_mut_ptr().cast::<T>();
            // SAFETY: `place` has `count` elements, at most a vector.
            unsafe { best.0.store_partial_ptr(place, count) };
            if KEEP {
                let mut numbers = [T::ZERO; 16];
                best.1.store(&mut numbers);
                for (to, number) in winners[o..o + count].iter_mut().zip(numbers) {
                    to.write(I::from_f64(number.to_f64()));
                }
            }
            done.end = o + count;
        }
    }
    for o in (0..done.start).chain(done.end..out.len()) {
        let (mut best, mut winner) = (-T::INFINITY, 0);
        for (i, x) in rows.iter().enumerate() {
            for t in 0..width.counts[o] {
                let value = x[width.starts[o] + t * width.step];
                if best < value || value.partial_cmp(&value).is_none() {
                    (best, winner) = (value, i * width.counts[o] + t);
                }
            }
        }
        out[o].write(best);
        if KEEP {
            winners[o].write(I::from_f64(winner as f64));
        }
    }
}

/// The gradient of x: the gradient of each maximum is added at the voxel of the maximum.
pub(super) fn maximum_gradient<T: Real>(
    operation: &str,
    dy: &Tensor,
    winners: &Tensor,
    windows: &[Windows; 3],
    shape: &[usize],
) -> Result<Tensor> {
    match winners.dtype() {
        DType::U8 => scatter::<T, u8>(operation, dy, winners, windows, shape),
        _ => scatter::<T, i32>(operation, dy, winners, windows, shape),
    }
}

fn scatter<T: Real, I: Element>(
    operation: &str,
    dy: &Tensor,
    winners: &Tensor,
    [depth, height, width]: &[Windows; 3],
    shape: &[usize],
) -> Result<Tensor> {
    let mut builder = TensorBuilder::<T>::new(operation, shape, dy.device())?;
    let dy = dy.contiguous()?;
    let (dy, winners) = (dy.as_slice::<T>()?, winners.as_slice::<I>()?);
    let images = shape[0] * shape[1];
    let (inputs, outputs) =
        (depth.input * height.input * width.input, depth.output() * height.output() * width.output());
    // An image is processed by a single chunk, since windows may overlap.
    let grain = (GRAIN / inputs.max(1)).max(1);
    let target = Partition::new(builder.uninit()?, grain * inputs);
    parallel_for(images, grain, |chunk| {
        let dx = target.take(chunk.start * inputs..chunk.end * inputs);
        dx.fill(MaybeUninit::new(T::ZERO));
        // SAFETY: `dx` was just filled.
        let dx = unsafe { dx.assume_init_mut() };
        for (image, dx) in chunk.zip(dx.chunks_exact_mut(inputs.max(1))) {
            let mut o = image * outputs;
            for (&z, &count_d) in depth.starts.iter().zip(&depth.counts) {
                for (&y, &count_h) in height.starts.iter().zip(&height.counts) {
                    for (&x, &count) in width.starts.iter().zip(&width.counts) {
                        // A window without voxels has no maximum.
                        if count_d * count_h * count > 0 {
                            let winner = winners[o].to_f64() as usize;
                            let (row, column) = (winner / count, winner % count);
                            let (i, j) = (z + row / count_h * depth.step, y + row % count_h * height.step);
                            dx[(i * height.input + j) * width.input + x + column * width.step] += dy[o];
                        }
                        o += 1;
                    }
                }
            }
        }
    })?;
    drop(target);
    // SAFETY: every image was filled.
    Ok(unsafe { builder.assume_init() })
}
