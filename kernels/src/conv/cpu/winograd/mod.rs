//! Kernels of 3 × 3 in a plane, stride 1, with many channels: Winograd's minimal filtering within each plane, the kernel's
//! planes summed plainly.
//!
//! A tile of 4 × 4 outputs takes 36 products in place of 144. Vectors run over channels throughout, so the shape of the image
//! costs nothing but the filling up of tiles. The transforms magnify rounding errors: with `f32` by about five times those of
//! a plain sum, so `f64`, which gradient checks use, isn't computed this way.
//!
//! A chunk is a box of some planes and some rows of tiles of one image. It goes through its planes in steps, transforms the
//! input of all channels once (`[point][slot of a plane][tile][channel]`; the slots form a ring, so that a step finds there
//! what it shares with the one before), and then, for a strip of output channels and some rows of tiles at a time, multiplies
//! point by point and transforms back.

#![allow(clippy::needless_range_loop)] // points are numbered: rows of y, columns of x

mod forward;
mod product;
mod transform;
mod weight_gradient;

pub(super) use forward::{COLUMNS, backward_data, forward};
pub(super) use transform::OUT;
pub(super) use weight_gradient::{STRIP, backward_weights};

use super::pack::equal_blocks;
use super::tensors::Inputs;
use crate::conv::ConvShape;
use crate::simd::{Real, Simd, Vector, transpose};
use std::ops::Range;
use transform::{IN, POINTS};

/// Whether a shape can go this way.
pub(super) fn suits<T: Real>(shape: &ConvShape) -> bool {
    let [kz, ky, kx] = shape.kernel;
    T::MANTISSA_BITS < 30
        && shape.precision == crate::Precision::Fast
        && kz <= 3
        && ky == 3
        && kx == 3
        && shape.stride == [1; 3]
        && shape.dilation == [1; 3]
        && shape.padding[0] < kz
        && shape.padding[1] <= 2
        && shape.padding[2] <= 2
        && shape.in_channels > 0
        && shape.out_channels > 0
}

/// What the forward pass costs: see [`Path::estimate`](super::Path::estimate).
pub(super) fn estimate(shape: &ConvShape) -> f64 {
    let boxes = Boxes::new(shape, [0; 3], [shape.input, shape.output()], shape.group_inputs(), true, forward::ROWS);
    let groups = shape.groups as f64;
    let outputs = groups * shape.group_outputs().next_multiple_of(16) as f64;
    let steps = (boxes.planes * shape.group_inputs()) as f64;
    // The input is transformed with what boxes share, each output once.
    let read = boxes.batch * boxes.blocks[0] * (boxes.deep + boxes.planes - 1) * boxes.blocks[1] * boxes.tiles();
    let written = boxes.batch * boxes.output[0] * boxes.output[1].div_ceil(OUT) * boxes.across;
    let [inputs, points] = [(read * POINTS * boxes.padded) as f64 * groups, (written * POINTS) as f64];
    6.7e-9 * points * steps * outputs
        + 8.5e-8 * inputs
        + 2.3e-7 * points * outputs
        + 3.3e-7 * POINTS as f64 * steps * outputs
        + 3.5e-3
}

/// Numbers of a chunk's transformed input.
const TRANSFORMED: usize = 192 << 10;
/// Tiles of a plane that are enough to be multiplied apart from those of other planes: the rows of a register tile.
const APART: usize = 12;
/// Chunks that are enough to keep the threads busy.
const CHUNKS: usize = 16;

/// A distance of at least `count` numbers, an odd number of cache lines: a transform writes to all points at once, and at
/// distances that are multiples of a page they would drive each other out of the L1 cache.
fn spaced(count: usize) -> usize {
    (count.div_ceil(16) | 1) * 16
}

/// How outputs are cut into boxes, and what a box reads. Images without depth are taken as the planes of one volume, so that
/// small ones fill a box together.
#[derive(Clone)]
struct Boxes {
    batch: usize,
    folded: bool,
    /// Planes of the kernel.
    planes: usize,
    /// Where output 0 begins to read.
    low: [isize; 3],
    source: [usize; 3],
    output: [usize; 3],
    /// Channels that are transformed, rounded up to vectors.
    padded: usize,
    /// Tiles along x, rows of tiles of a box, planes of a box.
    across: usize,
    down: usize,
    deep: usize,
    /// Planes of a step.
    step: usize,
    /// How many boxes there are, along z and y.
    blocks: [usize; 2],
}

impl Boxes {
    /// `fold` says whether images may share a box. A step has at least `enough` tiles, as far as there are as many.
    fn new(
        shape: &ConvShape,
        low: [isize; 3],
        [mut source, mut output]: [[usize; 3]; 2],
        channels: usize,
        fold: bool,
        enough: usize,
    ) -> Self {
        let planes = shape.kernel[0];
        let folded = fold && planes == 1 && shape.input[0] == 1 && shape.padding[0] == 0;
        if folded {
            source[0] = shape.batch;
            output[0] = shape.batch;
        }
        let batch = if folded { 1 } else { shape.batch };
        // Sixteen is the widest vector there is: boxes don't depend on the instruction set.
        let padded = channels.next_multiple_of(16);
        let across = output[2].div_ceil(OUT);
        let tile_rows = output[1].div_ceil(OUT);
        let tiles = TRANSFORMED / (POINTS * padded);
        // The weights of a strip are read anew for each step, which many channels make worse than a transformed input that
        // outgrows the L2 cache.
        let least = enough.div_ceil((across * output[0]).max(1)).min(tile_rows);
        let down = |step: usize| equal_blocks(tile_rows, (tiles / (across * (step + planes - 1)).max(1)).max(least));
        let enough = |&step: &usize| step * across * down(step) >= enough;
        let step = (1..=output[0]).find(enough).unwrap_or(output[0].max(1));
        let down = down(step);
        let down_blocks = tile_rows.div_ceil(down);
        let deep = if across * down < APART {
            // Planes are small: a box is one step of several.
            equal_blocks(output[0], step)
        } else {
            let slabs = CHUNKS.div_ceil(batch.max(1) * shape.groups * down_blocks.max(1));
            equal_blocks(output[0], output[0].div_ceil(slabs).max(4))
        };
        let step = step.min(deep);
        let blocks = [output[0].div_ceil(deep), down_blocks];
        Boxes { batch, folded, planes, low, source, output, padded, across, down, deep, step, blocks }
    }

    /// An image and a plane of it.
    #[inline(always)]
    fn image(&self, n: usize, z: usize) -> [usize; 2] {
        if self.folded { [z, 0] } else { [n, z] }
    }

    /// Voxels of a channel of an image: of the source, and of the output.
    #[inline(always)]
    fn voxels(&self) -> [usize; 2] {
        let plane = [self.source[1] * self.source[2], self.output[1] * self.output[2]];
        if self.folded { plane } else { [plane[0] * self.source[0], plane[1] * self.output[0]] }
    }

    fn count(&self) -> usize {
        self.blocks[0] * self.blocks[1]
    }

    /// Tiles of one plane of a whole box.
    fn tiles(&self) -> usize {
        self.across * self.down
    }

    /// Planes of transformed input that are held.
    fn held(&self) -> usize {
        self.step + self.planes - 1
    }

    /// The distance of the points of the transformed input.
    fn point_size(&self) -> usize {
        spaced(self.held() * self.tiles() * self.padded)
    }

    /// The steps of a box: each with the planes of the input, counted from the box's first, that it transforms anew.
    fn steps(&self, planes: Range<usize>) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let (step, more) = (self.step, self.planes - 1);
        planes.clone().step_by(step).map(move |z| {
            let end = (z + step).min(planes.end);
            let fresh = if z == planes.start { 0 } else { z - planes.start + more };
            (z..end, fresh..end - planes.start + more)
        })
    }

    /// Whether tiles follow each other across the planes of a box: it is one step, of a whole box's rows.
    #[inline(always)]
    fn merged(&self, own: &[Range<usize>; 2]) -> bool {
        self.step == self.deep && own[1].len() == self.down
    }

    /// Where a plane of the transformed input lies, which is the box's `plane`-th.
    #[inline(always)]
    fn slot(&self, plane: usize) -> usize {
        plane % self.held() * self.tiles() * self.padded
    }

    /// A box: its first plane and row of tiles, and how many of them.
    fn at(&self, index: usize) -> [Range<usize>; 2] {
        let (z, y) = (index / self.blocks[1] * self.deep, index % self.blocks[1] * self.down);
        let tile_rows = self.output[1].div_ceil(OUT);
        [z..(z + self.deep).min(self.output[0]), y..(y + self.down).min(tile_rows)]
    }

    /// Numbers of scratch that [`transform`](Self::transform) needs.
    fn staging<S: Simd, T: Real>(&self) -> usize {
        ((OUT * self.down + 2) * (OUT * self.across + 2) + 8) * T::Vec::<S>::LANES
    }

    /// Transforms planes `fresh` of the input of a box: `to[point * point_size + slot + tile * padded + channel]`; channels
    /// from `channels` on are zeros.
    ///
    /// # Safety
    /// `staging` and `to` are as large as promised above.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn transform<S: Simd, T: Real>(
        &self,
        source: &Inputs<'_, T>,
        n: usize,
        channels: Range<usize>,
        [planes, rows]: &[Range<usize>; 2],
        fresh: Range<usize>,
        staging: *mut T,
        to: *mut T,
    ) {
        let lanes = T::Vec::<S>::LANES;
        let height = OUT * rows.len() + 2;
        let width = OUT * self.across + 2;
        for plane in fresh {
            let z = (planes.start + plane) as isize + self.low[0];
            for first in (0..self.padded).step_by(lanes) {
                let real = channels.len().saturating_sub(first).min(lanes);
                for y in 0..height {
                    let row = (rows.start * OUT + y) as isize + self.low[1];
                    // SAFETY: the staging area holds whole rows.
                    unsafe {
                        let to = staging.add(y * width * lanes);
                        let channel = channels.start + first;
                        self.stage::<S, T>(source, n, channel..channel + real, [z, row], width, to);
                    }
                }
                for y in 0..rows.len() {
                    for x in 0..self.across {
                        let tile = self.slot(plane) + (y * self.across + x) * self.padded;
                        // SAFETY: a tile's six columns and rows are staged; every point has room for it.
                        unsafe {
                            transform::input::<T::Vec<S>>(
                                staging.add((y * OUT * width + x * OUT) * lanes),
                                width * lanes,
                                lanes,
                                to.add(tile + first),
                                self.point_size(),
                            );
                        }
                    }
                }
            }
        }
    }

    /// Writes a row of some channels, side by side at each place and zero-padded: `to[x][channel]`.
    ///
    /// # Safety
    /// `to` has room for `width` vectors, and for eight more, which aren't kept.
    #[inline(always)]
    unsafe fn stage<S: Simd, T: Real>(
        &self,
        source: &Inputs<'_, T>,
        n: usize,
        channels: Range<usize>,
        [z, y]: [isize; 2],
        width: usize,
        to: *mut T,
    ) {
        let lanes = T::Vec::<S>::LANES;
        let [depth, rows, columns] = self.source;
        let outside = z < 0 || y < 0 || z as usize >= depth || y as usize >= rows;
        // The places whose columns lie inside the source.
        let left = if outside { width } else { (-self.low[2]).clamp(0, width as isize) as usize };
        let right = (columns as isize - self.low[2]).clamp(left as isize, width as isize) as usize;
        // SAFETY: places are below `width`, channels below a vector; rows lie inside the source.
        unsafe {
            if left == right {
                for x in 0..width {
                    T::Vec::<S>::zero().store_ptr(to.add(x * lanes));
                }
                return;
            }
            let [n, z] = self.image(n, z as usize);
            let voxels = self.voxels()[0];
            let start = (z * rows + y as usize) * columns + (left as isize + self.low[2]) as usize;
            for first in (0..lanes).step_by(8) {
                let group = channels.start + first..(channels.start + first + 8).min(channels.end);
                // The eight channels may lie in two tensors; then they aren't evenly spaced. A row of less than eight columns
                // is read beyond its end, if that lies in the tensor, and what comes of it is overwritten.
                let read = (right - left).max(8);
                let from = source.spaced(n, &group, voxels);
                if let Some(from) = from.filter(|from| group.len() == 8 && start + 7 * voxels + read <= from.len()) {
                    let (from, to) = (from.as_ptr().add(start), to.add(left * lanes + first));
                    transpose::<T::Vec<S>>(from, voxels, [8, read], to, lanes);
                    continue;
                }
                for i in 0..8.min(lanes - first) {
                    let channel = channels.start + first + i;
                    if channel < channels.end {
                        let from = &source.channel(n, channel, voxels)[start..];
                        for x in left..right {
                            *to.add(x * lanes + first + i) = from[x - left];
                        }
                    } else {
                        for x in left..right {
                            *to.add(x * lanes + first + i) = T::ZERO;
                        }
                    }
                }
            }
            for x in (0..left).chain(right..width) {
                T::Vec::<S>::zero().store_ptr(to.add(x * lanes));
            }
        }
    }
}

const _: () = assert!(IN == OUT + 2);
