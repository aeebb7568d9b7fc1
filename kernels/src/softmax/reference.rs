//! Reference: from the definition.

use tomograd_core::{Result, Tensor};

pub(super) fn softmax(x: &Tensor, axis: usize, logarithm: bool) -> Result<Vec<Tensor>> {
    let (size, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    let values = x.to_vec::<f64>()?;
    let result: Vec<f64> = (0..values.len())
        .map(|flat| {
            let first = flat / (size * inner) * size * inner + flat % inner;
            let total: f64 = (0..size).map(|i| (values[first + i * inner] - values[flat]).exp()).sum();
            if logarithm { -total.ln() } else { 1.0 / total }
        })
        .collect();
    Ok(vec![Tensor::from_slice(&result, x.shape(), x.device())?])
}
