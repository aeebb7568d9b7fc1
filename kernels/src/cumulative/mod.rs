//! Sums of all elements up to each.

mod cpu;
mod reference;

use tomograd_core::{Random, Result, Tensor};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check, op::with_real, registry, registry::Proven};

/// `y[.., i, ..] = Σ_{j ≤ i} x[.., j, ..]` along `axis`, or the sum over j ≥ i in reverse. Input: x, floating point. Sums are
/// made in f64. Its gradient is the same sum the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CumulativeSum {
    /// The axis along which the elements are added.
    pub axis: usize,
    /// Whether the sum begins at the end of the axis.
    pub reverse: bool,
}

fn sum(x: &Tensor, axis: usize, reverse: bool) -> Result<Tensor> {
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

    fn backward_cpu(
        &self,
        _: &Context,
        _: Saved,
        gradients: Vec<Option<Tensor>>,
        _: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![gradients[0].as_ref().map(|gradient| sum(gradient, self.axis, !self.reverse)).transpose()?])
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(inputs[0].count() as f64, inputs, outputs)
    }
}

impl Proven for CumulativeSum {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::sum(self, &inputs[0])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = match random.below(12) {
            0 => registry::corner(random, 1, 3, &[cpu::BLOCK]),
            // Several chunks of whole planes.
            1 => vec![2 + random.below(3) as usize, cpu::GRAIN / 2 + random.below(9) as usize],
            _ => registry::shape(random, 1, 4),
        };
        let axis = random.below(shape.len() as u64) as usize;
        Ok((Self { axis, reverse: random.bernoulli(0.5) }, vec![registry::values(random, &shape)?]))
    }

    /// As for a sum: one rounding for f32, as many as there are terms for f64.
    fn scale(&self, inputs: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        let magnitude = self.reference(&[registry::map(&inputs[0], f64::abs)?])?;
        let terms = inputs[0].shape()[self.axis].max(1) as f64;
        Ok(vec![registry::map(&magnitude[0], |sum| sum * terms)?])
    }
}
