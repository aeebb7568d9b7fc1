//! Reference dropout: first all draws, then a product for each element.

use tomograd_core::{Result, Tensor};

use super::Dropout;

pub(super) fn dropout(op: &Dropout, x: &Tensor) -> Result<Vec<Tensor>> {
    let (draws, shared) = op.draws(x.shape());
    let mut random = op.seed.random();
    let kept: Vec<bool> = (0..draws).map(|_| random.uniform() >= op.probability).collect();
    let factor = |i: usize| if kept[i / shared] { 1.0 / (1.0 - op.probability) } else { 0.0 };
    let values: Vec<f64> = x.to_vec::<f64>()?.iter().enumerate().map(|(i, x)| x * factor(i)).collect();
    Ok(vec![Tensor::from_slice(&values, x.shape(), x.device())?])
}
