//! Elementwise operations with broadcasting, in fused chains.

mod cpu;
pub(crate) mod cuda;
mod function;
mod in_place;
mod increment;
#[cfg(feature = "testing")]
mod proofs;
#[cfg(feature = "testing")]
pub(crate) mod reference;

use tomograd_core::{Error, Result, Tensor, broadcast_shapes};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check, reduce};
pub(crate) use cpu::{apply, apply_all};
pub use function::{BinaryFunction, Function};
pub use in_place::ChainInPlace;
pub use increment::Increment;

/// A step of a chain; x is the current value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// f(x).
    Unary(Function),
    /// f(x, input k).
    Binary(BinaryFunction, usize),
}

/// A chain of elementwise steps, computed in one pass over memory. x starts as input 0, and each step computes a new x from
/// it, alone or together with another input. Inputs are broadcast to a common shape as in NumPy. The backward pass recomputes
/// the intermediate values block by block, so only the inputs are saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    steps: Vec<Step>,
}

impl Chain {
    /// f(input 0).
    pub fn unary(function: Function) -> Self {
        Self { steps: vec![Step::Unary(function)] }
    }

    /// f(input 0, input 1).
    pub fn binary(function: BinaryFunction) -> Self {
        Self { steps: vec![Step::Binary(function, 1)] }
    }

    /// This chain with one more step at the end.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    fn input_count(&self) -> usize {
        let used = |step: &Step| match step {
            Step::Unary(_) => 0,
            Step::Binary(_, input) => *input,
        };
        self.steps.iter().map(used).max().unwrap_or(0).saturating_add(1)
    }
}

impl Op for Chain {
    fn name(&self) -> &'static str {
        match self.steps[..] {
            [Step::Unary(function)] => function.name(),
            [Step::Binary(function, _)] => function.name(),
            _ => "chain",
        }
    }

    fn infer(&self, inputs: &[Meta]) -> Result<Vec<Meta>> {
        check::inputs(self.name(), inputs, self.input_count(), self.input_count())?;
        check::same_float(self.name(), inputs)?;
        if let Some(Step::Binary(..)) = self.steps.iter().find(|step| matches!(step, Step::Binary(_, 0))) {
            return Err(Error::argument(self.name(), "a step takes input 0, where the chain starts")
                .expected("inputs 1 and up in binary steps"));
        }
        for step in &self.steps {
            if let Step::Unary(function) = step {
                function.check(self.name())?;
            }
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(|meta| &meta.shape[..]).collect();
        Ok(vec![inputs[0].with_shape(broadcast_shapes(self.name(), &shapes)?)])
    }

    fn forward_cpu(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cpu::forward(&self.steps, inputs, &outputs[0])?))
    }

    fn forward_cuda(&self, _: &Context, inputs: &[&Tensor], outputs: &[Meta]) -> Result<Forward> {
        Ok(Forward::one(cuda::forward(&self.steps, inputs, &outputs[0])?))
    }

    fn saves_input(&self, _: usize) -> bool {
        // The gradient of a linear function doesn't depend on its inputs.
        let linear = |step: &Step| {
            matches!(
                step,
                Step::Binary(BinaryFunction::Add | BinaryFunction::Sub | BinaryFunction::ReverseSub, _)
                    | Step::Unary(Function::Neg | Function::Add(_) | Function::Multiply(_))
            )
        };
        !self.steps.iter().all(linear)
    }

    fn backward_cpu(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        self.gradients(&saved, &gradients, needed, cpu::backward)
    }

    fn backward_cuda(
        &self,
        _: &Context,
        saved: Saved,
        gradients: Vec<Option<Tensor>>,
        needed: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        self.gradients(&saved, &gradients, needed, cuda::backward)
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(self.steps.len() as f64 * outputs[0].count() as f64, inputs, outputs)
    }
}

/// The gradients of a chain's inputs in the common shape, from its steps, its inputs and the output's gradient.
type Backward = fn(&[Step], &[Tensor], &Tensor, &[bool]) -> Result<Vec<Option<Tensor>>>;

impl Chain {
    /// The gradients of the inputs, by the kernel of a device.
    fn gradients(
        &self,
        saved: &Saved,
        gradients: &[Option<Tensor>],
        needed: &[bool],
        backward: Backward,
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(gradient) = &gradients[0] else { return Ok(vec![None; needed.len()]) };
        let inputs = if self.saves_input(0) {
            (0..needed.len()).map(|index| saved.input(index).cloned()).collect::<Result<Vec<_>>>()?
        } else {
            // Placeholders for the inputs, whose values aren't used.
            vec![gradient.clone(); needed.len()]
        };
        let full = backward(&self.steps, &inputs, gradient, needed)?;
        full.into_iter()
            .zip(&saved.metas)
            .map(|(gradient, meta)| gradient.map(|gradient| reduce::sum_to(&gradient, &meta.shape)).transpose())
            .collect()
    }
}
