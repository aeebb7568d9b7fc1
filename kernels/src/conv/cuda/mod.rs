//! Convolutions on CUDA devices: on tensor cores where channels allow (f16, bf16), depthwise ones, and in f32 as matrix products with
//! gathered operands.

mod depthwise;
mod tensor;

use tomograd_core::{DType, Result, Tensor};

use super::{Conv, ConvNormActivation, ConvShape, ConvTranspose};
use crate::{
    Context, Forward, Meta, Op, Recompute, Saved,
    cast::cast,
    cuda::{Launch, Source, Unwritten, divisor, output_like, single},
    dispatch::{widen, widen_all, widen_meta, widen_saved},
    reduce::{self, Combine},
};

static SOURCE: Source = Source { name: "conv.cu", text: include_str!("conv.cu"), headers: &[] };

/// Rows and columns of a block's tile.
const TILE: usize = 64;
const THREADS: u32 = 256;
/// The most images, or groups, that blocks do side by side.
const MOST_BLOCKS: usize = 65535;
/// With as many tiles, the device is busy without parts of the sum over images and voxels.
const MANY_TILES: usize = 256;
/// The least terms of such a part.
const LEAST_TERMS: usize = 512;

/// Numbers of the `Shape` of the kernels: five, three numbers of 32 bits for each of six, and nine divisors.
const NUMBERS: usize = 5 + 9 + 3 * 9;

/// The `Shape` of the kernels, when the first input has `first` channels.
fn numbers(shape: &ConvShape, first: usize) -> [i64; NUMBERS] {
    let ConvShape { batch, groups, in_channels, out_channels, input, kernel, stride, padding, dilation, .. } = *shape;
    let output = shape.output();
    let mut numbers = [0; NUMBERS];
    for (to, size) in numbers.iter_mut().zip([batch, groups, in_channels, out_channels, first]) {
        *to = size as i64;
    }
    let axes = [input, kernel, stride, padding, dilation, output].concat();
    for (to, pair) in numbers[5..].iter_mut().zip(axes.chunks_exact(2)) {
        *to = pair[0] as i64 | (pair[1] as i64) << 32;
    }
    let counted = [
        shape.input_voxels(),
        shape.output_voxels(),
        shape.taps(),
        input[1],
        input[2],
        output[1],
        output[2],
        kernel[1],
        kernel[2],
    ];
    for (to, size) in numbers[14..].chunks_exact_mut(3).zip(counted) {
        to.copy_from_slice(&divisor(size));
    }
    numbers
}

fn tiles(rows: usize, columns: usize) -> usize {
    rows.div_ceil(TILE) * columns.div_ceil(TILE)
}

/// Groups that one launch takes (there are mostly fewer; else the sums would need several launches), and coordinates that kernels
/// count in 32 bits.
fn check_sizes(operation: &str, shape: &ConvShape) -> Result<()> {
    let reach = |axis: usize| {
        let taps = shape.kernel[axis].saturating_mul(shape.dilation[axis]);
        let outputs = (shape.output()[axis] + 1).saturating_mul(shape.stride[axis]);
        taps.saturating_add(outputs).saturating_add(shape.input[axis] + 2 * shape.padding[axis])
    };
    if shape.groups <= MOST_BLOCKS && (0..3).all(|axis| reach(axis) < i32::MAX as usize) {
        return Ok(());
    }
    Err(tomograd_core::Error::argument(operation, format!("{} groups of {shape:?}", shape.groups))
        .expected(format!("at most {MOST_BLOCKS} groups, and windows below 2³¹ voxels long, on a CUDA device")))
}

/// y of one or two inputs, with the shape `shape`.
fn forward(
    operation: &str,
    sizes: &ConvShape,
    x: &[&Tensor],
    weight: &Tensor,
    bias: Option<&Tensor>,
    shape: &[usize],
) -> Result<Tensor> {
    if x.len() == 1 && has_depthwise(sizes, weight.dtype()) {
        return depthwise::run(operation, sizes, x[0], weight, bias, false, shape);
    }
    if tensor::suits(sizes, weight.dtype()) {
        return tensor::forward(operation, sizes, x, weight, bias, shape);
    }
    if is_half(weight.dtype()) {
        let (x, dtype) = (widened(x)?, weight.dtype());
        let (weight, bias) = (widen(weight)?, bias.map(widen).transpose()?);
        let y = forward(operation, sizes, &x.iter().collect::<Vec<_>>(), &weight, bias.as_ref(), shape)?;
        return cast(&y, dtype);
    }
    single(operation, weight.dtype())?;
    check_sizes(operation, sizes)?;
    let mut y = output_like(operation, shape, weight)?;
    let grid = [tiles(sizes.group_outputs(), sizes.output_voxels()), sizes.groups, sizes.batch.min(MOST_BLOCKS)];
    let launch = Launch::new(operation, &SOURCE, "conv_forward", weight.device())?
        .read_table::<2>(x)?
        .read(weight)?
        .read_if(bias)?
        .write(&mut y)?
        .value(numbers(sizes, x[0].shape()[1]));
    // SAFETY: the sizes are those of the tensors; the kernel writes every element of y.
    unsafe {
        launch.run_shaped(grid, THREADS, 0)?;
        Ok(y.assume_init())
    }
}

/// The gradients of one or two inputs with these shapes from that of y; or the output of a transposed convolution, with its bias.
fn backward_data(
    operation: &str,
    sizes: &ConvShape,
    dy: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    shapes: &[&[usize]],
) -> Result<Vec<Tensor>> {
    if let ([shape], None) = (shapes, bias)
        && has_depthwise(sizes, weight.dtype())
    {
        return Ok(vec![depthwise::run(operation, sizes, dy, weight, None, true, shape)?]);
    }
    if tensor::suits(sizes, weight.dtype()) {
        return tensor::backward_data(operation, sizes, dy, weight, bias, shapes);
    }
    if is_half(weight.dtype()) {
        let (dy, weight, bias) = (widen(dy)?, widen(weight)?, bias.map(widen).transpose()?);
        return backward_data(operation, sizes, &dy, &weight, bias.as_ref(), shapes);
    }
    single(operation, weight.dtype())?;
    check_sizes(operation, sizes)?;
    let mut dx: Vec<Unwritten> =
        shapes.iter().map(|shape| output_like(operation, shape, weight)).collect::<Result<_>>()?;
    let grid = [tiles(sizes.group_inputs(), sizes.input_voxels()), sizes.groups, sizes.batch.min(MOST_BLOCKS)];
    let launch = Launch::new(operation, &SOURCE, "conv_backward_data", weight.device())?
        .read(dy)?
        .read(weight)?
        .read_if(bias)?
        .write_table::<2>(dx.iter_mut().map(Some))?
        .value(numbers(sizes, shapes[0][1]));
    // SAFETY: the sizes are those of the tensors; the kernel writes every element of the gradients.
    unsafe {
        launch.run_shaped(grid, THREADS, 0)?;
        Ok(dx.into_iter().map(|dx| dx.assume_init()).collect())
    }
}

/// The gradient of the weights, of this shape.
fn backward_weights(operation: &str, sizes: &ConvShape, x: &[&Tensor], dy: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if x.len() == 1 && has_depthwise(sizes, dy.dtype()) {
        return depthwise::weights(operation, sizes, x[0], dy, shape);
    }
    if tensor::suits(sizes, dy.dtype()) {
        return tensor::backward_weights(operation, sizes, x, dy, shape);
    }
    if is_half(dy.dtype()) {
        let wide = widened(x)?;
        return backward_weights(operation, sizes, &wide.iter().collect::<Vec<_>>(), &widen(dy)?, shape);
    }
    single(operation, dy.dtype())?;
    check_sizes(operation, sizes)?;
    let tiles = tiles(sizes.group_outputs(), sizes.group_inputs() * sizes.taps());
    let terms = sizes.batch * sizes.output_voxels();
    if terms == 0 {
        return Tensor::zeros(shape, DType::F32, dy.device());
    }
    // Parts of the sum, by the shape alone.
    let wanted = MANY_TILES.div_ceil((tiles * sizes.groups).max(1)).min(terms.div_ceil(LEAST_TERMS)).max(1);
    let length = terms.div_ceil(wanted).next_multiple_of(16);
    let parts = terms.div_ceil(length);
    let mut partial = output_like(operation, &[&[parts], shape].concat(), dy)?;
    let launch = Launch::new(operation, &SOURCE, "conv_backward_weights", dy.device())?
        .read_table::<2>(x)?
        .read(dy)?
        .write(&mut partial)?
        .value(numbers(sizes, x[0].shape()[1]))
        .size(length);
    // SAFETY: the sizes are those of the tensors; the kernel writes every weight's gradient of each part.
    let partial = unsafe {
        launch.run_shaped([tiles, sizes.groups, parts], THREADS, 0)?;
        partial.assume_init()
    };
    if parts == 1 { partial.reshape(shape) } else { reduce::cuda::reduce(&partial, &[0], Combine::Sum, 1.0) }
}

/// Σ over images and voxels of (N, C, spatial...): the gradient of a bias.
fn backward_bias(dy: &Tensor) -> Result<Tensor> {
    let axes: Vec<usize> = (0..dy.rank()).filter(|&axis| axis != 1).collect();
    reduce::cuda::reduce(dy, &axes, Combine::Sum, 1.0)
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// Whether a convolution in this dtype has depthwise kernels.
fn has_depthwise(sizes: &ConvShape, dtype: DType) -> bool {
    (dtype == DType::F32 || is_half(dtype)) && depthwise::suits(sizes)
}

fn widened(tensors: &[&Tensor]) -> Result<Vec<Tensor>> {
    tensors.iter().map(|tensor| widen(tensor)).collect()
}

fn contiguous(tensors: &[&Tensor]) -> Result<Vec<Tensor>> {
    tensors.iter().map(|tensor| tensor.contiguous()).collect()
}

/// The output of a convolution.
pub(super) fn conv(op: &Conv, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Tensor> {
    let inputs = contiguous(inputs)?;
    let metas: Vec<Meta> = inputs.iter().map(Meta::from).collect();
    let (sizes, weight) = (op.shape(&metas, context.precision)?, op.weight());
    let x: Vec<&Tensor> = inputs[..weight].iter().collect();
    forward("conv", &sizes, &x, &inputs[weight], inputs.get(weight + 1), &outputs[0].shape)
}

/// The gradients of x, second x, weight and bias from that of the output.
pub(super) fn conv_gradients(
    op: &Conv,
    context: &Context,
    saved: &Saved,
    dy: &Tensor,
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    let (sizes, weight) = (op.shape(&saved.metas[..op.input_count()], context.precision)?, op.weight());
    let dy = dy.contiguous()?;
    let mut gradients = vec![None; op.input_count()];
    if needed[weight] {
        let x: Vec<Tensor> = (0..weight).map(|i| saved.input(i)?.contiguous()).collect::<Result<_>>()?;
        let x: Vec<&Tensor> = x.iter().collect();
        gradients[weight] = Some(backward_weights("conv", &sizes, &x, &dy, &saved.metas[weight].shape)?);
    }
    if op.bias && needed[weight + 1] {
        gradients[weight + 1] = Some(backward_bias(&dy)?);
    }
    if needed[..weight].contains(&true) {
        let shapes: Vec<&[usize]> = saved.metas[..weight].iter().map(|meta| &meta.shape[..]).collect();
        let weights = saved.input(weight)?.contiguous()?;
        let dx = backward_data("conv", &sizes, &dy, &weights, None, &shapes)?;
        for (index, dx) in dx.into_iter().enumerate() {
            gradients[index] = needed[index].then_some(dx);
        }
    }
    Ok(gradients)
}

/// The output of a transposed convolution.
pub(super) fn transposed(
    op: &ConvTranspose,
    context: &Context,
    inputs: &[&Tensor],
    outputs: &[Meta],
) -> Result<Tensor> {
    let inputs = contiguous(inputs)?;
    let metas: Vec<Meta> = inputs.iter().map(Meta::from).collect();
    let sizes = op.shape(&metas, context.precision)?;
    let bias = inputs.get(2);
    let y = backward_data("conv_transpose", &sizes, &inputs[0], &inputs[1], bias, &[&outputs[0].shape])?.remove(0);
    cast(&y, outputs[0].dtype)
}

/// The gradients of x, weight and bias of a transposed convolution.
pub(super) fn transposed_gradients(
    op: &ConvTranspose,
    context: &Context,
    saved: &Saved,
    dy: &Tensor,
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    let sizes = op.shape(&saved.metas, context.precision)?;
    let dy = dy.contiguous()?;
    let mut results = vec![None; needed.len()];
    if needed[0] {
        let weight = saved.input(1)?.contiguous()?;
        results[0] = Some(forward("conv_transpose", &sizes, &[&dy], &weight, None, &saved.metas[0].shape)?);
    }
    if needed[1] {
        let x = saved.input(0)?.contiguous()?;
        results[1] = Some(backward_weights("conv_transpose", &sizes, &[&dy], &x, &saved.metas[1].shape)?);
    }
    if op.bias && needed[2] {
        results[2] = Some(backward_bias(&dy)?);
    }
    Ok(results)
}

/// The output of convolution, norm and activation, one after the other, with z and the statistics as state. z has the dtype of the inputs;
/// the norm computes in f32.
pub(super) fn fused(
    op: &ConvNormActivation,
    context: &Context,
    inputs: &[&Tensor],
    outputs: &[Meta],
) -> Result<Forward> {
    let (conv_inputs, norm_inputs) = inputs.split_at(op.conv_inputs());
    let z = conv(&op.conv, context, conv_inputs, &outputs[..1])?;
    let all: Vec<Tensor> = std::iter::once(&z).chain(norm_inputs.iter().copied()).map(widen).collect::<Result<_>>()?;
    let wide: Vec<Meta> = outputs.iter().map(widen_meta).collect();
    let mut result = op.norm.forward_cuda(context, &all.iter().collect::<Vec<_>>(), &wide)?;
    for (output, meta) in result.outputs.iter_mut().zip(outputs) {
        *output = cast(output, meta.dtype)?;
    }
    if !context.inference {
        result.state.insert(0, z);
    }
    Ok(result)
}

/// The gradients of all inputs of convolution, norm and activation.
pub(super) fn fused_gradients(
    op: &ConvNormActivation,
    context: &Context,
    mut saved: Saved,
    gradients: Vec<Option<Tensor>>,
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    let count = op.conv_inputs();
    let dtype = saved.state(0)?.dtype();
    let norm_saved = widen_saved(&op.norm_saved(&saved)?)?;
    // Only the norm's backward pass reads z, so z is freed before that of the convolution.
    saved.state.clear();
    let norm_needed = [&[needed[..count].contains(&true)], &needed[count..]].concat();
    let wide = widen_all(&gradients)?;
    drop(gradients);
    let mut norm_gradients = op.norm.backward_cuda(context, norm_saved, wide, &norm_needed)?;
    let mut results = match norm_gradients.remove(0) {
        Some(dz) => conv_gradients(&op.conv, context, &saved, &cast(&dz, dtype)?, &needed[..count])?,
        None => vec![None; count],
    };
    results.extend(norm_gradients);
    Ok(results)
}

/// Recomputes the output from z and the statistics.
pub(super) fn fused_again(op: &ConvNormActivation, context: &Context, saved: &Saved) -> Result<Tensor> {
    let output = op.norm.output_cuda(context, &widen_saved(&op.norm_saved(saved)?)?)?;
    cast(&output, saved.state(0)?.dtype())
}
