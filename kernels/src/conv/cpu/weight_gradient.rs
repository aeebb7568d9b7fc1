//! The backward pass with respect to the weights: `dw[o, c, k] = Σ_p dy[o, p] x[c, p · stride + k · dilation - padding]`.
//!
//! Vectors hold output channels, so no sum crosses lanes: dy is packed with the channels of a position next to each other,
//! and a register tile multiplies them with broadcast elements of x, one for each of some (channel, tap) pairs. Each weight
//! is a chain of FMAs over the positions of a box; boxes are added in order, and slabs of boxes in a fixed tree.

use super::pack::{Reading, Tap, equal_blocks};
use super::tensors::Inputs;
use crate::conv::ConvShape;
use crate::parallel::{PartialSlots, Partition, or_give_up, parallel_for};
use crate::simd::{Kernel, Real, Simd, Vector, dispatch, sum, transpose};
use std::mem::MaybeUninit;
use std::ops::Range;
use tomograd_core::{Result, Scratch};

/// The largest number of positions of a box, and of elements of a packed block of x.
const POSITIONS: usize = 2048;
const PACKED: usize = 128 << 10;
/// Output channels of a chunk. Each chunk packs x again, so the larger number is preferred if at least [`FEW`] chunks remain.
pub(super) const OUTPUTS: [usize; 2] = [128, 64];
/// The number of chunks that is sufficient for a few threads, and the number that slabs aim at.
const FEW: usize = 4;
const CHUNKS: usize = 8;
/// The least number of multiply-adds of a parallel chunk.
const CHUNK_WORK: usize = 4 << 20;

struct WeightGradient<'a, T> {
    shape: &'a ConvShape,
    x: Inputs<'a, T>,
    dy: &'a [T],
    reading: Reading,
    positions: [usize; 3],
    block: [usize; 3],
    blocks: [usize; 3],
    channel_block: usize,
    output_block: usize,
    output_blocks: usize,
    slabs: usize,
    /// Whether three consecutive taps read three consecutive elements.
    triples: bool,
}

/// Computes the gradient of the weights; every element of `dw` is written.
pub(super) fn backward_weights<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    dy: &[T],
    dw: &mut [MaybeUninit<T>],
) -> Result<()> {
    let mut taps = Vec::with_capacity(shape.taps());
    for z in 0..shape.kernel[0] {
        for y in 0..shape.kernel[1] {
            for x in 0..shape.kernel[2] {
                let at = [z, y, x];
                let shift = std::array::from_fn(|axis| {
                    (at[axis] * shape.dilation[axis]) as isize - shape.padding[axis] as isize
                });
                taps.push(Tap { shift, index: taps.len() });
            }
        }
    }
    let positions = shape.output();
    let count = shape.weight_count();
    if count == 0 {
        return Ok(());
    }
    if shape.batch == 0 || positions.contains(&0) {
        dw.fill(MaybeUninit::new(T::ZERO));
        return Ok(());
    }
    let reading = Reading::new(shape.stride, taps);
    let plane = positions[1] * positions[2];
    let block = if plane > POSITIONS {
        [1, equal_blocks(positions[1], (POSITIONS / positions[2]).max(1)), positions[2]]
    } else {
        [equal_blocks(positions[0], POSITIONS / plane), positions[1], positions[2]]
    };
    let blocks: [usize; 3] = std::array::from_fn(|axis| positions[axis].div_ceil(block[axis]));
    let boxes = shape.batch * blocks.iter().product::<usize>();
    let [most, fewer] = OUTPUTS;
    let enough = boxes * shape.groups * shape.group_outputs().div_ceil(most) >= FEW;
    let output_block = if enough { most } else { fewer };
    let output_blocks = shape.group_outputs().div_ceil(output_block);
    let chunks = shape.groups * output_blocks;
    let slabs = CHUNKS.div_ceil(chunks).min(boxes);
    let most = (PACKED / reading.channel_size(block).max(1)).max(1);
    let plan = WeightGradient {
        shape,
        x,
        dy,
        positions,
        block,
        blocks,
        channel_block: equal_blocks(shape.group_inputs(), most),
        output_block,
        output_blocks,
        slabs,
        triples: shape.kernel[2].is_multiple_of(3) && shape.stride[2] == 1 && shape.dilation[2] == 1,
        reading,
    };
    let work = shape.multiply_adds() / (chunks * slabs);
    let grain = (CHUNK_WORK / 2 / work.max(1)).max(1);
    if slabs == 1 {
        return plan.run(dw, chunks, grain);
    }
    let mut slots = Scratch::<T>::new("conv", count * slabs)?;
    plan.run(slots.uninit(), chunks, grain)?;
    // SAFETY: every slot was written whole.
    let slots = unsafe { std::slice::from_raw_parts_mut(slots.uninit().as_mut_ptr().cast::<T>(), count * slabs) };
    for (to, &from) in dw.iter_mut().zip(PartialSlots::filled(slots, count)?.sum()) {
        to.write(from);
    }
    Ok(())
}

impl<T: Real> WeightGradient<'_, T> {
    /// Computes a full-size partial gradient for each slab.
    fn run(&self, slots: &mut [MaybeUninit<T>], chunks: usize, grain: usize) -> Result<()> {
        // A chunk's channels are consecutive, but a group need not be a multiple of a block, so parts are single channels.
        let partition = Partition::new(slots, self.shape.group_inputs() * self.shape.taps());
        parallel_for(chunks * self.slabs, grain, |range| dispatch(Chunks { plan: self, range, partition: &partition }))
    }
}

struct Chunks<'a, T> {
    plan: &'a WeightGradient<'a, T>,
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

/// The width of a tile in vectors of output channels.
const VECTORS: usize = 2;

impl<T: Real> Chunks<'_, T> {
    #[inline(always)]
    fn chunk<S: Simd>(&self, index: usize) {
        let plan = self.plan;
        let shape = plan.shape;
        let (slab, index) = (index % plan.slabs, index / plan.slabs);
        let (group, output_block) = (index / plan.output_blocks, index % plan.output_blocks);
        let first_output = output_block * plan.output_block;
        let outputs = plan.output_block.min(shape.group_outputs() - first_output);
        let (inputs, taps) = (shape.group_inputs(), shape.taps());
        let lanes = T::Vec::<S>::LANES;
        // Output channels are processed in strips of a tile's width; the last strip may be one vector narrower.
        let padded = outputs.next_multiple_of(lanes);
        let pairs = inputs * taps;
        let scratch = |count: usize| or_give_up(Scratch::<T>::new("conv", count));
        let mut sums_scratch = scratch(pairs * padded);
        // Uninitialised: the first box overwrites the sums.
        let sums = sums_scratch.uninit().as_mut_ptr().cast::<T>();
        let channel_size = plan.reading.channel_size(plan.block);
        let box_positions: usize = plan.block.iter().product();
        let mut x_scratch = scratch(plan.channel_block * channel_size);
        let packed = x_scratch.uninit().as_mut_ptr().cast::<T>();
        let mut dy_scratch = scratch(box_positions * padded);
        let dy = dy_scratch.uninit().as_mut_ptr().cast::<T>();
        let tap_offsets = plan.reading.offsets(plan.block);
        let step = if plan.triples { 3 } else { 1 };
        let mut offsets = Vec::with_capacity(plan.channel_block * taps / step);
        for channel in 0..plan.channel_block {
            offsets.extend(tap_offsets.iter().step_by(step).map(|tap| channel * channel_size + tap));
        }
        let [_, pitch_y, pitch_x] = plan.reading.extent(plan.block);
        let boxes: usize = plan.blocks.iter().product();
        let all = shape.batch * boxes;
        let own = all * slab / plan.slabs..all * (slab + 1) / plan.slabs;
        for item in own.clone() {
            let (n, place) = (item / boxes, item % boxes);
            let [_, rows, columns] = plan.blocks;
            let place = [place / (rows * columns), place / columns % rows, place % columns];
            let start: [usize; 3] = std::array::from_fn(|axis| place[axis] * plan.block[axis]);
            let size: [usize; 3] = std::array::from_fn(|axis| plan.block[axis].min(plan.positions[axis] - start[axis]));
            // SAFETY: scratch has the size of a whole box; offsets and positions stay inside a packed channel.
            unsafe {
                self.pack_dy::<S>(n, group * shape.group_outputs() + first_output, outputs, start, size, dy);
                for first in (0..inputs).step_by(plan.channel_block) {
                    let channels = plan.channel_block.min(inputs - first);
                    let global = group * inputs + first;
                    plan.reading.pack::<S, T>(
                        &plan.x,
                        shape.input,
                        n,
                        global..global + channels,
                        start,
                        plan.block,
                        packed,
                    );
                    let offsets = &offsets[..channels * taps / step];
                    let mut strip = 0;
                    while strip < padded {
                        let vectors = ((padded - strip) / lanes).min(VECTORS);
                        let positions = Positions {
                            size,
                            pitch_y,
                            pitch_x,
                            x: packed,
                            dy: dy.add(strip * box_positions),
                            first: item == own.start,
                        };
                        let sums = sums.add(strip * pairs + first * taps * vectors * lanes);
                        match (vectors, plan.triples) {
                            (2, true) => positions.all::<S, 3, 2>(offsets, sums),
                            (2, false) => positions.all::<S, 1, 2>(offsets, sums),
                            (_, true) => positions.all::<S, 3, 1>(offsets, sums),
                            (_, false) => positions.all::<S, 1, 1>(offsets, sums),
                        }
                        strip += vectors * lanes;
                    }
                }
            }
        }
        let first_channel = slab * shape.out_channels + group * shape.group_outputs() + first_output;
        let to = self.partition.take(first_channel * pairs..(first_channel + outputs) * pairs);
        for strip in (0..outputs).step_by(VECTORS * lanes) {
            let width = (padded - strip).min(VECTORS * lanes);
            let columns = width.min(outputs - strip);
            // SAFETY: `sums` holds the strip whose channels `to` receives.
            unsafe {
                let to = to.as_mut_ptr().cast::<T>().add(strip * pairs);
                transpose::<T::Vec<S>>(sums.add(strip * pairs), width, [pairs, columns], to, pairs);
            }
        }
    }

    /// Packs dy of a box in strips of channels: `to[strip][position][channel]`, with zeros for padding channels.
    ///
    /// # Safety
    /// `to` has room for the padded channels of a whole box.
    #[inline(always)]
    unsafe fn pack_dy<S: Simd>(
        &self,
        n: usize,
        channel: usize,
        outputs: usize,
        start: [usize; 3],
        size: [usize; 3],
        to: *mut T,
    ) {
        let plan = self.plan;
        let lanes = T::Vec::<S>::LANES;
        let padded = outputs.next_multiple_of(lanes);
        let voxels: usize = plan.positions.iter().product();
        let box_positions: usize = plan.block.iter().product();
        let [_, height, width] = plan.positions;
        for strip in (0..padded).step_by(VECTORS * lanes) {
            let channels = (padded - strip).min(VECTORS * lanes);
            for z in 0..size[0] {
                for y in 0..size[1] {
                    let row = ((start[0] + z) * height + start[1] + y) * width + start[2];
                    let position = (z * size[1] + y) * size[2];
                    for first in (0..channels).step_by(8) {
                        let count = 8.min(channels - first);
                        let real = outputs.saturating_sub(strip + first).min(count);
                        // SAFETY: the row lies inside dy for real channels, and `to` by the caller's promise.
                        unsafe {
                            let to = to.add(strip * box_positions + position * channels + first);
                            let from = ((n * plan.shape.out_channels + channel + strip + first) * voxels + row)
                                * usize::from(real > 0);
                            let from = plan.dy.as_ptr().add(from);
                            let mut x = 0;
                            while real == 8 && x + 8 <= size[2] {
                                T::Vec::<S>::transpose_8x8(from.add(x), voxels, to.add(x * channels), channels);
                                x += 8;
                            }
                            while x < size[2] {
                                for i in 0..count {
                                    *to.add(x * channels + i) =
                                        if i < real { *from.add(i * voxels + x) } else { T::ZERO };
                                }
                                x += 1;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A box of positions: packed x with its pitches, and a strip of packed dy.
struct Positions<T> {
    size: [usize; 3],
    pitch_y: usize,
    pitch_x: usize,
    x: *const T,
    dy: *const T,
    /// Whether this is the first box, so that the sums are overwritten.
    first: bool,
}

impl<T: Real> Positions<T> {
    /// Adds to `sums[pair][V vectors]` for all pairs, `G` consecutive pairs from each offset.
    ///
    /// # Safety
    /// All elements at a position plus an offset are readable; `sums` has room for `G` pairs for each offset.
    #[inline(always)]
    unsafe fn all<S: Simd, const G: usize, const V: usize>(&self, offsets: &[usize], sums: *mut T) {
        let pair = V * T::Vec::<S>::LANES;
        let mut done = 0;
        // SAFETY: the caller's promise; each call takes the next offsets and their sums.
        unsafe {
            if !S::TILES {
                // One offset at a time, below.
            } else if S::WIDE {
                if const { G == 3 } {
                    while done + 4 <= offsets.len() {
                        self.some::<S, 4, G, V>(&offsets[done..], sums.add(done * G * pair));
                        done += 4;
                    }
                } else {
                    while done + 8 <= offsets.len() {
                        self.some::<S, 8, G, V>(&offsets[done..], sums.add(done * G * pair));
                        done += 8;
                    }
                }
            } else if const { G == 1 } {
                while done + 6 <= offsets.len() {
                    self.some::<S, 6, G, V>(&offsets[done..], sums.add(done * G * pair));
                    done += 6;
                }
            }
            if S::TILES {
                while done + 2 <= offsets.len() {
                    self.some::<S, 2, G, V>(&offsets[done..], sums.add(done * G * pair));
                    done += 2;
                }
            }
            while done < offsets.len() {
                self.some::<S, 1, G, V>(&offsets[done..], sums.add(done * G * pair));
                done += 1;
            }
        }
    }

    /// The register tile: `P * G` (channel, tap) pairs by `V` vectors of output channels.
    ///
    /// # Safety
    /// As [`all`](Self::all), for the first `P` offsets.
    #[inline(always)]
    unsafe fn some<S: Simd, const P: usize, const G: usize, const V: usize>(&self, offsets: &[usize], sums: *mut T) {
        let lanes = T::Vec::<S>::LANES;
        let [depth, rows, columns] = self.size;
        let mut totals = [[[T::Vec::<S>::zero(); V]; G]; P];
        // SAFETY: the caller's promise.
        unsafe {
            let mut dy = self.dy;
            for z in 0..depth {
                for y in 0..rows {
                    let row = (z * self.pitch_y + y) * self.pitch_x;
                    let from: [*const T; P] = std::array::from_fn(|p| self.x.add(offsets[p] + row));
                    for x in 0..columns {
                        let mut vectors = [T::Vec::<S>::zero(); V];
                        for (v, vector) in vectors.iter_mut().enumerate() {
                            *vector = T::Vec::<S>::load_ptr(dy.add(v * lanes));
                        }
                        dy = dy.add(V * lanes);
                        for (from, totals) in from.iter().zip(&mut totals) {
                            for (g, totals) in totals.iter_mut().enumerate() {
                                let factor = T::Vec::<S>::splat(*from.add(x + g));
                                for (total, vector) in totals.iter_mut().zip(vectors) {
                                    *total = factor.mul_add(vector, *total);
                                }
                            }
                        }
                    }
                }
            }
            for (i, total) in totals.as_flattened().as_flattened().iter().enumerate() {
                let to = sums.add(i * lanes);
                let before = if self.first { T::Vec::<S>::zero() } else { T::Vec::<S>::load_ptr(to) };
                before.add(*total).store_ptr(to);
            }
        }
    }
}

/// The gradient of the bias: the sum of dy over images and voxels. Runs of 4096 elements are summed in sixteen lanes, and
/// their sums in f64.
pub(super) fn backward_bias<T: Real>(shape: &ConvShape, dy: &[T], db: &mut [MaybeUninit<T>]) -> Result<()> {
    let voxels = shape.output_voxels();
    let grain = (CHUNK_WORK / 4 / (shape.batch * voxels).max(1)).max(1);
    let partition = Partition::new(db, grain);
    parallel_for(shape.out_channels, grain, |range| {
        let to = partition.take(range.clone());
        dispatch(BiasSums { shape, dy, range, voxels, to });
    })
}

struct BiasSums<'a, T> {
    shape: &'a ConvShape,
    dy: &'a [T],
    range: Range<usize>,
    voxels: usize,
    to: &'a mut [MaybeUninit<T>],
}

impl<T: Real> Kernel for BiasSums<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (channel, to) in self.range.zip(self.to) {
            let mut total = 0.0;
            for n in 0..self.shape.batch {
                let start = (n * self.shape.out_channels + channel) * self.voxels;
                for row in self.dy[start..start + self.voxels].chunks(4096) {
                    total += sum::<T::Vec<S>>(row).to_f64();
                }
            }
            to.write(T::from_f64(total));
        }
    }
}
