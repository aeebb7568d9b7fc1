//! The computation of a chunk: packing, register tiles, and the epilogue.

use super::conv::{DenseConv, Line};
use crate::conv::cpu::epilogue::{Epilogue, Finish, MomentSlots, moments_of};
use crate::conv::cpu::tensors::{Inputs, Outputs};
use crate::matmul::cpu::tile::{Left, Rows, panel_rows, rows_of_panel, tile, tile_columns};
use crate::parallel::or_give_up;
use crate::simd::{Kernel, Real, Simd, Vector};
use std::ops::Range;
use tomograd_core::Scratch;

/// Computes a range of chunks.
pub(super) struct Boxes<'a, T> {
    pub plan: &'a DenseConv<'a, T>,
    pub range: Range<usize>,
    pub source: Inputs<'a, T>,
    /// The packed weights; `None` if the plan's are read where they are.
    pub weights: Option<&'a [T]>,
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

/// The box and the channels of a chunk.
struct Chunk {
    n: usize,
    group: usize,
    first_output: usize,
    outputs: usize,
    box_index: usize,
    start: [usize; 3],
    size: [usize; 3],
}

/// The memory layout of a chunk's sums: the distances between channels, planes, rows and residue classes, in elements.
struct Sums<T> {
    data: *mut T,
    channel: usize,
    plane: usize,
    pitch: usize,
    /// The distance from one residue class to the next.
    residue: usize,
}

impl<T> Sums<T> {
    /// The address of the first sum of a row.
    ///
    /// # Safety
    /// The row exists.
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
        // The box index varies fastest, so consecutive chunks share the weights and neighbouring parts of the source.
        let (box_index, index) = (index % plan.boxes(), index / plan.boxes());
        let (output_block, index) = (index % plan.output_blocks, index / plan.output_blocks);
        let first_output = output_block * plan.output_block;
        let [_, rows, columns] = plan.blocks;
        let place = [box_index / (rows * columns), box_index / columns % rows, box_index % columns];
        let start: [usize; 3] = std::array::from_fn(|axis| place[axis] * plan.block[axis]);
        let chunk = Chunk {
            n: index / plan.groups,
            group: index % plan.groups,
            first_output,
            outputs: plan.output_block.min(plan.outputs - first_output),
            box_index,
            start,
            size: std::array::from_fn(|axis| plan.block[axis].min(plan.positions[axis] - start[axis])),
        };
        let height = panel_rows::<S>();
        let width = tile_columns::<S, T>();
        let [depth, rows, columns] = chunk.size;
        let row_pitch = plan.reading.extent(plan.block)[2];
        let positions = if plan.copied { depth * rows * columns } else { (rows - 1) * row_pitch + columns };
        let pitch = positions.next_multiple_of(width);
        let runs = if plan.copied { 1 } else { depth };
        let channel = pitch * runs;
        let residue = chunk.outputs.next_multiple_of(height) * channel;
        let scratch = |count: usize| or_give_up(Scratch::<T>::new("conv", count));
        let mut data = scratch(plan.most_residues * residue + T::Vec::<S>::LANES);
        let data = data.uninit().as_mut_ptr().cast::<T>();
        let sums = if plan.copied {
            Sums { data, channel, plane: rows * columns, pitch: columns, residue }
        } else {
            Sums { data, channel, plane: pitch, pitch: row_pitch, residue }
        };
        // A tile may read up to its width beyond the last position.
        let packed_size = plan.channel_block * plan.reading.channel_size(plan.block);
        let mut packed = scratch(packed_size + width);
        let packed = packed.uninit().as_mut_ptr().cast::<T>();
        // Pieces of rows are copied in whole vectors, so the last copy may write beyond the last row.
        let copied_size = plan.channel_block * plan.most_taps * width + T::Vec::<S>::LANES;
        let mut copied = scratch(if plan.copied { copied_size } else { 0 });
        let copied = copied.zeroed().as_mut_ptr();
        // SAFETY: the scratch holds whole tiles over all runs of positions and all panels. The packed block holds every
        // element that a position and a tap read, and a tile's width more, which is zeroed here.
        unsafe {
            for x in 0..width {
                *packed.add(packed_size + x) = T::ZERO;
            }
            // All lines read the same input: if all channels fit, they are packed only once.
            if plan.channel_block >= plan.inputs {
                self.pack::<S>(&chunk, 0, packed);
            }
            let mut weights_before = 0;
            for (number, line) in plan.lines.iter().enumerate() {
                self.accumulate::<S>(line, weights_before, &chunk, positions, &sums, packed, copied);
                self.store::<S>(number, &chunk, &sums);
                let taps: usize = line.residues.iter().map(Vec::len).sum();
                weights_before += plan.inputs * taps * chunk.outputs.next_multiple_of(height);
            }
        }
    }

    /// Packs the block of input channels that starts with `first`.
    ///
    /// # Safety
    /// `packed` has room for a block.
    #[inline(always)]
    unsafe fn pack<S: Simd>(&self, chunk: &Chunk, first: usize, packed: *mut T) {
        let plan = self.plan;
        let channels = plan.channel_block.min(plan.inputs - first);
        let global = chunk.group * plan.inputs + first;
        // Every box is packed with the full box size, so that the offsets are the same for all chunks.
        // SAFETY: the caller's promise.
        unsafe {
            plan.reading.pack::<S, T>(
                &self.source,
                plan.source_size,
                chunk.n,
                global..global + channels,
                chunk.start,
                plan.block,
                packed,
            );
        }
    }

    /// Computes the sums of a line over all channels and taps. If all channels fit into `packed`, it has been packed already.
    ///
    /// # Safety
    /// `sums` has room for whole panels and whole tiles, `packed` for a block of channels and a tile's width, `copied` for
    /// every (channel, tap) row of a block, a tile wide, and one more vector.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn accumulate<S: Simd>(
        &self,
        line: &Line,
        weights_before: usize,
        chunk: &Chunk,
        positions: usize,
        sums: &Sums<T>,
        packed: *mut T,
        copied: *mut T,
    ) {
        let plan = self.plan;
        let (height, width, lanes) = (panel_rows::<S>(), tile_columns::<S, T>(), T::Vec::<S>::LANES);
        let channel_size = plan.reading.channel_size(plan.block);
        let taps = plan.reading.offsets(plan.block);
        let pitches = plan.reading.extent(plan.block);
        // For each residue class: its offsets, its number of taps, and the offset of its weights.
        let mut residues = Vec::with_capacity(line.residues.len());
        let mut weights_before = weights_before;
        for residue in &line.residues {
            let mut offsets = Vec::with_capacity(plan.channel_block * residue.len());
            for channel in 0..plan.channel_block {
                offsets.extend(residue.iter().map(|&tap| channel * channel_size + taps[tap]));
            }
            residues.push((offsets, residue.len(), weights_before));
            weights_before += plan.inputs * residue.len() * chunk.outputs.next_multiple_of(height);
        }
        let copied_offsets: Vec<usize> = if plan.copied {
            (0..plan.channel_block * plan.most_taps).map(|row| row * width).collect()
        } else {
            Vec::new()
        };
        let output_block = chunk.group * plan.output_blocks + chunk.first_output / plan.output_block;
        let packed_weights = self.weights.map(|weights| weights[output_block * plan.weight_block()..].as_ptr());
        let first_weight = chunk.group * plan.strides.group + chunk.first_output * plan.strides.out;
        let runs = if plan.copied { 1 } else { chunk.size[0] };
        let run_pitch = positions.next_multiple_of(width);
        // SAFETY: the packed block holds every element that a position and a tap read, and a tile's width more; sums by the
        // caller's promise; packed weights hold whole panels; weights that are read in place, whose number was checked against
        // the shape, have a row for each row of a tile.
        unsafe {
            for first in (0..plan.inputs.max(1)).step_by(plan.channel_block) {
                let channels = plan.channel_block.min(plan.inputs - first);
                if plan.channel_block < plan.inputs {
                    self.pack::<S>(chunk, first, packed);
                }
                for run in 0..runs {
                    for position in (0..positions).step_by(width) {
                        let vectors = (positions - position).min(width).div_ceil(lanes);
                        for (number, (offsets, taps, weights_before)) in residues.iter().enumerate() {
                            let steps = channels * taps;
                            let (from, offsets) = if plan.copied {
                                let tile = position..positions.min(position + width);
                                copy_tile::<S, T>(packed, &offsets[..steps], chunk.size, pitches, tile, width, copied);
                                (copied.cast_const(), &copied_offsets[..steps])
                            } else {
                                let from = packed.cast_const().add(run * pitches[1] * pitches[2] + position);
                                (from, &offsets[..steps])
                            };
                            let to = sums.data.add(number * sums.residue + run * run_pitch + position);
                            for panel in 0..chunk.outputs.div_ceil(height) {
                                let rows = rows_of_panel::<S>(panel, chunk.outputs);
                                let weights = match packed_weights {
                                    Some(packed) => {
                                        let before = (panel * plan.inputs + first) * taps * height;
                                        Left::panel::<S>(packed.add(weights_before + before))
                                    }
                                    None => {
                                        let start = first_weight + rows.start * plan.strides.out + first * taps;
                                        Left {
                                            first: plan.weights.as_ptr().add(start),
                                            row: plan.strides.out,
                                            step: 1,
                                            next: 0,
                                        }
                                    }
                                };
                                let to = to.add(rows.start * sums.channel);
                                let to = Rows { first: to, stride: sums.channel };
                                tile::<S, T, false>(
                                    rows.len(),
                                    vectors,
                                    weights,
                                    from,
                                    offsets,
                                    (first > 0).then_some(to).into(),
                                    to,
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    /// Applies the epilogue to a line, writes the outputs, and computes their moments.
    #[inline(always)]
    fn store<S: Simd>(&self, number: usize, chunk: &Chunk, sums: &Sums<T>) {
        let plan = self.plan;
        let line = &plan.lines[number];
        let residues = line.residues.len();
        let voxels: usize = plan.target_size.iter().product();
        // The output coordinate of a position, and how many positions along an axis lie inside the output.
        let place = |axis: usize, at: usize| line.start[axis] + (chunk.start[axis] + at) * plan.spread[axis];
        let inside = |axis: usize| {
            let left = plan.target_size[axis].saturating_sub(place(axis, 0));
            chunk.size[axis].min(left.div_ceil(plan.spread[axis]))
        };
        let (depth, rows) = (inside(0), inside(1));
        // How many positions of a row belong to a residue class.
        let length = |residue: usize| chunk.size[2].min((plan.target_size[2] - residue).div_ceil(plan.spread[2]));
        let kept = self.moments.is_some();
        for output in 0..chunk.outputs {
            let channel = chunk.group * plan.outputs + chunk.first_output + output;
            let finish = Finish::<S, T>::new(self.epilogue, channel);
            // SAFETY: only this chunk writes the positions of its box, and the box lies inside the output. The rows of sums
            // have been computed, and `finish` leaves the sums plus bias in them for the moments.
            unsafe {
                let to = self.out.channel(chunk.n, channel, voxels);
                for z in 0..depth {
                    for y in 0..rows {
                        let at = (place(0, z) * plan.target_size[1] + place(1, y)) * plan.target_size[2];
                        if residues == 2 && plan.spread[2] == 2 {
                            let (even, odd) = (sums.row(0, output, z, y), sums.row(1, output, z, y));
                            finish.rows(even, odd, to.add(at), length(0) + length(1), kept);
                        } else {
                            for residue in 0..residues {
                                let row = sums.row(residue, output, z, y);
                                let row = std::slice::from_raw_parts_mut(row, length(residue));
                                finish.row(row, to.add(at + residue), plan.spread[2]);
                            }
                        }
                    }
                }
                if let Some(moments) = self.moments {
                    let channel = chunk.n * plan.groups * plan.outputs + channel;
                    let slot = (channel * plan.boxes() + chunk.box_index) * plan.lines.len() + number;
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

/// Copies the positions of a tile to contiguous memory: `to[row][width]` for each (channel, tap) row. Pieces of rows are
/// copied in whole vectors, and the next piece overwrites the excess; so the elements after a partial tile are arbitrary.
///
/// # Safety
/// `packed` holds every element at a position plus an offset and a vector more; `to` has room for all rows and a vector.
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
    // The source and destination offset of each piece, a vector at most.
    let mut pieces = [(0usize, 0usize); 48];
    let mut count = 0;
    let mut position = positions.start;
    while position < positions.end {
        let (z, y, x) = (position / (size[1] * size[2]), position / size[2] % size[1], position % size[2]);
        pieces[count] = ((z * pitches[1] + y) * pitches[2] + x, position - positions.start);
        count += 1;
        position += (size[2] - x).min(positions.end - position).min(T::Vec::<S>::LANES);
    }
    // SAFETY: by the caller's promise.
    unsafe {
        for (row, &offset) in offsets.iter().enumerate() {
            let (from, to) = (packed.add(offset), to.add(row * width));
            for &(place, at) in &pieces[..count] {
                T::Vec::<S>::load_ptr(from.add(place)).store_ptr(to.add(at));
            }
        }
    }
}
