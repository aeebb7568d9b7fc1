//! References and random cases of operations that write in place.

use tomograd_core::{Random, Result, Tensor};

use super::{Adam, AdamNumbers, AdamStep, ClipNorm, EmaStep, Scale, Sgd, SgdNumbers, SgdStep, cpu::GRAIN};
use crate::testing::{self, ProvenInPlace};

/// Shapes of some parameters; in some cases one of them takes several chunks.
fn shapes(random: &mut Random) -> Vec<Vec<usize>> {
    let mut shapes: Vec<Vec<usize>> = (0..random.below(4)).map(|_| testing::shape(random, 0, 3)).collect();
    if random.bernoulli(0.1) {
        shapes.push(vec![GRAIN + random.below(3) as usize - 1]);
    }
    shapes
}

fn values(random: &mut Random, shapes: &[Vec<usize>]) -> Result<Vec<Tensor>> {
    shapes.iter().map(|shape| testing::values(random, shape)).collect()
}

/// The elements of each tensor.
fn lists(tensors: &[Tensor]) -> Result<Vec<Vec<f64>>> {
    tensors.iter().map(Tensor::to_vec::<f64>).collect()
}

/// Tensors with these elements and the shapes of `like`.
fn tensors(lists: &[Vec<f64>], like: &[Tensor]) -> Result<Vec<Tensor>> {
    lists.iter().zip(like).map(|(values, like)| Tensor::from_slice(values, like.shape(), like.device())).collect()
}

impl ProvenInPlace for SgdStep {
    fn reference(&self, targets: &[Tensor], inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (mut lists, gradients) = (lists(targets)?, lists(inputs)?);
        let (Sgd { momentum, dampening, nesterov }, mut target) = (self.sgd, 0);
        for (numbers, gradient) in self.parameters.iter().zip(&gradients) {
            for (i, g) in gradient.iter().enumerate() {
                let mut direction = g + numbers.weight_decay * lists[target][i];
                if numbers.momentum {
                    let keep = if numbers.first_step { 1.0 } else { 1.0 - dampening };
                    let buffer = momentum * lists[target + 1][i] + keep * direction;
                    lists[target + 1][i] = buffer;
                    direction = if nesterov { direction + momentum * buffer } else { buffer };
                }
                lists[target][i] -= numbers.rate * direction;
            }
            target += 1 + usize::from(numbers.momentum);
        }
        tensors(&lists, targets)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>, Vec<Tensor>)> {
        let shapes = shapes(random);
        let sgd = Sgd { momentum: 0.9, dampening: 0.2, nesterov: random.bernoulli(0.5) };
        let (mut parameters, mut all) = (Vec::new(), Vec::new());
        for shape in &shapes {
            let momentum = random.bernoulli(0.7);
            let first_step = random.bernoulli(0.5);
            parameters.push(SgdNumbers {
                rate: random.uniform(),
                weight_decay: random.uniform(),
                first_step,
                momentum,
            });
            all.resize(all.len() + 1 + usize::from(momentum), shape.clone());
        }
        Ok((Self { sgd, parameters }, values(random, &all)?, values(random, &shapes)?))
    }
}

impl ProvenInPlace for AdamStep {
    fn reference(&self, targets: &[Tensor], inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (mut lists, gradients) = (lists(targets)?, lists(inputs)?);
        let Adam { betas: [b1, b2], epsilon, decoupled } = self.adam;
        for (numbers, (lists, gradient)) in self.parameters.iter().zip(lists.chunks_mut(3).zip(&gradients)) {
            let [value, first, second] = lists else { continue };
            let corrections = [b1, b2].map(|beta| 1.0 - beta.powf(numbers.step as f64));
            for (i, g) in gradient.iter().enumerate() {
                let g = if decoupled { *g } else { g + numbers.weight_decay * value[i] };
                first[i] = b1 * first[i] + (1.0 - b1) * g;
                second[i] = b2 * second[i] + (1.0 - b2) * g * g;
                let shrunk =
                    if decoupled { value[i] - numbers.rate * numbers.weight_decay * value[i] } else { value[i] };
                let (mean, square) = (first[i] / corrections[0], second[i] / corrections[1]);
                value[i] = shrunk - numbers.rate * mean / (square.sqrt() + epsilon);
            }
        }
        tensors(&lists, targets)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>, Vec<Tensor>)> {
        let shapes = shapes(random);
        let adam = Adam { betas: [0.9, 0.99], epsilon: 1e-6, decoupled: random.bernoulli(0.5) };
        let (mut parameters, mut targets) = (Vec::new(), Vec::new());
        for shape in &shapes {
            parameters.push(AdamNumbers {
                rate: 0.1 * random.uniform(),
                weight_decay: random.uniform(),
                step: 1 + random.below(20),
            });
            targets.extend([testing::values(random, shape)?, testing::values(random, shape)?]);
            // A second moment isn't negative. Well above zero, the division doesn't amplify rounding errors.
            targets.push(testing::map(&testing::values(random, shape)?, |x| x * x + 0.1)?);
        }
        Ok((Self { adam, parameters }, targets, values(random, &shapes)?))
    }
}

impl ProvenInPlace for ClipNorm {
    /// Squares are summed in f64, up to 2048 of them in a lane of a chunk. The rounding errors of so many additions are rarely
    /// beyond 13 units (a random walk of 45 steps of a third of one), and at most 1024, of the norm.
    const TOLERANCE: f64 = 64.0;

    fn reference(&self, targets: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut lists = lists(targets)?;
        let norm = testing::exact_sum(lists[1..].iter().flatten().map(|x| x * x)).sqrt();
        lists[0] = vec![norm];
        let factor = (self.max / (norm + 1e-6)).min(1.0);
        lists[1..].iter_mut().flatten().for_each(|x| *x *= factor);
        tensors(&lists, targets)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>, Vec<Tensor>)> {
        let shapes = shapes(random);
        let max = [0.0, 1.0, 20.0, f64::INFINITY][random.below(4) as usize];
        let number = testing::values(random, &[])?;
        Ok((Self { max }, [vec![number], values(random, &shapes)?].concat(), Vec::new()))
    }
}

impl ProvenInPlace for Scale {
    fn reference(&self, targets: &[Tensor], _: &[Tensor]) -> Result<Vec<Tensor>> {
        targets.iter().map(|x| testing::map(x, |x| self.factor * x)).collect()
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>, Vec<Tensor>)> {
        let shapes = shapes(random);
        Ok((Self { factor: random.normal() }, values(random, &shapes)?, Vec::new()))
    }
}

impl ProvenInPlace for EmaStep {
    fn reference(&self, targets: &[Tensor], inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let (mut averages, values) = (lists(targets)?, lists(inputs)?);
        for (average, value) in averages.iter_mut().flatten().zip(values.iter().flatten()) {
            *average = self.decay * *average + (1.0 - self.decay) * value;
        }
        tensors(&averages, targets)
    }

    fn case(random: &mut Random) -> Result<(Self, Vec<Tensor>, Vec<Tensor>)> {
        let shapes = shapes(random);
        let decay = if random.bernoulli(0.2) { 1.0 } else { random.uniform() };
        Ok((Self { decay }, values(random, &shapes)?, values(random, &shapes)?))
    }
}
