//! Reference, one pair of elements at a time.

use tomograd_core::{Result, Tensor, broadcast_shapes};

use super::Compare;

pub(super) fn compare(compare: Compare, x: &Tensor, y: &Tensor) -> Result<Vec<Tensor>> {
    let shape = broadcast_shapes("compare", &[x.shape(), y.shape()])?;
    let values = |x: &Tensor| x.expand(&shape)?.to_vec::<f64>();
    let holds = |(x, y): (f64, f64)| match compare {
        Compare::Equal => x == y,
        Compare::NotEqual => x != y,
        Compare::Less => x < y,
        Compare::LessEqual => x <= y,
        Compare::Greater => x > y,
        Compare::GreaterEqual => x >= y,
    };
    let results: Vec<bool> = values(x)?.into_iter().zip(values(y)?).map(holds).collect();
    Ok(vec![Tensor::from_slice(&results, &shape, x.device())?])
}
