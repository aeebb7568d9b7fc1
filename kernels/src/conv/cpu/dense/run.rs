//! Running a dense convolution: packing the weights, and then the chunks.

use super::boxes::Boxes;
use super::conv::DenseConv;
use super::{TILE, VECTOR};
use crate::conv::ConvShape;
use crate::conv::cpu::epilogue::{Epilogue, PartialMoments};
use crate::conv::cpu::tensors::{Inputs, Outputs};
use crate::matmul::cpu::pack::pack_panel;
use crate::matmul::cpu::tile::{FEW_TILES, in_place, panel_rows, rows_of_panel, tile_columns};
use crate::parallel::{Partition, parallel_for};
use crate::simd::{Kernel, Real, Simd, dispatch};
use std::mem::MaybeUninit;
use std::ops::Range;
use tomograd_core::{Result, Scratch};

/// The least number of multiply-adds of a parallel section.
const CHUNK_WORK: usize = 512 << 10;

/// The forward pass.
pub(in crate::conv::cpu) fn forward<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    out: &Outputs<'_, T>,
) -> Result<()> {
    DenseConv::forward(shape, weights).run(x, epilogue, out)
}

/// The backward pass with respect to the input; also the transposed convolution, which has an epilogue.
pub(in crate::conv::cpu) fn backward_data<T: Real>(
    shape: &ConvShape,
    dy: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    out: &Outputs<'_, T>,
) -> Result<()> {
    DenseConv::backward_data(shape, weights).run(dy, epilogue, out)
}

/// The estimated time of the forward pass; see [`Path::estimate`](crate::conv::cpu::Path::estimate).
pub(in crate::conv::cpu) fn estimate(shape: &ConvShape) -> f64 {
    let plan = DenseConv::<f32>::forward(shape, &[]);
    let tiles = shape.batch * shape.output_voxels().div_ceil(TILE * VECTOR);
    // Few tiles read the weights in place; otherwise they are packed.
    let packing = if tiles <= FEW_TILES && plan.contiguous_steps() { 0.0 } else { 3e-7 * shape.weight_count() as f64 };
    // The chunks, and a constant for each call.
    1.54e-7 * plan.cycles + packing + 5e-3
}

impl<T: Real> DenseConv<'_, T> {
    fn run(&self, source: Inputs<'_, T>, epilogue: Epilogue<'_, T>, out: &Outputs<'_, T>) -> Result<()> {
        let count = self.groups * self.output_blocks;
        let chunks = self.batch * count * self.boxes();
        if chunks == 0 {
            return Ok(());
        }
        let weights_in_place = dispatch(WeightsInPlace(self));
        let size = if weights_in_place { 0 } else { self.weight_block() };
        let mut packed = Scratch::<T>::new("conv", count * size)?;
        let weights_start = packed.uninit().as_mut_ptr();
        let partition = Partition::new(packed.uninit(), size);
        let grain = (CHUNK_WORK / 16 / size.max(1)).max(1);
        parallel_for(if size == 0 { 0 } else { count }, grain, |range| {
            dispatch(PackWeights { plan: self, range, partition: &partition })
        })?;
        let mut partial = PartialMoments::new(&epilogue, self.boxes() * self.lines.len())?;
        let slots = partial.as_mut().map(PartialMoments::slots);
        let work = self.reading.taps.len() * self.positions.iter().product::<usize>();
        let work = self.batch * self.groups * self.inputs * self.outputs * work / chunks;
        // SAFETY: every block of the weights was packed above; padding inside a block isn't read.
        let packed = unsafe { std::slice::from_raw_parts(weights_start.cast::<T>(), count * size) };
        let weights = (!weights_in_place).then_some(packed);
        parallel_for(chunks, (CHUNK_WORK / 2 / work.max(1)).max(1), |range| {
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

/// Whether the tiles read the weights where they are: their (channel, tap) steps are contiguous, and few tiles use them.
struct WeightsInPlace<'a, T>(&'a DenseConv<'a, T>);

impl<T: Real> Kernel for WeightsInPlace<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        let plan = self.0;
        let rows = |block: usize| plan.output_block.min(plan.outputs - block * plan.output_block);
        let blocks = [0, plan.output_blocks - 1].map(rows);
        let panels =
            |rows: usize| (0..rows.div_ceil(panel_rows::<S>())).map(move |panel| rows_of_panel::<S>(panel, rows).len());
        let positions: usize = plan.positions.iter().product();
        let tiles = plan.batch * positions.div_ceil(tile_columns::<S, T>());
        plan.contiguous_steps() && in_place::<S>(tiles, 1, blocks.into_iter().flat_map(panels))
    }
}

/// Packs the weights of some blocks of output channels: panels of [input channel][tap][panel row] for each residue class.
struct PackWeights<'a, T> {
    plan: &'a DenseConv<'a, T>,
    range: Range<usize>,
    partition: &'a Partition<'a, MaybeUninit<T>>,
}

impl<T: Real> Kernel for PackWeights<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let DenseConv { inputs, outputs, output_block, output_blocks, strides, weights, .. } = *self.plan;
        let height = panel_rows::<S>();
        for block in self.range {
            let (group, first) = (block / output_blocks, block % output_blocks * output_block);
            let rows = output_block.min(outputs - first);
            let to = self.partition.block(block);
            if self.plan.contiguous_steps() {
                let steps = inputs * self.plan.reading.taps.len();
                for panel in 0..rows.div_ceil(height) {
                    let rows = rows_of_panel::<S>(panel, rows);
                    let from = &weights[group * strides.group + (first + rows.start) * strides.out..];
                    let to = &mut to[panel * steps * height..][..steps * height];
                    assert!(from.len() >= (rows.len() - 1) * strides.out + steps, "a row of weights is missing");
                    // SAFETY: just checked.
                    unsafe {
                        pack_panel::<S, T>(from.as_ptr(), strides.out, 1, rows.len(), steps, to.as_mut_ptr().cast())
                    };
                }
                continue;
            }
            let mut to = to.chunks_exact_mut(height);
            for residue in self.plan.lines.iter().flat_map(|line| &line.residues) {
                let taps: Vec<usize> = residue.iter().map(|&tap| self.plan.reading.taps[tap].index).collect();
                for panel in 0..rows.div_ceil(height) {
                    let rows = rows_of_panel::<S>(panel, rows);
                    let start = group * strides.group + (first + rows.start) * strides.out;
                    for channel in 0..inputs {
                        let from = &weights[start + channel * strides.inp..];
                        for (&tap, to) in taps.iter().zip(&mut to) {
                            for (row, to) in to.iter_mut().enumerate() {
                                to.write(if row < rows.len() { from[row * strides.out + tap] } else { T::ZERO });
                            }
                        }
                    }
                }
            }
        }
    }
}
