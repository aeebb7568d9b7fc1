//! Forward and backward-data. Backward-data is a forward pass with reversed taps and exchanged channels.

use super::product::{Left, VECTORS, product, strip};
use super::transform::{self, OUT, POINTS};
use super::{Boxes, CHUNKS, spaced};
use crate::conv::ConvShape;
use crate::conv::cpu::epilogue::{Epilogue, Finish, MomentSlots, PartialMoments, Shifted};
use crate::conv::cpu::pack::equal_blocks;
use crate::conv::cpu::tensors::{Inputs, Outputs};
use crate::parallel::{Partition, or_give_up, parallel_for};
use crate::simd::{Kernel, Real, Simd, Vector, dispatch, gather, prefetch, transpose};
use std::mem::MaybeUninit;
use std::ops::Range;
use tomograd_core::{Result, Scratch};

/// About how many tiles are multiplied before they are transformed back.
pub(super) const ROWS: usize = 48;

/// Columns that are transformed back and written together.
pub(in crate::conv::cpu) const COLUMNS: usize = 64;
/// The number of elements of transformed weights above which the output channels are computed in rounds.
const WEIGHTS: usize = 8 << 20;
/// How many channels ahead the output addresses are prefetched.
const AHEAD: usize = 3;

/// Some tiles of a row for a strip of channels: the position of their outputs, and the number of tiles.
struct Block {
    n: usize,
    channel: usize,
    z: usize,
    y: usize,
    x: usize,
    tiles: usize,
}

/// The strides of the weights: element `group * g + output channel * out + input channel * inp + tap`; if `turned`, taps are
/// reversed.
#[derive(Clone, Copy)]
struct Weights<'a, T> {
    weights: &'a [T],
    group: usize,
    out: usize,
    inp: usize,
    turned: bool,
}

struct WinogradForward<'a, T> {
    groups: usize,
    inputs: usize,
    outputs: usize,
    boxes: Boxes,
    weights: Weights<'a, T>,
}

/// The forward pass.
pub(in crate::conv::cpu) fn forward<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    out: &Outputs<'_, T>,
) -> Result<()> {
    let low = shape.padding.map(|padding| -(padding as isize));
    let plan = WinogradForward {
        groups: shape.groups,
        inputs: shape.group_inputs(),
        outputs: shape.group_outputs(),
        boxes: Boxes::new(
            shape,
            low,
            [shape.input, shape.output()],
            shape.group_inputs(),
            epilogue.moments.is_none(),
            ROWS,
        ),
        weights: Weights {
            weights,
            group: shape.group_outputs() * shape.group_inputs() * shape.taps(),
            out: shape.group_inputs() * shape.taps(),
            inp: shape.taps(),
            turned: false,
        },
    };
    plan.run(x, epilogue, out)
}

/// The backward pass with respect to the input.
pub(in crate::conv::cpu) fn backward_data<T: Real>(
    shape: &ConvShape,
    dy: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    out: &Outputs<'_, T>,
) -> Result<()> {
    let low = std::array::from_fn(|axis| shape.padding[axis] as isize - (shape.kernel[axis] as isize - 1));
    let plan = WinogradForward {
        groups: shape.groups,
        inputs: shape.group_outputs(),
        outputs: shape.group_inputs(),
        boxes: Boxes::new(
            shape,
            low,
            [shape.output(), shape.input],
            shape.group_outputs(),
            epilogue.moments.is_none(),
            ROWS,
        ),
        weights: Weights {
            weights,
            group: shape.group_outputs() * shape.group_inputs() * shape.taps(),
            out: shape.taps(),
            inp: shape.group_inputs() * shape.taps(),
            turned: true,
        },
    };
    plan.run(dy, epilogue, out)
}

impl<T: Real> WinogradForward<'_, T> {
    /// Output channels, rounded up to vectors of any instruction set.
    fn padded_outputs(&self) -> usize {
        self.outputs.next_multiple_of(16)
    }

    /// The output channels of each round, whose transformed weights are in memory at the same time.
    fn rounds(&self) -> impl Iterator<Item = Range<usize>> {
        let weights = self.groups * self.padded_outputs() / 16 * self.weight_block();
        split(self.padded_outputs(), weights.div_ceil(WEIGHTS))
    }

    /// The parts into which the output channels of a round are split across chunks. Each part transforms the input again, which
    /// costs little compared to the products of a part's many channels.
    fn parts(&self, round: Range<usize>) -> Vec<Range<usize>> {
        let boxes = self.boxes.batch * self.groups * self.boxes.count();
        let parts = CHUNKS.div_ceil(boxes.max(1)).min(round.len() / 64).max(1);
        split(round.len(), parts).map(|part| round.start + part.start..round.start + part.end).collect()
    }

    /// The number of elements of the transformed weights of sixteen output channels of a group.
    fn weight_block(&self) -> usize {
        POINTS * self.boxes.planes * self.inputs * 16
    }

    fn run(&self, source: Inputs<'_, T>, epilogue: Epilogue<'_, T>, out: &Outputs<'_, T>) -> Result<()> {
        let boxes = self.boxes.count();
        let mut partial = PartialMoments::new(&epilogue, boxes)?;
        let slots = partial.as_mut().map(PartialMoments::slots);
        for round in self.rounds() {
            let per_group = round.len() / 16;
            let mut transformed = Scratch::<T>::new("conv", self.groups * per_group * self.weight_block())?;
            {
                // Two blocks of sixteen channels form the widest strip.
                let strips = per_group.div_ceil(2);
                let whole = Partition::new(transformed.uninit(), self.weight_block());
                parallel_for(self.groups * strips, 1, |range| {
                    for i in range {
                        let (group, strip) = (i / strips, i % strips);
                        let block = group * per_group + strip * 2;
                        let last = (block + 2).min((group + 1) * per_group);
                        let to = whole.take(block * self.weight_block()..last * self.weight_block());
                        dispatch(TransformWeights { plan: self, group, first: round.start + strip * 32, to });
                    }
                })?;
            }
            // SAFETY: every block was written, padding included.
            let weights = unsafe { transformed.assume_init() };
            let parts = &self.parts(round.clone())[..];
            parallel_for(self.boxes.batch * self.groups * boxes * parts.len(), 1, |range| {
                let (round, moments) = (round.clone(), slots.as_ref());
                dispatch(Chunks { plan: self, range, source, round, parts, weights, epilogue: &epilogue, moments, out })
            })?;
        }
        drop(slots);
        if let (Some(moments), Some(partial)) = (epilogue.moments, partial) {
            partial.join(moments);
        }
        Ok(())
    }
}

/// Divides `channels` into ranges of whole strips, as equal as can be.
fn split(channels: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
    let strips = channels.div_ceil(32);
    let parts = parts.clamp(1, strips.max(1));
    let end = move |part: usize| (strips * part / parts * 32).min(channels);
    (0..parts).map(move |part| end(part)..end(part + 1))
}

/// Transforms the weights of up to 32 output channels to `[strip][point][plane][input channel][output channel of the strip]`.
struct TransformWeights<'a, T> {
    plan: &'a WinogradForward<'a, T>,
    group: usize,
    first: usize,
    to: &'a mut [MaybeUninit<T>],
}

impl<T: Real> Kernel for TransformWeights<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let plan = self.plan;
        let Weights { weights, group, out, inp, turned } = plan.weights;
        let lanes = T::Vec::<S>::LANES;
        let (planes, inputs) = (plan.boxes.planes, plan.inputs);
        let count = self.to.len() / (POINTS * planes * inputs);
        let to = self.to.as_mut_ptr().cast::<T>();
        let taps = planes * 9;
        let mut gathered = [[T::ZERO; 16]; 3 * 9];
        let gathered = &mut gathered[..taps];
        for start in (0..count).step_by(strip::<S, T>()) {
            let width = strip::<S, T>().min(count - start);
            for vector in (0..width).step_by(lanes) {
                let channel = self.first + start + vector;
                let real = plan.outputs.saturating_sub(channel).min(lanes);
                for input in 0..inputs {
                    // Padding channels have no weights.
                    let from = if real == 0 { 0 } else { self.group * group + channel * out + input * inp };
                    gather::<T::Vec<S>>(&weights[from..], out, real, gathered);
                    for plane in 0..planes {
                        let mut vectors = [[T::Vec::<S>::zero(); 3]; 3];
                        for (tap, value) in vectors.as_flattened_mut().iter_mut().enumerate() {
                            let tap = plane * 9 + tap;
                            *value = T::Vec::<S>::load(&gathered[if turned { taps - 1 - tap } else { tap }]);
                        }
                        let points = transform::taps::<T::Vec<S>>(vectors);
                        for (point, value) in points.as_flattened().iter().enumerate() {
                            let row = ((point * planes + plane) * inputs + input) * width;
                            // SAFETY: the address lies inside this strip's part.
                            unsafe { value.store_ptr(to.add(start * POINTS * planes * inputs + row + vector)) };
                        }
                    }
                }
            }
        }
    }
}

struct Chunks<'a, T> {
    plan: &'a WinogradForward<'a, T>,
    range: Range<usize>,
    source: Inputs<'a, T>,
    /// The output channels whose weights are there.
    round: Range<usize>,
    parts: &'a [Range<usize>],
    weights: &'a [T],
    epilogue: &'a Epilogue<'a, T>,
    moments: Option<&'a MomentSlots<'a>>,
    out: &'a Outputs<'a, T>,
}

impl<T: Real> Kernel for Chunks<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let plan = self.plan;
        let boxes = &plan.boxes;
        let lanes = T::Vec::<S>::LANES;
        let scratch = |count: usize| or_give_up(Scratch::<T>::new("conv", count));
        let mut staging = scratch(boxes.staging::<S, T>());
        let staging = staging.uninit().as_mut_ptr().cast::<T>();
        let mut input = scratch(POINTS * boxes.point_size());
        let input = input.uninit().as_mut_ptr().cast::<T>();
        let tile_rows = equal_blocks(boxes.down * boxes.step, (ROWS / boxes.across.max(1)).max(1));
        let width = strip::<S, T>();
        let mut products = scratch(POINTS * spaced(tile_rows * boxes.across * width));
        let products = products.uninit().as_mut_ptr().cast::<T>();
        let mut pixels = scratch(OUT * COLUMNS * width);
        let pixels = pixels.zeroed().as_mut_ptr();
        let mut lines = scratch(OUT * COLUMNS * width);
        let lines = lines.zeroed().as_mut_ptr();
        let padded = plan.padded_outputs();
        // Sums for the moments of each output channel.
        let mut shifted = vec![Shifted::<S, T>::new(); if self.moments.is_some() { padded } else { 0 }];
        for chunk in self.range.clone() {
            let (part, chunk) = (&self.parts[chunk % self.parts.len()], chunk / self.parts.len());
            let (index, item) = (chunk % boxes.count(), chunk / boxes.count());
            let (n, group) = (item / plan.groups, item % plan.groups);
            let own = boxes.at(index);
            shifted.fill(Shifted::new());
            for (planes, fresh) in boxes.steps(own[0].clone()) {
                let channels = group * plan.inputs..(group + 1) * plan.inputs;
                // SAFETY: the scratch areas have the size of a whole step.
                unsafe { boxes.transform::<S, T>(&self.source, n, channels, &own, fresh, staging, input) };
                let all_rows = planes.len() * own[1].len();
                for first in part.clone().step_by(width) {
                    let here = width.min(part.end - first);
                    let vectors = here / lanes;
                    let per_output = POINTS * boxes.planes * plan.inputs;
                    let weights =
                        self.weights[(group * self.round.len() + first - self.round.start) * per_output..].as_ptr();
                    let count = here.min(plan.outputs.saturating_sub(first));
                    let channel = group * plan.outputs + first;
                    for start in (0..all_rows).step_by(tile_rows) {
                        let end = all_rows.min(start + tile_rows);
                        let tiles = (end - start) * boxes.across;
                        let stride = spaced(tiles * here);
                        // SAFETY: the tiles lie inside the transformed step; `products` and `pixels` have room for them.
                        unsafe {
                            for point in 0..POINTS {
                                let products = products.add(point * stride);
                                self.multiply::<S>(point, input, weights, &own, &planes, start..end, vectors, products);
                            }
                            for row in start..end {
                                for x in (0..boxes.across).step_by(COLUMNS / OUT) {
                                    let tile = (row - start) * boxes.across + x;
                                    let block = Block {
                                        n,
                                        channel,
                                        z: planes.start + row / own[1].len(),
                                        y: (own[1].start + row % own[1].len()) * OUT,
                                        x: x * OUT,
                                        tiles: (boxes.across - x).min(COLUMNS / OUT),
                                    };
                                    let shifted = if self.moments.is_some() { &mut shifted[first..] } else { &mut [] };
                                    let products = products.add(tile * here);
                                    self.transform_back::<S>(&block, products, stride, vectors, pixels, lines);
                                    self.store::<S>(&block, lines, count, shifted);
                                }
                            }
                        }
                    }
                }
            }
            if let Some(moments) = self.moments {
                for (i, shifted) in shifted.iter().enumerate().take(plan.outputs.min(part.end)).skip(part.start) {
                    let channel = (n * plan.groups + group) * plan.outputs + i;
                    moments.set(channel * boxes.count() + index, shifted.moments());
                }
            }
        }
    }
}

impl<T: Real> Chunks<'_, T> {
    /// Multiplies some of a step's rows of tiles at one point: `products[tile][channel of the strip]`.
    ///
    /// # Safety
    /// `input` is a transformed step, `weights` a strip, and `products` has room for the rows.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn multiply<S: Simd>(
        &self,
        point: usize,
        input: *const T,
        weights: *const T,
        own: &[Range<usize>; 2],
        step: &Range<usize>,
        rows: Range<usize>,
        vectors: usize,
        products: *mut T,
    ) {
        let boxes = &self.plan.boxes;
        let width = vectors * T::Vec::<S>::LANES;
        let steps = boxes.planes * self.plan.inputs;
        let merged = boxes.merged(own);
        // SAFETY: the caller's promise.
        unsafe {
            let input = input.add(point * boxes.point_size());
            let weights = weights.add(point * steps * width);
            let mut row = rows.start;
            while row < rows.end {
                let (z, y) = (row / own[1].len(), row % own[1].len());
                let count = if merged { rows.end - row } else { (own[1].len() - y).min(rows.end - row) };
                let plane = step.start - own[0].start + z;
                let segments: [usize; 3] = std::array::from_fn(|i| boxes.slot(plane + i));
                let left = Left {
                    a: input.add(y * boxes.across * boxes.padded),
                    row: boxes.padded,
                    step: 1,
                    segments: &segments[..boxes.planes],
                    k: self.plan.inputs,
                };
                let to = products.add((row - rows.start) * boxes.across * width);
                product::<S, T, true>(count * boxes.across, vectors, left, weights, to, false);
                row += count;
            }
        }
    }

    /// Transforms the products of some tiles of a row back: `lines[channel of the strip][line][column]`.
    ///
    /// # Safety
    /// `products[point * stride]` holds the block's tiles, and `pixels` and `lines` have room for a whole block.
    #[inline(always)]
    unsafe fn transform_back<S: Simd>(
        &self,
        block: &Block,
        products: *const T,
        stride: usize,
        vectors: usize,
        pixels: *mut T,
        lines: *mut T,
    ) {
        let lanes = T::Vec::<S>::LANES;
        let width = vectors * lanes;
        // SAFETY: the caller's promise.
        unsafe {
            for tile in 0..block.tiles {
                for vector in 0..vectors {
                    transform::output::<T::Vec<S>>(
                        products.add(tile * width + vector * lanes),
                        stride,
                        pixels.add(tile * OUT * width + vector * lanes),
                        COLUMNS * width,
                        width,
                    );
                }
            }
            for line in 0..OUT {
                let (from, to) = (pixels.add(line * COLUMNS * width), lines.add(line * COLUMNS));
                // Columns are transposed in blocks of eight; the last block may contain columns that are discarded.
                let columns = (OUT * block.tiles).next_multiple_of(8);
                transpose::<T::Vec<S>>(from, width, [columns, width], to, OUT * COLUMNS);
            }
        }
    }

    /// Applies the epilogue to some channels of a block and writes them.
    ///
    /// # Safety
    /// `lines` holds the block, and its outputs exist and belong to this chunk.
    #[inline(always)]
    unsafe fn store<S: Simd>(&self, block: &Block, lines: *mut T, channels: usize, shifted: &mut [Shifted<S, T>]) {
        let [_, height, width] = self.plan.boxes.output;
        let ([n, z], voxels) = (self.plan.boxes.image(block.n, block.z), self.plan.boxes.voxels()[1]);
        let rows = OUT.min(height - block.y);
        let columns = (OUT * block.tiles).min(width - block.x);
        for i in 0..channels {
            let finish = Finish::<S, T>::new(self.epilogue, block.channel + i);
            // SAFETY: the caller's promise; prefetched addresses may lie beyond the output.
            unsafe {
                let to = self.out.channel(n, block.channel + i, voxels);
                let to = to.add((z * height + block.y) * width + block.x);
                for row in 0..rows {
                    // Consecutive channels are far apart in memory, a stride that hardware prefetchers don't follow.
                    for x in (0..columns).step_by(64 / size_of::<T>()) {
                        prefetch(to.wrapping_add(AHEAD * voxels + row * width + x));
                    }
                    let line = std::slice::from_raw_parts_mut(lines.add((i * OUT + row) * COLUMNS), columns);
                    finish.row(line, to.add(row * width), 1);
                    if let Some(shifted) = shifted.get_mut(i) {
                        shifted.add(line);
                    }
                }
            }
        }
    }
}

const _: () = assert!(VECTORS == 2);
