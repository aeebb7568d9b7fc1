//! Which boxes and blocks a convolution is cut into, and its packed weights.

use super::boxes::Boxes;
use crate::conv::ConvShape;
use crate::conv::cpu::epilogue::{Epilogue, PartialMoments};
use crate::conv::cpu::source::{Reading, Tap, equal_blocks};
use crate::conv::cpu::tensors::{Inputs, Outputs};
use crate::matmul::cpu::tile::panel_rows;
use crate::parallel::{Partition, parallel_for};
use crate::simd::{Kernel, Real, Simd, dispatch};
use std::mem::MaybeUninit;
use std::ops::Range;
use tomograd_core::{Result, Scratch};

/// Positions of a chunk, numbers of a packed block of the input, and (channel, tap) rows that are copied together.
const POSITIONS: usize = 2048;
const PACKED: usize = 128 << 10;
const COPIED_ROWS: usize = 192;
/// Multiply-adds that a parallel section is worth.
const CHUNK_WORK: usize = 4 << 20;
/// Positions of the widest tile.
const TILE: usize = 48;

/// A grid of output positions that reads its source in one way. Forward there is one; backward-data has one for each
/// residue of the stride along z and y. The residues along x share one: what they read is packed once, each has sums of its
/// own from some of the taps, and rows are put together when they are stored.
pub(super) struct Part {
    pub reading: Reading,
    /// The taps of each residue along x, as numbers of taps of the reading.
    pub residues: Vec<Vec<usize>>,
    pub positions: [usize; 3],
    /// Where position 0 is written, and how far apart positions are.
    pub start: [usize; 3],
    pub spread: [usize; 3],
    /// The size of a chunk's box.
    pub block: [usize; 3],
    pub blocks: [usize; 3],
    pub copied: bool,
    pub channel_block: usize,
    /// Where its packed weights begin.
    pub weights: usize,
    /// Where its chunks begin.
    pub first_chunk: usize,
    /// Where its moments begin, of those of one channel.
    pub first_moment: usize,
}

/// Where a weight lies: `channel out * out + channel in * in + tap`.
#[derive(Clone, Copy)]
pub(super) struct WeightStrides {
    pub group: usize,
    pub out: usize,
    pub inp: usize,
}

/// A convolution that is ready to run.
pub(super) struct Plan<'a, T> {
    pub batch: usize,
    pub groups: usize,
    /// Channels of a group: read and written.
    pub inputs: usize,
    pub outputs: usize,
    pub source_size: [usize; 3],
    pub target_size: [usize; 3],
    pub parts: Vec<Part>,
    pub strides: WeightStrides,
    pub weights: &'a [T],
    /// Output channels of a chunk, and how many such blocks a group has.
    pub output_block: usize,
    pub output_blocks: usize,
    pub chunks: usize,
    pub packed_weights: usize,
    pub moments: usize,
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

/// The backward pass with respect to the input; also the transposed convolution, which has an epilogue.
pub(in crate::conv::cpu) fn backward_data<T: Real>(
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

/// What the forward pass costs: see [`Path::estimate`](crate::conv::cpu::Path::estimate).
pub(in crate::conv::cpu) fn estimate(shape: &ConvShape) -> f64 {
    let plan = Plan::<f32>::forward(shape, &[]);
    let Some(part) = plan.parts.first() else { return 0.0 };
    let boxes = (shape.batch * shape.groups * part.blocks.iter().product::<usize>()) as f64;
    let [depth, rows, columns] = part.block;
    let positions = if part.copied {
        (depth * rows * columns).next_multiple_of(TILE)
    } else {
        depth * ((rows - 1) * part.reading.extent(part.block)[2] + columns).next_multiple_of(TILE)
    };
    let positions = boxes * positions as f64;
    let steps = (plan.inputs * shape.taps()) as f64;
    let outputs = plan.outputs as f64;
    let blocks = plan.output_blocks as f64;
    let packed = boxes * blocks * (plan.inputs * part.reading.channel_size(part.block)) as f64;
    let copied = if part.copied { blocks * positions * steps } else { 0.0 };
    5.1e-9 * positions * steps * plan.outputs.next_multiple_of(8) as f64
        + 7.1e-9 * packed
        + 1.1e-7 * copied
        + 2.2e-7 * positions * outputs
        + 4.4e-7 * steps * outputs * shape.groups as f64
        + 2.6e-3
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

/// Whether a chunk of `block` positions is better copied together, given what the flat range wastes; `outputs` channels
/// share the copy.
fn is_copied(reading: &Reading, block: [usize; 3], outputs: usize) -> bool {
    let tiles = |positions: usize| positions.div_ceil(TILE);
    let pitch = reading.extent(block)[2];
    let flat = block[0] * tiles((block[1] - 1) * pitch + block[2]);
    let dense = tiles(block[0] * block[1] * block[2]);
    // A row of a tile takes 12 cycles for every eight channels, and its copy about 4 and 1.3 for every piece of a row.
    let copy = 4.0 + 1.3 * (TILE as f64 / block[2] as f64).max(1.0);
    let compute = 12.0 * (outputs as f64 / 8.0).ceil();
    (flat as f64) * compute > dense as f64 * (compute + copy)
}

impl<'a, T: Real> Plan<'a, T> {
    fn forward(shape: &ConvShape, weights: &'a [T]) -> Self {
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
        Plan::new(shape, [inputs, outputs], [shape.input, shape.output()], strides, weights, vec![part])
    }

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
    pub fn weight_block(&self, part: &Part) -> usize {
        let padded = self.output_block.next_multiple_of(8).max(self.output_block.next_multiple_of(6));
        self.inputs * part.reading.taps.len() * padded
    }

    pub fn part_of(&self, chunk: usize) -> &Part {
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
        let mut partial = PartialMoments::new(&epilogue, self.moments)?;
        let slots = partial.as_mut().map(PartialMoments::slots);
        let work: usize =
            self.parts.iter().map(|part| part.reading.taps.len() * part.positions.iter().product::<usize>()).sum();
        let work = self.batch * self.groups * self.inputs * self.outputs * work / self.chunks;
        // SAFETY: every block of the weights was packed above; padding inside of a block isn't read.
        let weights = unsafe { std::slice::from_raw_parts(weights_start.cast::<T>(), self.packed_weights) };
        parallel_for(self.chunks, (CHUNK_WORK / 2 / work.max(1)).max(1), |range| {
            let moments = slots.as_ref();
            dispatch(Boxes { plan: self, range, source, weights, epilogue: &epilogue, moments, out })
        })?;
        drop(slots);
        if let (Some(moments), Some(partial)) = (epilogue.moments, partial) {
            partial.join(moments);
        }
        Ok(())
    }
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
