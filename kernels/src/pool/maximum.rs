//! Max pooling.

use tomograd_core::{Error, Result, Tensor};

use super::{
    cpu, cuda,
    window::{Strided, Windows, infer_adaptive, winner_dtype},
};
use crate::{Context, Cost, Forward, Meta, Op, Saved, op::with_real};

/// The maximum of each window of x (N, C, spatial...). Padding is never the maximum; a NaN always is. The gradient goes to
/// the first of several equal maxima.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxPool {
    /// The size of a window, for each spatial axis.
    pub kernel: Vec<usize>,
    /// The distance from one window to the next, for each spatial axis.
    pub stride: Vec<usize>,
    /// The padding on both sides, which is ignored, for each spatial axis; at most half of the kernel.
    pub padding: Vec<usize>,
    /// The distance between neighbouring voxels of a window, for each spatial axis.
    pub dilation: Vec<usize>,
    /// Whether windows may extend beyond the end of the padded input.
    pub ceil_mode: bool,
}

/// Adaptive max pooling of x (N, C, spatial...): the maximum over each of `output` windows per axis, which overlap if the
/// sizes don't divide evenly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptiveMaxPool {
    /// The spatial size of the output.
    pub output: Vec<usize>,
}

/// The windows of three axes, from those of the spatial axes.
fn three_windows(windows: Vec<Windows>) -> [Windows; 3] {
    let mut all = [(); 3].map(|()| Windows::adaptive(1, 1));
    for (to, windows) in all.iter_mut().rev().zip(windows.into_iter().rev()) {
        *to = windows;
    }
    all
}

/// Checks that the voxels of a window can be counted exactly in f32, as the kernels do.
fn countable(operation: &str, windows: &[Windows; 3]) -> Result<()> {
    let voxels = windows.iter().map(Windows::most).fold(1, usize::saturating_mul);
    if voxels <= 1 << 24 {
        return Ok(());
    }
    Err(Error::shape(operation, format!("windows of {voxels} voxels")).expected("at most 2^24"))
}

impl MaxPool {
    /// Adjacent windows of `kernel` voxels, without padding.
    ///
    /// # Errors
    /// When there aren't one to three axes, or a size is 0 or greater than 2²⁰.
    pub fn new(kernel: &[usize]) -> Result<Self> {
        let (padding, dilation) = (vec![0; kernel.len()], vec![1; kernel.len()]);
        let pool = Self { kernel: kernel.to_vec(), stride: kernel.to_vec(), padding, dilation, ceil_mode: false };
        pool.strided().check("max_pool")?;
        Ok(pool)
    }

    pub(super) fn strided(&self) -> Strided<'_> {
        let Self { kernel, stride, padding, dilation, ceil_mode } = self;
        Strided { kernel, stride, padding, dilation: Some(dilation), ceil_mode: *ceil_mode }
    }

    fn windows(&self, input: &[usize]) -> [Windows; 3] {
        let windows = self.strided();
        three_windows(input[2..].iter().enumerate().map(|(axis, &input)| windows.windows(axis, input)).collect())
    }

    fn cuda_axes(&self, input: &[usize], output: &[usize]) -> cuda::Axes {
        cuda::strided(self.strided(), input, output)
    }
}

impl AdaptiveMaxPool {
    fn windows(&self, input: &[usize]) -> [Windows; 3] {
        let axes = input[2..].iter().zip(&self.output);
        three_windows(axes.map(|(&input, &output)| Windows::adaptive(input, output)).collect())
    }

    fn cuda_axes(&self, input: &[usize], output: &[usize]) -> cuda::Axes {
        cuda::adaptive(input, output)
    }
}

/// The methods that both operations share, once their windows are known.
macro_rules! maximum_methods {
    () => {
        /// The index of each maximum in its window.
        fn state(&self, inputs: &[Meta], outputs: &[Meta]) -> Vec<Meta> {
            vec![outputs[0].with_dtype(winner_dtype(&self.windows(&inputs[0].shape)))]
        }

        /// The state holds the index of each maximum in its window, in row-major order. It is one byte if windows are small
        /// enough, so that saving it takes less memory than saving x.
        fn forward_cpu(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
            let windows = self.windows(inputs[0].shape());
            with_real!(self.name(), outputs[0].dtype, T => {
                let (y, winners) =
                    cpu::maximum::<T>(self.name(), inputs[0], &windows, &outputs[0].shape, !context.inference)?;
                Ok(Forward { outputs: vec![y], state: winners.into_iter().collect() })
            })
        }

        fn backward_cpu(
            &self,
            _: &Context,
            saved: Saved,
            gradients: Vec<Option<Tensor>>,
            _: &[bool],
        ) -> Result<Vec<Option<Tensor>>> {
            let Some(dy) = &gradients[0] else { return Ok(vec![None]) };
            let shape = &saved.metas[0].shape;
            let (windows, winners) = (self.windows(shape), saved.state(0)?);
            with_real!(self.name(), dy.dtype(), T => {
                Ok(vec![Some(cpu::maximum_gradient::<T>(self.name(), dy, winners, &windows, shape)?)])
            })
        }

        fn forward_cuda(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
            let (input, output) = (inputs[0].shape(), &outputs[0].shape);
            let (axes, dtype) = (self.cuda_axes(input, output), winner_dtype(&self.windows(input)));
            let (y, winners) = cuda::maximum(self.name(), inputs[0], axes, output, dtype, !context.inference)?;
            Ok(Forward { outputs: vec![y], state: winners.into_iter().collect() })
        }

        fn backward_cuda(
            &self,
            _: &Context,
            saved: Saved,
            gradients: Vec<Option<Tensor>>,
            _: &[bool],
        ) -> Result<Vec<Option<Tensor>>> {
            let Some(dy) = &gradients[0] else { return Ok(vec![None]) };
            let (shape, winners) = (&saved.metas[0].shape, saved.state(0)?);
            let axes = self.cuda_axes(shape, dy.shape());
            Ok(vec![Some(cuda::maximum_gradient(self.name(), dy, winners, axes, shape)?)])
        }

        fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
            Cost::of(inputs[0].count() as f64, inputs, outputs)
        }
    };
}

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let output = self.strided().infer(self.name(), inputs)?;
        countable(self.name(), &self.windows(&inputs[0].shape))?;
        Ok(vec![output])
    }

    maximum_methods!();
}

impl Op for AdaptiveMaxPool {
    fn name(&self) -> &'static str {
        "adaptive_max_pool"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let output = infer_adaptive(self.name(), &self.output, inputs)?;
        countable(self.name(), &self.windows(&inputs[0].shape))?;
        Ok(vec![output])
    }

    maximum_methods!();
}
