//! The gradient of the weights: products of the transformed input and the transformed output gradient, summed over tiles,
//! then transformed to the gradient of the taps.

use super::product::{Left, product, strip};
use super::transform::{self, IN, MOST_OUT, MOST_TAPS, POINTS};
use super::{Boxes, spaced};
use crate::conv::ConvShape;
use crate::conv::cpu::tensors::Inputs;
use crate::parallel::{PartialSlots, Partition, or_give_up, parallel_for};
use crate::simd::{Kernel, Real, Simd, Vector, dispatch, scatter};
use std::mem::MaybeUninit;
use std::ops::Range;
use tomograd_core::{Result, Scratch};

/// Output channels of the widest strip of any instruction set.
pub(in crate::conv::cpu) const STRIP: usize = 32;
/// The largest number of sums of a chunk, if a single strip allows it: the sums should stay in the L2 cache.
const SUMS: usize = 512 << 10;
/// The least number of tiles of a step: the sums are read and written once in each step.
const ENOUGH: usize = 96;
/// The number of chunks that keeps the threads busy.
const CHUNKS: usize = 8;

struct WinogradWeightGradient<'a, T> {
    shape: &'a ConvShape,
    x: Inputs<'a, T>,
    dy: Inputs<'a, T>,
    boxes: Boxes,
    /// Output channels of a chunk, and the number of chunks into which a group's output channels are split.
    outputs: usize,
    strips: usize,
    /// The number of chunks into which the boxes are split.
    slabs: usize,
}

/// Computes the gradient of the weights; every element of `dw` is written.
pub(in crate::conv::cpu) fn backward_weights<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    dy: &[T],
    dw: &mut [MaybeUninit<T>],
) -> Result<()> {
    let low = shape.padding.map(|padding| -(padding as isize));
    let boxes = Boxes::new(shape, low, [shape.input, shape.output()], shape.group_inputs(), true, ENOUGH);
    // Each chunk transforms the input again, so it computes the channels of two strips unless the sums would be too many.
    let two = POINTS * boxes.planes * boxes.padded * 2 * STRIP <= SUMS;
    let outputs = if two { 2 * STRIP } else { STRIP };
    let strips = shape.group_outputs().div_ceil(outputs);
    let chunks = shape.groups * strips;
    let slabs = CHUNKS.div_ceil(chunks).min(boxes.batch * boxes.count());
    if slabs == 0 {
        dw.fill(MaybeUninit::new(T::ZERO));
        return Ok(());
    }
    let plan =
        WinogradWeightGradient { shape, x, dy: Inputs::one(dy, shape.out_channels), boxes, outputs, strips, slabs };
    if slabs == 1 {
        return plan.run(dw, chunks);
    }
    let count = shape.weight_count();
    let mut slots = Scratch::<T>::new("conv", count * slabs)?;
    plan.run(slots.uninit(), chunks)?;
    // SAFETY: every slot was written whole.
    let slots = unsafe { std::slice::from_raw_parts_mut(slots.uninit().as_mut_ptr().cast::<T>(), count * slabs) };
    for (to, &from) in dw.iter_mut().zip(PartialSlots::filled(slots, count)?.sum()) {
        to.write(from);
    }
    Ok(())
}

impl<T: Real> WinogradWeightGradient<'_, T> {
    fn run(&self, slots: &mut [MaybeUninit<T>], chunks: usize) -> Result<()> {
        let partition = Partition::new(slots, self.shape.group_inputs() * self.shape.taps());
        parallel_for(chunks * self.slabs, 1, |range| dispatch(Chunks { plan: self, range, partition: &partition }))
    }
}

struct Chunks<'a, T> {
    plan: &'a WinogradWeightGradient<'a, T>,
    range: Range<usize>,
    partition: &'a Partition<'a, MaybeUninit<T>>,
}

impl<T: Real> Kernel for Chunks<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for chunk in self.range.clone() {
            self.chunk::<S>(chunk);
        }
    }
}

impl<T: Real> Chunks<'_, T> {
    #[inline(always)]
    fn chunk<S: Simd>(&self, index: usize) {
        let plan = self.plan;
        let (shape, boxes) = (plan.shape, &plan.boxes);
        let lanes = T::Vec::<S>::LANES;
        let (slab, index) = (index % plan.slabs, index / plan.slabs);
        let (group, first_output) = (index / plan.strips, index % plan.strips * plan.outputs);
        let outputs = plan.outputs.min(shape.group_outputs() - first_output);
        let padded_outputs = outputs.next_multiple_of(lanes);
        let inputs = shape.group_inputs();
        let scratch = |count: usize| or_give_up(Scratch::<T>::new("conv", count));
        let mut staging = scratch(boxes.staging::<S, T>());
        let staging = staging.uninit().as_mut_ptr().cast::<T>();
        let mut input = scratch(POINTS * boxes.point_size());
        let input = input.uninit().as_mut_ptr().cast::<T>();
        let tiles = boxes.step * boxes.tiles();
        let strips = padded_outputs.div_ceil(strip::<S, T>());
        let mut gradient = scratch(strips * POINTS * spaced(tiles * strip::<S, T>()));
        let gradient = gradient.uninit().as_mut_ptr().cast::<T>();
        let mut sums = scratch(POINTS * boxes.planes * boxes.padded * padded_outputs);
        let sums = sums.uninit().as_mut_ptr().cast::<T>();
        let all = boxes.batch * boxes.count();
        let mut started = false;
        for item in all * slab / plan.slabs..all * (slab + 1) / plan.slabs {
            let (n, own) = (item / boxes.count(), boxes.at(item % boxes.count()));
            let channels = group * inputs..(group + 1) * inputs;
            let first_channel = group * shape.group_outputs() + first_output;
            for (planes, fresh) in boxes.steps(own[0].clone()) {
                let outputs = first_channel..first_channel + outputs;
                // SAFETY: the scratch areas have the size of a whole step.
                unsafe {
                    boxes.transform::<S, T>(&plan.x, n, channels.clone(), 0..boxes.padded, &own, fresh, staging, input);
                    self.gradient::<S>(n, outputs, [&planes, &own[1]], staging, gradient);
                    self.multiply::<S>(input, gradient, &own, &planes, padded_outputs, sums, started);
                }
                started = true;
            }
        }
        let pairs = inputs * shape.taps();
        let first_channel = slab * shape.out_channels + group * shape.group_outputs() + first_output;
        let to = self.partition.take(first_channel * pairs..(first_channel + outputs) * pairs);
        // SAFETY: the sums contain at least one box, since no slab is empty.
        unsafe {
            if boxes.out == transform::outputs(3) {
                self.finish::<S, 3>(sums, padded_outputs, outputs, to);
            } else {
                self.finish::<S, 5>(sums, padded_outputs, outputs, to);
            }
        }
    }

    /// Transforms the gradient of the output to `to[strip][point][tile][channel]`, with the tiles of all rows of a step. The
    /// parts of tiles beyond the output are zeros.
    ///
    /// # Safety
    /// `staging` holds a row of tiles, and `to` a step.
    #[inline(always)]
    unsafe fn gradient<S: Simd>(
        &self,
        n: usize,
        channels: Range<usize>,
        [planes, rows]: [&Range<usize>; 2],
        staging: *mut T,
        to: *mut T,
    ) {
        let plan = self.plan;
        let lanes = T::Vec::<S>::LANES;
        let padded = channels.len().next_multiple_of(lanes);
        let out = plan.boxes.out;
        let width = out * plan.boxes.across;
        let tiles = planes.len() * rows.len() * plan.boxes.across;
        // The output as an input of `stage`: its own size, without padding.
        let view = Boxes { low: [0; 3], source: plan.boxes.output, ..plan.boxes.clone() };
        for first in (0..padded).step_by(lanes) {
            let [start, strip_width, offset, stride] = self.strip_of::<S>(first, padded, tiles);
            // SAFETY: a row of tiles is staged at a time; the strip has room for every point of every tile.
            unsafe {
                let to = to.add(offset + first - start);
                let mut tile = 0;
                for z in planes.clone() {
                    for y in rows.clone() {
                        let real = channels.len().saturating_sub(first).min(lanes);
                        let channel = channels.start + first;
                        for line in 0..out {
                            let at = [z as isize, (y * out + line) as isize];
                            let row = staging.add(line * width * lanes);
                            view.stage::<S, T>(&plan.dy, n, channel..channel + real, at, width, row);
                        }
                        for x in 0..plan.boxes.across {
                            let (from, to) = (staging.add(x * out * lanes), to.add(tile * strip_width));
                            if out == MOST_OUT {
                                transform::gradient::<T::Vec<S>, MOST_OUT>(from, width * lanes, lanes, to, stride);
                            } else {
                                transform::gradient::<T::Vec<S>, 2>(from, width * lanes, lanes, to, stride);
                            }
                            tile += 1;
                        }
                    }
                }
            }
        }
    }

    /// For the strip of the transformed gradient that contains `channel`: its first channel, its width, its offset, and the
    /// distance of its points.
    #[inline(always)]
    fn strip_of<S: Simd>(&self, channel: usize, padded: usize, tiles: usize) -> [usize; 4] {
        let widest = strip::<S, T>();
        let start = channel / widest * widest;
        let stride = spaced(tiles * widest);
        [start, widest.min(padded - start), start / widest * POINTS * stride, stride]
    }

    /// Adds the products of a step to `sums[strip][point][plane][input channel][output channel of the strip]`.
    ///
    /// # Safety
    /// `input` and `gradient` are transformed steps, and `sums` has room.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn multiply<S: Simd>(
        &self,
        input: *const T,
        gradient: *const T,
        own: &[Range<usize>; 2],
        step: &Range<usize>,
        padded_outputs: usize,
        sums: *mut T,
        accumulate: bool,
    ) {
        let boxes = &self.plan.boxes;
        let lanes = T::Vec::<S>::LANES;
        let in_plane = own[1].len() * boxes.across;
        let first_plane = step.start - own[0].start;
        let slots: Vec<usize> =
            (0..step.len() + boxes.planes - 1).map(|plane| boxes.slot(first_plane + plane)).collect();
        let (runs, k) = if boxes.merged(own) { (1, step.len() * in_plane) } else { (step.len(), in_plane) };
        for start in (0..padded_outputs).step_by(strip::<S, T>()) {
            let [_, width, offset, stride] = self.strip_of::<S>(start, padded_outputs, runs * k);
            for point in 0..POINTS {
                for plane in 0..boxes.planes {
                    // SAFETY: the caller's promise.
                    unsafe {
                        let a = input.add(point * boxes.point_size());
                        let left = Left { a, row: 1, step: boxes.padded, segments: &slots[plane..plane + runs], k };
                        let b = gradient.add(offset + point * stride);
                        let to = (start * POINTS + point * width) * boxes.planes + plane * width;
                        let c = sums.add(to * boxes.padded);
                        product::<S, T, false>(boxes.padded, width / lanes, left, b, c, accumulate);
                    }
                }
            }
        }
    }

    /// Transforms the sums to the gradient of the taps: `to[output channel][input channel][tap]`.
    ///
    /// # Safety
    /// `sums` is complete.
    #[inline(always)]
    unsafe fn finish<S: Simd, const TAPS: usize>(
        &self,
        sums: *const T,
        padded_outputs: usize,
        outputs: usize,
        to: &mut [MaybeUninit<T>],
    ) {
        let boxes = &self.plan.boxes;
        let lanes = T::Vec::<S>::LANES;
        let (inputs, planes) = (self.plan.shape.group_inputs(), boxes.planes);
        let mut taps = [[T::ZERO; 16]; MOST_TAPS * MOST_TAPS * MOST_TAPS];
        let per_plane = TAPS * TAPS;
        for first in (0..outputs).step_by(lanes) {
            let start = first / strip::<S, T>() * strip::<S, T>();
            let width = strip::<S, T>().min(padded_outputs - start);
            let real = lanes.min(outputs - first);
            for input in 0..inputs {
                for plane in 0..planes {
                    let mut points = [[T::Vec::<S>::zero(); IN]; IN];
                    for (point, value) in points.as_flattened_mut().iter_mut().enumerate() {
                        let at = (start * POINTS + point * width) * planes + plane * width;
                        let at = at * boxes.padded + input * width + first - start;
                        // SAFETY: the address lies inside the strip, by the caller's promise.
                        *value = unsafe { T::Vec::<S>::load_ptr(sums.add(at)) };
                    }
                    let vectors = transform::weights::<T::Vec<S>, TAPS>(points);
                    for (tap, value) in vectors.as_flattened().iter().enumerate() {
                        value.store(&mut taps[plane * per_plane + tap]);
                    }
                }
                let to = &mut to[(first * inputs + input) * planes * per_plane..];
                scatter::<T::Vec<S>>(&taps[..planes * per_plane], to, inputs * planes * per_plane, real);
            }
        }
    }
}
