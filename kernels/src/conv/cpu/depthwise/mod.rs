//! Depthwise convolution: each group has one input channel and at most four output channels.
//!
//! There is no sum over channels, so nothing to block over them. A channel is computed plane by plane: the source planes that
//! a plane of positions reads are kept in a ring buffer ([`Ring`]), zero-padded and deinterleaved by the stride, and a
//! register tile of a few rows accumulates over all taps ([`Taps`]). For the weight gradient, the sums of some taps are kept
//! in registers.

mod ring;
mod taps;
mod weight_gradient;

pub(super) use taps::{GROUP, MOST_ROWS, SLACK};
pub(super) use weight_gradient::{ROWS, SINGLE, backward_weights};

use crate::conv::ConvShape;
use crate::conv::cpu::epilogue::{Epilogue, Finish, MomentSlots, PartialMoments, moments_of};
use crate::conv::cpu::pack::{Reading, Tap};
use crate::conv::cpu::tensors::{Inputs, Outputs};
use crate::elementwise::apply;
use crate::parallel::{or_give_up, parallel_for};
use crate::simd::{Kernel, Real, Simd, Vector, dispatch};
use ring::Ring;
use std::ops::Range;
use taps::{Ahead, Taps, Tile, groups};
use tomograd_core::{Result, Scratch};

/// Whether this path can compute a shape.
pub(in crate::conv::cpu) fn suits(shape: &ConvShape) -> bool {
    shape.groups > 1 && shape.in_channels == shape.groups && (1..=4).contains(&shape.group_outputs())
}

/// Whether it can compute the backward pass with respect to the input: a forward pass with reversed taps, if the stride is 1.
pub(in crate::conv::cpu) fn suits_backward_data(shape: &ConvShape) -> bool {
    suits(shape) && shape.out_channels == shape.groups && shape.stride == [1; 3]
}

/// The least number of multiply-adds of a parallel chunk.
const CHUNK_WORK: usize = 256 << 10;
/// The least number of blocks of planes over all channels, if there are that many planes.
const BLOCKS: usize = 64;

struct DepthwiseConv<'a, T> {
    batch: usize,
    channels: usize,
    /// Output channels of an input channel.
    outputs: usize,
    source_size: [usize; 3],
    positions: [usize; 3],
    /// How a plane of positions reads one source plane.
    reading: Reading,
    /// The stride along z: source planes from one plane of positions to the next.
    step: usize,
    /// The source plane that each plane of taps reads, relative to `z * step`, in ascending order.
    shifts: Vec<isize>,
    /// How many taps of a kernel column read consecutive source rows: the whole column if stride and dilation along y are 1,
    /// else 1.
    height: usize,
    /// The taps in the order of summation.
    order: Vec<usize>,
    weights: &'a [T],
    /// Planes of positions of a work item, and the number of work items of a channel.
    deep: usize,
    blocks: usize,
}

impl<'a, T: Real> DepthwiseConv<'a, T> {
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
        let [_, height, width] = shape.kernel;
        let [planes, rows, columns] = [0, 1, 2].map(|axis| {
            let mut going_up: Vec<usize> = (0..shape.kernel[axis]).collect();
            going_up.sort_by_key(|&at| low(axis, at));
            going_up
        });
        let plane = || columns.iter().flat_map(|&x| rows.iter().map(move |&y| (y, x)));
        let taps = plane().map(|(y, x)| Tap { shift: [0, low(1, y), low(2, x)], index: y * width + x });
        let shared = step[1] == 1 && shape.dilation[1] == 1;
        let mut order = Vec::with_capacity(shape.taps());
        for group in if shared { groups(height) } else { groups(1) } {
            for &z in &planes {
                let taps = plane().filter(|&(y, _)| !shared || rows[group.clone()].contains(&y));
                order.extend(taps.map(|(y, x)| (z * height + y) * width + x));
            }
        }
        let channels = (shape.batch * shape.groups).max(1);
        let deep = positions[0].div_ceil(BLOCKS.div_ceil(channels)).max(1);
        DepthwiseConv {
            batch: shape.batch,
            channels: shape.groups,
            outputs: shape.group_outputs(),
            source_size,
            positions,
            reading: Reading::new([1, step[1], step[2]], taps.collect()).aligned(source_size[2], positions[2]),
            step: step[0],
            shifts: planes.iter().map(|&z| low(0, z)).collect(),
            height: if shared { height } else { 1 },
            order,
            weights,
            deep,
            blocks: positions[0].div_ceil(deep),
        }
    }

    /// The size of a plane of positions.
    fn plane(&self) -> [usize; 3] {
        [1, self.positions[1], self.positions[2]]
    }

    /// The number of source planes from the first to the last that a plane of positions reads, inclusive.
    fn span(&self) -> usize {
        (self.shifts[self.shifts.len() - 1] - self.shifts[0]) as usize + 1
    }

    fn taps(&self) -> Taps {
        Taps {
            planes: self.shifts.len(),
            height: self.height,
            columns: self.reading.offsets(self.plane()).into_iter().step_by(self.height).collect(),
            pitch: self.reading.extent(self.plane())[2],
            groups: groups(self.height).collect(),
        }
    }

    fn grain(&self, items: usize) -> usize {
        let work = self.positions.iter().product::<usize>() * self.order.len() * self.outputs;
        (CHUNK_WORK / (work * self.batch * self.channels / items.max(1)).max(1)).max(1)
    }

    fn run(&self, source: Inputs<'_, T>, epilogue: Epilogue<'_, T>, out: &Outputs<'_, T>) -> Result<()> {
        let items = self.batch * self.channels * self.blocks;
        if items == 0 || self.positions.contains(&0) {
            return Ok(());
        }
        let mut partial = PartialMoments::new(&epilogue, self.positions[0])?;
        let slots = partial.as_mut().map(PartialMoments::slots);
        let taps = self.taps();
        parallel_for(items, self.grain(items), |range| {
            let moments = slots.as_ref();
            dispatch(Channels { plan: self, taps: &taps, range, source, epilogue: &epilogue, moments, out })
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
    DepthwiseConv::forward(shape, weights).run(x, epilogue, out)
}

/// The backward pass with respect to the input.
pub(in crate::conv::cpu) fn backward_data<T: Real>(
    shape: &ConvShape,
    dy: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    out: &Outputs<'_, T>,
) -> Result<()> {
    DepthwiseConv::backward_data(shape, weights).run(dy, epilogue, out)
}

struct Channels<'a, T> {
    plan: &'a DepthwiseConv<'a, T>,
    taps: &'a Taps,
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
        let [depth, height, width] = plan.positions;
        let taps = plan.order.len();
        // The sums with bias are kept if their moments are needed.
        let kept = if self.moments.is_some() { height * width } else { 0 };
        let sizes = [Ring::room(plan), taps * plan.outputs, kept];
        let mut memory = or_give_up(Scratch::<T>::new("conv", sizes.iter().sum()));
        let (ring, rest) = memory.zeroed().split_at_mut(sizes[0]);
        let (weights, kept) = rest.split_at_mut(sizes[1]);
        let mut ring = Ring::new(plan, self.source, ring);
        // Cache lines of the next source planes and of the next output plane, to be prefetched: in all, and for each tile.
        let lines = [plan.step * plan.source_size[1] * plan.source_size[2], height * width]
            .map(|count| count.div_ceil(64 / size_of::<T>()));
        let tiles = height.div_ceil(MOST_ROWS) * width.div_ceil(T::Vec::<S>::LANES);
        let each = lines.map(|lines| lines.div_ceil(tiles));
        let mut columns = Vec::with_capacity(taps / self.taps.height);
        for item in self.range.clone() {
            let (index, first) = (item / plan.blocks, item % plan.blocks * plan.deep);
            let (n, channel) = (index / plan.channels, index % plan.channels);
            for (output, weights) in weights.chunks_exact_mut(taps).enumerate() {
                let all = &plan.weights[(channel * plan.outputs + output) * taps..][..taps];
                weights.iter_mut().zip(&plan.order).for_each(|(to, &tap)| *to = all[tap]);
            }
            ring.restart();
            for z in first..depth.min(first + plan.deep) {
                ring.turn::<S>(n, channel, z);
                let (planes, plane) = ring.planes();
                columns.clear();
                // SAFETY: a packed plane holds what its columns of taps read.
                columns.extend(
                    planes.iter().flat_map(|plane| self.taps.columns.iter().map(|&at| unsafe { plane.add(at) })),
                );
                for (output, weights) in weights.chunks_exact(taps).enumerate() {
                    let target = channel * plan.outputs + output;
                    let finish = Finish::<S, T>::new(self.epilogue, target);
                    // SAFETY: the plane is inside the output, and only this item writes it.
                    let to = unsafe { self.out.channel(n, target, depth * height * width).add(z * height * width) };
                    let asked = if output == 0 { lines[0] } else { 0 };
                    let mut ahead = [
                        Ahead { at: ring.ahead(n, channel, z), lines: asked, each: each[0] },
                        Ahead { at: to.wrapping_add(height * width), lines: lines[1], each: each[1] },
                    ];
                    let mut y = 0;
                    while y < height {
                        let (mut x, mut rows) = (0, 0);
                        while x < width {
                            let at = y * width + x;
                            // SAFETY: the ring holds all that the tile reads, and the plane all that it writes.
                            unsafe {
                                let tile = Tile {
                                    taps: self.taps,
                                    columns: &columns,
                                    plane,
                                    weights,
                                    left: [height - y, width - x],
                                    to: to.add(at),
                                    to_pitch: width,
                                    kept: (!kept.is_empty()).then(|| kept[at..].as_mut_ptr()),
                                };
                                let done = tile.run::<S>(y * self.taps.pitch + x, &finish, &mut ahead);
                                (x, rows) = (x + done[1], done[0]);
                            }
                        }
                        y += rows;
                    }
                    if let Some(function) = self.epilogue.function {
                        // SAFETY: the tiles wrote the whole plane, and no other item reads or writes it.
                        let plane = unsafe { std::slice::from_raw_parts_mut(to, height * width) };
                        apply::<T::Vec<S>>(function, plane);
                    }
                    if let Some(moments) = self.moments {
                        let row = |y: usize| &kept[y * width..][..width];
                        let slot = ((n * plan.channels + channel) * plan.outputs + output) * depth + z;
                        moments.set(slot, moments_of::<S, T>(height, row));
                    }
                }
            }
        }
    }
}
