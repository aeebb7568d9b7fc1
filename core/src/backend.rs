//! What core asks of a device: allocation, and the few operations that a tensor needs without the dispatcher (fill, copy,
//! convert).

use std::sync::Arc;

use crate::{DType, Layout, Result, memory::Purpose, storage::Storage};

/// A device as core sees it. A new device implements this and is listed in [`dispatch`](crate::dispatch).
pub(crate) trait Backend: Sync {
    /// Uninitialised memory of `bytes` bytes.
    fn allocate(&self, operation: &str, bytes: usize, purpose: Purpose) -> Result<Storage>;

    /// `count` elements of `dtype` that are all `value`.
    fn fill(&self, count: usize, value: f64, dtype: DType) -> Result<Arc<Storage>>;

    /// The elements of a view in row-major order.
    fn copy(&self, from: &Arc<Storage>, layout: &Layout, dtype: DType) -> Result<Arc<Storage>>;

    /// The elements of a view in row-major order, converted from one dtype to another.
    fn convert(&self, from: &Arc<Storage>, layout: &Layout, dtypes: [DType; 2]) -> Result<Arc<Storage>>;
}
