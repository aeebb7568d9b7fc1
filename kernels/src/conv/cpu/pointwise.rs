//! 1 × 1 × 1 kernels without padding: a matrix product for each image, or a single one for a batch of small images. With a
//! stride, of the voxels that it reads.

use super::epilogue::{Activation, Epilogue, Finish, MomentSlots, PartialMoments, moments_of};
use super::tensors::{Inputs, Outputs};
use crate::conv::ConvShape;
use crate::elementwise::apply_all;
use crate::matmul::cpu::{GemmShape, Start, View, gemm, gemm_add};
use crate::parallel::{Grid, Partition, parallel_for};
use crate::simd::{Kernel, Real, Simd, dispatch};
use crate::view::exchange;
use std::mem::MaybeUninit;
use std::ops::Range;
use tomograd_core::{Result, Scratch};

/// Elements of a channel that are finished together.
const PIECE: usize = 16 << 10;
/// Images of fewer voxels are multiplied as one matrix, (channels, images · voxels): a product of so few columns fills no
/// register tile.
const SMALL_IMAGE: usize = 48;
/// The most steps of a chain of sums in the gradient of the weights of small images; longer sums go to the general path.
const LONGEST: usize = 4096;
/// The least number of elements that are copied in a parallel chunk.
const CHUNK: usize = 32 << 10;
/// The least number of elements of a parallel chunk of the epilogue, which may compute a function for each.
const FINISHED: usize = 4 << 10;

/// Whether this path can compute a shape.
pub(super) fn suits(shape: &ConvShape) -> bool {
    shape.kernel == [1; 3]
        && shape.padding == [0; 3]
        && shape.groups == 1
        && shape.in_channels > 0
        && shape.out_channels > 0
}

/// `y[n] = bias + w · x[n]`. A second input tensor is a second product, accumulated into `y`. The rest of the epilogue is a
/// separate pass over `y`.
pub(super) fn forward<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    y: &mut [MaybeUninit<T>],
) -> Result<()> {
    let sizes = merged(shape);
    let mut product = Scratch::new("conv", if small(shape) { y.len() } else { 0 })?;
    let out = if small(shape) { product.uninit() } else { &mut *y };
    let mut first = 0;
    for (data, channels) in x.parts().filter(|&(_, channels)| channels > 0) {
        let mut gathered = Gathered::new(shape, channels)?;
        let data = gathered.read(shape, data, channels, shape.input)?;
        let sizes = GemmShape { m: shape.out_channels, k: channels, ..sizes };
        let data_of = weights.get(first..).unwrap_or(&[]);
        let left = View { data: data_of, batch_stride: 0, row_stride: shape.in_channels, column_stride: 1 };
        let right = View::contiguous(data, channels, sizes.n);
        if first == 0 {
            gemm(sizes, left, right, epilogue.bias.map_or(Start::Zero, Start::Rows), out)?;
        } else {
            // SAFETY: the first product wrote every element.
            gemm_add(sizes, left, right, unsafe { written(out) })?;
        }
        first += channels;
    }
    if small(shape) && first > 0 {
        // SAFETY: the products wrote every element.
        let product = unsafe { product.assume_init() };
        exchange(product, [shape.out_channels, shape.batch], shape.output_voxels(), y)?;
    }
    let plain = epilogue.norm.is_none() && epilogue.activation == Activation::Identity;
    if plain && epilogue.function.is_none() && epilogue.moments.is_none() {
        return Ok(());
    }
    // SAFETY: there is at least one input channel, so a product wrote every element.
    finish(shape, Epilogue { bias: None, ..epilogue }, unsafe { written(y) })
}

/// The slice as initialised elements.
///
/// # Safety
/// Every element was written.
unsafe fn written<T>(y: &mut [MaybeUninit<T>]) -> &mut [T] {
    // SAFETY: the caller's promise; `MaybeUninit<T>` has the layout of `T`.
    unsafe { std::slice::from_raw_parts_mut(y.as_mut_ptr().cast::<T>(), y.len()) }
}

/// `dx[n] = wᵀ · dy[n]`, for each of the tensors between which the input's channels are split.
pub(super) fn backward_data<T: Real>(
    shape: &ConvShape,
    dy: &[T],
    weights: &[T],
    dx: &mut Outputs<'_, T>,
) -> Result<()> {
    let voxels = shape.output_voxels();
    let mut first = 0;
    let mut gathered = Gathered::new(shape, shape.out_channels)?;
    let dy = gathered.read(shape, dy, shape.out_channels, shape.output())?;
    for (dx, channels) in dx.parts_mut().filter(|&(_, channels)| channels > 0) {
        let sizes = GemmShape { m: channels, k: shape.out_channels, ..merged(shape) };
        let left = View { data: &weights[first..], batch_stride: 0, row_stride: 1, column_stride: shape.in_channels };
        let right = View::contiguous(dy, shape.out_channels, sizes.n);
        first += channels;
        if !strided(shape) && !small(shape) {
            gemm(sizes, left, right, Start::Zero, dx)?;
            continue;
        }
        let mut product = Scratch::new("conv", shape.batch * channels * voxels)?;
        gemm(sizes, left, right, Start::Zero, product.uninit())?;
        // SAFETY: `gemm` writes every element.
        let product = unsafe { product.assume_init() };
        match (small(shape), strided(shape)) {
            (false, _) => scatter(shape, product, dx)?,
            (true, false) => exchange(product, [channels, shape.batch], voxels, dx)?,
            (true, true) => {
                let mut images = Scratch::new("conv", product.len())?;
                exchange(product, [channels, shape.batch], voxels, images.uninit())?;
                // SAFETY: `exchange` writes every element.
                scatter(shape, unsafe { images.assume_init() }, dx)?;
            }
        }
    }
    Ok(())
}

/// Whether [`backward_weights`] computes this shape.
pub(super) fn suits_backward_weights(shape: &ConvShape) -> bool {
    small(shape) && shape.batch * shape.output_voxels() <= LONGEST
}

/// `dw = Σ dy[n] · x[n]ᵀ` over a batch of small images.
pub(super) fn backward_weights<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    dy: &[T],
    dw: &mut [MaybeUninit<T>],
) -> Result<()> {
    let mut gathered = Gathered::new(shape, shape.out_channels)?;
    let dy = gathered.read(shape, dy, shape.out_channels, shape.output())?;
    let steps = shape.batch * shape.output_voxels();
    let left = View::contiguous(dy, shape.out_channels, steps);
    let whole = x.parts().filter(|&(_, channels)| channels > 0).count() < 2;
    let mut first = 0;
    for (data, channels) in x.parts().filter(|&(_, channels)| channels > 0) {
        let mut gathered = Gathered::new(shape, channels)?;
        let data = gathered.read(shape, data, channels, shape.input)?;
        let sizes = GemmShape { batch: 1, m: shape.out_channels, n: channels, k: steps };
        let right = View::contiguous(data, channels, steps).transposed();
        if whole {
            return gemm(sizes, left, right, Start::Zero, dw);
        }
        let mut part = Scratch::new("conv", shape.out_channels * channels)?;
        gemm(sizes, left, right, Start::Zero, part.uninit())?;
        // SAFETY: `gemm` writes every element.
        let part = unsafe { part.assume_init() };
        for (from, to) in part.chunks_exact(channels).zip(dw.chunks_exact_mut(shape.in_channels)) {
            to[first..first + channels].write_copy_of_slice(from);
        }
        first += channels;
    }
    Ok(())
}

/// Whether the images of a batch are so small that they are multiplied as one matrix.
fn small(shape: &ConvShape) -> bool {
    shape.batch > 1 && shape.output_voxels() < SMALL_IMAGE
}

/// The number of products of a pass, and of their columns.
fn merged(shape: &ConvShape) -> GemmShape {
    let (images, voxels) = (shape.batch, shape.output_voxels());
    let (batch, n) = if small(shape) { (1, images * voxels) } else { (images, voxels) };
    GemmShape { batch, m: 0, n, k: 0 }
}

/// A right matrix that isn't read where it is: the voxels that a strided kernel reads, with the images of a batch side by side
/// if they are small.
struct Gathered<T: Real>([Scratch<T>; 2]);

impl<T: Real> Gathered<T> {
    fn new(shape: &ConvShape, channels: usize) -> Result<Self> {
        let count = shape.batch * channels * shape.output_voxels();
        let scratch = |needed: bool| Scratch::new("conv", if needed { count } else { 0 });
        Ok(Self([scratch(strided(shape))?, scratch(small(shape))?]))
    }

    /// The matrix of `data`, (images, channels, voxels) of images of `size`, which is that of the input or the output.
    fn read<'a>(&'a mut self, shape: &ConvShape, data: &'a [T], channels: usize, size: [usize; 3]) -> Result<&'a [T]> {
        let [strides, images] = &mut self.0;
        let mut data = data;
        if strided(shape) && size == shape.input {
            gather(shape, data, strides.uninit())?;
            // SAFETY: `gather` writes every element.
            data = unsafe { strides.assume_init() };
        }
        if small(shape) {
            exchange(data, [shape.batch, channels], shape.output_voxels(), images.uninit())?;
            // SAFETY: `exchange` writes every element.
            data = unsafe { images.assume_init() };
        }
        Ok(data)
    }
}

fn strided(shape: &ConvShape) -> bool {
    shape.stride != [1; 3]
}

/// Copies the voxels that the kernel reads: `to` is (rows, output voxels), for an input of (rows, input voxels).
fn gather<T: Real>(shape: &ConvShape, from: &[T], to: &mut [MaybeUninit<T>]) -> Result<()> {
    let (inputs, outputs) = (shape.input_voxels(), shape.output_voxels());
    let rows = to.len().checked_div(outputs).unwrap_or(0);
    let partition = Partition::new(to, outputs);
    parallel_for(rows, (CHUNK / outputs.max(1)).max(1), |range| {
        for row in range {
            let (from, to) = (&from[row * inputs..(row + 1) * inputs], partition.block(row));
            for (to, line) in to.chunks_exact_mut(shape.output()[2]).zip(lines(shape)) {
                for (to, &from) in to.iter_mut().zip(from[line].iter().step_by(shape.stride[2])) {
                    to.write(from);
                }
            }
        }
    })
}

/// The reverse of [`gather`], with zeros at the voxels that the kernel doesn't read.
fn scatter<T: Real>(shape: &ConvShape, from: &[T], to: &mut [MaybeUninit<T>]) -> Result<()> {
    let (inputs, outputs) = (shape.input_voxels(), shape.output_voxels());
    let rows = to.len().checked_div(inputs).unwrap_or(0);
    let partition = Partition::new(to, inputs);
    parallel_for(rows, (CHUNK / inputs.max(1)).max(1), |range| {
        for row in range {
            let (from, to) = (&from[row * outputs..(row + 1) * outputs], partition.block(row));
            to.fill(MaybeUninit::new(T::ZERO));
            for (from, line) in from.chunks_exact(shape.output()[2]).zip(lines(shape)) {
                for (&from, to) in from.iter().zip(to[line].iter_mut().step_by(shape.stride[2])) {
                    to.write(from);
                }
            }
        }
    })
}

/// The input's lines along x that a strided kernel reads, in the order of the output's.
fn lines(shape: &ConvShape) -> impl Iterator<Item = Range<usize>> {
    let ([depth, rows, _], [_, height, width]) = (shape.output(), shape.input);
    let stride = shape.stride;
    (0..depth * rows).map(move |line| {
        let start = (line / rows * stride[0] * height + line % rows * stride[1]) * width;
        start..start + width
    })
}

/// Takes the moments and applies norm and activation, in place.
fn finish<T: Real>(shape: &ConvShape, epilogue: Epilogue<'_, T>, y: &mut [T]) -> Result<()> {
    let voxels = shape.output_voxels();
    if let Epilogue { norm: None, activation: Activation::Identity, function: Some(function), moments: None, .. } =
        epilogue
    {
        return apply_all(function, y, FINISHED);
    }
    let (rows, pieces) = (shape.batch * shape.out_channels, voxels.div_ceil(PIECE));
    let mut partial = PartialMoments::new(&epilogue, pieces)?;
    let slots = partial.as_mut().map(PartialMoments::slots);
    let grid = Grid::new(y, rows, voxels, 1, PIECE)?;
    parallel_for(rows * pieces, (FINISHED / voxels.clamp(1, PIECE)).max(1), |range| {
        dispatch(Pieces {
            range,
            pieces,
            channels: shape.out_channels,
            epilogue: &epilogue,
            slots: slots.as_ref(),
            grid: &grid,
        })
    })?;
    drop(slots);
    if let (Some(moments), Some(partial)) = (epilogue.moments, partial) {
        partial.join(moments);
    }
    Ok(())
}

struct Pieces<'a, T> {
    range: Range<usize>,
    pieces: usize,
    channels: usize,
    epilogue: &'a Epilogue<'a, T>,
    slots: Option<&'a MomentSlots<'a>>,
    grid: &'a Grid<'a, T>,
}

impl<T: Real> Kernel for Pieces<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for item in self.range {
            let (row, piece) = (item / self.pieces, item % self.pieces);
            let mut tile = self.grid.tile(row, piece);
            let numbers = tile.row(0);
            if let Some(slots) = self.slots {
                let count = numbers.len().div_ceil(256);
                let part = |i: usize| &numbers[i * 256..numbers.len().min((i + 1) * 256)];
                slots.set(item, moments_of::<S, T>(count, part));
            }
            let finish = Finish::<S, T>::new(self.epilogue, row % self.channels);
            finish.in_place(numbers, self.epilogue.function);
        }
    }
}
