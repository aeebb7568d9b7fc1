//! Softmax and its logarithm along an axis.

mod cpu;
mod reference;

use tomograd_core::{Random, Result, Tensor};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check, registry, registry::Proven};

/// y_i = exp(x_i) / Σ_j exp(x_j) along `axis`, computed from x − max x, so that nothing overflows. NaN where an element is
/// NaN or +∞, or all are −∞, as in PyTorch. The output has the input's shape.
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

/// The members of both operations: one kernel, and whether the logarithm is taken.
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

        fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
            Cost::of(20.0 * inputs[0].count() as f64, inputs, outputs)
        }
    };
}

macro_rules! proof {
    ($logarithm:literal) => {
        /// An exponential, and a sum of up to 65 of them; see the scale for longer ones.
        const TOLERANCE: f64 = 64.0;

        fn scale(&self, inputs: &[Tensor], reference: &[Tensor]) -> Result<Vec<Tensor>> {
            let longer = (inputs[0].shape()[self.axis] as f64 / 64.0).max(1.0);
            reference.iter().map(|output| registry::map(output, |y| longer * (1.0 + y.abs()))).collect()
        }

        fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
            reference::softmax(&inputs[0], self.axis, $logarithm)
        }

        fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
            if random.bernoulli(0.08) {
                // Several tiles of columns, or long rows.
                let shape = [cpu::LONG, cpu::COLUMNS].map(|block| registry::around(random, &[block, block + 2]));
                let axis = usize::from(random.bernoulli(0.3));
                return Ok((Self { axis }, vec![registry::values(random, &shape)?]));
            }
            let shape = registry::shape(random, 1, 4);
            let axis = random.below(shape.len() as u64) as usize;
            Ok((Self { axis }, vec![registry::values(random, &shape)?]))
        }
    };
}

impl Op for Softmax {
    operation!("softmax", false);
}

impl Op for LogSoftmax {
    operation!("log_softmax", true);
}

impl Proven for Softmax {
    proof!(false);
}

impl Proven for LogSoftmax {
    proof!(true);
}
