//! Depthwise convolutions on CUDA devices: stride 1 and cubic kernels of 3, 5 or 7 have kernels of their own.

use tomograd_core::{DType, Result, Tensor};

use super::ConvShape;
use crate::{
    cuda::{Launch, Source, Unwritten, by_float, divisor},
    reduce::{Combine, cuda::reduce},
};

static SOURCE: Source = Source { name: "depthwise.cu", text: include_str!("depthwise.cu"), headers: &[] };
static WEIGHTS: Source =
    Source { name: "depthwise_weights.cu", text: include_str!("depthwise_weights.cu"), headers: &[] };

const THREADS: u32 = 256;
/// With as many blocks, the device is busy.
const MANY_BLOCKS: usize = 512;
const MOST_BLOCKS: usize = 65535;
/// Outputs of a row that a warp takes at once for the weights' gradient, and the least of such pieces that a block has.
const PIECE: usize = 32;
const LEAST_PIECES: usize = 1 << 8;

/// Whether the kernels of this file take a convolution.
pub(super) fn suits(shape: &ConvShape) -> bool {
    let [z, y, x] = shape.kernel;
    let sizes = [shape.input, shape.output()].concat();
    shape.groups == shape.in_channels
        && shape.groups == shape.out_channels
        && [3, 5, 7].contains(&x)
        && y == x
        && (z == x || z == 1)
        && shape.stride == [1; 3]
        && shape.dilation == [1; 3]
        && shape.padding.iter().zip(shape.kernel).all(|(&padding, kernel)| padding < kernel)
        // The kernels count in 32 bits.
        && sizes.iter().all(|&size| size < 1 << 28)
        && shape.batch.saturating_mul(shape.groups) < 1 << 24
}

/// The kernel of a size, of one of three dtypes, from names of 3, 5 and 7 in 2D and 3D.
macro_rules! kernels {
    ($shape:expr, $dtype:expr, $before2:literal, $before3:literal, $after:literal) => {{
        macro_rules! of {
            ($before:literal, $k:literal) => {
                [
                    concat!($before, $k, $after, "_f32"),
                    concat!($before, $k, $after, "_f16"),
                    concat!($before, $k, $after, "_bf16"),
                ]
            };
        }
        let names = match ($shape.kernel[0], $shape.kernel[2]) {
            (1, 3) => of!($before2, "3"),
            (1, 5) => of!($before2, "5"),
            (1, _) => of!($before2, "7"),
            (_, 3) => of!($before3, "3"),
            (_, 5) => of!($before3, "5"),
            (_, _) => of!($before3, "7"),
        };
        by_float($dtype, names)
    }};
}

/// The output; or, with `flip`, the gradient of the input from that of the output.
pub(super) fn run(
    operation: &str,
    shape: &ConvShape,
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    flip: bool,
    to: &[usize],
) -> Result<Tensor> {
    let mut y = Unwritten::new(operation, to, x.dtype(), x.device())?;
    let (input, output) = if flip { (shape.output(), shape.input) } else { (shape.input, shape.output()) };
    let mut padding = shape.padding;
    if flip {
        padding = std::array::from_fn(|axis| shape.kernel[axis] - 1 - shape.padding[axis]);
    }
    let (wide, high) = if output[2] > 32 { (64, 16) } else { (32, 32) };
    let tiles = shape.batch * shape.groups * output[2].div_ceil(wide) * output[1].div_ceil(high);
    // Few blocks share the planes of an image.
    let parts = MANY_BLOCKS.div_ceil(tiles.max(1)).clamp(1, output[0].div_ceil(4).max(1));
    let planes = output[0].div_ceil(parts).max(output[0].div_ceil(MOST_BLOCKS)).max(1);
    let flags = [planes, usize::from(flip), usize::from(output[2].is_multiple_of(4))];
    let all = [&[shape.groups][..], &input, &output, &padding, &flags].concat();
    let numbers: [i32; 13] = std::array::from_fn(|i| all[i] as i32);
    let kernel = if wide == 64 {
        kernels!(shape, x.dtype(), "depthwise2d_", "depthwise3d_", "_64")
    } else {
        kernels!(shape, x.dtype(), "depthwise2d_", "depthwise3d_", "_32")
    };
    let launch = Launch::new(operation, &SOURCE, kernel, x.device())?
        .read(x)?
        .read(weight)?
        .read_if(bias)?
        .write(&mut y)?
        .value(numbers);
    // SAFETY: the numbers are the tensors' sizes; the blocks write every output.
    unsafe {
        launch.run_shaped([tiles, output[0].div_ceil(planes), 1], THREADS, 0)?;
        Ok(y.assume_init())
    }
}

/// The gradient of the weights, of this shape, in f32.
pub(super) fn weights(operation: &str, shape: &ConvShape, x: &Tensor, dy: &Tensor, to: &[usize]) -> Result<Tensor> {
    let output = shape.output();
    let across = output[2].div_ceil(PIECE);
    let pieces = shape.batch * output[0] * shape.input[1] * across;
    if pieces == 0 {
        return Tensor::zeros(to, DType::F32, x.device());
    }
    // Parts of the sum, by the shape alone.
    let wanted = MANY_BLOCKS.div_ceil(shape.groups).min(pieces.div_ceil(LEAST_PIECES)).clamp(1, MOST_BLOCKS);
    let length = pieces.div_ceil(wanted);
    let parts = pieces.div_ceil(length);
    let sizes = [&[shape.batch, shape.groups][..], &shape.input, &output, &shape.padding, &[0]].concat();
    let mut numbers = [0i64; 17];
    for (to, pair) in numbers.iter_mut().zip(sizes.chunks_exact(2)) {
        *to = pair[0] as i64 | (pair[1] as i64) << 32;
    }
    let divisors = [divisor(across), divisor(shape.input[1]), divisor(output[0])].concat();
    numbers[6..].copy_from_slice(&[&[length as i64, pieces as i64][..], &divisors].concat());
    let mut partial = Unwritten::new(operation, &[&[parts], to].concat(), DType::F32, x.device())?;
    let kernel = kernels!(shape, x.dtype(), "depthwise2d_weights_", "depthwise3d_weights_", "");
    let launch =
        Launch::new(operation, &WEIGHTS, kernel, x.device())?.read(x)?.read(dy)?.write(&mut partial)?.value(numbers);
    // SAFETY: the numbers are the tensors' sizes; a block writes every tap of a channel's part.
    let partial = unsafe {
        launch.run_shaped([shape.groups, parts, 1], THREADS, 0)?;
        partial.assume_init()
    };
    if parts == 1 { partial.reshape(to) } else { reduce(&partial, &[0], Combine::Sum, 1.0) }
}
