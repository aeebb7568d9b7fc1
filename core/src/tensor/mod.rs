//! The tensor: a value of a run-time dtype on a device.

#[cfg(feature = "ndarray")]
mod convert;
mod create;
mod display;
mod view;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use create::TensorBuilder;

use crate::{DType, Device, Layout, Result, cuda, dispatch, dtype::with_element, storage::Storage};

/// An n-dimensional array of one dtype on one device.
///
/// Clones and views share memory. Writing to a tensor whose memory is shared, or whose elements overlap, copies it first (see
/// [`copies_on_write`](crate::copies_on_write)), so that no other tensor ever changes.
/// Images are `(N, C, H, W)` and volumes `(N, C, D, H, W)`.
///
/// ```
/// use tomograd_core::{Device, Tensor};
/// let x = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[2, 2], Device::Cpu)?;
/// let mut row = x.narrow(0, 1, 1)?; // a view of the second row
/// row.as_mut_slice::<f32>()?[0] = 30.0;
/// assert_eq!(row.to_vec::<f32>()?, [30.0, 4.0]);
/// assert_eq!(x.to_vec::<f32>()?, [1.0, 2.0, 3.0, 4.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    pub(crate) storage: Arc<Storage>,
    pub(crate) layout: Layout,
    pub(crate) dtype: DType,
}

impl Tensor {
    /// The sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// The distance in elements between neighbours along each axis.
    pub fn strides(&self) -> &[usize] {
        self.layout.strides()
    }

    /// How the elements lie in memory.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.layout.rank()
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.layout.count()
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device that holds the elements.
    pub fn device(&self) -> Device {
        self.storage.device()
    }

    /// Whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// Whether both view the same memory.
    pub fn shares_storage(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
    }

    /// The same elements in row-major order: the tensor itself if it is contiguous, otherwise a copy.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn contiguous(&self) -> Result<Tensor> {
        if self.is_contiguous() { Ok(self.clone()) } else { self.copy() }
    }

    /// A row-major copy in memory of its own.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn copy(&self) -> Result<Tensor> {
        let storage = dispatch::copy(&self.storage, &self.layout, self.dtype)?;
        Ok(Self { storage, layout: Layout::contiguous(self.shape()), dtype: self.dtype })
    }

    /// The tensor on `device`: itself if it is there already, otherwise a row-major copy. Between two CUDA devices it goes over
    /// the host. A tensor on [`Device::Meta`] has lost its elements, so it can't be moved back.
    ///
    /// ```
    /// use tomograd_core::{Device, Tensor};
    /// let x = Tensor::from_slice(&[1.0f32, 2.0], &[2], Device::Cpu)?;
    /// let meta = x.to(Device::Meta)?;
    /// assert_eq!((meta.shape(), meta.device()), (&[2][..], Device::Meta));
    /// assert!(meta.to(Device::Cpu).is_err());
    /// # Ok::<(), tomograd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a device can't be used, a meta tensor is moved to a device with memory, or memory runs out.
    pub fn to(&self, device: Device) -> Result<Tensor> {
        match (self.device(), device) {
            (from, to) if from == to => Ok(self.clone()),
            (_, Device::Meta) => Tensor::meta("to", self.shape(), self.dtype),
            (Device::Cuda(_), Device::Cpu) => cuda::to_host(self, "to"),
            (Device::Cuda(_), Device::Cuda(_)) => cuda::to_host(self, "to")?.to(device),
            (Device::Meta, _) => {
                device.check("to")?;
                Err(self.device().no_elements("to"))
            }
            (Device::Cpu, _) => with_element!(self.dtype, T => {
                let x = self.contiguous()?;
                TensorBuilder::<T>::new("to", self.shape(), device)?.copy_from_slice(x.as_slice::<T>()?)
            }),
        }
    }
}
