//! Softmax and its logarithm along an axis.

mod cpu;
mod cuda;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
mod reference;

use tomograd_core::{Result, Tensor};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check};

/// y_i = exp(x_i) / Σ_j exp(x_j) along `axis`, computed from x − max x so that nothing overflows. NaN if an element is NaN or
/// +∞, or if all are −∞, as in PyTorch. The output has the input's shape.
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// use tomograd_kernels::{Context, run, softmax::Softmax};
/// let x = Tensor::from_slice(&[0.0f64, 3.0f64.ln()], &[1, 2], Device::Cpu)?;
/// let y = run(&Softmax { axis: 1 }, &[&x], &Context::default())?.outputs.remove(0);
/// assert!((y.to_vec::<f64>()?[1] - 0.75).abs() < 1e-15);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Softmax {
    /// The axis of the sum.
    pub axis: usize,
}

/// y_i = x_i − log Σ_j exp(x_j) along `axis`, computed from x − max x; see [`Softmax`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSoftmax {
    /// The axis of the sum.
    pub axis: usize,
}

/// The methods of both operations, which differ only in their name and in whether the logarithm is taken.
macro_rules! operation {
    ($name:literal, $logarithm:literal) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
            check::inputs($name, inputs, 1, 1)?;
            check::same_float($name, inputs)?;
            check::axis($name, &inputs[0], self.axis)?;
            Ok(inputs.to_vec())
        }

        fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
            Ok(Forward::one(cpu::forward(inputs[0], self.axis, $logarithm)?))
        }

        fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
            Ok(Forward::one(cuda::forward(inputs[0], self.axis, $logarithm)?))
        }

        fn saves_output(&self, _: usize) -> bool {
            true
        }

        fn backward_cpu(
            &self,
            _: &Context,
            saved: Saved,
            gradients: Vec<Option<Tensor>>,
            _: &[bool],
        ) -> Result<Vec<Option<Tensor>>> {
            let Some(gradient) = &gradients[0] else { return Ok(vec![None]) };
            Ok(vec![Some(cpu::backward(saved.output(0)?, gradient, self.axis, $logarithm)?)])
        }

        fn backward_cuda(
            &self,
            _: &Context,
            saved: Saved,
            gradients: Vec<Option<Tensor>>,
            _: &[bool],
        ) -> Result<Vec<Option<Tensor>>> {
            let Some(gradient) = &gradients[0] else { return Ok(vec![None]) };
            Ok(vec![Some(cuda::backward(saved.output(0)?, gradient, self.axis, $logarithm)?)])
        }

        fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
            Cost::of(20.0 * inputs[0].count() as f64, inputs, outputs)
        }
    };
}

impl Op for Softmax {
    operation!("softmax", false);
}

impl Op for LogSoftmax {
    operation!("log_softmax", true);
}
