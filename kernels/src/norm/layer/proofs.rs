//! Reference and random cases.

use tomograd_core::{Random, Result, Tensor};

use super::LayerNorm;
use crate::{norm::proofs::Plain, testing, testing::Proven};

impl Proven for LayerNorm {
    /// Sums over a row, a square root and a division in sequence.
    const TOLERANCE: f64 = 64.0;

    fn reference(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let parameters: Vec<Vec<f64>> = inputs[1..].iter().map(Tensor::to_vec::<f64>).collect::<Result<_>>()?;
        let length = self.length(inputs[0].shape());
        let mut values = inputs[0].to_vec::<f64>()?;
        for row in values.chunks_mut(length.max(1)) {
            let plain = Plain::of(row);
            for (i, value) in row.iter_mut().enumerate() {
                let normal = plain.normal(*value, self.epsilon);
                *value = if self.affine { parameters[0][i] * normal + parameters[1][i] } else { normal };
            }
        }
        Ok(vec![Tensor::from_slice(&values, inputs[0].shape(), inputs[0].device())?])
    }

    fn scale(&self, inputs: &[Tensor], reference: &[Tensor]) -> Result<Vec<Tensor>> {
        // The same bound as for `Norm`.
        let length = self.length(inputs[0].shape());
        let gamma = if self.affine { inputs[1].to_vec::<f64>()? } else { vec![1.0; length] };
        let y = reference[0].to_vec::<f64>()?;
        let bound = |(i, y): (usize, &f64)| (1.0 + gamma[i % length].abs()) * (1.0 + y.abs());
        let bounds: Vec<f64> = y.iter().enumerate().map(bound).collect();
        Ok(vec![Tensor::from_slice(&bounds, inputs[0].shape(), inputs[0].device())?])
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>)> {
        let mut shape = testing::shape(random, 1, 4);
        if random.bernoulli(0.1) {
            // Several chunks of rows.
            shape = vec![2100, 17];
        }
        let axes = 1 + random.below(shape.len() as u64) as usize;
        // A large ε makes the function smooth for few values, as finite differences need; `norm::tests` uses small ones.
        let norm = Self { axes, epsilon: 0.1, affine: random.bernoulli(0.7) };
        let mut inputs = vec![testing::values(random, &shape)?];
        for _ in 1..norm.input_count() {
            inputs.push(testing::values(random, &shape[shape.len() - axes..])?);
        }
        Ok((norm, inputs))
    }
}
