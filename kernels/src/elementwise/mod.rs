//! Elementwise operations with broadcasting, in fused chains.

mod cpu;
mod function;
mod increment;
pub(crate) mod reference;

use tomograd_core::{Error, Random, Result, Tensor, broadcast_shapes};

use crate::{Context, Cost, Forward, Meta, Op, Saved, check, reduce, registry, registry::Proven};
pub use function::{BinaryFunction, Function};
pub use increment::Increment;

/// One step of a chain; x is the value so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// f(x).
    Unary(Function),
    /// f(x, input k).
    Binary(BinaryFunction, usize),
}

/// A chain of elementwise steps, computed in one pass over memory: x starts as input 0, and each step makes a new x of it,
/// alone or with another input. Inputs are broadcast to a common shape as in NumPy. The backward run computes the
/// intermediate values again, block by block, so nothing but the inputs is saved.
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

    /// This chain and then one more step.
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

    fn saves_input(&self, _: usize) -> bool {
        // A sum's gradient doesn't depend on its terms.
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
        let Some(gradient) = &gradients[0] else { return Ok(vec![None; needed.len()]) };
        let inputs = if self.saves_input(0) {
            (0..needed.len()).map(|index| saved.input(index).cloned()).collect::<Result<Vec<_>>>()?
        } else {
            // Stands for the inputs, whose values don't matter.
            vec![gradient.clone(); needed.len()]
        };
        let full = cpu::backward(&self.steps, &inputs, gradient, needed)?;
        full.into_iter()
            .zip(&saved.metas)
            .map(|(gradient, meta)| gradient.map(|gradient| reduce::sum_to(&gradient, &meta.shape)).transpose())
            .collect()
    }

    fn cost(&self, inputs: &[Meta], outputs: &[Meta]) -> Cost {
        Cost::of(self.steps.len() as f64 * outputs[0].count() as f64, inputs, outputs)
    }
}

impl Proven for Chain {
    /// Some functions chain several roundings (GELU: an exponential of a square), and chains add theirs up.
    const TOLERANCE: f64 = 64.0;

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::chain(self, inputs)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        use Function as F;
        let functions = [
            F::Neg,
            F::Abs,
            F::Exp,
            F::Square,
            F::Relu,
            F::LeakyRelu(0.01),
            F::Elu(0.7),
            F::Gelu,
            F::GeluTanh,
            F::Silu,
            F::Sigmoid,
            F::Tanh,
            F::Softplus,
            F::Mish,
            F::Hardswish,
            F::Add(0.3),
            F::Multiply(-1.7),
            F::Clamp(-0.5, 0.8),
            F::Log,
            F::Sqrt,
            F::Reciprocal,
            F::Power(1.5),
            F::Power(3.0),
            F::Power(-2.0),
        ];
        let binaries = [
            BinaryFunction::Add,
            BinaryFunction::Sub,
            BinaryFunction::Mul,
            BinaryFunction::Div,
            BinaryFunction::ReverseSub,
            BinaryFunction::ReverseDiv,
            BinaryFunction::Max,
            BinaryFunction::Min,
        ];
        let mut shape = registry::shape(random, 0, 4);
        if random.bernoulli(0.15) {
            shape = registry::corner(random, 1, 3, &[cpu::BLOCK]);
        }
        // Away from every kink by 0.01, and from the poles of division and logarithm.
        let kinks = [-3.0, -0.5, 0.0, 0.8, 3.0];
        let apart = |x: f64| kinks.iter().fold(x, |x, kink| if (x - kink).abs() < 0.01 { kink + 0.02 } else { x });
        let mut values = registry::map(&registry::values(random, &shape)?, apart)?;
        let first = functions[random.below(functions.len() as u64) as usize];
        if matches!(first, F::Log | F::Sqrt | F::Reciprocal | F::Power(_)) {
            values = registry::map(&values, |x| x.abs() + 0.5)?;
        }
        if random.bernoulli(0.4) {
            return Ok((Self::unary(first), vec![values]));
        }
        // The second input is broadcast along some axes; it lies outside of the first one's range, so that no maximum ties.
        let narrow: Vec<usize> = shape.iter().map(|&size| if random.bernoulli(0.3) { 1 } else { size }).collect();
        let lead = random.below(narrow.len() as u64 + 1) as usize;
        let mut other = registry::map(&registry::values(random, &narrow[lead..])?, |y| y.signum() * (y.abs() + 0.5))?;
        let binary = binaries[random.below(8) as usize];
        if matches!(binary, BinaryFunction::Max | BinaryFunction::Min) {
            other = registry::map(&other, |y| (y * 8.0).round() / 8.0 + 0.0625)?;
            values = registry::map(&values, |x| (x * 8.0).round() / 8.0)?;
        }
        if binary == BinaryFunction::ReverseDiv {
            values = registry::map(&values, |x| x.signum() * (x.abs() + 0.5))?;
        }
        let mut chain = Self::binary(binary);
        if random.bernoulli(0.5) {
            chain =
                chain.then(Step::Unary(F::Tanh)).then(Step::Binary(BinaryFunction::Mul, 1)).then(Step::Unary(F::Gelu));
        }
        Ok((chain, vec![values, other]))
    }
}
