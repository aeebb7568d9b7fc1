//! Reference: every element is added to the output that it belongs to.

use tomograd_core::{Result, Tensor, contiguous_strides};

use super::{Combine, Reduce, output_strides};

pub(super) fn reduce(reduce: &Reduce, x: &Tensor) -> Result<Vec<Tensor>> {
    let (shape, strides) = (x.shape(), contiguous_strides(x.shape()));
    let to = output_strides(shape, &reduce.axes);
    let kept = reduce.kept(shape);
    let mut sums = vec![0.0; kept.iter().product()];
    for (flat, value) in x.to_vec::<f64>()?.into_iter().enumerate() {
        let place: usize = (0..shape.len()).map(|axis| flat / strides[axis] % shape[axis] * to[axis]).sum();
        sums[place] += value;
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
