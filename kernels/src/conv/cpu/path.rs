//! The algorithms for a convolution, and the choice among them by shape.

use super::epilogue::Epilogue;
use super::tensors::{Inputs, Outputs, check_weights};
use super::{dense, depthwise, pointwise, weight_gradient, winograd};
use crate::conv::ConvShape;
use crate::simd::Real;
use std::fmt;
use std::mem::MaybeUninit;
use tomograd_core::{Error, Result};

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// A 1 × 1 × 1 kernel without padding: a matrix product.
    Pointwise,
    /// One input channel in each group. With a stride, the gradient of the data takes the dense path.
    Depthwise,
    /// Winograd's minimal filtering: 3 × 3 or 5 × 5 kernels in a plane with many channels, in `f32`.
    Winograd,
    /// A register tile over packed blocks of the input: the general case.
    Dense,
}

impl Path {
    /// All paths.
    pub const ALL: [Path; 4] = [Path::Pointwise, Path::Depthwise, Path::Winograd, Path::Dense];

    /// Whether this path can compute a shape in element type `T`.
    pub fn suits<T: Real>(self, shape: &ConvShape) -> bool {
        match self {
            Path::Pointwise => pointwise::suits(shape),
            Path::Depthwise => depthwise::suits(shape),
            Path::Winograd => winograd::suits::<T>(shape),
            Path::Dense => true,
        }
    }

    /// The path of a shape in element type `T`, for the forward pass and both backward passes: pointwise or depthwise where
    /// they apply, otherwise the path with the lowest [`estimate`](Self::estimate).
    pub fn choose<T: Real>(shape: &ConvShape) -> Path {
        let suited = |path: &Path| path.suits::<T>(shape);
        if let Some(path) = [Path::Pointwise, Path::Depthwise].into_iter().find(suited) {
            return path;
        }
        if !Path::Winograd.suits::<T>(shape) {
            return Path::Dense;
        }
        let [winograd, dense] = [Path::Winograd, Path::Dense].map(|path| (path.name(), path.estimate(shape)));
        crate::trace::estimates(&[winograd, dense]);
        if winograd.1 < dense.1 { Path::Winograd } else { Path::Dense }
    }

    /// The estimated time of the forward pass with this path, in milliseconds on two cores of the machine on which the model
    /// was fitted (benches/results/paths.md). It is meant for comparing paths, not for predicting the time on this machine.
    pub fn estimate(self, shape: &ConvShape) -> f64 {
        match self {
            Path::Winograd => winograd::estimate(shape),
            _ => dense::estimate(shape),
        }
    }

    /// The name of the path in traces.
    pub fn name(self) -> &'static str {
        match self {
            Path::Dense => "dense",
            Path::Depthwise => "depthwise",
            Path::Winograd => "winograd",
            Path::Pointwise => "pointwise",
        }
    }

    fn check<T: Real>(self, shape: &ConvShape) -> Result<()> {
        shape.check()?;
        if !self.suits::<T>(shape) {
            return Err(Error::shape("conv", format!("{shape:?} doesn't suit the {self} path")));
        }
        Ok(())
    }

    fn trace(self) {
        crate::trace::path(self.name());
    }

    /// [`forward`](super::forward) with this path.
    ///
    /// # Errors
    /// When a slice doesn't fit the shape, the shape doesn't suit the path, or memory runs out.
    pub fn forward<T: Real>(
        self,
        shape: &ConvShape,
        x: Inputs<'_, T>,
        weights: &[T],
        epilogue: Epilogue<'_, T>,
        mut y: Outputs<'_, T>,
    ) -> Result<()> {
        self.check::<T>(shape)?;
        x.check("an input", shape.batch, shape.in_channels, shape.input_voxels())?;
        check_weights(shape, weights)?;
        let ends_in_cache = self == Path::Depthwise || (self == Path::Pointwise && y.single().is_some());
        epilogue.check(shape.batch, shape.out_channels, ends_in_cache)?;
        y.check(shape.batch, shape.out_channels, shape.output_voxels())?;
        self.trace();
        match (self, y.single()) {
            (Path::Pointwise, Some(y)) => pointwise::forward(shape, x, weights, epilogue, y),
            (Path::Depthwise, _) => depthwise::forward(shape, x, weights, epilogue, &y),
            // The Winograd path is only taken for `f32`; the cast avoids compiling it for `f64`.
            (Path::Winograd, _) => {
                let weights = bytemuck::cast_slice::<T, f32>(weights);
                winograd::forward(shape, x.cast(), weights, epilogue.cast(), &y.cast())
            }
            _ => dense::forward(shape, x, weights, epilogue, &y),
        }
    }

    /// [`backward_data`](super::backward_data) with this path.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_data<T: Real>(
        self,
        shape: &ConvShape,
        dy: &[T],
        weights: &[T],
        mut dx: Outputs<'_, T>,
    ) -> Result<()> {
        self.check::<T>(shape)?;
        Inputs::one(dy, shape.out_channels).check(
            "a gradient",
            shape.batch,
            shape.out_channels,
            shape.output_voxels(),
        )?;
        check_weights(shape, weights)?;
        dx.check(shape.batch, shape.in_channels, shape.input_voxels())?;
        if self == Path::Pointwise {
            self.trace();
            return pointwise::backward_data(shape, dy, weights, &mut dx);
        }
        self.transposed_forward(shape, Inputs::one(dy, shape.out_channels), weights, Epilogue::default(), dx)
    }

    /// [`transposed_forward`](super::transposed_forward) with this path.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn transposed_forward<T: Real>(
        self,
        shape: &ConvShape,
        x: Inputs<'_, T>,
        weights: &[T],
        epilogue: Epilogue<'_, T>,
        y: Outputs<'_, T>,
    ) -> Result<()> {
        self.check::<T>(shape)?;
        x.check("an input", shape.batch, shape.out_channels, shape.output_voxels())?;
        check_weights(shape, weights)?;
        epilogue.check(shape.batch, shape.in_channels, false)?;
        y.check(shape.batch, shape.in_channels, shape.input_voxels())?;
        self.trace();
        match self {
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

    /// [`backward_weights`](super::backward_weights) with this path.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward_weights<T: Real>(
        self,
        shape: &ConvShape,
        x: Inputs<'_, T>,
        dy: &[T],
        dw: &mut [MaybeUninit<T>],
    ) -> Result<()> {
        self.check::<T>(shape)?;
        x.check("an input", shape.batch, shape.in_channels, shape.input_voxels())?;
        Inputs::one(dy, shape.out_channels).check(
            "a gradient",
            shape.batch,
            shape.out_channels,
            shape.output_voxels(),
        )?;
        if dw.len() != shape.weight_count() {
            return Err(Error::shape("conv", format!("a gradient of {} weights", dw.len()))
                .expected(shape.weight_count().to_string()));
        }
        self.trace();
        match self {
            Path::Depthwise => depthwise::backward_weights(shape, x, dy, dw),
            Path::Pointwise if pointwise::suits_backward_weights(shape) => {
                pointwise::backward_weights(shape, x, dy, dw)
            }
            Path::Winograd => {
                // SAFETY: `suits` accepts only `f32`, so `T` is `f32`.
                let dw =
                    unsafe { std::slice::from_raw_parts_mut(dw.as_mut_ptr().cast::<MaybeUninit<f32>>(), dw.len()) };
                winograd::backward_weights(shape, x.cast(), bytemuck::cast_slice::<T, f32>(dy), dw)
            }
            _ => weight_gradient::backward_weights(shape, x, dy, dw),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
