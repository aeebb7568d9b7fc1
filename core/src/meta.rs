//! [`Device::Meta`](crate::Device::Meta): memory is only counted, and nothing is computed.

use crate::{
    DType, Result, Tensor,
    backend::Backend,
    pool::{Charge, Fit},
    storage::Storage,
};

/// The device without memory.
pub(crate) struct Meta;

impl Backend for Meta {
    fn allocate(&self, operation: &str, bytes: usize, _: Fit) -> Result<Storage> {
        Ok(Storage::of_meta(Charge::take(operation, bytes)?, bytes))
    }

    fn fill(&self, shape: &[usize], _: f64, dtype: DType) -> Result<Tensor> {
        Tensor::meta("full", shape, dtype)
    }

    fn copy(&self, tensor: &Tensor) -> Result<Tensor> {
        Tensor::meta("copy", tensor.shape(), tensor.dtype())
    }

    fn convert(&self, tensor: &Tensor, dtype: DType) -> Result<Tensor> {
        Tensor::meta("converted", tensor.shape(), dtype)
    }
}
