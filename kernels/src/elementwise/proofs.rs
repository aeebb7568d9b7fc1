//! Reference and random cases.

use tomograd_core::{Device, Random, Result, Tensor};

use super::{BinaryFunction, Chain, ChainInPlace, Function, Increment, Step, cpu, reference};
use crate::testing::{self, Proven, ProvenInPlace};

impl Proven for Chain {
    /// Some functions have several roundings (GELU: the exponential of a square), and chains add them up.
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
        let mut shape = testing::shape(random, 0, 4);
        if random.bernoulli(0.15) {
            shape = testing::corner(random, 1, 3, &[cpu::BLOCK]);
        }
        // At least 0.01 away from every kink, and away from the poles of division and logarithm.
        let kinks = [-3.0, -0.5, 0.0, 0.8, 3.0];
        let apart = |x: f64| kinks.iter().fold(x, |x, kink| if (x - kink).abs() < 0.01 { kink + 0.02 } else { x });
        let mut values = testing::map(&testing::values(random, &shape)?, apart)?;
        let first = functions[random.below(functions.len() as u64) as usize];
        if matches!(first, F::Log | F::Sqrt | F::Reciprocal | F::Power(_)) {
            values = testing::map(&values, |x| x.abs() + 0.5)?;
        }
        if random.bernoulli(0.4) {
            return Ok((Self::unary(first), vec![values]));
        }
        // The second input is broadcast along some axes. Its values differ from all values of the first one, so that maxima
        // have no ties.
        let narrow: Vec<usize> = shape.iter().map(|&size| if random.bernoulli(0.3) { 1 } else { size }).collect();
        let lead = random.below(narrow.len() as u64 + 1) as usize;
        let mut other = testing::map(&testing::values(random, &narrow[lead..])?, |y| y.signum() * (y.abs() + 0.5))?;
        let binary = binaries[random.below(8) as usize];
        if matches!(binary, BinaryFunction::Max | BinaryFunction::Min) {
            other = testing::map(&other, |y| (y * 8.0).round() / 8.0 + 0.0625)?;
            values = testing::map(&values, |x| (x * 8.0).round() / 8.0)?;
        }
        if binary == BinaryFunction::ReverseDiv {
            values = testing::map(&values, |x| x.signum() * (x.abs() + 0.5))?;
        }
        let mut chain = Self::binary(binary);
        if random.bernoulli(0.5) {
            chain =
                chain.then(Step::Unary(F::Tanh)).then(Step::Binary(BinaryFunction::Mul, 1)).then(Step::Unary(F::Gelu));
        }
        Ok((chain, vec![values, other]))
    }
}

impl ProvenInPlace for ChainInPlace {
    const TOLERANCE: f64 = Chain::TOLERANCE;

    fn reference(&self, targets: &[Tensor], inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        reference::chain(&self.0, &[targets, inputs].concat())
    }

    /// A case of the chain, in which the first input has the common shape.
    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>, Vec<Tensor>)> {
        let (chain, mut inputs) = Chain::case(random)?;
        let target = inputs.remove(0);
        Ok((Self(chain), vec![target], inputs))
    }
}

impl Proven for Increment {
    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        Ok(vec![testing::map(&inputs[0], |x| x + self.0 as f64)?])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let shape = testing::shape(random, 0, 3);
        let counts: Vec<i64> = (0..shape.iter().product()).map(|_| random.below(1 << 40) as i64).collect();
        let number = random.below(100) as i64 - 50;
        Ok((Self(number), vec![Tensor::from_slice(&counts, &shape, Device::Cpu)?]))
    }

    fn is_differentiable(&self, _: usize) -> bool {
        false
    }
}
