//! Depthwise convolution: each group has one input channel, and few outputs.
//!
//! There is nothing to block over channels: a channel's input is packed once, zero-padded and with strides taken apart, and
//! eight vectors of consecutive positions stay in registers while all taps go by. Positions are one flat range over padded
//! rows, as in the dense path. For the weights, vectors run over positions in sixteen virtual lanes.

mod rows;
mod weights;

pub(super) use weights::backward_weights;

use crate::conv::ConvShape;
use crate::conv::cpu::epilogue::{Epilogue, Finish, MomentSlots, PartialMoments, moments_of};
use crate::conv::cpu::source::{Reading, Tap, equal_blocks};
use crate::conv::cpu::tensors::{Inputs, Outputs};
use crate::parallel::parallel_for;
use crate::simd::{Kernel, Real, Simd, Vector, dispatch};
use rows::Rows;
use std::ops::Range;
use tomograd_core::{Result, Scratch};

/// Whether a shape goes this way.
pub(in crate::conv::cpu) fn suits(shape: &ConvShape) -> bool {
    shape.groups > 1 && shape.in_channels == shape.groups && (1..=4).contains(&shape.group_outputs())
}

/// Whether the backward pass with respect to the input does: it is the forward pass with taps turned round.
pub(in crate::conv::cpu) fn suits_backward_data(shape: &ConvShape) -> bool {
    suits(shape) && shape.out_channels == shape.groups && shape.stride == [1; 3]
}

/// Numbers of a packed box.
const PACKED: usize = 192 << 10;
/// Multiply-adds that a parallel chunk is worth.
const CHUNK_WORK: usize = 1 << 20;
/// Vectors of positions in registers.
const VECTORS: usize = 8;

struct Plan<'a, T> {
    batch: usize,
    channels: usize,
    /// Outputs of a channel.
    outputs: usize,
    source_size: [usize; 3],
    positions: [usize; 3],
    reading: Reading,
    /// Planes of a box.
    deep: usize,
    boxes: usize,
    weights: &'a [T],
    /// The kernel's height and width, if output rows can share the input rows that they read.
    shared_rows: Option<[usize; 2]>,
}

impl<'a, T: Real> Plan<'a, T> {
    fn forward(shape: &ConvShape, weights: &'a [T]) -> Self {
        let low = |axis: usize, at: usize| (at * shape.dilation[axis]) as isize - shape.padding[axis] as isize;
        Self::new(shape, shape.stride, low, [shape.input, shape.output()], weights)
    }

    fn backward_data(shape: &ConvShape, weights: &'a [T]) -> Self {
        let low = |axis: usize, at: usize| shape.padding[axis] as isize - (at * shape.dilation[axis]) as isize;
        Self::new(shape, [1; 3], low, [shape.output(), shape.input], weights)
    }

    fn new(
        shape: &ConvShape,
        step: [usize; 3],
        low: impl Fn(usize, usize) -> isize,
        [source_size, positions]: [[usize; 3]; 2],
        weights: &'a [T],
    ) -> Self {
        let mut taps = Vec::with_capacity(shape.taps());
        for z in 0..shape.kernel[0] {
            for y in 0..shape.kernel[1] {
                for x in 0..shape.kernel[2] {
                    taps.push(Tap { shift: [low(0, z), low(1, y), low(2, x)], index: taps.len() });
                }
            }
        }
        let reading = Reading::new(step, taps);
        let plane = reading.channel_size([1, positions[1], positions[2]]) / (1 + reading.halo[0]);
        let most = (PACKED / plane.max(1)).saturating_sub(reading.halo[0]).max(1);
        let deep = equal_blocks(positions[0], most);
        Plan {
            batch: shape.batch,
            channels: shape.groups,
            outputs: shape.group_outputs(),
            source_size,
            positions,
            boxes: positions[0].div_ceil(deep),
            deep,
            reading,
            weights,
            shared_rows: (step == [1; 3] && shape.kernel[1] > 1 && low(1, 1).abs_diff(low(1, 0)) == 1)
                .then_some([shape.kernel[1], shape.kernel[2]]),
        }
    }

    /// The box of positions that is packed at a time.
    fn block(&self) -> [usize; 3] {
        [self.deep, self.positions[1], self.positions[2]]
    }

    /// The flat range of a plane's positions.
    fn run_length(&self) -> usize {
        let [_, _, pitch] = self.reading.extent(self.block());
        (self.positions[1] - 1) * pitch + self.positions[2]
    }

    fn grain(&self, items: usize) -> usize {
        let work = self.positions.iter().product::<usize>() * self.reading.taps.len() * self.outputs;
        (CHUNK_WORK / (work * self.batch * self.channels / items.max(1)).max(1)).max(1)
    }

    fn run(&self, source: Inputs<'_, T>, epilogue: Epilogue<'_, T>, out: &Outputs<'_, T>) -> Result<()> {
        let items = self.batch * self.channels * self.boxes;
        if items == 0 || self.positions.contains(&0) {
            return Ok(());
        }
        let mut partial = PartialMoments::new(&epilogue, self.boxes)?;
        let slots = partial.as_mut().map(PartialMoments::slots);
        parallel_for(items, self.grain(items), |range| {
            let moments = slots.as_ref();
            dispatch(Channels { plan: self, range, source, epilogue: &epilogue, moments, out })
        })?;
        drop(slots);
        if let (Some(moments), Some(partial)) = (epilogue.moments, partial) {
            partial.join(moments);
        }
        Ok(())
    }
}

/// The forward pass.
pub(in crate::conv::cpu) fn forward<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    out: &Outputs<'_, T>,
) -> Result<()> {
    Plan::forward(shape, weights).run(x, epilogue, out)
}

/// The backward pass with respect to the input.
pub(in crate::conv::cpu) fn backward_data<T: Real>(
    shape: &ConvShape,
    dy: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    out: &Outputs<'_, T>,
) -> Result<()> {
    Plan::backward_data(shape, weights).run(dy, epilogue, out)
}

struct Channels<'a, T> {
    plan: &'a Plan<'a, T>,
    range: Range<usize>,
    source: Inputs<'a, T>,
    epilogue: &'a Epilogue<'a, T>,
    moments: Option<&'a MomentSlots<'a>>,
    out: &'a Outputs<'a, T>,
}

impl<T: Real> Kernel for Channels<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let plan = self.plan;
        let lanes = T::Vec::<S>::LANES;
        let block = plan.block();
        let channel_size = plan.reading.channel_size(block);
        let offsets = plan.reading.offsets(block);
        let [_, pitch_y, pitch] = plan.reading.extent(block);
        let run_length = plan.run_length();
        let [depth, height, width] = plan.positions;
        let sum_pitch = if plan.shared_rows.is_some() { width.next_multiple_of(lanes) } else { pitch };
        let room = (sum_pitch * height).max(run_length.next_multiple_of(lanes));
        let scratch = |count: usize| Scratch::<T>::new("conv", count).expect("memory for packing");
        let mut packed = scratch(channel_size + VECTORS * lanes);
        let packed = packed.zeroed().as_mut_ptr();
        let mut sums = scratch(room * plan.deep);
        let sums = sums.uninit().as_mut_ptr().cast::<T>();
        for item in self.range.clone() {
            let (index, channel) = (item % plan.boxes, item / plan.boxes);
            let (n, channel) = (channel / plan.channels, channel % plan.channels);
            let first = index * plan.deep;
            let planes = plan.deep.min(depth - first);
            // SAFETY: the packed channel holds all that positions and taps reach, and a tile more; sums hold whole vectors
            // of each plane; this item alone writes these planes of these channels.
            unsafe {
                let (size, channels) = (plan.source_size, channel..channel + 1);
                plan.reading.pack::<S, T>(&self.source, size, n, channels, [first, 0, 0], block, packed);
                for output in 0..plan.outputs {
                    let target = channel * plan.outputs + output;
                    let weights = &plan.weights[target * offsets.len()..(target + 1) * offsets.len()];
                    let finish = Finish::<S, T>::new(self.epilogue, target);
                    let to = self.out.channel(n, target, depth * height * width);
                    for z in 0..planes {
                        let (from, sums) = (packed.add(z * pitch_y * pitch).cast_const(), sums.add(z * room));
                        if let Some(kernel) = plan.shared_rows {
                            self.plane::<S>(kernel, from, pitch, &offsets, weights, sums, sum_pitch);
                        } else {
                            flat::<S, T>(run_length, from, &offsets, weights, sums);
                        }
                        for y in 0..height {
                            let row = std::slice::from_raw_parts_mut(sums.add(y * sum_pitch), width);
                            finish.row(row, to.add(((first + z) * height + y) * width), 1);
                        }
                    }
                    if let Some(moments) = self.moments {
                        let slot = (n * plan.channels * plan.outputs + target) * plan.boxes + index;
                        let row = |i: usize| {
                            let row = sums.add(i / height * room + i % height * sum_pitch).cast_const();
                            std::slice::from_raw_parts(row, width)
                        };
                        moments.set(slot, moments_of::<S, T>(planes * height, row));
                    }
                }
            }
        }
    }
}

impl<T: Real> Channels<'_, T> {
    /// A plane of sums where several output rows share the input rows that they read.
    ///
    /// # Safety
    /// `from` is readable for the plane's positions and two vectors more from each offset, `sums` writable for whole vectors.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn plane<S: Simd>(
        &self,
        kernel: [usize; 2],
        from: *const T,
        pitch: usize,
        offsets: &[usize],
        weights: &[T],
        sums: *mut T,
        sum_pitch: usize,
    ) {
        let lanes = T::Vec::<S>::LANES;
        let [_, height, width] = self.plan.positions;
        let rows = Rows { kernel, pitch, offsets, weights, sum_pitch };
        // SAFETY: the caller's promise.
        unsafe {
            let mut y = 0;
            while y < height {
                let count = if height - y >= 4 { 4 } else { 1 };
                for x in (0..width).step_by(2 * lanes) {
                    let (from, to) = (from.add(y * pitch + x), sums.add(y * sum_pitch + x));
                    match (count, width - x > lanes) {
                        (4, true) => rows.tile::<S, 4, 2>(from, to),
                        (4, false) => rows.tile::<S, 4, 1>(from, to),
                        (_, true) => rows.tile::<S, 1, 2>(from, to),
                        (_, false) => rows.tile::<S, 1, 1>(from, to),
                    }
                }
                y += count;
            }
        }
    }
}

/// The sums of a flat range of positions.
///
/// # Safety
/// `from` is readable for the range and a tile more from each offset, `to` writable for whole vectors.
#[inline(always)]
unsafe fn flat<S: Simd, T: Real>(length: usize, from: *const T, offsets: &[usize], weights: &[T], to: *mut T) {
    let lanes = T::Vec::<S>::LANES;
    let mut position = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while position < length {
            let (from, to) = (from.add(position), to.add(position));
            match (length - position).div_ceil(lanes) {
                VECTORS.. => {
                    tile::<S, T, VECTORS>(from, offsets, weights, to);
                    position += VECTORS * lanes;
                }
                4.. => {
                    tile::<S, T, 4>(from, offsets, weights, to);
                    position += 4 * lanes;
                }
                _ => {
                    tile::<S, T, 1>(from, offsets, weights, to);
                    position += lanes;
                }
            }
        }
    }
}

/// The sums of `V` vectors of positions over all taps, in sequence.
///
/// # Safety
/// `from` is readable for them from each offset, `to` writable.
#[inline(always)]
unsafe fn tile<S: Simd, T: Real, const V: usize>(from: *const T, offsets: &[usize], weights: &[T], to: *mut T) {
    let lanes = T::Vec::<S>::LANES;
    let mut sums = [T::Vec::<S>::zero(); V];
    // SAFETY: the caller's promise.
    unsafe {
        for (&offset, &weight) in offsets.iter().zip(weights) {
            let (from, weight) = (from.add(offset), T::Vec::<S>::splat(weight));
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = T::Vec::<S>::load_ptr(from.add(i * lanes)).mul_add(weight, *sum);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            sum.store_ptr(to.add(i * lanes));
        }
    }
}
