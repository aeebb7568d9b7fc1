//! Separable linear maps on the CPU: a row of outputs is a weighted sum of rows of the input, mapped along the row.
//!
//! Each row of the input is read once for every row of outputs that it reaches, mostly from the cache, and no intermediate
//! volume is written. Sums run in the order of the taps, by fused multiply-add.

use std::mem::{MaybeUninit, replace};

use tomograd_core::{Result, Scratch, Tensor, TensorBuilder};

use super::axis::{AxisMap, Run};
use crate::{
    parallel::{Partition, parallel_for},
    simd::{Kernel, Real, Simd, Vector, dispatch},
};

/// Multiply-adds of a parallel chunk: about 50 µs of work.
const GRAIN: usize = 1 << 17;
/// Rows that are summed in registers before they meet the row's sum: long sums round less.
const ROWS: usize = 8;
/// What vectors may read beyond a row.
const SLACK: usize = 32;

/// `x` (N, C, spatial...) mapped along its spatial axes (three, leading ones of size 1) to `shape`.
pub(crate) fn separable<T: Real>(operation: &str, x: &Tensor, axes: &[AxisMap; 3], shape: &[usize]) -> Result<Tensor> {
    let x = x.contiguous()?;
    let mut builder = TensorBuilder::<T>::new(operation, shape, x.device())?;
    let target = builder.uninit()?;
    let [depth, height, width] = axes;
    let rows = x.shape()[0] * x.shape()[1] * depth.output() * height.output();
    if target.is_empty() {
        // SAFETY: there is nothing to write.
        return Ok(unsafe { builder.assume_init() });
    }
    let most = |axis: &AxisMap| axis.weights.iter().map(Vec::len).max().unwrap_or(0);
    let work = most(depth) * most(height) * width.input + most(width) * width.output();
    let grain = (GRAIN / work.max(1)).max(1);
    let total = width.weights.iter().map(Vec::len).sum();
    let plan = Plan {
        x: x.as_slice::<T>()?,
        axes,
        plain: width.is_identity(),
        run: width.run(),
        begins: width
            .weights
            .iter()
            .scan(0, |end, taps| Some(replace(end, *end + taps.len())))
            .chain([total])
            .collect(),
        weights: width.weights.iter().flatten().map(|&weight| T::from_f64(weight)).collect(),
    };
    let parts = Partition::new(target, grain * width.output());
    parallel_for(rows, grain, |chunk| {
        let out = parts.take(chunk.start * width.output()..chunk.end * width.output());
        let mut scratch = match Scratch::<T>::new(operation, width.input + SLACK) {
            Ok(scratch) => scratch,
            Err(error) => panic!("{error}"),
        };
        dispatch(Rows { plan: &plan, first: chunk.start, sum: scratch.zeroed(), out });
    })?;
    drop(parts);
    // SAFETY: the chunks cover all rows, and each writes all of its own.
    Ok(unsafe { builder.assume_init() })
}

struct Plan<'a, T> {
    x: &'a [T],
    axes: &'a [AxisMap; 3],
    /// Nothing happens along the rows.
    plain: bool,
    run: Option<Run>,
    /// Where the weights of each output of the last axis begin, and where they all end.
    begins: Vec<usize>,
    weights: Vec<T>,
}

impl<T> Plan<'_, T> {
    /// The weights of output `o` of the last axis.
    #[inline(always)]
    fn taps(&self, o: usize) -> &[T] {
        &self.weights[self.begins[o]..self.begins[o + 1]]
    }
}

/// Some rows of the output.
struct Rows<'a, T> {
    plan: &'a Plan<'a, T>,
    first: usize,
    /// A row of the input's width, and slack.
    sum: &'a mut [T],
    out: &'a mut [MaybeUninit<T>],
}

impl<T: Real> Kernel for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Plan { x, axes: [depth, height, width], .. } = self.plan;
        let mut rows: Vec<(&[T], T)> = Vec::new();
        for (index, out) in (self.first..).zip(self.out.chunks_exact_mut(width.output())) {
            let (image, d, h) = (
                index / (depth.output() * height.output()),
                index / height.output() % depth.output(),
                index % height.output(),
            );
            rows.clear();
            for (i, &weight_d) in (depth.starts[d]..).zip(&depth.weights[d]) {
                for (j, &weight_h) in (height.starts[h]..).zip(&height.weights[h]) {
                    let row = &x[((image * depth.input + i) * height.input + j) * width.input..][..width.input];
                    rows.push((row, T::from_f64(weight_d * weight_h)));
                }
            }
            let sum = &mut self.sum[..width.input];
            if rows.is_empty() {
                sum.fill(T::ZERO);
            }
            for (i, rows) in rows.chunks(ROWS).enumerate() {
                sum_rows::<S, T>(rows, i > 0, sum);
            }
            if self.plan.plain {
                out.write_copy_of_slice(sum);
            } else {
                along::<S, T>(self.plan, self.sum, out);
            }
        }
    }
}

/// `sum = Σ weight · row` (+ `sum`).
#[inline(always)]
fn sum_rows<S: Simd, T: Real>(rows: &[(&[T], T)], add: bool, sum: &mut [T]) {
    let (lanes, count) = (T::Vec::<S>::LANES, sum.len());
    for i in (0..count).step_by(lanes) {
        let part = lanes.min(count - i);
        let mut total = T::Vec::<S>::zero();
        for (row, weight) in rows {
            total = load::<S, T>(&row[i..i + part], part == lanes).mul_add(T::Vec::<S>::splat(*weight), total);
        }
        let to = &mut sum[i..i + part];
        if add {
            total = total.add(load::<S, T>(to, part == lanes));
        }
        if part == lanes { total.store(to) } else { total.store_partial(to) }
    }
}

#[inline(always)]
fn load<S: Simd, T: Real>(from: &[T], whole: bool) -> T::Vec<S> {
    if whole { T::Vec::<S>::load(from) } else { T::Vec::<S>::load_partial(from) }
}

/// The map along a row; `sum` has slack behind it.
#[inline(always)]
fn along<S: Simd, T: Real>(plan: &Plan<'_, T>, sum: &[T], out: &mut [MaybeUninit<T>]) {
    let lanes = T::Vec::<S>::LANES;
    let starts = &plan.axes[2].starts;
    let mut done = 0..0;
    if let Some(Run { phases, step, from, to }) = plan.run {
        // So many outputs are written at a time. The last time, some are written again, with the same bits.
        let width = lanes * phases;
        let mut o = from;
        while to - from >= width && o < to {
            o = o.min(to - width);
            let first = phase::<S, T>(plan.taps(o), &sum[starts[o]..], step);
            let place = out[o..o + width].as_mut_ptr().cast::<T>();
            if phases == 1 {
                // SAFETY: the place was cut to `width` elements, as many as one vector has.
                unsafe { first.store_ptr(place) };
            } else {
                let second = phase::<S, T>(plan.taps(o + 1), &sum[starts[o + 1]..], step);
                let (low, high) = first.interleave(second);
                // SAFETY: the place was cut to `width` elements, as many as two vectors have.
                unsafe {
                    low.store_ptr(place);
                    high.store_ptr(place.add(lanes));
                }
            }
            o += width;
            done = from..o;
        }
    }
    for part in [0..done.start, done.end..out.len()] {
        for o in part {
            let mut total = T::ZERO;
            for (&weight, &x) in plan.taps(o).iter().zip(&sum[starts[o]..]) {
                total = x.mul_add(weight, total);
            }
            out[o].write(total);
        }
    }
}

/// Outputs whose taps start at `x[0]`, `x[step]`, ...
#[inline(always)]
fn phase<S: Simd, T: Real>(weights: &[T], x: &[T], step: usize) -> T::Vec<S> {
    let lanes = T::Vec::<S>::LANES;
    let mut total = T::Vec::<S>::zero();
    for (t, &weight) in weights.iter().enumerate() {
        let values = match step {
            0 => T::Vec::<S>::splat(x[t]),
            1 => T::Vec::<S>::load(&x[t..]),
            _ => T::Vec::<S>::load(&x[t..]).even(T::Vec::<S>::load(&x[t + lanes..])),
        };
        total = values.mul_add(T::Vec::<S>::splat(weight), total);
    }
    total
}
