//! Pooling on CUDA devices.

use tomograd_core::{DType, Error, Result, Tensor};

use super::window::Strided;
use crate::cuda::{Launch, Source, THREADS, Unwritten, blocks, divisor, output_like, single};

static SOURCE: Source = Source { name: "pool.cu", text: include_str!("pool.cu"), headers: &[] };

/// The windows of three axes, as kernels take them: for each axis its input, output, kernel, stride, padding, dilation, and
/// whether the windows are adaptive, in pairs of 32 bits; then input and output as divisors.
pub(super) type Axes = [i64; 30];

/// An axis of one voxel that is its own window.
const ALONE: [usize; 7] = [1, 1, 1, 1, 0, 1, 0];

fn three(axes: impl ExactSizeIterator<Item = [usize; 7]>) -> Axes {
    let all: Vec<[usize; 7]> = (axes.len()..3).map(|_| ALONE).chain(axes).collect();
    let mut numbers = [0; 30];
    for (to, axis) in numbers.chunks_exact_mut(10).zip(all) {
        // A kernel or padding beyond what counts in 32 bits is refused by `check`; a stride or dilation as long reaches nothing more.
        let counted = axis.map(|size| size.min(MOST) as i64);
        let [input, output, kernel, stride, padding, dilation, adaptive] = counted;
        let pairs = [[input, output], [kernel, stride], [padding, dilation], [adaptive, 0]];
        for (to, [low, high]) in to.iter_mut().zip(pairs) {
            *to = low | high << 32;
        }
        to[4..7].copy_from_slice(&divisor(axis[0]));
        to[7..].copy_from_slice(&divisor(axis[1]));
    }
    numbers
}

/// Checks that the kernels can count the windows' voxels.
fn check(operation: &str, axes: &Axes, shapes: [&[usize]; 2]) -> Result<()> {
    let reaches = axes.chunks_exact(10).any(|axis| {
        let [output, kernel, stride, padding, dilation] =
            [axis[0] >> 32, axis[1] & 0xffff_ffff, axis[1] >> 32, axis[2] & 0xffff_ffff, axis[2] >> 32];
        let input = axis[0] & 0xffff_ffff;
        (output + 1) * stride + kernel * dilation + input + 2 * padding >= i64::from(i32::MAX)
    });
    if !reaches {
        return Ok(());
    }
    Err(Error::shape(operation, "windows that reach beyond 2³¹ voxels")
        .expected("less on a CUDA device")
        .shapes(shapes))
}

/// The largest size that kernels are told.
const MOST: usize = 1 << 30;

/// Strided windows from an input to an output, both (N, C, spatial...).
pub(super) fn strided(windows: Strided<'_>, input: &[usize], output: &[usize]) -> Axes {
    let Strided { kernel, stride, padding, dilation, .. } = windows;
    three((0..kernel.len()).map(|axis| {
        let dilation = dilation.map_or(1, |dilation| dilation[axis]);
        [input[2 + axis], output[2 + axis], kernel[axis], stride[axis], padding[axis], dilation, 0]
    }))
}

/// Adaptive windows from an input to an output, both (N, C, spatial...).
pub(super) fn adaptive(input: &[usize], output: &[usize]) -> Axes {
    three((2..input.len()).map(|axis| [input[axis], output[axis], 1, 1, 0, 1, 1]))
}

/// The maximum of each window and, if wanted, its place in the window, in `dtype`.
pub(super) fn maximum(
    operation: &str,
    x: &Tensor,
    axes: Axes,
    shape: &[usize],
    dtype: DType,
    wanted: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    single(operation, x.dtype())?;
    check(operation, &axes, [x.shape(), shape])?;
    let x = x.contiguous()?;
    let mut y = output_like(operation, shape, &x)?;
    let mut winners = wanted.then(|| Unwritten::new(operation, shape, dtype, x.device())).transpose()?;
    let (count, kernel) = (y.count(), if dtype == DType::U8 { "max_pool_u8" } else { "max_pool_i32" });
    let launch = Launch::new(operation, &SOURCE, kernel, x.device())?
        .read(&x)?
        .write(&mut y)?
        .write_if(winners.as_mut())?
        .value(axes)
        .size(count);
    // SAFETY: the axes are those of x and of the outputs, of which the kernel writes `count` elements each, all of them.
    unsafe {
        launch.run(blocks(count), THREADS)?;
        Ok((y.assume_init(), winners.map(|winners| winners.assume_init())))
    }
}

/// The gradient of x, of this shape, from that of the maxima and their places.
pub(super) fn maximum_gradient(
    operation: &str,
    dy: &Tensor,
    winners: &Tensor,
    axes: Axes,
    shape: &[usize],
) -> Result<Tensor> {
    single(operation, dy.dtype())?;
    check(operation, &axes, [dy.shape(), shape])?;
    let (dy, winners) = (dy.contiguous()?, winners.contiguous()?);
    let mut dx = output_like(operation, shape, &dy)?;
    let kernel = if winners.dtype() == DType::U8 { "max_pool_gradient_u8" } else { "max_pool_gradient_i32" };
    let count = dx.count();
    let launch = Launch::new(operation, &SOURCE, kernel, dy.device())?
        .read(&dy)?
        .read(&winners)?
        .write(&mut dx)?
        .value(axes)
        .size(count);
    // SAFETY: the axes are those of dx, dy and the places; the kernel writes `count` elements, which is all of them.
    unsafe {
        launch.run(blocks(count), THREADS)?;
        Ok(dx.assume_init())
    }
}

/// The mean of each window, divided by the padded window's voxels if `padded`; with a shape of x given, the gradient of x
/// from that of the means.
pub(super) fn average(
    operation: &str,
    tensor: &Tensor,
    axes: Axes,
    padded: bool,
    shape: &[usize],
    gradient: bool,
) -> Result<Tensor> {
    single(operation, tensor.dtype())?;
    check(operation, &axes, [tensor.shape(), shape])?;
    let tensor = tensor.contiguous()?;
    let mut output = output_like(operation, shape, &tensor)?;
    let (count, kernel) = (output.count(), if gradient { "average_pool_gradient" } else { "average_pool" });
    let launch = Launch::new(operation, &SOURCE, kernel, tensor.device())?
        .read(&tensor)?
        .write(&mut output)?
        .value(axes)
        .value(i32::from(padded))
        .size(count);
    // SAFETY: the axes are those of both tensors; the kernel writes `count` elements, which is all of the output.
    unsafe {
        launch.run(blocks(count), THREADS)?;
        Ok(output.assume_init())
    }
}
