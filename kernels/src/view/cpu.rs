//! The gradient of a slice on the CPU.

use tomograd_core::{DType, Element, Result, Tensor, TensorBuilder, bf16, f16};

/// Zeros of `shape` with `gradient` at elements `start, start + step, ...` of `axis`.
pub(super) fn unslice(gradient: &Tensor, shape: &[usize], axis: usize, start: usize, step: usize) -> Result<Tensor> {
    match gradient.dtype() {
        DType::F32 => place::<f32>(gradient, shape, axis, start, step),
        DType::F64 => place::<f64>(gradient, shape, axis, start, step),
        DType::F16 => place::<f16>(gradient, shape, axis, start, step),
        DType::BF16 => place::<bf16>(gradient, shape, axis, start, step),
        DType::I64 => place::<i64>(gradient, shape, axis, start, step),
        DType::I32 => place::<i32>(gradient, shape, axis, start, step),
        DType::U8 => place::<u8>(gradient, shape, axis, start, step),
        DType::Bool => place::<bool>(gradient, shape, axis, start, step),
    }
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
