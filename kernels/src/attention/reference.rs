//! Reference: computed from the definition, with the whole matrix of scores.

use tomograd_core::{Result, Tensor};

use super::Attention;
use crate::elementwise::reference::larger;

/// The output, and for each element the scale of its rounding error: an error of the scores, which becomes a relative error
/// of an exponential, and that of the sum over the keys are both proportional to Σ_j p_j |v_j|.
pub(super) fn attention(op: &Attention, inputs: &[Tensor]) -> Result<[Tensor; 2]> {
    let (shape, value) = (inputs[0].shape(), inputs[2].shape()[inputs[2].rank() - 1]);
    let (batch, [queries, size]) = (&shape[..shape.len() - 2], [shape[shape.len() - 2], shape[shape.len() - 1]]);
    let keys = inputs[1].shape()[shape.len() - 2];
    let (q, k, v) = (inputs[0].to_vec::<f64>()?, inputs[1].to_vec::<f64>()?, inputs[2].to_vec::<f64>()?);
    let full = [batch, &[queries, keys]].concat();
    let biases: Vec<Vec<f64>> =
        inputs[3..].iter().map(|bias| bias.expand(&full)?.to_vec::<f64>()).collect::<Result<_>>()?;
    let (mut y, mut bound) = (Vec::new(), Vec::new());
    for row in 0..batch.iter().product::<usize>() * queries {
        let (matrix, i) = (row / queries, row % queries);
        let (mut scores, mut sizes) = (vec![0.0; keys], vec![0.0; keys]);
        for j in 0..keys {
            for e in 0..size {
                let product = op.factor(size) * q[row * size + e] * k[(matrix * keys + j) * size + e];
                scores[j] += product;
                sizes[j] += (size + 4) as f64 * product.abs();
            }
            for bias in &biases {
                let bias = bias[row * keys + j];
                scores[j] += bias;
                sizes[j] += if bias.is_finite() { 4.0 * bias.abs() } else { 0.0 };
            }
            if op.causal && j > i {
                scores[j] = f64::NEG_INFINITY;
            }
        }
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, larger);
        let seen = scores.iter().zip(&sizes).filter(|(score, _)| **score > f64::NEG_INFINITY);
        let error = seen.fold(0.0, |error: f64, (_, &size)| error.max(size)) + (keys + 8) as f64;
        let weights: Vec<f64> = scores
            .iter()
            .map(|score| if *score == f64::NEG_INFINITY { 0.0 } else { (score - largest).exp() })
            .collect();
        let total: f64 = weights.iter().sum();
        for c in 0..value {
            // A key that isn't seen doesn't contribute, whatever its value is.
            let seen = weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0);
            let terms = seen.map(|(j, weight)| weight * v[(matrix * keys + j) * value + c]);
            let terms: Vec<f64> = terms.collect();
            y.push(if total == 0.0 { 0.0 } else { terms.iter().sum::<f64>() / total });
            bound.push(if total > 0.0 {
                error * terms.iter().map(|term| term.abs()).sum::<f64>() / total
            } else {
                0.0
            });
        }
    }
    let shape = [batch, &[queries, value]].concat();
    let tensor = |values: &[f64]| Tensor::from_slice(values, &shape, inputs[0].device());
    Ok([tensor(&y)?, tensor(&bound)?])
}
