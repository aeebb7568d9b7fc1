//! Reference: each sum from the previous one.

use tomograd_core::{Result, Tensor};

use super::CumulativeSum;

pub(super) fn sum(op: &CumulativeSum, x: &Tensor) -> Result<Vec<Tensor>> {
    let (size, inner) = (x.shape()[op.axis], x.shape()[op.axis + 1..].iter().product::<usize>());
    let mut values = x.to_vec::<f64>()?;
    for p in 0..values.len() {
        // The previous element in the order of summation is complete when an element is visited.
        let p = if op.reverse { values.len() - 1 - p } else { p };
        let i = p / inner % size;
        if op.reverse && i + 1 < size {
            values[p] += values[p + inner];
        } else if !op.reverse && i > 0 {
            values[p] += values[p - inner];
        }
    }
    Ok(vec![Tensor::from_slice(&values, x.shape(), x.device())?])
}
