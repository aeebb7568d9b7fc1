//! A chunk of a convolution: packing, the tiles, and storing.

use super::plan::{Part, Plan};
use crate::conv::cpu::epilogue::{Epilogue, Finish, MomentSlots, moments_of};
use crate::conv::cpu::source::copy;
use crate::conv::cpu::tensors::{Inputs, Outputs};
use crate::matmul::cpu::tile::{Rows, panel_rows, tile, tile_columns};
use crate::simd::{Kernel, Real, Simd, Vector};
use std::ops::Range;
use tomograd_core::Scratch;

/// Computes some chunks.
pub(super) struct Boxes<'a, T> {
    pub plan: &'a Plan<'a, T>,
    pub range: Range<usize>,
    pub source: Inputs<'a, T>,
    pub weights: &'a [T],
    pub epilogue: &'a Epilogue<'a, T>,
    pub moments: Option<&'a MomentSlots<'a>>,
    pub out: &'a Outputs<'a, T>,
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
                                tile::<S, T, false>(
                                    rows,
                                    vectors,
                                    weights,
                                    from,
                                    offsets,
                                    (first > 0).then_some(to),
                                    to,
                                );
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
                    moments.set(slot, moments_of::<S, T>(depth * rows * residues, row));
                }
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
