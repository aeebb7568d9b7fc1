//! The gradient of a slice on the CPU.

use tomograd_core::{Element, Result, Tensor, TensorBuilder};

/// Zeros of `shape`, with `gradient` at elements `start, start + step, ...` of `axis`.
pub(super) fn unslice(gradient: &Tensor, shape: &[usize], axis: usize, start: usize, step: usize) -> Result<Tensor> {
    crate::op::with_element!(gradient.dtype(), T => place::<T>(gradient, shape, axis, start, step))
}

fn place<T: Element>(gradient: &Tensor, shape: &[usize], axis: usize, start: usize, step: usize) -> Result<Tensor> {
    let contiguous = gradient.contiguous()?;
    let values = contiguous.as_slice::<T>()?;
    let mut builder = TensorBuilder::<T>::new("slice", shape, gradient.device())?;
    let target = builder.uninit()?;
    for element in target.iter_mut() {
        element.write(T::default());
    }
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let length = gradient.shape()[axis];
    for (o, i) in (0..outer).flat_map(|o| (0..length).map(move |i| (o, i))) {
        let from = &values[(o * length + i) * inner..][..inner];
        target[(o * shape[axis] + start + i * step) * inner..][..inner].write_copy_of_slice(from);
    }
    // SAFETY: the first loop wrote every element.
    Ok(unsafe { builder.assume_init() })
}
