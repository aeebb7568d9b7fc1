//! Conversion on the CPU, in parallel over chunks of the elements.

use tomograd_core::{DType, Element, Result, Tensor, TensorBuilder, bf16, f16};

use crate::parallel::{Partition, parallel_for};

/// Elements of one chunk: about 50 µs of work.
const GRAIN: usize = 1 << 15;

pub(super) fn cast(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    match tensor.dtype() {
        DType::F32 => into::<f32>(tensor, dtype),
        DType::F64 => into::<f64>(tensor, dtype),
        DType::F16 => into::<f16>(tensor, dtype),
        DType::BF16 => into::<bf16>(tensor, dtype),
        DType::I64 => into::<i64>(tensor, dtype),
        DType::I32 => into::<i32>(tensor, dtype),
        DType::U8 => into::<u8>(tensor, dtype),
        DType::Bool => into::<bool>(tensor, dtype),
    }
}

fn into<S: Element>(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::F32 => convert::<S, f32>(tensor),
        DType::F64 => convert::<S, f64>(tensor),
        DType::F16 => convert::<S, f16>(tensor),
        DType::BF16 => convert::<S, bf16>(tensor),
        DType::I64 => convert::<S, i64>(tensor),
        DType::I32 => convert::<S, i32>(tensor),
        DType::U8 => convert::<S, u8>(tensor),
        DType::Bool => convert::<S, bool>(tensor),
    }
}

fn convert<S: Element, T: Element>(tensor: &Tensor) -> Result<Tensor> {
    let source = tensor.contiguous()?;
    let source = source.as_slice::<S>()?;
    let mut builder = TensorBuilder::<T>::new("cast", tensor.shape(), tensor.device())?;
    let target = Partition::new(builder.uninit()?, GRAIN);
    parallel_for(source.len(), GRAIN, |range| {
        for (to, from) in target.take(range.clone()).iter_mut().zip(&source[range]) {
            to.write(T::from_f64(from.to_f64()));
        }
    })?;
    // SAFETY: the chunks cover the whole range, and each writes all of its own elements.
    Ok(unsafe { builder.assume_init() })
}
