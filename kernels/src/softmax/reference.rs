//! Reference: from the definition.

use tomograd_core::{Result, Tensor};

use crate::elementwise::reference::larger;

pub(super) fn softmax(x: &Tensor, axis: usize, logarithm: bool) -> Result<Vec<Tensor>> {
    let (size, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    let values = x.to_vec::<f64>()?;
    let result: Vec<f64> = (0..values.len())
        .map(|flat| {
            let first = flat / (size * inner) * size * inner + flat % inner;
            let terms = (0..size).map(|i| values[first + i * inner]);
            let largest = terms.clone().fold(f64::NEG_INFINITY, larger);
            let total: f64 = terms.map(|term| (term - largest).exp()).sum();
            let distance = values[flat] - largest;
            if logarithm { distance - total.ln() } else { distance.exp() / total }
        })
        .collect();
    Ok(vec![Tensor::from_slice(&result, x.shape(), x.device())?])
}
