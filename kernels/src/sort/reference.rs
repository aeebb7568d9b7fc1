//! Reference: selection sort.

use tomograd_core::{Result, Tensor};

use super::Sort;

pub(super) fn sort(op: &Sort, x: &Tensor) -> Result<Vec<Tensor>> {
    let (size, inner) = (x.shape()[op.axis], x.shape()[op.axis + 1..].iter().product::<usize>());
    let mut shape = x.shape().to_vec();
    shape[op.axis] = op.count.unwrap_or(size);
    let elements = x.to_vec::<f64>()?;
    let outer = x.shape()[..op.axis].iter().product::<usize>();
    let total: usize = shape.iter().product();
    let (mut values, mut places) = (vec![0.0; total], vec![0i64; total]);
    for line in 0..outer * inner {
        let element = |i: usize| elements[(line / inner * size + i) * inner + line % inner];
        let larger = |a: usize, b: usize| element(a) > element(b) || element(a).is_nan() && !element(b).is_nan();
        let mut left: Vec<usize> = (0..size).collect();
        for rank in 0..shape[op.axis] {
            let better = |&a: &usize, &b: &usize| if op.descending { larger(a, b) } else { larger(b, a) };
            let next = (1..left.len()).fold(0, |best, i| if better(&left[i], &left[best]) { i } else { best });
            let place = left.remove(next);
            let to = (line / inner * shape[op.axis] + rank) * inner + line % inner;
            (values[to], places[to]) = (element(place), place as i64);
        }
    }
    Ok(vec![Tensor::from_slice(&values, &shape, x.device())?, Tensor::from_slice(&places, &shape, x.device())?])
}
