//! Reductions over axes.

use tomograd_core::{Result, Tensor};

/// Sums `tensor` over the axes along which `shape` was broadcast to it.
///
/// # Errors
/// When memory runs out.
pub fn sum_to(tensor: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let lead = tensor.rank() - shape.len();
    let count: usize = shape.iter().product();
    let mut sums = vec![0.0f64; count];
    let strides = tomograd_core::contiguous_strides(shape);
    let full = tomograd_core::contiguous_strides(tensor.shape());
    for (flat, value) in tensor.to_vec_f64()?.into_iter().enumerate() {
        let place: usize = (0..shape.len())
            .map(|axis| if shape[axis] == 1 { 0 } else { flat / full[lead + axis] % shape[axis] * strides[axis] })
            .sum();
        sums[place] += value;
    }
    Tensor::from_slice(&sums, shape, tensor.device())?.converted(tensor.dtype())
}
