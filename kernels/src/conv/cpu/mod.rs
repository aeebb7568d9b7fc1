//! Convolution on the CPU. Which path runs is a pure function of the shape: [`Path::choose`].

mod dense;
mod depthwise;
mod epilogue;
mod source;
mod tensors;
mod weights;
mod winograd;

pub use epilogue::{Activation, Epilogue, Moments};
pub use tensors::{Inputs, Outputs};

use super::ConvShape;
use crate::matmul::cpu::{GemmShape, Start, View, gemm, gemm_add};
use crate::simd::Real;
use std::fmt;
use std::mem::MaybeUninit;
use tensors::check_weights;
use tomograd_core::{Error, Result};

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// A register tile over packed pieces of the input: the general case.
    Dense,
    /// One input channel for each group (strided, its backward pass for the data is dense).
    Depthwise,
    /// Winograd's minimal filtering: kernels of 3 × 3 in a plane with many channels, in `f32`.
    Winograd,
    /// A kernel of one voxel, without stride or padding: a matrix product.
    Pointwise,
}

impl Path {
    /// The path of a shape in a number type, for the forward pass and both backward passes.
    pub fn choose<T: Real>(shape: &ConvShape) -> Path {
        let plain = shape.kernel == [1; 3] && shape.stride == [1; 3] && shape.padding == [0; 3] && shape.groups == 1;
        if plain {
            Path::Pointwise
        } else if depthwise::suits(shape) {
            Path::Depthwise
        } else if winograd::suits::<T>(shape) {
            Path::Winograd
        } else {
            Path::Dense
        }
    }
}

impl Path {
    /// The name, as traces print it.
    pub fn name(self) -> &'static str {
        match self {
            Path::Dense => "dense",
            Path::Depthwise => "depthwise",
            Path::Winograd => "winograd",
            Path::Pointwise => "pointwise",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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
    x.check("an input", shape.batch, shape.in_channels, shape.input_voxels())?;
    check_weights(shape, weights)?;
    epilogue.check(shape.batch, shape.out_channels)?;
    y.check(shape.batch, shape.out_channels, shape.output_voxels())?;
    forward_on(Path::choose::<T>(shape), shape, x, weights, epilogue, y)
}

/// [`forward`] on a given path, after all checks.
fn forward_on<T: Real>(
    path: Path,
    shape: &ConvShape,
    x: Inputs<'_, T>,
    weights: &[T],
    epilogue: Epilogue<'_, T>,
    mut y: Outputs<'_, T>,
) -> Result<()> {
    let plain = epilogue.moments.is_none()
        && epilogue.scale_shift.is_none()
        && epilogue.activation == Activation::Identity
        && shape.in_channels > 0;
    if let (Path::Pointwise, true, Some(y)) = (path, plain, y.single()) {
        return pointwise_forward(shape, x, weights, epilogue.bias, y);
    }
    match path {
        Path::Depthwise => depthwise::forward(shape, x, weights, epilogue, &y),
        Path::Winograd => winograd::forward(shape, x, weights, epilogue, &y),
        _ => dense::forward(shape, x, weights, epilogue, &y),
    }
}

/// The gradient with respect to the input, from that of the output; its channels may be shared out to two tensors.
///
/// # Errors
/// As [`forward`].
pub fn backward_data<T: Real>(shape: &ConvShape, dy: &[T], weights: &[T], dx: Outputs<'_, T>) -> Result<()> {
    transposed_forward(shape, Inputs::one(dy, shape.out_channels), weights, Epilogue::default(), dx)
}

/// The transposed convolution whose backward pass is the convolution `shape`: it goes from `shape`'s output to its input,
/// so `x` has `shape.out_channels` channels, and the epilogue is one of `shape.in_channels`. `weights` are `shape`'s:
/// (channels of `x`, channels of `y` in a group, kernel), as the field stores them.
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
    x.check("an input", shape.batch, shape.out_channels, shape.output_voxels())?;
    check_weights(shape, weights)?;
    epilogue.check(shape.batch, shape.in_channels)?;
    y.check(shape.batch, shape.in_channels, shape.input_voxels())?;
    match Path::choose::<T>(shape) {
        Path::Depthwise if depthwise::suits_backward_data(shape) => {
            depthwise::backward_data(shape, x, weights, epilogue, &y)
        }
        Path::Winograd => winograd::backward_data(shape, x, weights, epilogue, &y),
        _ => dense::backward_data(shape, x, weights, epilogue, &y),
    }
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
    x.check("an input", shape.batch, shape.in_channels, shape.input_voxels())?;
    Inputs::one(dy, shape.out_channels).check("a gradient", shape.batch, shape.out_channels, shape.output_voxels())?;
    if dw.len() != shape.weight_count() {
        return Err(Error::shape("conv", format!("a gradient of {} weights", dw.len()))
            .expected(shape.weight_count().to_string()));
    }
    match Path::choose::<T>(shape) {
        Path::Depthwise => depthwise::backward_weights(shape, x, dy, dw),
        Path::Winograd => winograd::backward_weights(shape, x, dy, dw),
        _ => weights::backward_weights(shape, x, dy, dw),
    }
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
    weights::backward_bias(shape, dy, db)
}

/// `y[n] = bias + w · x[n]`, a matrix product for each image; a second input is a second product on top.
fn pointwise_forward<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    weights: &[T],
    bias: Option<&[T]>,
    y: &mut [MaybeUninit<T>],
) -> Result<()> {
    let voxels = shape.input_voxels();
    let mut first = 0;
    for (data, channels) in x.parts().filter(|&(_, channels)| channels > 0) {
        let sizes = GemmShape { batch: shape.batch, m: shape.out_channels, n: voxels, k: channels };
        let left = View {
            data: weights.get(first..).unwrap_or(&[]),
            batch_stride: 0,
            row_stride: shape.in_channels,
            column_stride: 1,
        };
        let right = View::contiguous(data, channels, voxels);
        if first == 0 {
            gemm(sizes, left, right, bias.map_or(Start::Zero, Start::Rows), y)?;
        } else {
            // SAFETY: the first product wrote every element.
            let y = unsafe { std::slice::from_raw_parts_mut(y.as_mut_ptr().cast::<T>(), y.len()) };
            gemm_add(sizes, left, right, y)?;
        }
        first += channels;
    }
    Ok(())
}
