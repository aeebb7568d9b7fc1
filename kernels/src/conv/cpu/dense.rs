//! The general convolution: a register tile over packed, zero-padded pieces of the input.
//!
//! A chunk is a box of output positions and some output channels of one group of one image. It packs the input that it
//! needs, a block of channels at a time, and runs the tile of matrix multiplication over it: the weights are the left matrix,
//! and each (channel, tap) is a row of the right one. Where rows are long, that row is read where it lies, at the tap's
//! offset: positions are taken as one flat range over padded rows, and what falls between two rows is thrown away. Where
//! rows are short, a tile's positions are first copied together (an implicit GEMM).
//!
//! Forward and backward-data are both this: the latter with one set of taps for each residue of the stride.

use super::source::{Reading, Tap, copy_row};
use super::tensors::{Activation, Epilogue, Inputs, Moments, Outputs};
use crate::conv::ConvShape;
use crate::matmul::cpu::tile::{panel_rows, tile, tile_columns};
use crate::parallel::{Partition, as_uninit, parallel_for};
use crate::simd::{Kernel, Lanes16, Real, Simd, Vector, dispatch, sum};
use std::mem::MaybeUninit;
use std::ops::Range;
use tomograd_core::{Result, Scratch};

/// Positions of a chunk, numbers of a packed block of the input, and (channel, tap) rows that are copied together.
const POSITIONS: usize = 2048;
const PACKED: usize = 128 << 10;
const COPIED_ROWS: usize = 192;
/// Multiply-adds that a parallel section is worth.
const CHUNK_WORK: usize = 4 << 20;

/// A grid of output positions that reads its source in one way. Forward there is one; backward-data has one for each
/// residue of the stride.
struct Part {
    reading: Reading,
    positions: [usize; 3],
    /// Where position 0 is written, and how far apart positions are.
    start: [usize; 3],
    spread: [usize; 3],
    /// The size of a chunk's box.
    block: [usize; 3],
    blocks: [usize; 3],
    copied: bool,
    channel_block: usize,
    /// Where its packed weights begin.
    weights: usize,
    /// Where its chunks begin.
    first_chunk: usize,
    /// Where its moments begin, of those of one channel.
    first_moment: usize,
}

/// Where a weight lies: `channel out * out + channel in * in + tap`.
#[derive(Clone, Copy)]
struct WeightStrides {
    group: usize,
    out: usize,
    inp: usize,
}

/// A convolution that is ready to run.
struct Plan<'a, T> {
    batch: usize,
    groups: usize,
    /// Channels of a group: read and written.
    inputs: usize,
    outputs: usize,
    source_size: [usize; 3],
    target_size: [usize; 3],
    parts: Vec<Part>,
    strides: WeightStrides,
    weights: &'a [T],
    /// Output channels of a chunk, and how many such blocks a group has.
    output_block: usize,
    output_blocks: usize,
    chunks: usize,
    packed_weights: usize,
    moments: usize,
}

/// The forward pass.
pub(super) fn forward<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    out: &Outputs<'_, T>,
) -> Result<()> {
    let mut taps = Vec::with_capacity(shape.taps());
    for_each_tap(shape.kernel, |index, at| {
        let shift =
            std::array::from_fn(|axis| (at[axis] * shape.dilation[axis]) as isize - shape.padding[axis] as isize);
        taps.push(Tap { shift, index });
    });
    let taps_count = shape.taps();
    let strides = WeightStrides {
        group: shape.weight_count() / shape.groups,
        out: shape.group_inputs() * taps_count,
        inp: taps_count,
    };
    let part = (Reading::new(shape.stride, taps), shape.output(), [0; 3], [1; 3]);
    let (inputs, outputs) = (shape.group_inputs(), shape.group_outputs());
    let plan = Plan::new(shape, [inputs, outputs], [shape.input, shape.output()], strides, weights, vec![part]);
    plan.run(x, epilogue, out)
}

/// The backward pass with respect to the input; also the transposed convolution, which has an epilogue.
pub(super) fn backward_data<T: Real>(
    shape: &ConvShape,
    dy: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    out: &Outputs<'_, T>,
) -> Result<()> {
    // Input coordinate i = q * stride + residue gets w[k] dy[p] where i + padding - k * dilation = p * stride.
    let mut parts = Vec::new();
    for_each_tap(shape.stride, |_, residue| {
        if (0..3).any(|axis| residue[axis] >= shape.input[axis]) {
            return;
        }
        let mut taps = Vec::new();
        for_each_tap(shape.kernel, |index, at| {
            let distance: [isize; 3] = std::array::from_fn(|axis| {
                (residue[axis] + shape.padding[axis]) as isize - (at[axis] * shape.dilation[axis]) as isize
            });
            if (0..3).all(|axis| distance[axis].rem_euclid(shape.stride[axis] as isize) == 0) {
                let shift = std::array::from_fn(|axis| distance[axis].div_euclid(shape.stride[axis] as isize));
                taps.push(Tap { shift, index });
            }
        });
        let positions = std::array::from_fn(|axis| (shape.input[axis] - residue[axis]).div_ceil(shape.stride[axis]));
        parts.push((Reading::new([1; 3], taps), positions, residue, shape.stride));
    });
    let taps = shape.taps();
    let strides =
        WeightStrides { group: shape.weight_count() / shape.groups, out: taps, inp: shape.group_inputs() * taps };
    let (inputs, outputs) = (shape.group_outputs(), shape.group_inputs());
    let plan = Plan::new(shape, [inputs, outputs], [shape.output(), shape.input], strides, weights, parts);
    plan.run(dy, epilogue, out)
}

fn for_each_tap(size: [usize; 3], mut f: impl FnMut(usize, [usize; 3])) {
    let mut index = 0;
    for z in 0..size[0] {
        for y in 0..size[1] {
            for x in 0..size[2] {
                f(index, [z, y, x]);
                index += 1;
            }
        }
    }
}

/// Cuts `size` into equal blocks of at most `most`.
pub(super) fn equal_blocks(size: usize, most: usize) -> usize {
    size.div_ceil(size.div_ceil(most.max(1)).max(1)).max(1)
}

/// Whether a chunk of `block` positions is better copied together, given what the flat range wastes; `outputs` channels
/// share the copy.
fn is_copied(reading: &Reading, block: [usize; 3], outputs: usize) -> bool {
    let tiles = |positions: usize| positions.div_ceil(48);
    let pitch = reading.extent(block)[2];
    let flat = block[0] * tiles((block[1] - 1) * pitch + block[2]);
    let dense = tiles(block[0] * block[1] * block[2]);
    // A row of a tile takes 12 cycles for every eight channels, and its copy about 4 and 1.3 for every piece of a row.
    let copy = 4.0 + 1.3 * (48.0 / block[2] as f64).max(1.0);
    let compute = 12.0 * (outputs as f64 / 8.0).ceil();
    (flat as f64) * compute > dense as f64 * (compute + copy)
}

impl<'a, T: Real> Plan<'a, T> {
    #[allow(clippy::type_complexity)]
    fn new(
        shape: &ConvShape,
        [inputs, outputs]: [usize; 2],
        [source_size, target_size]: [[usize; 3]; 2],
        strides: WeightStrides,
        weights: &'a [T],
        parts: Vec<(Reading, [usize; 3], [usize; 3], [usize; 3])>,
    ) -> Self {
        // All channels of a group share what a chunk packs, unless there are many of them or few boxes.
        let boxes: usize = parts.iter().map(|part| part.1.iter().product::<usize>().div_ceil(POSITIONS)).sum();
        let few = boxes * shape.batch * shape.groups * outputs.div_ceil(128) < 8;
        let output_block = equal_blocks(outputs.div_ceil(8), if few { 8 } else { 16 }) * 8;
        let mut plan = Plan {
            batch: shape.batch,
            groups: shape.groups,
            inputs,
            outputs,
            source_size,
            target_size,
            parts: Vec::new(),
            strides,
            weights,
            output_block,
            output_blocks: outputs.div_ceil(output_block),
            chunks: 0,
            packed_weights: 0,
            moments: 0,
        };
        for (reading, positions, start, spread) in parts {
            if positions.contains(&0) {
                continue;
            }
            // A box is some rows of one plane, or several planes.
            let plane = positions[1] * positions[2];
            let block = if plane > POSITIONS {
                let rows = equal_blocks(positions[1], (POSITIONS / positions[2]).max(1));
                [1, rows, positions[2]]
            } else {
                [equal_blocks(positions[0], POSITIONS / plane), positions[1], positions[2]]
            };
            let copied = is_copied(&reading, block, output_block.min(outputs));
            let taps = reading.taps.len().max(1);
            let fits = PACKED / reading.channel_size(block).max(1);
            let most = if copied { fits.min(COPIED_ROWS.div_ceil(taps)) } else { fits };
            let blocks: [usize; 3] = std::array::from_fn(|axis| positions[axis].div_ceil(block[axis]));
            let part = Part {
                positions,
                start,
                spread,
                block,
                blocks,
                copied,
                channel_block: equal_blocks(inputs, most.max(1)),
                weights: plan.packed_weights,
                first_chunk: plan.chunks,
                first_moment: plan.moments,
                reading,
            };
            let boxes: usize = blocks.iter().product();
            plan.packed_weights += plan.groups * plan.output_blocks * plan.weight_block(&part);
            plan.chunks += plan.batch * plan.groups * plan.output_blocks * boxes;
            plan.moments += boxes;
            plan.parts.push(part);
        }
        plan
    }

    /// Numbers of the packed weights of a block of output channels, for any panel's width.
    fn weight_block(&self, part: &Part) -> usize {
        self.inputs
            * part.reading.taps.len()
            * (self.output_block.next_multiple_of(8)).max(self.output_block.next_multiple_of(6))
    }

    fn part_of(&self, chunk: usize) -> &Part {
        self.parts.iter().rev().find(|part| part.first_chunk <= chunk).expect("chunk 0 is of the first part")
    }

    fn run(&self, source: Inputs<'_, T>, epilogue: Epilogue<'_, T>, out: &Outputs<'_, T>) -> Result<()> {
        if self.chunks == 0 {
            return Ok(());
        }
        let mut packed = Scratch::<T>::new("conv", self.packed_weights)?;
        let weights_start = packed.uninit().as_mut_ptr();
        for part in &self.parts {
            let size = self.weight_block(part);
            let count = self.groups * self.output_blocks;
            let slice = &mut packed.uninit()[part.weights..part.weights + count * size];
            let partition = Partition::new(slice, size);
            let grain = (CHUNK_WORK / 16 / size.max(1)).max(1);
            parallel_for(if size == 0 { 0 } else { count }, grain, |range| {
                dispatch(PackWeights { plan: self, part, range, partition: &partition })
            })?;
        }
        let all_outputs = self.groups * self.outputs;
        let moments_wanted = epilogue.moments.is_some();
        let slots = if moments_wanted { self.batch * all_outputs * self.moments } else { 0 };
        let mut partial = vec![Moments::default(); slots];
        let partition = Partition::new(&mut partial, 1);
        let work: usize =
            self.parts.iter().map(|part| part.reading.taps.len() * part.positions.iter().product::<usize>()).sum();
        let work = self.batch * self.groups * self.inputs * self.outputs * work / self.chunks;
        // SAFETY: every block of the weights was packed above; padding inside of a block isn't read.
        let weights = unsafe { std::slice::from_raw_parts(weights_start.cast::<T>(), self.packed_weights) };
        parallel_for(self.chunks, (CHUNK_WORK / 2 / work.max(1)).max(1), |range| {
            let moments = moments_wanted.then_some(&partition);
            dispatch(Boxes { plan: self, range, source, weights, epilogue: &epilogue, moments, out })
        })?;
        drop(partition);
        if let Some(moments) = epilogue.moments {
            for (moments, parts) in moments.iter_mut().zip(partial.chunks_exact_mut(self.moments)) {
                *moments = join_all(parts);
            }
        }
        Ok(())
    }
}

/// Joins partial moments in a fixed tree.
pub(super) fn join_all(parts: &mut [Moments]) -> Moments {
    let mut step = 1;
    while step < parts.len() {
        for i in (0..parts.len() - step).step_by(2 * step) {
            parts[i] = parts[i].join(parts[i + step]);
        }
        step *= 2;
    }
    parts.first().copied().unwrap_or_default()
}

/// Packs the weights of some blocks of output channels: panels of [input channel][tap][panel row].
struct PackWeights<'a, T> {
    plan: &'a Plan<'a, T>,
    part: &'a Part,
    range: Range<usize>,
    partition: &'a Partition<'a, MaybeUninit<T>>,
}

impl<T: Real> Kernel for PackWeights<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Plan { inputs, outputs, output_block, output_blocks, strides, weights, .. } = *self.plan;
        let height = panel_rows::<S>();
        let taps: Vec<usize> = self.part.reading.taps.iter().map(|tap| tap.index).collect();
        for block in self.range {
            let (group, first) = (block / output_blocks, block % output_blocks * output_block);
            let rows = output_block.min(outputs - first);
            let mut to = self.partition.block(block).chunks_exact_mut(height);
            for panel in (0..rows).step_by(height) {
                let start = group * strides.group + (first + panel) * strides.out;
                let rows = height.min(rows - panel);
                for channel in 0..inputs {
                    let from = &weights[start + channel * strides.inp..];
                    for (&tap, to) in taps.iter().zip(&mut to) {
                        for (row, to) in to.iter_mut().enumerate() {
                            to.write(if row < rows { from[row * strides.out + tap] } else { T::ZERO });
                        }
                    }
                }
            }
        }
    }
}

/// Computes some chunks.
struct Boxes<'a, T> {
    plan: &'a Plan<'a, T>,
    range: Range<usize>,
    source: Inputs<'a, T>,
    weights: &'a [T],
    epilogue: &'a Epilogue<'a, T>,
    moments: Option<&'a Partition<'a, Moments>>,
    out: &'a Outputs<'a, T>,
}

impl<T: Real> Kernel for Boxes<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for chunk in self.range.clone() {
            self.chunk::<S>(chunk);
        }
    }
}

/// A chunk: which box of which channels.
struct Chunk {
    n: usize,
    group: usize,
    first_output: usize,
    outputs: usize,
    box_index: usize,
    start: [usize; 3],
    size: [usize; 3],
}

/// Where the sums of a chunk's box lie: rows of `pitch`, one after the other, or planes of `plane`.
struct Sums<T> {
    data: *mut T,
    channel: usize,
    plane: usize,
    pitch: usize,
}

impl<T: Real> Boxes<'_, T> {
    #[inline(always)]
    fn chunk<S: Simd>(&self, index: usize) {
        let plan = self.plan;
        let part = plan.part_of(index);
        // Boxes innermost: neighbours share the weights, and what they read of the source.
        let boxes: usize = part.blocks.iter().product();
        let index = index - part.first_chunk;
        let (box_index, index) = (index % boxes, index / boxes);
        let (output_block, index) = (index % plan.output_blocks, index / plan.output_blocks);
        let first_output = output_block * plan.output_block;
        let [_, rows, columns] = part.blocks;
        let place = [box_index / (rows * columns), box_index / columns % rows, box_index % columns];
        let start: [usize; 3] = std::array::from_fn(|axis| place[axis] * part.block[axis]);
        let chunk = Chunk {
            n: index / plan.groups,
            group: index % plan.groups,
            first_output,
            outputs: plan.output_block.min(plan.outputs - first_output),
            box_index,
            start,
            size: std::array::from_fn(|axis| part.block[axis].min(part.positions[axis] - start[axis])),
        };
        let height = panel_rows::<S>();
        let width = tile_columns::<S, T>();
        let [depth, rows, columns] = chunk.size;
        let positions = if part.copied {
            depth * rows * columns
        } else {
            (rows - 1) * part.reading.extent(part.block)[2] + columns
        };
        let pitch = positions.next_multiple_of(width);
        let runs = if part.copied { 1 } else { depth };
        let channel = pitch * runs;
        let mut scratch =
            Scratch::<T>::new("conv", chunk.outputs.next_multiple_of(height) * channel).expect("memory for sums");
        let data = scratch.uninit().as_mut_ptr().cast::<T>();
        let sums = if part.copied {
            Sums { data, channel, plane: rows * columns, pitch: columns }
        } else {
            Sums { data, channel, plane: pitch, pitch: part.reading.extent(part.block)[2] }
        };
        // SAFETY: the scratch holds whole tiles over all runs of positions and all panels.
        unsafe { self.accumulate::<S>(part, &chunk, positions, &sums) };
        self.store::<S>(part, &chunk, &sums);
    }

    /// Computes the sums over all channels and taps.
    ///
    /// # Safety
    /// `sums` has room for whole panels and whole tiles.
    #[inline(always)]
    unsafe fn accumulate<S: Simd>(&self, part: &Part, chunk: &Chunk, positions: usize, sums: &Sums<T>) {
        let plan = self.plan;
        let reading = &part.reading;
        let (height, width, lanes) = (panel_rows::<S>(), tile_columns::<S, T>(), T::Vec::<S>::LANES);
        // The box is packed as if it had full size, so that offsets are the same for all chunks.
        let channel_size = reading.channel_size(part.block);
        let taps = reading.offsets(part.block);
        let pitches = reading.extent(part.block);
        let block_rows = part.channel_block * taps.len();
        // A tile reads up to its width beyond the last position.
        let mut packed =
            Scratch::<T>::new("conv", part.channel_block * channel_size + width).expect("memory for packing");
        let packed = packed.uninit().as_mut_ptr().cast::<T>();
        let mut copied = Scratch::<T>::new("conv", if part.copied { block_rows * width } else { 0 }).expect("memory");
        let copied = copied.uninit().as_mut_ptr().cast::<T>();
        let mut offsets = Vec::with_capacity(block_rows);
        for channel in 0..part.channel_block {
            offsets.extend(taps.iter().map(|tap| channel * channel_size + tap));
        }
        let copied_offsets: Vec<usize> =
            if part.copied { (0..block_rows).map(|row| row * width).collect() } else { Vec::new() };
        let output_block = chunk.group * plan.output_blocks + chunk.first_output / plan.output_block;
        let weights = self.weights[part.weights + output_block * plan.weight_block(part)..].as_ptr();
        let panel_size = plan.inputs * taps.len() * height;
        let runs = if part.copied { 1 } else { chunk.size[0] };
        let run_pitch = positions.next_multiple_of(width);
        // SAFETY: packed pieces hold every place that a position and a tap reach, and a tile's width more (zeroed below);
        // sums by the caller's promise; weights hold whole panels.
        unsafe {
            for x in 0..width {
                *packed.add(part.channel_block * channel_size + x) = T::ZERO;
            }
            for first in (0..plan.inputs.max(1)).step_by(part.channel_block) {
                let channels = part.channel_block.min(plan.inputs - first);
                let global = chunk.group * plan.inputs + first;
                reading.pack::<S, T>(
                    &self.source,
                    plan.source_size,
                    chunk.n,
                    global..global + channels,
                    chunk.start,
                    part.block,
                    packed,
                );
                let steps = channels * taps.len();
                for run in 0..runs {
                    for position in (0..positions).step_by(width) {
                        let vectors = (positions - position).min(width).div_ceil(lanes);
                        let (from, offsets) = if part.copied {
                            copy_tile::<S, T>(
                                packed,
                                &offsets[..steps],
                                chunk.size,
                                pitches,
                                position..positions.min(position + width),
                                width,
                                copied,
                            );
                            (copied.cast_const(), &copied_offsets[..steps])
                        } else {
                            (packed.cast_const().add(run * pitches[1] * pitches[2] + position), &offsets[..steps])
                        };
                        for panel in 0..chunk.outputs.div_ceil(height) {
                            let rows = height.min(chunk.outputs - panel * height);
                            let weights = weights.add(panel * panel_size + first * taps.len() * height);
                            let to = sums.data.add(panel * height * sums.channel + run * run_pitch + position);
                            tile::<S, T>(rows, vectors, weights, from, offsets, to, sums.channel, first > 0);
                        }
                    }
                }
            }
        }
    }

    /// Applies the epilogue, writes the outputs, and takes their moments.
    #[inline(always)]
    fn store<S: Simd>(&self, part: &Part, chunk: &Chunk, sums: &Sums<T>) {
        let plan = self.plan;
        let [depth, rows, columns] = chunk.size;
        let voxels: usize = plan.target_size.iter().product();
        let place = |axis: usize, at: usize| part.start[axis] + (chunk.start[axis] + at) * part.spread[axis];
        for output in 0..chunk.outputs {
            let channel = chunk.group * plan.outputs + chunk.first_output + output;
            let finish = Finish::<S, T>::new(self.epilogue, channel);
            // SAFETY: this chunk alone writes the positions of its box; the box lies inside the output.
            let to = unsafe { self.out.channel(chunk.n, channel, voxels) };
            for z in 0..depth {
                for y in 0..rows {
                    let at = (place(0, z) * plan.target_size[1] + place(1, y)) * plan.target_size[2] + place(2, 0);
                    // SAFETY: the row of sums was computed; the row of the output lies inside it.
                    unsafe {
                        let row = sums.data.add(output * sums.channel + z * sums.plane + y * sums.pitch);
                        let row = std::slice::from_raw_parts_mut(row, columns);
                        finish.row(row, to.add(at), part.spread[2]);
                    }
                }
            }
            if let Some(moments) = self.moments {
                let slot = (chunk.n * plan.groups * plan.outputs + channel) * plan.moments
                    + part.first_moment
                    + chunk.box_index;
                // SAFETY: the rows of sums hold the outputs plus bias, left there by `finish`.
                let row = |z: usize, y: usize| unsafe {
                    let row = sums.data.add(output * sums.channel + z * sums.plane + y * sums.pitch);
                    std::slice::from_raw_parts(row.cast_const(), columns)
                };
                moments.block(slot)[0] = moments_of::<S, T>(depth * rows, columns, |i| row(i / rows, i % rows));
            }
        }
    }
}

/// The mean of some rows, then their squared distances from it: two passes over what is still in a cache. Rows are summed
/// in `f32` lanes, and their sums in `f64`.
#[inline(always)]
pub(super) fn moments_of<'a, S: Simd, T: Real>(rows: usize, columns: usize, row: impl Fn(usize) -> &'a [T]) -> Moments {
    let count = (rows * columns) as f64;
    let mut total = 0.0;
    for i in 0..rows {
        total += sum::<T::Vec<S>>(row(i)).to_f64();
    }
    let mean = total / count;
    let center = Lanes16::<T::Vec<S>>::splat(T::from_f64(mean));
    let (mut squares, mut rest) = (0.0, 0.0);
    for i in 0..rows {
        let mut total = Lanes16::<T::Vec<S>>::zero();
        let mut blocks = row(i).chunks_exact(16);
        for block in &mut blocks {
            let distance = Lanes16::load(block).sub(center);
            total = distance.mul_add(distance, total);
        }
        if !blocks.remainder().is_empty() {
            let distance = Lanes16::load_partial(blocks.remainder(), T::from_f64(mean)).sub(center);
            total = distance.mul_add(distance, total);
        }
        squares += total.horizontal_sum().to_f64();
    }
    // The centre was rounded to T: Σ (x - m)² = Σ (x - c)² - n (m - c)².
    let shift = mean - T::from_f64(mean).to_f64();
    rest += count * shift * shift;
    Moments { count, mean, squares: (squares - rest).max(0.0) }
}

/// The epilogue of one channel.
pub(super) struct Finish<S: Simd, T: Real> {
    bias: T::Vec<S>,
    scale_shift: Option<(T::Vec<S>, T::Vec<S>)>,
    activation: Activation,
    /// The factor below zero.
    slope: T::Vec<S>,
}

impl<S: Simd, T: Real> Finish<S, T> {
    #[inline(always)]
    pub fn new(epilogue: &Epilogue<'_, T>, channel: usize) -> Self {
        let splat = |x: T| T::Vec::<S>::splat(x);
        Finish {
            bias: splat(epilogue.bias.map_or(T::ZERO, |bias| bias[channel])),
            scale_shift: epilogue.scale_shift.map(|(scale, shift)| (splat(scale[channel]), splat(shift[channel]))),
            activation: epilogue.activation,
            slope: splat(match epilogue.activation {
                Activation::LeakyRelu(slope) => T::from_f64(slope),
                _ => T::ZERO,
            }),
        }
    }

    #[inline(always)]
    fn end(&self, x: T::Vec<S>) -> T::Vec<S> {
        let x = self.scale_shift.map_or(x, |(scale, shift)| x.mul_add(scale, shift));
        let zero = T::Vec::<S>::zero();
        match self.activation {
            Activation::Identity => x,
            Activation::Relu => zero.max(x),
            Activation::LeakyRelu(_) => T::Vec::<S>::select(x.lt(zero), x.mul(self.slope), x),
        }
    }

    /// Finishes a row of sums and writes it with a distance of `spread`; `sums` then holds the sums plus bias.
    ///
    /// # Safety
    /// `to` is writable for as many numbers at that distance.
    #[inline(always)]
    pub unsafe fn row(&self, sums: &mut [T], to: *mut T, spread: usize) {
        let lanes = T::Vec::<S>::LANES;
        let count = sums.len();
        let mut x = 0;
        // SAFETY: vectors stay inside the rows; the partial one too.
        unsafe {
            while x < count {
                let here = lanes.min(count - x);
                let from = sums.as_mut_ptr().add(x);
                if here == lanes && spread == 1 {
                    let sum = T::Vec::<S>::load_ptr(from).add(self.bias);
                    sum.store_ptr(from);
                    self.end(sum).store_ptr(to.add(x));
                } else {
                    let sum = T::Vec::<S>::load_partial_ptr(from, here).add(self.bias);
                    sum.store_partial_ptr(from, here);
                    if spread == 1 {
                        self.end(sum).store_partial_ptr(to.add(x), here);
                    } else {
                        let mut row = [MaybeUninit::<T>::uninit(); 16];
                        self.end(sum).store_ptr(row.as_mut_ptr().cast());
                        for (i, number) in row[..here].iter().enumerate() {
                            *to.add((x + i) * spread) = number.assume_init();
                        }
                    }
                }
                x += lanes;
            }
        }
    }
}

/// Copies the positions of a tile together: `to[row][width]` for each (channel, tap) row. What a partial tile lacks is zero.
///
/// # Safety
/// `packed` holds every place that the positions and offsets reach; `to` has room for all rows.
#[inline(always)]
unsafe fn copy_tile<S: Simd, T: Real>(
    packed: *const T,
    offsets: &[usize],
    size: [usize; 3],
    pitches: [usize; 3],
    positions: Range<usize>,
    width: usize,
    to: *mut T,
) {
    // Pieces of rows: where they come from, where they go, how long they are.
    let mut pieces = [(0usize, 0usize, 0usize); 48];
    let mut count = 0;
    let mut position = positions.start;
    while position < positions.end {
        let (z, y, x) = (position / (size[1] * size[2]), position / size[2] % size[1], position % size[2]);
        let length = (size[2] - x).min(positions.end - position);
        pieces[count] = ((z * pitches[1] + y) * pitches[2] + x, position - positions.start, length);
        count += 1;
        position += length;
    }
    let filled = positions.len();
    // SAFETY: by the caller's promise.
    unsafe {
        for (row, &offset) in offsets.iter().enumerate() {
            let to = to.add(row * width);
            for &(from, at, length) in &pieces[..count] {
                let from = std::slice::from_raw_parts(packed.add(offset + from), length);
                copy_row::<S, T>(from, as_uninit(std::slice::from_raw_parts_mut(to.add(at), length)));
            }
            for x in filled..width {
                *to.add(x) = T::ZERO;
            }
        }
    }
}
