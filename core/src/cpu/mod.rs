//! Host access to tensors in CPU memory. Only code in `cpu` folders reads a tensor's memory directly.

mod access;
mod copy;
mod scratch;

pub use access::{copies_on_write, room_for};
pub use scratch::Scratch;

use crate::{
    DType, Device, Element, Result, Tensor, TensorBuilder,
    backend::Backend,
    pool::{Block, Fit},
    storage::Storage,
    tensor::with_element,
};

/// The host.
pub(crate) struct Cpu;

impl Backend for Cpu {
    fn allocate(&self, operation: &str, bytes: usize, fit: Fit) -> Result<Storage> {
        Ok(Storage::of_host(Block::take(operation, bytes, fit)?, bytes))
    }

    fn fill(&self, shape: &[usize], value: f64, dtype: DType) -> Result<Tensor> {
        with_element!(dtype, T => {
            let value = T::from_f64(value);
            TensorBuilder::<T>::new("full", shape, Device::Cpu)?.fill_with(|_| value)
        })
    }

    fn copy(&self, tensor: &Tensor) -> Result<Tensor> {
        copy::copy(tensor)
    }

    fn convert(&self, tensor: &Tensor, dtype: DType) -> Result<Tensor> {
        with_element!(tensor.dtype(), S => {
            let values = tensor.to_vec::<S>()?;
            with_element!(dtype, T => {
                TensorBuilder::<T>::new("converted", tensor.shape(), tensor.device())?
                    .fill_with(|i| T::from_f64(values[i].to_f64()))
            })
        })
    }
}
