//! Convolution on the CPU. The path depends only on the shape: [`Path::choose`]. The methods of [`Path`] are the same
//! functions with an explicitly chosen path.

mod dense;
mod depthwise;
mod epilogue;
mod pack;
mod path;
mod pointwise;
pub(super) mod run;
mod tensors;
mod weight_gradient;
mod winograd;

pub use epilogue::{Activation, Epilogue};
pub use path::Path;
pub use tensors::{Inputs, Outputs};

use super::ConvShape;
use crate::simd::Real;
use std::mem::MaybeUninit;
use tomograd_core::{Error, Result};

/// Block sizes of the paths along an axis of positions; the random test cases are drawn around them: rows of a depthwise
/// tile, vectors, register tiles, columns of Winograd's inverse transform, a single-row depthwise tile, and boxes.
pub(super) const AXIS_BLOCKS: [usize; 6] = [
    depthwise::MOST_ROWS,
    2 * dense::VECTOR,
    dense::TILE * dense::VECTOR,
    winograd::COLUMNS,
    depthwise::SLACK,
    dense::POSITIONS,
];
/// Block sizes along the axes of a plane: Winograd's tiles.
pub(super) const PLANE_BLOCKS: [usize; 3] = [winograd::MOST_OUT, 2 * winograd::MOST_OUT, 4 * winograd::MOST_OUT];
/// Block sizes along the channels: panels, vectors, strips, and the output channels of a chunk of the weight gradient.
pub(super) const CHANNEL_BLOCKS: [usize; 5] =
    [8, dense::VECTOR, winograd::STRIP, weight_gradient::OUTPUTS[1], weight_gradient::OUTPUTS[0]];
/// Block sizes along the taps of a depthwise kernel: the taps whose weights or sums are held in registers together.
pub(super) const TAP_BLOCKS: [usize; 3] = [depthwise::ROWS, depthwise::GROUP, depthwise::SINGLE];

/// Computes a convolution. `weights` is (output channels, input channels of a group, kernel), contiguous.
///
/// # Errors
/// When a slice doesn't fit the shape, or memory runs out.
pub fn forward<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    y: Outputs<'_, T>,
) -> Result<()> {
    shape.check()?;
    Path::choose::<T>(shape).forward(shape, x, weights, epilogue, y)
}

/// The gradient with respect to the input, from that of the output. The channels of `dx` may be split into two tensors.
///
/// # Errors
/// As [`forward`].
pub fn backward_data<T: Real>(shape: &ConvShape, dy: &[T], weights: &[T], dx: Outputs<'_, T>) -> Result<()> {
    shape.check()?;
    Path::choose::<T>(shape).backward_data(shape, dy, weights, dx)
}

/// The transposed convolution whose backward pass is the convolution `shape`. It maps `shape`'s output to its input, so `x`
/// has `shape.out_channels` channels, and the epilogue is for `shape.in_channels` channels. `weights` has the layout of
/// `shape`'s weights, as in PyTorch: (channels of `x`, channels of `y` in a group, kernel).
///
/// Its backward passes are [`forward`] for the data, and [`backward_weights`] with the roles of input and output exchanged.
///
/// # Errors
/// As [`forward`].
pub fn transposed_forward<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    y: Outputs<'_, T>,
) -> Result<()> {
    shape.check()?;
    Path::choose::<T>(shape).transposed_forward(shape, x, weights, epilogue, y)
}

/// The gradient with respect to the weights. Every element of `dw` is written.
///
/// # Errors
/// As [`forward`].
pub fn backward_weights<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    dy: &[T],
    dw: &mut [MaybeUninit<T>],
) -> Result<()> {
    shape.check()?;
    Path::choose::<T>(shape).backward_weights(shape, x, dy, dw)
}

/// The gradient with respect to the bias: the sum of `dy` over images and voxels. Every element of `db` is written.
///
/// # Errors
/// As [`forward`].
pub fn backward_bias<T: Real>(shape: &ConvShape, dy: &[T], db: &mut [MaybeUninit<T>]) -> Result<()> {
    shape.check()?;
    Inputs::one(dy, shape.out_channels).check("a gradient", shape.batch, shape.out_channels, shape.output_voxels())?;
    if db.len() != shape.out_channels {
        return Err(
            Error::shape("conv", format!("a gradient of {} biases", db.len())).expected(shape.out_channels.to_string())
        );
    }
    weight_gradient::backward_bias(shape, dy, db)
}
