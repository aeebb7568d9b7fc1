//! 3 × 3 and 5 × 5 kernels in a plane, stride 1, with many channels: Winograd's minimal filtering within each plane; the products
//! of the kernel's planes are summed.
//!
//! A tile of 4 × 4 outputs of a kernel of 3 × 3 takes 36 products instead of 144, a tile of 2 × 2 outputs of a kernel of 5 × 5
//! takes 36 instead of 100. Vectors hold channels throughout, so an image size costs extra only for partial tiles. The transforms amplify rounding errors, in `f32` to about five times those of a direct sum; so
//! `f64`, which gradient checks use, never takes this path.
//!
//! A chunk is a box of some planes and some rows of tiles of one image. It processes its planes in steps. A step transforms
//! the input of all channels once (`[point][slot of a plane][tile][channel]`; the slots form a ring buffer, so that planes
//! shared with the previous step aren't transformed again). Then, for each strip of output channels and some rows of tiles at
//! a time, it multiplies point by point and transforms back. If an image is a single box, the threads share its transformed
//! input and divide the output channels.

#![allow(clippy::needless_range_loop)] // points are numbered: rows of y, columns of x

mod forward;
mod product;
mod transform;
mod weight_gradient;

pub(super) use forward::{COLUMNS, backward_data, forward};
pub(super) use transform::MOST_OUT;
pub(super) use weight_gradient::{STRIP, backward_weights};

use super::pack::equal_blocks;
use super::tensors::Inputs;
use crate::conv::ConvShape;
use crate::simd::{Real, Simd, Vector, transpose};
use std::ops::Range;
use transform::{IN, MOST_TAPS, POINTS};

/// Whether this path can compute a shape.
pub(super) fn suits<T: Real>(shape: &ConvShape) -> bool {
    let [kz, ky, kx] = shape.kernel;
    // Each tap of a plane meets the input, one of five taps more than once: a gradient of few products, or of none, would get the
    // rounding errors of its tile.
    let meets = |axis: usize| {
        let padding = if kx == 3 { shape.padding[axis] } else { 0 };
        shape.input[axis] + padding >= shape.kernel[axis]
    };
    T::MANTISSA_BITS < 30
        && shape.precision == crate::Precision::Fast
        && (kx == 3 || kx == MOST_TAPS)
        && ky == kx
        && kz <= kx
        && shape.stride == [1; 3]
        && shape.dilation == [1; 3]
        && shape.padding[0] < kz
        && shape.padding[1] < ky
        && shape.padding[2] < kx
        && meets(1)
        && meets(2)
        && shape.in_channels > 0
        && shape.out_channels > 0
}

/// The estimated time of the forward pass; see [`Path::estimate`](super::Path::estimate).
pub(super) fn estimate(shape: &ConvShape) -> f64 {
    let boxes = Boxes::new(shape, [0; 3], [shape.input, shape.output()], shape.group_inputs(), true, forward::ROWS);
    let groups = shape.groups as f64;
    let outputs = groups * shape.group_outputs().next_multiple_of(16) as f64;
    let steps = (boxes.planes * shape.group_inputs()) as f64;
    // Input that several boxes read is transformed by each of them; each output is transformed once.
    let read = boxes.batch * boxes.blocks[0] * (boxes.deep + boxes.planes - 1) * boxes.blocks[1] * boxes.tiles();
    let written = boxes.batch * boxes.output[0] * boxes.output[1].div_ceil(boxes.out) * boxes.across;
    // Strips use their transformed weights at once; others are written to memory and read again.
    let weights = match (boxes.single(shape.groups), boxes.out) {
        (true, transform::MOST_OUT) => 7.5e-8,
        (true, _) => 2.3e-7,
        (false, _) => 3.3e-7,
    };
    let [inputs, points] = [(read * POINTS * boxes.padded) as f64 * groups, (written * POINTS) as f64];
    6.7e-9 * points * steps * outputs
        + 8.5e-8 * inputs
        + 2.3e-7 * points * outputs
        + weights * POINTS as f64 * steps * outputs
        + 3.5e-3
}

/// The number of elements of a chunk's transformed input.
const TRANSFORMED: usize = 192 << 10;
/// The most elements of transformed input that the threads share.
const SHARED: usize = 4 << 20;
/// If a plane of a box has at least this many tiles (the rows of a register tile), planes are multiplied separately.
const APART: usize = 12;
/// The number of chunks that keeps the threads busy.
const CHUNKS: usize = 16;

/// A stride of at least `count` elements that is an odd number of cache lines. A transform writes to all points at once; at
/// strides that are multiples of a page, these writes would map to the same L1 cache sets.
fn spaced(count: usize) -> usize {
    (count.div_ceil(16) | 1) * 16
}

/// How outputs are divided into boxes, and what a box reads. Images without depth are treated as the planes of one volume, so
/// that several small images share a box.
#[derive(Clone)]
struct Boxes {
    batch: usize,
    folded: bool,
    /// Planes of the kernel.
    planes: usize,
    /// Outputs of a tile along y and along x.
    out: usize,
    /// The source coordinate that output 0 reads first.
    low: [isize; 3],
    source: [usize; 3],
    output: [usize; 3],
    /// Input channels, rounded up to whole vectors.
    padded: usize,
    /// Tiles along x, rows of tiles of a box, planes of a box.
    across: usize,
    down: usize,
    deep: usize,
    /// Planes of a step.
    step: usize,
    /// The number of boxes along z and y.
    blocks: [usize; 2],
}

impl Boxes {
    /// `fold` says whether images may share a box. A step has at least `enough` tiles, if the image has that many.
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
        // Rounded to the widest vector of any instruction set, so that boxes don't depend on the instruction set.
        let padded = channels.next_multiple_of(16);
        let out = transform::outputs(shape.kernel[2]);
        let across = output[2].div_ceil(out);
        let tile_rows = output[1].div_ceil(out);
        let tiles = TRANSFORMED / (POINTS * padded);
        // Each step reads the weights of a strip again. With many channels this costs more than a transformed input larger
        // than the L2 cache, so a step keeps at least `least` rows of tiles.
        let least = enough.div_ceil((across * output[0]).max(1)).min(tile_rows);
        let down = |step: usize| equal_blocks(tile_rows, (tiles / (across * (step + planes - 1)).max(1)).max(least));
        let enough = |&step: &usize| step * across * down(step) >= enough;
        let step = (1..=output[0]).find(enough).unwrap_or(output[0].max(1));
        let down = down(step);
        let down_blocks = tile_rows.div_ceil(down);
        let deep = if across * down < APART {
            // Planes are small: a box is a single step of several planes.
            equal_blocks(output[0], step)
        } else {
            let slabs = CHUNKS.div_ceil(batch.max(1) * shape.groups * down_blocks.max(1));
            equal_blocks(output[0], output[0].div_ceil(slabs).max(4))
        };
        let step = step.min(deep);
        let blocks = [output[0].div_ceil(deep), down_blocks];
        Boxes { batch, folded, planes, out, low, source, output, padded, across, down, deep, step, blocks }
    }

    /// The image, and the plane of that image, at index `n` and plane `z` of the (maybe folded) batch.
    #[inline(always)]
    fn image(&self, n: usize, z: usize) -> [usize; 2] {
        if self.folded { [z, 0] } else { [n, z] }
    }

    /// Voxels of a channel of an image, of the source and of the output.
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

    /// How many planes of transformed input are kept.
    fn held(&self) -> usize {
        self.step + self.planes - 1
    }

    /// The distance between two points of the transformed input.
    fn point_size(&self) -> usize {
        spaced(self.held() * self.tiles() * self.padded)
    }

    /// The steps of a box: the output planes of each, and the input planes, counted from the box's first, that it has to
    /// transform.
    fn steps(&self, planes: Range<usize>) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let (step, more) = (self.step, self.planes - 1);
        planes.clone().step_by(step).map(move |z| {
            let end = (z + step).min(planes.end);
            let fresh = if z == planes.start { 0 } else { z - planes.start + more };
            (z..end, fresh..end - planes.start + more)
        })
    }

    /// Whether each image is one box of one step, and the transformed input of all images is small.
    fn single(&self, groups: usize) -> bool {
        let small = self.batch * groups * POINTS * self.point_size() <= SHARED;
        self.batch > 0 && self.count() == 1 && self.step == self.deep && small
    }

    /// Whether the tiles of a step are contiguous across its planes: the box is a single step and has all its rows of tiles.
    #[inline(always)]
    fn merged(&self, own: &[Range<usize>; 2]) -> bool {
        self.step == self.deep && own[1].len() == self.down
    }

    /// The offset of the slot of the box's `plane`-th transformed input plane.
    #[inline(always)]
    fn slot(&self, plane: usize) -> usize {
        plane % self.held() * self.tiles() * self.padded
    }

    /// The planes and the rows of tiles of a box.
    fn at(&self, index: usize) -> [Range<usize>; 2] {
        let (z, y) = (index / self.blocks[1] * self.deep, index % self.blocks[1] * self.down);
        let tile_rows = self.output[1].div_ceil(self.out);
        [z..(z + self.deep).min(self.output[0]), y..(y + self.down).min(tile_rows)]
    }

    /// The inputs that `tiles` adjacent tiles read along an axis.
    #[inline(always)]
    fn reads(&self, tiles: usize) -> usize {
        self.out * tiles + IN - self.out
    }

    /// The number of scratch elements that [`transform`](Self::transform) needs.
    fn staging<S: Simd, T: Real>(&self) -> usize {
        (self.reads(self.down) * self.reads(self.across) + 8) * T::Vec::<S>::LANES
    }

    /// Transforms some of the (padded) channels of input planes `fresh` of a box to `to[point * point_size + slot + tile *
    /// padded + channel]`. `own` counts channels from the first of `channels`; those beyond its last are zeros.
    ///
    /// # Safety
    /// `staging` has the size of [`staging`](Self::staging), and `to` holds `POINTS` times [`point_size`](Self::point_size).
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn transform<S: Simd, T: Real>(
        &self,
        source: &Inputs<'_, T>,
        n: usize,
        channels: Range<usize>,
        own: Range<usize>,
        [planes, rows]: &[Range<usize>; 2],
        fresh: Range<usize>,
        staging: *mut T,
        to: *mut T,
    ) {
        let lanes = T::Vec::<S>::LANES;
        let height = self.reads(rows.len());
        let width = self.reads(self.across);
        for plane in fresh {
            let z = (planes.start + plane) as isize + self.low[0];
            for first in own.clone().step_by(lanes) {
                let real = channels.len().saturating_sub(first).min(lanes);
                for y in 0..height {
                    let row = (rows.start * self.out + y) as isize + self.low[1];
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
                        // SAFETY: the six rows and columns of a tile are staged, and every point has room for the tile.
                        unsafe {
                            transform::input::<T::Vec<S>>(
                                staging.add((y * width + x) * self.out * lanes),
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

    /// Writes a row of some channels, interleaved and zero-padded: `to[x][channel]`.
    ///
    /// # Safety
    /// `to` has room for `width` vectors, and for eight more, whose contents are discarded.
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
        // The positions whose source columns lie inside the source.
        let left = if outside { width } else { (-self.low[2]).clamp(0, width as isize) as usize };
        let right = (columns as isize - self.low[2]).clamp(left as isize, width as isize) as usize;
        // SAFETY: positions are below `width` and channels below a vector's lanes; rows lie inside the source.
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
                // Eight channels that lie in two tensors aren't evenly spaced and take the scalar loop. A row of fewer than
                // eight columns is read beyond its end if the tensor goes on there; the excess is overwritten below.
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
