//! The general convolution: a register tile over packed, zero-padded pieces of the input.
//!
//! A chunk is a box of output positions and some output channels of one group of one image. It packs the input that it
//! needs, a block of channels at a time, and runs the tile of matrix multiplication over it: the weights are the left matrix,
//! and each (channel, tap) is a row of the right one. Where rows are long, that row is read where it lies, at the tap's
//! offset: positions are taken as one flat range over padded rows, and what falls between two rows is thrown away. Where
//! rows are short, a tile's positions are first copied together (an implicit GEMM).
//!
//! Forward and backward-data are both this: the latter with one set of taps for each residue of the stride.

use super::source::{Reading, Tap, copy};
use super::tensors::{Activation, Epilogue, Inputs, Moments, Outputs};
use crate::conv::ConvShape;
use crate::matmul::cpu::tile::{Rows, panel_rows, tile, tile_columns};
use crate::parallel::{Partition, parallel_for};
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
/// residue of the stride along z and y. The residues along x share one: what they read is packed once, each has sums of its
/// own from some of the taps, and rows are put together when they are stored.
struct Part {
    reading: Reading,
    /// The taps of each residue along x, as numbers of taps of the reading.
    residues: Vec<Vec<usize>>,
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
    let residues = vec![(0..taps.len()).collect()];
    let part = Grid {
        reading: Reading::new(shape.stride, taps),
        residues,
        positions: shape.output(),
        start: [0; 3],
        spread: [1; 3],
    };
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
    for_each_tap([shape.stride[0], shape.stride[1], 1], |_, start| {
        if (0..3).any(|axis| start[axis] >= shape.input[axis]) {
            return;
        }
        let mut taps = Vec::new();
        let mut residues = Vec::new();
        for x in 0..shape.stride[2].min(shape.input[2]) {
            let residue = [start[0], start[1], x];
            let before = taps.len();
            for_each_tap(shape.kernel, |index, at| {
                let distance: [isize; 3] = std::array::from_fn(|axis| {
                    (residue[axis] + shape.padding[axis]) as isize - (at[axis] * shape.dilation[axis]) as isize
                });
                if (0..3).all(|axis| distance[axis].rem_euclid(shape.stride[axis] as isize) == 0) {
                    let shift = std::array::from_fn(|axis| distance[axis].div_euclid(shape.stride[axis] as isize));
                    taps.push(Tap { shift, index });
                }
            });
            residues.push((before..taps.len()).collect());
        }
        let positions = std::array::from_fn(|axis| (shape.input[axis] - start[axis]).div_ceil(shape.stride[axis]));
        parts.push(Grid { reading: Reading::new([1; 3], taps), residues, positions, start, spread: shape.stride });
    });
    let taps = shape.taps();
    let strides =
        WeightStrides { group: shape.weight_count() / shape.groups, out: taps, inp: shape.group_inputs() * taps };
    let (inputs, outputs) = (shape.group_outputs(), shape.group_inputs());
    let plan = Plan::new(shape, [inputs, outputs], [shape.output(), shape.input], strides, weights, parts);
    plan.run(dy, epilogue, out)
}

/// What a [`Part`] is made of.
struct Grid {
    reading: Reading,
    residues: Vec<Vec<usize>>,
    positions: [usize; 3],
    start: [usize; 3],
    spread: [usize; 3],
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
    fn new(
        shape: &ConvShape,
        [inputs, outputs]: [usize; 2],
        [source_size, target_size]: [[usize; 3]; 2],
        strides: WeightStrides,
        weights: &'a [T],
        parts: Vec<Grid>,
    ) -> Self {
        // All channels of a group share what a chunk packs, unless there are many of them or few boxes.
        let boxes: usize = parts.iter().map(|part| part.positions.iter().product::<usize>().div_ceil(POSITIONS)).sum();
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
        for Grid { reading, residues, positions, start, spread } in parts {
            if positions.contains(&0) {
                continue;
            }
            // A box is some rows of one plane, or several planes.
            let plane = positions[1] * positions[2];
            let most = POSITIONS / residues.len();
            let block = if plane > most {
                let rows = equal_blocks(positions[1], (most / positions[2]).max(1));
                [1, rows, positions[2]]
            } else {
                [equal_blocks(positions[0], most / plane), positions[1], positions[2]]
            };
            let copied = is_copied(&reading, block, output_block.min(outputs));
            let taps = reading.taps.len().max(1);
            let fits = PACKED / reading.channel_size(block).max(1);
            let most = if copied { fits.min(COPIED_ROWS.div_ceil(taps)) } else { fits };
            let blocks: [usize; 3] = std::array::from_fn(|axis| positions[axis].div_ceil(block[axis]));
            let part = Part {
                residues,
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
        let padded = self.output_block.next_multiple_of(8).max(self.output_block.next_multiple_of(6));
        self.inputs * part.reading.taps.len() * padded
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

/// Packs the weights of some blocks of output channels: for each residue panels of [input channel][tap][panel row].
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
        for block in self.range {
            let (group, first) = (block / output_blocks, block % output_blocks * output_block);
            let rows = output_block.min(outputs - first);
            let mut to = self.partition.block(block).chunks_exact_mut(height);
            for residue in &self.part.residues {
                let taps: Vec<usize> = residue.iter().map(|&tap| self.part.reading.taps[tap].index).collect();
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
    /// From one residue to the next.
    residue: usize,
}

impl<T> Sums<T> {
    /// Where a row begins.
    ///
    /// # Safety
    /// There is such a row.
    #[inline(always)]
    unsafe fn row(&self, residue: usize, output: usize, z: usize, y: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.data.add(residue * self.residue + output * self.channel + z * self.plane + y * self.pitch) }
    }
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
        let residue = chunk.outputs.next_multiple_of(height) * channel;
        let lanes = T::Vec::<S>::LANES;
        let mut scratch = Scratch::<T>::new("conv", part.residues.len() * residue + lanes).expect("memory for sums");
        let data = scratch.uninit().as_mut_ptr().cast::<T>();
        let sums = if part.copied {
            Sums { data, channel, plane: rows * columns, pitch: columns, residue }
        } else {
            Sums { data, channel, plane: pitch, pitch: part.reading.extent(part.block)[2], residue }
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
        // For each residue: its offsets, and where its weights begin.
        let mut residues = Vec::with_capacity(part.residues.len());
        let mut weights_before = 0;
        for residue in &part.residues {
            let mut offsets = Vec::with_capacity(part.channel_block * residue.len());
            for channel in 0..part.channel_block {
                offsets.extend(residue.iter().map(|&tap| channel * channel_size + taps[tap]));
            }
            residues.push((offsets, residue.len(), weights_before));
            weights_before += plan.inputs * residue.len() * chunk.outputs.next_multiple_of(height);
        }
        let copied_offsets: Vec<usize> =
            if part.copied { (0..block_rows).map(|row| row * width).collect() } else { Vec::new() };
        let output_block = chunk.group * plan.output_blocks + chunk.first_output / plan.output_block;
        let weights = self.weights[part.weights + output_block * plan.weight_block(part)..].as_ptr();
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
                for run in 0..runs {
                    for position in (0..positions).step_by(width) {
                        let vectors = (positions - position).min(width).div_ceil(lanes);
                        for (number, (offsets, taps, weights_before)) in residues.iter().enumerate() {
                            let steps = channels * taps;
                            let (from, offsets) = if part.copied {
                                let tile = position..positions.min(position + width);
                                copy_tile::<S, T>(packed, &offsets[..steps], chunk.size, pitches, tile, width, copied);
                                (copied.cast_const(), &copied_offsets[..steps])
                            } else {
                                let from = packed.cast_const().add(run * pitches[1] * pitches[2] + position);
                                (from, &offsets[..steps])
                            };
                            let weights = weights.add(weights_before + first * taps * height);
                            let to = sums.data.add(number * sums.residue + run * run_pitch + position);
                            for panel in 0..chunk.outputs.div_ceil(height) {
                                let rows = height.min(chunk.outputs - panel * height);
                                let weights = weights.add(panel * plan.inputs * taps * height);
                                let to = to.add(panel * height * sums.channel);
                                let to = Rows { first: to, stride: sums.channel };
                                tile::<S, T>(rows, vectors, weights, from, offsets, (first > 0).then_some(to), to);
                            }
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
            let residues = part.residues.len();
            // The positions of each residue in a row: those that lie inside the output.
            let left = plan.target_size[2] - place(2, 0);
            let length = |residue: usize| columns.min((left - residue).div_ceil(part.spread[2]));
            // SAFETY: this chunk alone writes the positions of its box; the box lies inside the output. Rows of sums were
            // computed, and `finish` leaves the sums plus bias there.
            unsafe {
                let to = self.out.channel(chunk.n, channel, voxels);
                for z in 0..depth {
                    for y in 0..rows {
                        let at = (place(0, z) * plan.target_size[1] + place(1, y)) * plan.target_size[2] + place(2, 0);
                        if residues == 2 && part.spread[2] == 2 {
                            let (even, odd) = (sums.row(0, output, z, y), sums.row(1, output, z, y));
                            finish.rows(even, odd, to.add(at), length(0) + length(1));
                        } else {
                            for residue in 0..residues {
                                let row = sums.row(residue, output, z, y);
                                let row = std::slice::from_raw_parts_mut(row, length(residue));
                                finish.row(row, to.add(at + residue), part.spread[2]);
                            }
                        }
                    }
                }
                if let Some(moments) = self.moments {
                    let channels = plan.groups * plan.outputs;
                    let slot = (chunk.n * channels + channel) * plan.moments + part.first_moment + chunk.box_index;
                    let row = |i: usize| {
                        let (residue, i) = (i % residues, i / residues);
                        let row = sums.row(residue, output, i / rows, i % rows).cast_const();
                        std::slice::from_raw_parts(row, length(residue))
                    };
                    moments.block(slot)[0] = moments_of::<S, T>(depth * rows * residues, row);
                }
            }
        }
    }
}

/// The mean of some rows, then their squared distances from it: two passes over what is still in a cache. Rows are summed
/// in `f32` lanes, and their sums in `f64`.
#[inline(always)]
pub(super) fn moments_of<'a, S: Simd, T: Real>(rows: usize, row: impl Fn(usize) -> &'a [T]) -> Moments {
    let count = (0..rows).map(|i| row(i).len()).sum::<usize>() as f64;
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

    /// Finishes two rows of sums and writes their numbers in turn, `count` in all; the rows then hold the sums plus bias.
    ///
    /// # Safety
    /// The rows hold `count` numbers together, with room for a vector more in each; `to` is writable for `count`.
    #[inline(always)]
    pub unsafe fn rows(&self, even: *mut T, odd: *mut T, to: *mut T, count: usize) {
        let lanes = T::Vec::<S>::LANES;
        // SAFETY: whole vectors stay inside the rows and their room; stores to `to` stop at `count`.
        unsafe {
            for x in (0..count.div_ceil(2)).step_by(lanes) {
                let (even, odd) = (even.add(x), odd.add(x));
                let a = T::Vec::<S>::load_ptr(even).add(self.bias);
                let b = T::Vec::<S>::load_ptr(odd).add(self.bias);
                // What lies beyond the last number may belong to the next row, whose bias is still to come.
                let (real, to) = (count - 2 * x, to.add(2 * x));
                a.store_partial_ptr(even, real.div_ceil(2));
                b.store_partial_ptr(odd, real / 2);
                let (first, second) = self.end(a).interleave(self.end(b));
                if real >= 2 * lanes {
                    first.store_ptr(to);
                    second.store_ptr(to.add(lanes));
                } else {
                    first.store_partial_ptr(to, real);
                    second.store_partial_ptr(to.add(real.min(lanes)), real.saturating_sub(lanes));
                }
            }
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
                copy::<S, T>(packed.add(offset + from), to.add(at), length);
            }
            for x in filled..width {
                *to.add(x) = T::ZERO;
            }
        }
    }
}
