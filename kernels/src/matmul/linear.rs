//! The matrix product of a linear layer.

use tomograd_core::{Device, Error, Result, Tensor};

use super::{
    cpu::product::{outer_sum, rows_times},
    cuda,
};
use crate::{Context, Cost, Forward, HalfPolicy, Meta, Op, Saved, check, op::with_real, reduce::sum_to};

/// `y[..., o] = bias[o] + Σ_i weight[o, i] x[..., i]`: inputs x (..., in), the weight (out, in) and, when `bias`, the bias
/// (out); output (..., out).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    /// Whether there is a bias.
    pub bias: bool,
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        let count = 2 + usize::from(self.bias);
        check::inputs("linear", inputs, count, count)?;
        check::same_float("linear", inputs)?;
        let shapes = || inputs.iter().map(|meta| &meta.shape[..]);
        let fail = |what: &str, expected: String| Err(Error::shape("linear", what).expected(expected).shapes(shapes()));
        let &[out, features] = &inputs[1].shape[..] else {
            return fail("the weight isn't a matrix", "(out, in)".into());
        };
        match inputs[0].shape.split_last() {
            Some((&last, _)) if last != features => {
                return fail("the weight doesn't fit the input", format!("(..., {features})"));
            }
            None => return fail("the input has no axis", format!("(..., {features})")),
            _ => {}
        }
        if self.bias && inputs[2].shape != [out] {
            return fail("the bias doesn't fit the weight", format!("({out},)"));
        }
        let mut shape = inputs[0].shape.clone();
        shape.pop();
        shape.push(out);
        Ok(vec![inputs[0].with_shape(shape)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        with_real!("linear", outputs[0].dtype, T => {
            let bias = self.bias.then(|| inputs[2]);
            let y = rows_times::<T>(inputs[0], &inputs[1].transpose(0, 1)?, bias)?;
            Ok(Forward::one(y.reshape(&outputs[0].shape)?))
        })
    }

    fn forward_cuda(&self, context: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        let bias = self.bias.then(|| inputs[2]);
        let y = cuda::rows_times(inputs[0], &inputs[1].transpose(0, 1)?, bias, context.precision)?;
        Ok(Forward::one(y.reshape(&outputs[0].shape)?))
    }

    fn saves_input(&self, index: usize) -> bool {
        index < 2
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let mut results = vec![None; needed.len()];
        let Some(dy) = &gradients[0] else { return Ok(results) };
        with_real!("linear", dy.dtype(), T => {
            if needed[0] {
                results[0] = Some(rows_times::<T>(dy, saved.input(1)?, None)?.reshape(&saved.metas[0].shape)?);
            }
            if needed[1] {
                results[1] = Some(outer_sum::<T>(dy, saved.input(0)?)?);
            }
            if self.bias && needed[2] {
                results[2] = Some(sum_to(dy, &saved.metas[2].shape)?);
            }
            Ok(results)
        })
    }

    fn backward_cuda(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let mut results = vec![None; needed.len()];
        let Some(dy) = &gradients[0] else { return Ok(results) };
        if needed[0] {
            let dx = cuda::rows_times(dy, saved.input(1)?, None, context.precision)?;
            results[0] = Some(dx.reshape(&saved.metas[0].shape)?);
        }
        if needed[1] {
            results[1] = Some(cuda::outer_sum("linear", dy, saved.input(0)?, context.precision)?);
        }
        if self.bias && needed[2] {
            results[2] = Some(sum_to(dy, &saved.metas[2].shape)?);
        }
        Ok(results)
    }

    /// CUDA devices have tensor cores for both.
    fn half_policy(&self, device: Device) -> HalfPolicy {
        if matches!(device, Device::Cuda(_)) { HalfPolicy::Keep } else { HalfPolicy::Widen }
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        let features = inputs[0].shape.last().copied().unwrap_or(0);
        Cost::of_products(outputs[0].count() as f64 * features as f64, inputs, outputs)
    }
}
