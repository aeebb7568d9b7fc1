//! [`Device::Meta`](crate::Device::Meta): memory is only counted, and nothing is computed.

use std::sync::Arc;

use crate::{
    DType, Layout, Result,
    backend::Backend,
    memory::{Charge, Purpose},
    storage::Storage,
};

/// The device without memory.
pub(crate) struct Meta;

impl Meta {
    fn elements(operation: &str, count: usize, dtype: DType) -> Result<Arc<Storage>> {
        Meta.allocate(operation, count.saturating_mul(dtype.size()), Purpose::Tensor).map(Arc::new)
    }
}

impl Backend for Meta {
    fn allocate(&self, operation: &str, bytes: usize, _: Purpose) -> Result<Storage> {
        Ok(Storage::of_meta(Charge::take(operation, bytes)?, bytes))
    }

    fn fill(&self, count: usize, _: f64, dtype: DType) -> Result<Arc<Storage>> {
        Self::elements("full", count, dtype)
    }

    fn copy(&self, _: &Arc<Storage>, layout: &Layout, dtype: DType) -> Result<Arc<Storage>> {
        Self::elements("copy", layout.count(), dtype)
    }

    fn convert(&self, _: &Arc<Storage>, layout: &Layout, [_, to]: [DType; 2]) -> Result<Arc<Storage>> {
        Self::elements("converted", layout.count(), to)
    }
}
