//! Chooses the [`Backend`] of a device for allocation, fill, copy and conversion. All but allocation are reported to the
//! [hook](set_hook).

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use crate::{
    DType, Device, Element, Layout, Result, backend::Backend, cuda::Cuda, element_count, memory::Purpose,
    storage::Storage,
};

/// Calls `body` with the backend of a device.
fn with<R>(device: Device, body: impl FnOnce(&dyn Backend) -> R) -> R {
    match device {
        Device::Cpu => body(&crate::cpu::backend::Cpu),
        Device::Meta => body(&crate::meta::Meta),
        Device::Cuda(index) => body(&Cuda(index)),
    }
}

/// One fill, copy or conversion that core ran on a device (operations are traced by the dispatcher instead). Memory is
/// counted in the statistics of [`memory`](crate::memory).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Work {
    /// `fill`, `copy` or `convert`.
    pub name: &'static str,
    /// The device that did it.
    pub device: Device,
    /// The shape of the result.
    pub shape: Vec<usize>,
    /// Bytes read and written.
    pub bytes: usize,
    /// How long it took the host.
    pub time: Duration,
}

static HOOK: OnceLock<fn(&Work)> = OnceLock::new();

/// Registers `hook`, to be called after each fill, strided copy and conversion of this process, on the thread that ran it.
/// Only the first hook is kept; returns whether this one was.
pub fn set_hook(hook: fn(&Work)) -> bool {
    HOOK.set(hook).is_ok()
}

/// Runs `body` and reports it to the hook, if one is set.
fn observed(
    name: &'static str,
    device: Device,
    shape: &[usize],
    bytes: usize,
    body: impl FnOnce(&dyn Backend) -> Result<Arc<Storage>>,
) -> Result<Arc<Storage>> {
    let Some(hook) = HOOK.get() else { return with(device, body) };
    let start = Instant::now();
    let storage = with(device, body)?;
    hook(&Work { name, device, shape: shape.to_vec(), bytes, time: start.elapsed() });
    Ok(storage)
}

/// Uninitialised memory for `count` elements of `T`.
pub(crate) fn allocate<T: Element>(operation: &str, count: usize, device: Device, purpose: Purpose) -> Result<Storage> {
    with(device, |backend| backend.allocate(operation, count.saturating_mul(size_of::<T>()), purpose))
}

/// See [`Backend::fill`].
pub(crate) fn fill(shape: &[usize], value: f64, dtype: DType, device: Device) -> Result<Arc<Storage>> {
    let count = element_count("full", shape)?;
    observed("fill", device, shape, count.saturating_mul(dtype.size()), |backend| backend.fill(count, value, dtype))
}

/// See [`Backend::copy`].
pub(crate) fn copy(from: &Arc<Storage>, layout: &Layout, dtype: DType) -> Result<Arc<Storage>> {
    let bytes = layout.count().saturating_mul(2 * dtype.size());
    observed("copy", from.device(), layout.shape(), bytes, |backend| backend.copy(from, layout, dtype))
}

/// See [`Backend::convert`].
pub(crate) fn convert(from: &Arc<Storage>, layout: &Layout, dtypes: [DType; 2]) -> Result<Arc<Storage>> {
    let bytes = layout.count().saturating_mul(dtypes[0].size() + dtypes[1].size());
    observed("convert", from.device(), layout.shape(), bytes, |backend| backend.convert(from, layout, dtypes))
}
