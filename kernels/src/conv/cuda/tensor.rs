//! Convolutions on tensor cores, as matrix products of images with their channels last (implicit.cu): any stride, padding and dilation, in
//! f16 and bf16, and in TF32 where that may stand for f32; chosen where a group has four channels or more. Fewer would mostly multiply
//! zeros, which fill up pieces of 16 bytes.

use tomograd_core::{DType, Result, Tensor};

use super::{ConvShape, MOST_BLOCKS, is_half};
use crate::{
    cuda::{Header, Launch, Source, Unwritten, by_float, small_divisor, takes_tf32},
    reduce::{Combine, cuda::reduce},
};

const GATHER: Header = Header { name: "gather.cuh", text: include_str!("gather.cuh") };
static CHANNELS_LAST: Source =
    Source { name: "channels_last.cu", text: include_str!("channels_last.cu"), headers: &[] };
static IMPLICIT: Source = Source { name: "implicit.cu", text: include_str!("implicit.cu"), headers: &[GATHER] };
static WEIGHTS: Source =
    Source { name: "implicit_weights.cu", text: include_str!("implicit_weights.cu"), headers: &[GATHER] };

/// The least channels of a group, of input and output.
const LEAST_CHANNELS: usize = 4;
/// Columns of a block's tile.
const COLUMNS: usize = 128;
/// Voxels and channels of a block that brings channels last.
const TURNED: [usize; 2] = [128, 32];
/// The most launches for a gradient of data.
const MOST_RESIDUES: usize = 64;
/// With as many tiles, the device is busy without parts of the sum over outputs that is the weights' gradient.
const MANY_TILES: usize = 256;
/// The least terms of such a part, and what its length is a multiple of.
const LEAST_TERMS: usize = 512;
const SLICE: usize = 32;
/// Numbers of the structs `Gather` of gather.cuh, `Implicit` of implicit.cu, and `Weights` of implicit_weights.cu.
const OF_GATHER: usize = 1 + 5 * 3 + 3 * 3;
const OF_IMPLICIT: usize = OF_GATHER + 4 + 3 + 2 + 3 * 3 + 1;
const OF_WEIGHTS: usize = OF_GATHER + 4 + 3 * 3;

/// Whether the kernels of this file take a convolution in this dtype, with its gradients.
pub(super) fn suits(shape: &ConvShape, dtype: DType) -> bool {
    let ConvShape { batch, groups, out_channels, input, kernel, stride, padding, dilation, .. } = *shape;
    let channels = [shape.group_inputs(), shape.group_outputs()];
    let [least, most] = [channels[0].min(channels[1]), channels[0].max(channels[1]).saturating_add(8)];
    let padded = product([0, 1, 2].map(|axis| input[axis].saturating_add(2 * padding[axis])));
    let residues = product([0, 1, 2].map(|axis| stride[axis].min(input[axis])));
    // The kernels count in 32 bits: places in padded images, windows up to four times as large, terms, and blocks.
    (is_half(dtype) || takes_tf32(dtype, shape.precision))
        && least >= LEAST_CHANNELS
        && padded.saturating_mul(batch) < 1 << 27
        && (0..3).all(|axis| stride[axis] < 1 << 27 && (kernel[axis] == 1 || dilation[axis] < 1 << 27))
        && most.saturating_mul(shape.taps()) < 1 << 30
        && out_channels < 1 << 30
        && groups.saturating_mul(most.div_ceil(TURNED[1])) <= MOST_BLOCKS
        && residues <= MOST_RESIDUES
}

/// The product of sizes, at most `usize::MAX`.
fn product(sizes: [usize; 3]) -> usize {
    sizes.into_iter().fold(1, usize::saturating_mul)
}

/// One or two images (images, groups · channels, voxels) as (groups, images, voxels, channels), where zeros fill up the last piece
/// of channels.
fn channels_last(operation: &str, x: &[&Tensor], groups: usize, images: usize, voxels: usize) -> Result<Tensor> {
    let dtype = x[0].dtype();
    let of_image = |x: &Tensor| x.count() / (images * voxels).max(1);
    let (first, all) = (of_image(x[0]), x.iter().map(|x| of_image(x)).sum::<usize>());
    let channels = all / groups;
    let padded = channels.next_multiple_of(16 / dtype.size());
    let mut y = Unwritten::new(operation, &[groups, images, voxels, padded], dtype, x[0].device())?;
    // f32 becomes TF32; halves are copied.
    let kernel = by_float(dtype, ["channels_last_tf32", "channels_last_16", "channels_last_16"]);
    // `Turned` of the kernels.
    let sizes = [images, groups, voxels, channels, padded, first, all].map(|size| size as i32);
    let grid = [voxels.div_ceil(TURNED[0]), groups * padded.div_ceil(TURNED[1]), images.min(MOST_BLOCKS)];
    let launch =
        Launch::new(operation, &CHANNELS_LAST, kernel, x[0].device())?.read_table::<2>(x)?.write(&mut y)?.value(sizes);
    // SAFETY: the sizes are those of the tensors; the kernel writes every piece.
    unsafe {
        launch.run_shaped(grid, 256, 0)?;
        Ok(y.assume_init())
    }
}

/// What a launch does along an axis: tap t of output p reads voxel p · stride + t · dilation + offset of the image, its weight is tap
/// first + t · step of the kernel, and the result lies at start + p · distance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    taps: usize,
    first: usize,
    step: usize,
    stride: usize,
    dilation: isize,
    offset: isize,
    outputs: usize,
    start: usize,
    distance: usize,
}

/// The convolution along an axis.
fn forward_axis(shape: &ConvShape, axis: usize) -> Axis {
    Axis {
        taps: shape.kernel[axis],
        first: 0,
        step: 1,
        stride: shape.stride[axis],
        dilation: if shape.kernel[axis] == 1 { 1 } else { shape.dilation[axis] as isize },
        offset: -(shape.padding[axis] as isize),
        outputs: shape.output()[axis],
        start: 0,
        distance: 1,
    }
}

/// The gradient of the data along an axis, one residue of voxels by the stride after the other. Voxel q = residue + p · stride is read
/// with tap k by output (q + padding − k · dilation) / stride, where that is a whole number: by every so many taps, and from one of them to
/// the next the output goes back by the same number.
fn residues(shape: &ConvShape, axis: usize) -> Vec<Axis> {
    let [kernel, stride, padding, dilation, input] =
        [shape.kernel, shape.stride, shape.padding, shape.dilation, shape.input].map(|sizes| sizes[axis]);
    let whole =
        |residue: usize, tap: usize| (residue + padding + tap * (stride - dilation % stride)).is_multiple_of(stride);
    (0..stride.min(input))
        .map(|residue| {
            let mut taps = (0..kernel).filter(|&tap| whole(residue, tap));
            let first = taps.next();
            let second = taps.next();
            let step = second.map_or(1, |second| second - first.unwrap_or(0));
            let begin = first.map_or(0, |tap| {
                (residue as isize + padding as isize - tap as isize * dilation as isize) / stride as isize
            });
            Axis {
                taps: usize::from(first.is_some()) + usize::from(second.is_some()) + taps.count(),
                first: first.unwrap_or(0),
                step,
                stride: 1,
                dilation: second.map_or(0, |_| -((step * dilation / stride) as isize)),
                offset: begin,
                outputs: (input - residue).div_ceil(stride),
                start: residue,
                distance: stride,
            }
        })
        .collect()
}

/// `Gather` of gather.cuh, for an image with so many channels and voxels.
fn gather(channels: usize, input: [usize; 3], axes: &[Axis; 3]) -> Vec<i32> {
    let [depth, height, width] = axes.map(|axis| axis.outputs);
    let mut numbers = vec![channels as i32];
    numbers.extend(axes.map(|axis| axis.taps as i32));
    numbers.extend(input.map(|size| size as i32));
    numbers.extend(axes.map(|axis| axis.stride as i32));
    numbers.extend(axes.map(|axis| axis.dilation as i32));
    numbers.extend(axes.map(|axis| axis.offset as i32));
    numbers.extend([depth * height * width, height, width].map(small_divisor).as_flattened());
    numbers
}

/// The numbers as an argument.
fn argument<const N: usize>(numbers: &[i32]) -> [i32; N] {
    let mut argument = [0; N];
    argument.copy_from_slice(numbers);
    argument
}

/// Rows of a tile for so many of them, its threads, its bytes of shared memory (three slices of 64 bytes of both operands), and which of
/// the kernels' names for f32, f16 and bf16 is that of its size.
fn tile_of(rows: usize, dtype: DType, names: [[&'static str; 3]; 3]) -> (usize, u32, u32, &'static str) {
    let (tile, threads, names) = match rows {
        0..=32 => (32, 128, names[0]),
        33..=64 => (64, 128, names[1]),
        _ => (128, 256, names[2]),
    };
    (tile, threads, 3 * 64 * (tile + COLUMNS) as u32, by_float(dtype, names))
}

/// A convolution as the kernels compute it: of an image (groups, images, voxels, channels) with weights (groups · rows, taps, channels).
struct Product<'a> {
    image: &'a Tensor,
    weight: &'a Tensor,
    bias: Option<&'a Tensor>,
    /// Output channels of a group.
    rows: usize,
    /// Depth, height and width of the image, of the kernel and of the results.
    input: [usize; 3],
    kernel: [usize; 3],
    output: [usize; 3],
}

impl Product<'_> {
    /// Launches it for the outputs that the axes say, of one or two results whose channels follow one another; the first has
    /// `first` channels.
    fn run(&self, operation: &str, axes: [Axis; 3], results: &mut [Unwritten], first: usize) -> Result<()> {
        let Self { image, weight, bias, rows, input, kernel, output } = *self;
        let [groups, images, channels] = [0, 1, 3].map(|axis| image.shape()[axis]);
        let counted = axes.map(|axis| axis.outputs);
        let voxels: usize = counted.iter().product();
        let columns = images * voxels;
        let plane = kernel[1] * kernel[2];
        let distances = [plane, kernel[2], 1];
        let first_tap: usize = (0..3).map(|axis| axes[axis].first * distances[axis]).sum();
        let mut numbers = gather(channels, input, &axes);
        numbers.extend([rows, columns, plane * kernel[0], first_tap].map(|size| size as i32));
        numbers.extend((0..3).map(|axis| (axes[axis].step * distances[axis]) as i32));
        numbers.extend([first, groups * rows].map(|size| size as i32));
        numbers.extend(output.map(|size| size as i32));
        numbers.extend(axes.map(|axis| axis.start as i32));
        numbers.extend(axes.map(|axis| axis.distance as i32));
        // Where columns are the voxels of an image in whole pieces.
        numbers.push(i32::from(counted == output && voxels.is_multiple_of(16 / image.dtype().size())));
        let (tile, threads, shared, kernel) = tile_of(
            rows,
            image.dtype(),
            [
                ["conv_tensor_tf32_32", "conv_tensor_f16_32", "conv_tensor_bf16_32"],
                ["conv_tensor_tf32_64", "conv_tensor_f16_64", "conv_tensor_bf16_64"],
                ["conv_tensor_tf32_128", "conv_tensor_f16_128", "conv_tensor_bf16_128"],
            ],
        );
        let launch = Launch::new(operation, &IMPLICIT, kernel, image.device())?
            .read(image)?
            .read(weight)?
            .read_if(bias)?
            .write_table::<2>(results.iter_mut().map(Some))?
            .value(argument::<OF_IMPLICIT>(&numbers));
        // SAFETY: the numbers are the tensors' sizes; the kernel writes each of these outputs.
        unsafe { launch.run_shaped([rows.div_ceil(tile) * columns.div_ceil(COLUMNS), groups, 1], threads, shared) }
    }
}

/// y of one or two inputs, of the shape `to`.
pub(super) fn forward(
    operation: &str,
    shape: &ConvShape,
    x: &[&Tensor],
    weight: &Tensor,
    bias: Option<&Tensor>,
    to: &[usize],
) -> Result<Tensor> {
    let mut y = [Unwritten::new(operation, to, weight.dtype(), weight.device())?];
    let image = channels_last(operation, x, shape.groups, shape.batch, shape.input_voxels())?;
    let weight = channels_last(operation, &[weight], 1, shape.out_channels, shape.taps())?;
    let (rows, output) = (shape.group_outputs(), shape.output());
    let (input, kernel) = (shape.input, shape.kernel);
    let product = Product { image: &image, weight: &weight, bias, rows, input, kernel, output };
    product.run(operation, [0, 1, 2].map(|axis| forward_axis(shape, axis)), &mut y, shape.out_channels)?;
    let [y] = y;
    // SAFETY: the launch was of all outputs.
    Ok(unsafe { y.assume_init() })
}

/// The gradients of one or two inputs of these shapes; or the output of a transposed convolution, with its bias.
pub(super) fn backward_data(
    operation: &str,
    shape: &ConvShape,
    dy: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    to: &[&[usize]],
) -> Result<Vec<Tensor>> {
    let mut dx: Vec<Unwritten> =
        to.iter().map(|to| Unwritten::new(operation, to, weight.dtype(), weight.device())).collect::<Result<_>>()?;
    let image = channels_last(operation, &[dy], shape.groups, shape.batch, shape.output_voxels())?;
    // (groups, output channels, input channels, taps), where the output channels come last.
    let weight = channels_last(operation, &[weight], 1, shape.groups, shape.group_inputs() * shape.taps())?;
    let (rows, output) = (shape.group_inputs(), shape.input);
    let (input, kernel) = (shape.output(), shape.kernel);
    let product = Product { image: &image, weight: &weight, bias, rows, input, kernel, output };
    let [depth, height, width] = [0, 1, 2].map(|axis| residues(shape, axis));
    for (z, y) in depth.iter().flat_map(|z| height.iter().map(move |y| (z, y))) {
        for x in &width {
            product.run(operation, [*z, *y, *x], &mut dx, to[0][1])?;
        }
    }
    // SAFETY: the residues are all voxels, and each launch writes those of its own.
    Ok(dx.into_iter().map(|dx| unsafe { dx.assume_init() }).collect())
}

/// The gradient of the weights, of this shape, in f32.
pub(super) fn backward_weights(
    operation: &str,
    shape: &ConvShape,
    x: &[&Tensor],
    dy: &Tensor,
    to: &[usize],
) -> Result<Tensor> {
    let terms = shape.batch * shape.output_voxels();
    if terms == 0 {
        return Tensor::zeros(to, DType::F32, dy.device());
    }
    let image = channels_last(operation, x, shape.groups, shape.batch, shape.input_voxels())?;
    let dy = channels_last(operation, &[dy], shape.groups, shape.batch, shape.output_voxels())?;
    let (rows, taps, channels) = (shape.group_outputs(), shape.taps(), image.shape()[3]);
    let (tile, threads, shared, kernel) = tile_of(
        rows,
        image.dtype(),
        [
            ["conv_tensor_weights_tf32_32", "conv_tensor_weights_f16_32", "conv_tensor_weights_bf16_32"],
            ["conv_tensor_weights_tf32_64", "conv_tensor_weights_f16_64", "conv_tensor_weights_bf16_64"],
            ["conv_tensor_weights_tf32_128", "conv_tensor_weights_f16_128", "conv_tensor_weights_bf16_128"],
        ],
    );
    let tiles = rows.div_ceil(tile) * (taps * channels).div_ceil(COLUMNS);
    // Parts of the sum, by the shape alone.
    let wanted = MANY_TILES.div_ceil(tiles * shape.groups).min(terms.div_ceil(LEAST_TERMS)).max(1);
    let length = terms.div_ceil(wanted).next_multiple_of(SLICE);
    let parts = terms.div_ceil(length);
    let mut numbers = gather(channels, shape.input, &[0, 1, 2].map(|axis| forward_axis(shape, axis)));
    numbers.extend([rows, dy.shape()[3], terms, length].map(|size| size as i32));
    numbers.extend([channels, shape.kernel[1], shape.kernel[2]].map(small_divisor).as_flattened());
    let partial = [parts, shape.out_channels, taps, channels];
    let mut partial = Unwritten::new(operation, &partial, DType::F32, image.device())?;
    let launch = Launch::new(operation, &WEIGHTS, kernel, image.device())?
        .read(&image)?
        .read(&dy)?
        .write(&mut partial)?
        .value(argument::<OF_WEIGHTS>(&numbers));
    // SAFETY: the numbers are the tensors' sizes; the kernel writes every element of each part.
    let partial = unsafe {
        launch.run_shaped([tiles, shape.groups, parts], threads, shared)?;
        partial.assume_init()
    };
    // (output channels, taps, channels), added in the order of the parts.
    let sum = if parts == 1 { partial.select(0, 0)? } else { reduce(&partial, &[0], Combine::Sum, 1.0)? };
    sum.narrow(2, 0, shape.group_inputs())?.transpose(1, 2)?.contiguous()?.reshape(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;

    /// Every pair of a voxel and a tap that an output reads is in one residue, with the right output; no other pair is.
    #[test]
    fn residues_have_every_tap_of_every_voxel_once() {
        let mut pairs = 0;
        for (input, kernel, stride, padding, dilation) in [
            (7, 3, 1, 1, 1),
            (9, 3, 2, 1, 1),
            (8, 2, 2, 0, 1),
            (11, 4, 3, 5, 2),
            (26, 5, 4, 2, 6),
            (13, 3, 6, 1, 4),
            (5, 1, 3, 0, 1),
            (12, 2, 5, 0, 5),
            (1, 1, 2, 3, 1),
        ] {
            let shape = ConvShape {
                batch: 1,
                groups: 1,
                in_channels: 1,
                out_channels: 1,
                input: [1, 1, input],
                kernel: [1, 1, kernel],
                stride: [1, 1, stride],
                padding: [0, 0, padding],
                dilation: [1, 1, dilation],
                precision: Precision::Strict,
            };
            shape.check().unwrap();
            let outputs = shape.output()[2];
            let mut found = Vec::new();
            for axis in residues(&shape, 2) {
                for (p, t) in (0..axis.outputs).flat_map(|p| (0..axis.taps).map(move |t| (p, t))) {
                    let output = (p * axis.stride) as isize + t as isize * axis.dilation + axis.offset;
                    if (0..outputs as isize).contains(&output) {
                        found.push((axis.start + p * axis.distance, axis.first + t * axis.step, output as usize));
                    }
                }
            }
            let mut expected = Vec::new();
            for (output, tap) in (0..outputs).flat_map(|output| (0..kernel).map(move |tap| (output, tap))) {
                let voxel = (output * stride + tap * dilation).checked_sub(padding);
                expected.extend(voxel.filter(|&voxel| voxel < input).map(|voxel| (voxel, tap, output)));
            }
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{shape:?}");
            pairs += found.len();
        }
        assert!(pairs > 60, "{pairs}");
    }
}
