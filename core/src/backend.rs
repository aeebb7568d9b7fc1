//! What core asks of a device: allocation, and the few operations that a tensor needs without the dispatcher (fill, copy,
//! convert). Fill, copy and convert report each call to the [hook](set_hook).

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{DType, Device, Element, Error, ErrorKind, Result, Tensor, pool::Fit, storage::Storage};

/// A device as core sees it. A new device implements this trait and is added to [`of`]; no other code in core lists devices.
pub(crate) trait Backend: Sync {
    /// Uninitialised memory of `bytes` bytes.
    fn allocate(&self, operation: &str, bytes: usize, fit: Fit) -> Result<Storage>;

    /// A tensor whose elements are all `value`, converted to `dtype`.
    fn fill(&self, shape: &[usize], value: f64, dtype: DType) -> Result<Tensor>;

    /// A row-major copy of a view, in memory of its own.
    fn copy(&self, tensor: &Tensor) -> Result<Tensor>;

    /// A row-major copy in another dtype.
    fn convert(&self, tensor: &Tensor, dtype: DType) -> Result<Tensor>;
}

/// The backend of a device.
fn of(device: Device, operation: &str) -> Result<&'static dyn Backend> {
    match device {
        Device::Cpu => Ok(&crate::cpu::Cpu),
        Device::Meta => Ok(&crate::meta::Meta),
        Device::Cuda(_) => {
            device.check(operation)?;
            Err(Error::new(ErrorKind::Device, operation, format!("no memory on {device}")))
        }
    }
}

/// One fill, copy or conversion that core ran on a device (operations are traced by the dispatcher instead). Memory is
/// counted in the statistics of [`pool`](crate::pool).
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
fn observed(name: &'static str, device: Device, read: usize, body: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    let Some(hook) = HOOK.get() else { return body() };
    let start = Instant::now();
    let result = body()?;
    let written = result.count().saturating_mul(result.dtype().size());
    let (shape, bytes) = (result.shape().to_vec(), read.saturating_add(written));
    hook(&Work { name, device, shape, bytes, time: start.elapsed() });
    Ok(result)
}

fn bytes(tensor: &Tensor) -> usize {
    tensor.count().saturating_mul(tensor.dtype().size())
}

/// Uninitialised memory for `count` elements of `T`.
pub(crate) fn allocate<T: Element>(operation: &str, count: usize, device: Device, fit: Fit) -> Result<Storage> {
    of(device, operation)?.allocate(operation, count.saturating_mul(size_of::<T>()), fit)
}

/// See [`Backend::fill`].
pub(crate) fn fill(shape: &[usize], value: f64, dtype: DType, device: Device) -> Result<Tensor> {
    let backend = of(device, "full")?;
    observed("fill", device, 0, || backend.fill(shape, value, dtype))
}

/// See [`Backend::copy`].
pub(crate) fn copy(tensor: &Tensor) -> Result<Tensor> {
    let backend = of(tensor.device(), "copy")?;
    observed("copy", tensor.device(), bytes(tensor), || backend.copy(tensor))
}

/// See [`Backend::convert`].
pub(crate) fn convert(tensor: &Tensor, dtype: DType) -> Result<Tensor> {
    let backend = of(tensor.device(), "converted")?;
    observed("convert", tensor.device(), bytes(tensor), || backend.convert(tensor, dtype))
}
