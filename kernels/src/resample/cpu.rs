//! Separable linear maps on the CPU: an output row is a weighted sum of input rows, mapped along the row.
//!
//! If there are many more output rows than input rows, each input row is mapped first and the results are cached; otherwise
//! the sum comes first. Sums are chains of FMAs in the order of the taps.

use std::{
    mem::{MaybeUninit, replace},
    ops::Range,
};

use tomograd_core::{Result, Scratch, Tensor, TensorBuilder};

use super::axis::{AxisMap, Run};
use crate::{
    parallel::{Partition, or_give_up, parallel_for},
    simd::{Kernel, Real, Simd, Vector, dispatch},
};

/// Multiply-adds of a parallel chunk: about 50 µs of work.
const GRAIN: usize = 1 << 17;
/// Rows that are summed in registers before they are added to the row's sum, which reduces the rounding errors of long sums.
const ROWS: usize = 8;
/// If there are at least this many output rows for each input row, input rows are mapped first.
const MANY: usize = 3;
/// How many elements vectors may read beyond a row.
const SLACK: usize = 32;

/// Maps `x` (N, C, spatial...) along its spatial axes (three maps, the identity for missing leading axes) to `shape`.
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
    let plain = width.is_identity();
    let plan = SeparableMap {
        x: x.as_slice::<T>()?,
        axes,
        plain,
        planes: if !plain && depth.output() * height.output() >= MANY * depth.input * height.input {
            most(depth)
        } else {
            0
        },
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
        let rows = plan.planes * height.input;
        let room = width.input + SLACK + rows * width.output();
        let mut scratch = or_give_up(Scratch::<T>::new(operation, room));
        let mut held = or_give_up(Scratch::<i64>::new(operation, rows));
        let (sum, mapped) = scratch.zeroed().split_at_mut(width.input + SLACK);
        dispatch(Rows { plan: &plan, first: chunk.start, sum, mapped, held: held.zeroed(), out });
    })?;
    drop(parts);
    // SAFETY: the chunks cover all rows, and each writes all of its own.
    Ok(unsafe { builder.assume_init() })
}

struct SeparableMap<'a, T> {
    x: &'a [T],
    axes: &'a [AxisMap; 3],
    /// Whether the map along rows is the identity.
    plain: bool,
    /// If rows are mapped before they are summed: the number of input planes that are cached; otherwise 0.
    planes: usize,
    run: Option<Run>,
    /// The offset of the weights of each output of the last axis, and their total number.
    begins: Vec<usize>,
    weights: Vec<T>,
}

impl<T> SeparableMap<'_, T> {
    /// The weights of output `o` of the last axis.
    #[inline(always)]
    fn taps(&self, o: usize) -> &[T] {
        &self.weights[self.begins[o]..self.begins[o + 1]]
    }
}

/// A range of rows of the output.
struct Rows<'a, T> {
    plan: &'a SeparableMap<'a, T>,
    first: usize,
    /// A buffer for a row of the input's width, and slack.
    sum: &'a mut [T],
    /// Cached mapped rows of the input, plane by plane, and for each the number (from 1) of the plane to which it belongs.
    mapped: &'a mut [T],
    held: &'a mut [i64],
    out: &'a mut [MaybeUninit<T>],
}

impl<T: Real> Kernel for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let SeparableMap { x, axes: [depth, height, width], plain, planes, .. } = *self.plan;
        let mut rows: Vec<(*const T, T)> = Vec::new();
        let mut of_depth: Vec<(*const T, f64)> = Vec::new();
        let mut index = self.first;
        let mut out = std::mem::take(&mut self.out).chunks_exact_mut(width.output());
        while out.len() > 0 {
            // Rows of one output plane.
            let (plane, first) = (index / height.output(), index % height.output());
            let (image, d) = (plane / depth.output(), plane % depth.output());
            let count = out.len().min(height.output() - first);
            index += count;
            of_depth.clear();
            for (i, &weight) in (depth.starts[d]..).zip(&depth.weights[d]) {
                let plane = image * depth.input + i;
                let from = if planes > 0 {
                    self.map_plane::<S>(plane, i % planes, first..first + count)
                } else {
                    x[plane * height.input * width.input..].as_ptr()
                };
                of_depth.push((from, weight));
            }
            let length = if planes > 0 { width.output() } else { width.input };
            for (h, out) in (first..first + count).zip(&mut out) {
                rows.clear();
                for &(plane, weight_d) in &of_depth {
                    for (j, &weight_h) in (height.starts[h]..).zip(&height.weights[h]) {
                        rows.push((plane.wrapping_add(j * length), T::from_f64(weight_d * weight_h)));
                    }
                }
                // SAFETY: the planes have `height.input` rows of `length` elements. The output is written completely; it has
                // this length too if it is the destination of the sums.
                unsafe {
                    if plain || planes > 0 {
                        sums::<S, T>(&rows, out.as_mut_ptr().cast(), length);
                    } else {
                        sums::<S, T>(&rows, self.sum.as_mut_ptr(), length);
                        along::<S, T>(self.plan, self.sum, out);
                    }
                }
            }
        }
    }
}

impl<T: Real> Rows<'_, T> {
    /// Maps the rows of an input plane that some output rows read, unless they are cached, and returns the address of the
    /// plane. Planes that are used at the same time have different slots.
    #[inline(always)]
    fn map_plane<S: Simd>(&mut self, plane: usize, place: usize, outputs: Range<usize>) -> *const T {
        let [_, height, width] = self.plan.axes;
        let held = &mut self.held[place * height.input..][..height.input];
        let mapped = &mut self.mapped[place * height.input * width.output()..][..height.input * width.output()];
        for h in outputs {
            for j in (height.starts[h]..).take(height.weights[h].len()) {
                if held[j] == plane as i64 + 1 {
                    continue;
                }
                held[j] = plane as i64 + 1;
                let from = &self.plan.x[(plane * height.input + j) * width.input..];
                let row = crate::parallel::as_uninit(&mut mapped[j * width.output()..][..width.output()]);
                if from.len() >= self.sum.len() {
                    along::<S, T>(self.plan, from, row);
                } else {
                    // Vector loads would exceed the end of the input, so the row is copied first.
                    self.sum[..width.input].copy_from_slice(&from[..width.input]);
                    along::<S, T>(self.plan, self.sum, row);
                }
            }
        }
        mapped.as_ptr()
    }
}

/// `to = Σ weight · row`, in groups of [`ROWS`] rows.
///
/// # Safety
/// The rows are readable and `to` is writable for `count` elements.
#[inline(always)]
unsafe fn sums<S: Simd, T: Real>(rows: &[(*const T, T)], to: *mut T, count: usize) {
    let lanes = T::Vec::<S>::LANES;
    // SAFETY: the caller's promise; elements that are added to have been written before.
    unsafe {
        if rows.is_empty() {
            (0..count).for_each(|i| to.add(i).write(T::ZERO));
        }
        for (group, rows) in rows.chunks(ROWS).enumerate() {
            let mut i = 0;
            while i + 4 * lanes <= count {
                vectors::<S, T, 4>(rows, i, group > 0, to, lanes);
                i += 4 * lanes;
            }
            while i < count {
                vectors::<S, T, 1>(rows, i, group > 0, to, lanes.min(count - i));
                i += lanes;
            }
        }
    }
}

/// `V` vectors of [`sums`] from element `i` on; the last vector has `count` elements.
///
/// # Safety
/// As for [`sums`].
#[inline(always)]
unsafe fn vectors<S: Simd, T: Real, const V: usize>(
    rows: &[(*const T, T)],
    i: usize,
    add: bool,
    to: *mut T,
    count: usize,
) {
    let lanes = T::Vec::<S>::LANES;
    let mut totals = [T::Vec::<S>::zero(); V];
    // SAFETY: the caller's promise.
    unsafe {
        let load = |from: *const T| {
            if count == lanes { T::Vec::<S>::load_ptr(from) } else { T::Vec::<S>::load_partial_ptr(from, count) }
        };
        for &(row, weight) in rows {
            let weight = T::Vec::<S>::splat(weight);
            for (v, total) in totals.iter_mut().enumerate() {
                *total = load(row.add(i + v * lanes)).mul_add(weight, *total);
            }
        }
        for (v, mut total) in totals.into_iter().enumerate() {
            let to = to.add(i + v * lanes);
            if add {
                total = total.add(load(to));
            }
            if count == lanes { total.store_ptr(to) } else { total.store_partial_ptr(to, count) }
        }
    }
}

/// Applies the map along a row; `sum` has slack at its end.
#[inline(always)]
fn along<S: Simd, T: Real>(plan: &SeparableMap<'_, T>, sum: &[T], out: &mut [MaybeUninit<T>]) {
    let lanes = T::Vec::<S>::LANES;
    let starts = &plan.axes[2].starts;
    let mut done = 0..0;
    if let Some(Run { phases, step, from, to }) = plan.run {
        // This many outputs are written at a time. The last group may overlap the one before and write the same bits again.
        let width = lanes * phases;
        let mut o = from;
        while to - from >= width && o < to {
            o = o.min(to - width);
            let first = phase::<S, T>(plan.taps(o), &sum[starts[o]..], step);
            let place = out[o..o + width].as_mut_ptr().cast::<T>();
            if phases == 1 {
                // SAFETY: `place` has `width` elements, as many as one vector.
                unsafe { first.store_ptr(place) };
            } else {
                let second = phase::<S, T>(plan.taps(o + 1), &sum[starts[o + 1]..], step);
                let (low, high) = first.interleave(second);
                // SAFETY: `place` has `width` elements, as many as two vectors.
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

/// A vector of outputs whose taps start at `x[0]`, `x[step]`, ...
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
