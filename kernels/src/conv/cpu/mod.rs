//! Convolution on the CPU. Which path runs is a pure function of the shape: [`Path::choose`].

mod dense;
mod depthwise;
mod epilogue;
mod pointwise;
mod source;
mod tensors;
mod weights;
mod winograd;

pub use epilogue::{Activation, Epilogue, Moments};
pub use tensors::{Inputs, Outputs};

use super::ConvShape;
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
        if pointwise::suits(shape) {
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
    /// The path of a shape, which goes into the trace.
    fn take<T: Real>(shape: &ConvShape) -> Path {
        let path = Path::choose::<T>(shape);
        crate::trace::path(path.name());
        path
    }

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
    mut y: Outputs<'_, T>,
) -> Result<()> {
    shape.check()?;
    x.check("an input", shape.batch, shape.in_channels, shape.input_voxels())?;
    check_weights(shape, weights)?;
    epilogue.check(shape.batch, shape.out_channels)?;
    y.check(shape.batch, shape.out_channels, shape.output_voxels())?;
    match (Path::take::<T>(shape), y.single()) {
        (Path::Pointwise, Some(y)) => pointwise::forward(shape, x, weights, epilogue, y),
        (Path::Depthwise, _) => depthwise::forward(shape, x, weights, epilogue, &y),
        // Only ever `f32`: not to be compiled for `f64` too.
        (Path::Winograd, _) => {
            let weights = bytemuck::cast_slice::<T, f32>(weights);
            winograd::forward(shape, x.cast(), weights, epilogue.cast(), &y.cast())
        }
        _ => dense::forward(shape, x, weights, epilogue, &y),
    }
}

/// The gradient with respect to the input, from that of the output; its channels may be shared out to two tensors.
///
/// # Errors
/// As [`forward`].
pub fn backward_data<T: Real>(shape: &ConvShape, dy: &[T], weights: &[T], mut dx: Outputs<'_, T>) -> Result<()> {
    shape.check()?;
    Inputs::one(dy, shape.out_channels).check("a gradient", shape.batch, shape.out_channels, shape.output_voxels())?;
    check_weights(shape, weights)?;
    dx.check(shape.batch, shape.in_channels, shape.input_voxels())?;
    if Path::choose::<T>(shape) == Path::Pointwise {
        crate::trace::path(Path::Pointwise.name());
        return pointwise::backward_data(shape, dy, weights, &mut dx);
    }
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
    match Path::take::<T>(shape) {
        Path::Depthwise if depthwise::suits_backward_data(shape) => {
            depthwise::backward_data(shape, x, weights, epilogue, &y)
        }
        Path::Winograd => {
            let weights = bytemuck::cast_slice::<T, f32>(weights);
            winograd::backward_data(shape, x.cast(), weights, epilogue.cast(), &y.cast())
        }
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
    match Path::take::<T>(shape) {
        Path::Depthwise => depthwise::backward_weights(shape, x, dy, dw),
        Path::Winograd => {
            // SAFETY: `suits` lets only `f32` through, so T is that type.
            let dw = unsafe { std::slice::from_raw_parts_mut(dw.as_mut_ptr().cast::<MaybeUninit<f32>>(), dw.len()) };
            winograd::backward_weights(shape, x.cast(), bytemuck::cast_slice::<T, f32>(dy), dw)
        }
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
