//! The adjoint of broadcasting.

use tomograd_core::{Device, Error, Result, Tensor};

use super::{Combine, cpu, cuda};
use crate::op::no_kernel;

/// Sums `tensor` along the axes along which `shape` was broadcast to it, in f64 in a fixed order.
///
/// # Errors
/// When memory runs out, or `shape` doesn't broadcast to the tensor's.
pub fn sum_to(tensor: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if tensor.shape() == shape {
        return Ok(tensor.clone());
    }
    let lead = tensor
        .rank()
        .checked_sub(shape.len())
        .ok_or_else(|| Error::shape("sum_to", "the target has more axes").shapes([tensor.shape(), shape]))?;
    let reduced: Vec<usize> =
        (0..tensor.rank()).filter(|&axis| axis < lead || shape[axis - lead] != tensor.shape()[axis]).collect();
    match tensor.device() {
        Device::Cpu => cpu::reduce(tensor, &reduced, Combine::Sum, 1.0)?.reshape(shape),
        Device::Meta => Tensor::meta("sum_to", shape, tensor.dtype()),
        Device::Cuda(_) => cuda::reduce(tensor, &reduced, Combine::Sum, 1.0)?.reshape(shape),
        device => Err(no_kernel("sum_to", device)),
    }
}
