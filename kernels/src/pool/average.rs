//! Average pooling: a separable linear map.

use tomograd_core::{Result, Tensor};

use super::{
    cuda,
    window::{Strided, Windows, infer_adaptive},
};
use crate::{
    Context, Cost, Forward, Meta, Op, Saved,
    op::with_real,
    resample::{axis::AxisMap, cpu::separable, separable_gradient, three_axes},
};

/// The mean of each window of x (N, C, spatial...).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AveragePool {
    /// The size of a window, for each spatial axis.
    pub kernel: Vec<usize>,
    /// The distance from one window to the next, for each spatial axis.
    pub stride: Vec<usize>,
    /// The number of zeros on both sides, for each spatial axis; at most half of the kernel.
    pub padding: Vec<usize>,
    /// Whether windows may extend beyond the end of the padded input.
    pub ceil_mode: bool,
    /// Whether the zeros of the padding count in the mean.
    pub count_include_pad: bool,
}

/// Adaptive average pooling of x (N, C, spatial...): the mean over each of `output` windows per axis, which overlap if the
/// sizes don't divide evenly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptiveAveragePool {
    /// The spatial size of the output.
    pub output: Vec<usize>,
}

/// The linear map that computes the mean of each window, with the divisor `divisors[o]`, or the window's count by default.
fn mean_map(windows: &Windows, divisors: Option<&[usize]>) -> AxisMap {
    AxisMap::new(windows.input, windows.output(), |o| {
        let count = windows.counts[o];
        (windows.starts[o], vec![1.0 / divisors.map_or(count, |divisors| divisors[o]) as f64; count])
    })
}

impl AveragePool {
    /// Adjacent windows of `kernel` voxels, without padding.
    ///
    /// # Errors
    /// When there aren't one to three axes, or a size is 0 or greater than 2²⁰.
    pub fn new(kernel: &[usize]) -> Result<Self> {
        let (stride, padding) = (kernel.to_vec(), vec![0; kernel.len()]);
        let pool = Self { kernel: kernel.to_vec(), stride, padding, ceil_mode: false, count_include_pad: true };
        pool.strided().check("average_pool")?;
        Ok(pool)
    }

    pub(super) fn strided(&self) -> Strided<'_> {
        let Self { kernel, stride, padding, ceil_mode, .. } = self;
        Strided { kernel, stride, padding, dilation: None, ceil_mode: *ceil_mode }
    }

    fn axes(&self, input: &[usize]) -> [AxisMap; 3] {
        let windows = self.strided();
        let map = |(axis, &input): (usize, &usize)| {
            let divisors = self.count_include_pad.then(|| windows.padded_counts(axis, input));
            mean_map(&windows.windows(axis, input), divisors.as_deref())
        };
        three_axes(input[2..].iter().enumerate().map(map).collect())
    }

    /// The windows, and whether the padding counts in the mean.
    fn cuda_axes(&self, input: &[usize], output: &[usize]) -> (cuda::Axes, bool) {
        (cuda::strided(self.strided(), input, output), self.count_include_pad)
    }
}

impl AdaptiveAveragePool {
    fn axes(&self, input: &[usize]) -> [AxisMap; 3] {
        let axes = input[2..].iter().zip(&self.output);
        three_axes(axes.map(|(&input, &output)| mean_map(&Windows::adaptive(input, output), None)).collect())
    }

    fn cuda_axes(&self, input: &[usize], output: &[usize]) -> (cuda::Axes, bool) {
        (cuda::adaptive(input, output), false)
    }
}

/// The methods that both operations share, once their windows are given as axis maps.
macro_rules! separable_methods {
    () => {
        fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
            let axes = self.axes(inputs[0].shape());
            with_real!(self.name(), outputs[0].dtype, T => {
                Ok(Forward::one(separable::<T>(self.name(), inputs[0], &axes, &outputs[0].shape)?))
            })
        }

        fn backward_cpu(
            &self,
            _: &Context,
            saved: Saved,
            gradients: Vec<Option<Tensor>>,
            _: &[bool],
        ) -> Result<Vec<Option<Tensor>>> {
            separable_gradient(self.name(), &self.axes(&saved.metas[0].shape), &gradients, &saved.metas[0])
        }

        fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
            let (axes, padded) = self.cuda_axes(inputs[0].shape(), &outputs[0].shape);
            Ok(Forward::one(cuda::average(self.name(), inputs[0], axes, padded, &outputs[0].shape, false)?))
        }

        fn backward_cuda(
            &self,
            _: &Context,
            saved: Saved,
            gradients: Vec<Option<Tensor>>,
            _: &[bool],
        ) -> Result<Vec<Option<Tensor>>> {
            let Some(dy) = &gradients[0] else { return Ok(vec![None]) };
            let shape = &saved.metas[0].shape;
            let (axes, padded) = self.cuda_axes(shape, dy.shape());
            Ok(vec![Some(cuda::average(self.name(), dy, axes, padded, shape, true)?)])
        }

        fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
            Cost::of(inputs[0].count() as f64, inputs, outputs)
        }
    };
}

impl Op for AveragePool {
    fn name(&self) -> &'static str {
        "average_pool"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        Ok(vec![self.strided().infer(self.name(), inputs)?])
    }

    separable_methods!();
}

impl Op for AdaptiveAveragePool {
    fn name(&self) -> &'static str {
        "adaptive_average_pool"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        Ok(vec![infer_adaptive(self.name(), &self.output, inputs)?])
    }

    separable_methods!();
}
