//! Convolution on the CPU. Which path runs is a pure function of the shape: [`Path::choose`]; [`Path`] also has the same
//! functions as methods, for a path that is chosen by hand.

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

/// Where the paths' blocks end, around which random cases are drawn. Along an axis of positions: vectors, register tiles, what
/// Winograd transforms back together, a depthwise tile of one row, and boxes.
pub(super) const AXIS_BLOCKS: [usize; 6] = [
    depthwise::MOST_ROWS,
    2 * dense::VECTOR,
    dense::TILE * dense::VECTOR,
    winograd::COLUMNS,
    depthwise::SLACK,
    dense::POSITIONS,
];
/// Along a plane that Winograd's tiles cover.
pub(super) const PLANE_BLOCKS: [usize; 3] = [winograd::OUT, 2 * winograd::OUT, 4 * winograd::OUT];
/// Along the channels: panels, vectors, strips, and what a chunk of the weights' gradient has.
pub(super) const CHANNEL_BLOCKS: [usize; 5] =
    [8, dense::VECTOR, winograd::STRIP, weight_gradient::OUTPUTS[1], weight_gradient::OUTPUTS[0]];
/// Along the taps of a depthwise kernel: those whose weights, or sums, are in registers together.
pub(super) const TAP_BLOCKS: [usize; 3] = [depthwise::ROWS, depthwise::GROUP, depthwise::SINGLE];

/// Computes a convolution: `weights` is (out channels, in channels of a group, kernel), contiguous.
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

/// The gradient with respect to the input, from that of the output; its channels may be shared out to two tensors.
///
/// # Errors
/// As [`forward`].
pub fn backward_data<T: Real>(shape: &ConvShape, dy: &[T], weights: &[T], dx: Outputs<'_, T>) -> Result<()> {
    shape.check()?;
    Path::choose::<T>(shape).backward_data(shape, dy, weights, dx)
}

/// The transposed convolution whose backward pass is the convolution `shape`: it goes from `shape`'s output to its input,
/// so `x` has `shape.out_channels` channels, and the epilogue is one of `shape.in_channels`. `weights` are `shape`'s:
/// (channels of `x`, channels of `y` in a group, kernel), as PyTorch stores them.
///
/// Its backward passes are [`forward`] for the data, and [`backward_weights`] with the two tensors changing places.
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
