//! Reference: each element is added to its output.

use tomograd_core::{Result, Tensor, contiguous_strides};

use super::{Combine, Reduce};
use crate::elementwise::reference::larger;

/// The strides of the output along the input's axes (0 for reduced axes).
fn output_strides(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    let kept: Vec<usize> =
        shape.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size }).collect();
    let strides = contiguous_strides(&kept);
    (0..shape.len()).map(|axis| if axes.contains(&axis) { 0 } else { strides[axis] }).collect()
}

pub(super) fn reduce(reduce: &Reduce, x: &Tensor) -> Result<Vec<Tensor>> {
    let (shape, strides) = (x.shape(), contiguous_strides(x.shape()));
    let to = output_strides(shape, &reduce.axes);
    let kept = reduce.kept(shape);
    let (start, combine): (f64, fn(f64, f64) -> f64) = match reduce.combine {
        Combine::Sum | Combine::Mean => (0.0, |sum, x| sum + x),
        Combine::Max => (f64::NEG_INFINITY, larger),
        Combine::Min => (f64::INFINITY, |least, x| -larger(-least, -x)),
    };
    let mut sums = vec![start; kept.iter().product()];
    for (flat, value) in x.to_vec::<f64>()?.into_iter().enumerate() {
        let place: usize = (0..shape.len()).map(|axis| flat / strides[axis] % shape[axis] * to[axis]).sum();
        sums[place] = combine(sums[place], value);
    }
    let terms = reduce.axes.iter().map(|&axis| shape[axis]).product::<usize>() as f64;
    if reduce.combine == Combine::Mean {
        sums.iter_mut().for_each(|sum| *sum /= terms);
    }
    let shape: Vec<usize> = if reduce.keep_axes {
        kept
    } else {
        (0..shape.len()).filter(|axis| !reduce.axes.contains(axis)).map(|axis| shape[axis]).collect()
    };
    Ok(vec![Tensor::from_slice(&sums, &shape, x.device())?])
}

pub(super) fn arg_max(x: &Tensor, axis: usize) -> Result<Vec<Tensor>> {
    let (size, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    let values = x.to_vec::<f64>()?;
    let mut shape = x.shape().to_vec();
    shape.remove(axis);
    let place = |p: usize| {
        let value = |i: usize| values[(p / inner * size + i) * inner + p % inner];
        let beats = |i: usize, best: usize| value(i) > value(best) || value(i).is_nan() && !value(best).is_nan();
        (0..size).fold(0, |best, i| if beats(i, best) { i } else { best }) as i64
    };
    let places: Vec<i64> = (0..shape.iter().product()).map(place).collect();
    Ok(vec![Tensor::from_slice(&places, &shape, x.device())?])
}
