//! Cumulative sums.

mod cpu;
mod cuda;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
mod reference;

use tomograd_core::{Device, Result, Tensor};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check, op::with_real};

/// `y[.., i, ..] = Σ_{j ≤ i} x[.., j, ..]` along `axis`; in reverse, the sum over j ≥ i. Input: x, floating point. The sums
/// are accumulated in f64. The gradient is the same sum in the other direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CumulativeSum {
    /// The axis along which the elements are added.
    pub axis: usize,
    /// Whether the sum starts at the end of the axis.
    pub reverse: bool,
}

fn sum(x: &Tensor, axis: usize, reverse: bool) -> Result<Tensor> {
    if let Device::Cuda(_) = x.device() {
        return cuda::sum(x, axis, reverse);
    }
    with_real!("cumsum", x.dtype(), T => cpu::sum::<T>(x, axis, reverse))
}

impl Op for CumulativeSum {
    fn name(&self) -> &'static str {
        "cumsum"
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs("cumsum", inputs, 1, 1)?;
        check::same_float("cumsum", inputs)?;
        check::axis("cumsum", &inputs[0], self.axis)?;
        Ok(vec![inputs[0].clone()])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(sum(inputs[0], self.axis, self.reverse)?))
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], _: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(sum(inputs[0], self.axis, self.reverse)?))
    }

    fn backward_cpu(
        &self,
        _: &Context,
        _: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![gradients[0].as_ref().map(|gradient| sum(gradient, self.axis, !self.reverse)).transpose()?])
    }

    fn backward_cuda(
        &self,
        context: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        self.backward_cpu(context, saved, gradients, needed)
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(inputs[0].count() as f64, inputs, outputs)
    }
}
