//! Forward and backward-data. Backward-data is a forward pass with reversed taps and exchanged channels.

use super::product::{Left, VECTORS, product, strip};
use super::transform::{self, MOST_OUT, MOST_TAPS, POINTS};
use super::{Boxes, CHUNKS, spaced};
use crate::conv::ConvShape;
use crate::conv::cpu::epilogue::{Epilogue, Finish, MomentSlots, PartialMoments, Shifted};
use crate::conv::cpu::pack::equal_blocks;
use crate::conv::cpu::tensors::{Inputs, Outputs};
use crate::parallel::{Partition, or_give_up, parallel_for, threads};
use crate::simd::{Kernel, Real, Simd, Vector, dispatch, gather, prefetch, transpose};
use std::mem::MaybeUninit;
use std::ops::Range;
use tomograd_core::{Element, Result, Scratch};

/// About how many tiles are multiplied before they are transformed back.
pub(super) const ROWS: usize = 48;

/// The most taps that are gathered at once: those of eight kernels of 3³, or of one of 5³.
const GATHERED: usize = 8 * 27;
/// Columns that are transformed back and written together.
pub(in crate::conv::cpu) const COLUMNS: usize = 64;
/// The number of elements of transformed weights above which the output channels are computed in rounds.
const WEIGHTS: usize = 8 << 20;
/// How many channels ahead the output addresses are prefetched.
const AHEAD: usize = 3;

/// The start of memory that several threads write, each its own part.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: who uses it makes sure that no two threads write the same element, and that nobody reads meanwhile.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

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

    /// The distance of two points of the transformed weights, in rows of a strip: an odd number, so that the writes of a
    /// transform, which go to all points at once, don't map to the same L1 cache sets.
    #[inline(always)]
    fn steps(&self) -> usize {
        (self.boxes.planes * self.inputs) | 1
    }

    /// The number of elements of the transformed weights of sixteen output channels of a group.
    fn weight_block(&self) -> usize {
        POINTS * self.steps() * 16
    }

    fn run(&self, source: Inputs<'_, T>, epilogue: Epilogue<'_, T>, out: &Outputs<'_, T>) -> Result<()> {
        let mut partial = PartialMoments::new(&epilogue, self.boxes.count())?;
        let slots = partial.as_mut().map(PartialMoments::slots);
        let job = Job { plan: self, source, epilogue: &epilogue, moments: slots.as_ref(), out };
        if self.boxes.single(self.groups) {
            self.run_single(job)?;
        } else {
            self.run_boxes(job)?;
        }
        drop(slots);
        if let (Some(moments), Some(partial)) = (epilogue.moments, partial) {
            partial.join(moments);
        }
        Ok(())
    }

    /// Each image is one box of one step: its input is transformed once, and each strip of output channels transforms its own
    /// weights.
    fn run_single(&self, job: Job<'_, T>) -> Result<()> {
        let images = self.boxes.batch * self.groups;
        let mut transformed = Scratch::<T>::new("conv", images * POINTS * self.boxes.point_size())?;
        let to = Shared(transformed.uninit().as_mut_ptr().cast());
        parallel_for(images * self.boxes.padded / 16, 1, |range| dispatch(TransformInput { job, range, to }))?;
        let strips = self.groups * self.padded_outputs().div_ceil(32);
        // The moments of a channel of an image are summed by one chunk, so that they don't depend on the number of threads.
        let wanted = threads().div_ceil(strips.max(1));
        let image_parts = wanted.min(self.boxes.batch);
        let rows = if job.moments.is_some() { 1 } else { self.boxes.step * self.boxes.down };
        let parts = [image_parts, wanted.div_ceil(image_parts.max(1)).min(rows).max(1)];
        parallel_for(strips * parts[0] * parts[1], 1, |range| dispatch(Strips { job, range, parts, input: to }))
    }

    /// Many boxes: the weights are transformed once, and each box transforms its input.
    fn run_boxes(&self, job: Job<'_, T>) -> Result<()> {
        let boxes = self.boxes.count();
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
            let weights = Shared(transformed.uninit().as_mut_ptr().cast());
            let parts = &self.parts(round.clone())[..];
            parallel_for(self.boxes.batch * self.groups * boxes * parts.len(), 1, |range| {
                dispatch(Chunks { job, range, round: round.clone(), parts, weights })
            })?;
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
        if self.plan.boxes.out == transform::outputs(3) {
            self.transform::<S, 3>();
        } else {
            self.transform::<S, 5>();
        }
    }
}

impl<T: Real> TransformWeights<'_, T> {
    #[inline(always)]
    fn transform<S: Simd, const TAPS: usize>(self) {
        let plan = self.plan;
        let Weights { weights, group, out, inp, turned } = plan.weights;
        let lanes = T::Vec::<S>::LANES;
        let (planes, inputs) = (plan.boxes.planes, plan.inputs);
        let (steps, count) = (plan.steps(), self.to.len() / (POINTS * plan.steps()));
        let to = self.to.as_mut_ptr().cast::<T>();
        let taps = planes * TAPS * TAPS;
        let mut gathered = [[T::ZERO; 16]; GATHERED];
        // Where the taps of consecutive input channels are contiguous, those of several channels are gathered at once.
        let several = if inp == taps { (GATHERED / taps).min(8) } else { 1 };
        for start in (0..count).step_by(strip::<S, T>()) {
            let width = strip::<S, T>().min(count - start);
            for vector in (0..width).step_by(lanes) {
                let channel = self.first + start + vector;
                let real = plan.outputs.saturating_sub(channel).min(lanes);
                for input in 0..inputs {
                    if input % several == 0 {
                        // Padding channels have no weights.
                        let from = if real == 0 { 0 } else { self.group * group + channel * out + input * inp };
                        let gathered = &mut gathered[..taps * several.min(inputs - input)];
                        gather::<T::Vec<S>>(&weights[from..], out, real, gathered);
                    }
                    let gathered = &gathered[input % several * taps..][..taps];
                    for plane in 0..planes {
                        let mut vectors = [[T::Vec::<S>::zero(); TAPS]; TAPS];
                        for (tap, value) in vectors.as_flattened_mut().iter_mut().enumerate() {
                            let tap = plane * TAPS * TAPS + tap;
                            *value = T::Vec::<S>::load(&gathered[if turned { taps - 1 - tap } else { tap }]);
                        }
                        let points = transform::taps::<T::Vec<S>, TAPS>(vectors);
                        for (point, value) in points.as_flattened().iter().enumerate() {
                            let row = (point * steps + plane * inputs + input) * width;
                            // SAFETY: the address lies inside this strip's part.
                            unsafe { value.store_ptr(to.add(start * POINTS * steps + row + vector)) };
                        }
                    }
                }
            }
        }
    }
}

/// What all chunks of a convolution have in common.
#[derive(Clone, Copy)]
struct Job<'a, T> {
    plan: &'a WinogradForward<'a, T>,
    source: Inputs<'a, T>,
    epilogue: &'a Epilogue<'a, T>,
    moments: Option<&'a MomentSlots<'a>>,
    out: &'a Outputs<'a, T>,
}

/// A step of a box: its image and group, the planes and rows of tiles of the box, and the step's own planes.
struct Step {
    n: usize,
    group: usize,
    own: [Range<usize>; 2],
    planes: Range<usize>,
}

/// The memory of a thread behind the transforms.
struct Buffers<T: Element> {
    /// `[point][tile][channel of the strip]`
    products: Scratch<T>,
    /// `[line][column][channel of the strip]`
    pixels: Scratch<T>,
    /// `[channel of the strip][line][column]`
    lines: Scratch<T>,
    /// The rows of tiles that are multiplied before they are transformed back.
    tile_rows: usize,
}

impl<T: Real> Buffers<T> {
    fn new<S: Simd>(boxes: &Boxes) -> Self {
        let scratch = |count: usize| or_give_up(Scratch::<T>::new("conv", count));
        let tile_rows = equal_blocks(boxes.down * boxes.step, (ROWS / boxes.across.max(1)).max(1));
        let width = strip::<S, T>();
        let mut buffers = Buffers {
            products: scratch(POINTS * spaced(tile_rows * boxes.across * width)),
            pixels: scratch(boxes.out * COLUMNS * width),
            lines: scratch(boxes.out * COLUMNS * width),
            tile_rows,
        };
        buffers.pixels.zeroed();
        buffers.lines.zeroed();
        buffers
    }

    /// The starts of products, pixels and lines.
    fn pointers(&mut self) -> [*mut T; 3] {
        [&mut self.products, &mut self.pixels, &mut self.lines].map(|scratch| scratch.uninit().as_mut_ptr().cast())
    }
}

/// Some boxes, for a part of the output channels each; the weights were transformed before.
struct Chunks<'a, T> {
    job: Job<'a, T>,
    range: Range<usize>,
    /// The output channels whose weights are there.
    round: Range<usize>,
    parts: &'a [Range<usize>],
    /// The transformed weights of the round; what [`steps`](WinogradForward::steps) adds to a point isn't written.
    weights: Shared<T>,
}

impl<T: Real> Kernel for Chunks<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Job { plan, source, moments, .. } = self.job;
        let boxes = &plan.boxes;
        let scratch = |count: usize| or_give_up(Scratch::<T>::new("conv", count));
        let mut staging = scratch(boxes.staging::<S, T>());
        let staging = staging.uninit().as_mut_ptr().cast::<T>();
        let mut input = scratch(POINTS * boxes.point_size());
        let input = input.uninit().as_mut_ptr().cast::<T>();
        let mut buffers = Buffers::new::<S>(boxes);
        let width = strip::<S, T>();
        let padded = plan.padded_outputs();
        // Sums for the moments of each output channel.
        let mut shifted = vec![Shifted::<S, T>::new(); if moments.is_some() { padded } else { 0 }];
        for chunk in self.range.clone() {
            let (part, chunk) = (&self.parts[chunk % self.parts.len()], chunk / self.parts.len());
            let (index, item) = (chunk % boxes.count(), chunk / boxes.count());
            let (n, group) = (item / plan.groups, item % plan.groups);
            let own = boxes.at(index);
            shifted.fill(Shifted::new());
            for (planes, fresh) in boxes.steps(own[0].clone()) {
                let channels = group * plan.inputs..(group + 1) * plan.inputs;
                let vectors = 0..boxes.padded;
                // SAFETY: the scratch areas have the size of a whole step.
                unsafe { boxes.transform::<S, T>(&source, n, channels, vectors, &own, fresh, staging, input) };
                let rows = planes.len() * own[1].len();
                let step = Step { n, group, own: own.clone(), planes };
                for first in part.clone().step_by(width) {
                    let strip = first..part.end.min(first + width);
                    let per_output = POINTS * plan.steps();
                    let before = (group * self.round.len() + first - self.round.start) * per_output;
                    let shifted = if moments.is_some() { &mut shifted[first..] } else { &mut [] };
                    // SAFETY: input, weights and buffers have the size of a whole step.
                    unsafe {
                        let weights = self.weights.0.add(before);
                        self.job.strip::<S>(&step, 0..rows, input, weights, strip, &mut buffers, shifted);
                    }
                }
            }
            if let Some(moments) = moments {
                for (i, shifted) in shifted.iter().enumerate().take(plan.outputs.min(part.end)).skip(part.start) {
                    let channel = (n * plan.groups + group) * plan.outputs + i;
                    moments.set(channel * boxes.count() + index, shifted.moments());
                }
            }
        }
    }
}

/// Transforms some of the sixteens of input channels of images that are one box each: `to[image][group][point * point_size +
/// …]`.
struct TransformInput<'a, T> {
    job: Job<'a, T>,
    range: Range<usize>,
    to: Shared<T>,
}

impl<T: Real> Kernel for TransformInput<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let plan = self.job.plan;
        let boxes = &plan.boxes;
        let mut staging = or_give_up(Scratch::<T>::new("conv", boxes.staging::<S, T>()));
        let staging = staging.uninit().as_mut_ptr().cast::<T>();
        let own = boxes.at(0);
        for item in self.range {
            let (image, first) = (item / (boxes.padded / 16), item % (boxes.padded / 16) * 16);
            let (n, group) = (image / plan.groups, image % plan.groups);
            let channels = group * plan.inputs..(group + 1) * plan.inputs;
            let fresh = 0..own[0].len() + boxes.planes - 1;
            // SAFETY: `to` has room for the input of every image and group; no other chunk writes these channels.
            unsafe {
                let to = self.to.0.add(image * POINTS * boxes.point_size());
                boxes.transform::<S, T>(&self.job.source, n, channels, first..first + 16, &own, fresh, staging, to);
            }
        }
    }
}

/// Some strips of output channels of images that are one box each. A strip's weights are transformed right before they are
/// used, and stay in the cache meanwhile.
struct Strips<'a, T> {
    job: Job<'a, T>,
    range: Range<usize>,
    /// Into how many parts the images, and the rows of tiles of an image, are divided: fewer strips than threads leave some
    /// idle.
    parts: [usize; 2],
    /// The transformed input of each image and group.
    input: Shared<T>,
}

impl<T: Real> Kernel for Strips<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Job { plan, moments, .. } = self.job;
        let boxes = &plan.boxes;
        let (own, padded) = (boxes.at(0), plan.padded_outputs());
        let mut buffers = Buffers::new::<S>(boxes);
        let mut weights = or_give_up(Scratch::<T>::new("conv", 2 * plan.weight_block()));
        let mut shifted = vec![Shifted::<S, T>::new(); if moments.is_some() { 32 } else { 0 }];
        let [images, rows] = [boxes.batch, own[0].len() * own[1].len()];
        for item in self.range {
            let (row_part, item) = (item % self.parts[1], item / self.parts[1]);
            let (image_part, item) = (item % self.parts[0], item / self.parts[0]);
            let part = |count: usize, part: usize, parts: usize| count * part / parts..count * (part + 1) / parts;
            let rows = part(rows, row_part, self.parts[1]);
            let (group, first) = (item / padded.div_ceil(32), item % padded.div_ceil(32) * 32);
            let count = (padded - first).min(32);
            let to = &mut weights.uninit()[..count / 16 * plan.weight_block()];
            TransformWeights { plan, group, first, to }.run(simd);
            let weights = weights.uninit().as_ptr().cast::<T>();
            for n in part(images, image_part, self.parts[0]) {
                let step = Step { n, group, own: own.clone(), planes: own[0].clone() };
                shifted.fill(Shifted::new());
                for start in (0..count).step_by(strip::<S, T>()) {
                    let strip = first + start..first + count.min(start + strip::<S, T>());
                    let shifted = if moments.is_some() { &mut shifted[start..] } else { &mut [] };
                    // SAFETY: the input is that of the whole image; the strip's weights were transformed above.
                    unsafe {
                        let input = self.input.0.add((n * plan.groups + group) * POINTS * boxes.point_size());
                        let weights = weights.add(start * POINTS * plan.steps());
                        self.job.strip::<S>(&step, rows.clone(), input, weights, strip, &mut buffers, shifted);
                    }
                }
                if let Some(moments) = moments {
                    for (i, shifted) in shifted.iter().enumerate().take(plan.outputs.saturating_sub(first)) {
                        let channel = (n * plan.groups + group) * plan.outputs + first + i;
                        moments.set(channel, shifted.moments());
                    }
                }
            }
        }
    }
}

impl<T: Real> Job<'_, T> {
    /// Computes a strip of output channels for some rows of tiles of a step: multiplies a few rows at a time, transforms them
    /// back and writes them.
    ///
    /// # Safety
    /// `input` is a transformed step, and `weights` the strip's; the strip's outputs belong to this chunk.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn strip<S: Simd>(
        &self,
        step: &Step,
        rows: Range<usize>,
        input: *const T,
        weights: *const T,
        strip: Range<usize>,
        buffers: &mut Buffers<T>,
        shifted: &mut [Shifted<S, T>],
    ) {
        let boxes = &self.plan.boxes;
        let (own, planes, out) = (&step.own, &step.planes, boxes.out);
        let vectors = strip.len() / T::Vec::<S>::LANES;
        let count = strip.len().min(self.plan.outputs.saturating_sub(strip.start));
        let channel = step.group * self.plan.outputs + strip.start;
        let tile_rows = buffers.tile_rows;
        let [products, pixels, lines] = buffers.pointers();
        for start in rows.clone().step_by(tile_rows) {
            let end = rows.end.min(start + tile_rows);
            let tiles = (end - start) * boxes.across;
            let stride = spaced(tiles * strip.len());
            // SAFETY: the tiles lie inside the transformed step; the buffers have room for them.
            unsafe {
                for point in 0..POINTS {
                    let products = products.add(point * stride);
                    self.multiply::<S>(point, input, weights, own, planes, start..end, vectors, products);
                }
                for row in start..end {
                    for x in (0..boxes.across).step_by(COLUMNS / out) {
                        let tile = (row - start) * boxes.across + x;
                        let block = Block {
                            n: step.n,
                            channel,
                            z: planes.start + row / own[1].len(),
                            y: (own[1].start + row % own[1].len()) * out,
                            x: x * out,
                            tiles: (boxes.across - x).min(COLUMNS / out),
                        };
                        let products = products.add(tile * strip.len());
                        self.transform_back::<S>(&block, products, stride, vectors, pixels, lines);
                        self.store::<S>(&block, lines, count, shifted);
                    }
                }
            }
        }
    }

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
        let steps = self.plan.steps();
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
                let segments: [usize; MOST_TAPS] = std::array::from_fn(|i| boxes.slot(plane + i));
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
        let out = self.plan.boxes.out;
        // SAFETY: the caller's promise.
        unsafe {
            for tile in 0..block.tiles {
                for vector in 0..vectors {
                    let from = products.add(tile * width + vector * lanes);
                    let to = pixels.add(tile * out * width + vector * lanes);
                    if out == MOST_OUT {
                        transform::output::<T::Vec<S>, MOST_OUT>(from, stride, to, COLUMNS * width, width);
                    } else {
                        transform::output::<T::Vec<S>, 2>(from, stride, to, COLUMNS * width, width);
                    }
                }
            }
            for line in 0..out {
                let (from, to) = (pixels.add(line * COLUMNS * width), lines.add(line * COLUMNS));
                // Columns are transposed in blocks of eight; the last block may contain columns that are discarded.
                let columns = (out * block.tiles).next_multiple_of(8);
                transpose::<T::Vec<S>>(from, width, [columns, width], to, out * COLUMNS);
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
        let out = self.plan.boxes.out;
        let rows = out.min(height - block.y);
        let columns = (out * block.tiles).min(width - block.x);
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
                    let line = std::slice::from_raw_parts_mut(lines.add((i * out + row) * COLUMNS), columns);
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
