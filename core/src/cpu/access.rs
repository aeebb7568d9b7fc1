//! Reading and writing a tensor's elements from the host.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{DType, Device, Element, Error, ErrorKind, Layout, Result, Tensor, dispatch, dtype::with_element};

static COPIES_ON_WRITE: AtomicU64 = AtomicU64::new(0);

/// How many writes of this process had to copy first, because the memory was shared or the layout wasn't contiguous.
pub fn copies_on_write() -> u64 {
    COPIES_ON_WRITE.load(Ordering::Relaxed)
}

/// An empty vector with capacity for `count` values, on behalf of `operation`. Returns an error where `Vec::with_capacity`
/// would abort the process.
///
/// # Errors
/// When memory runs out.
pub fn room_for<T>(operation: &str, count: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).map_err(|error| {
        Error::new(ErrorKind::OutOfMemory, operation, format!("no memory for {count} values")).source(error)
    })?;
    Ok(values)
}

impl Tensor {
    fn require<T: Element>(&self, operation: &str) -> Result<()> {
        self.device().require_host(operation)?;
        if self.dtype() != T::DTYPE {
            return Err(Error::new(ErrorKind::DType, operation, format!("the tensor holds {}", self.dtype()))
                .expected(T::DTYPE.name())
                .shapes([self.shape()]));
        }
        Ok(())
    }

    /// Whether a write needs no copy: no other tensor shares the memory, the layout is contiguous, and no two elements
    /// overlap.
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.storage) == 1 && self.is_contiguous() && self.layout.is_injective()
    }

    /// Replaces the tensor by a row-major copy in its own memory unless it [is unique already](Self::is_unique), and counts
    /// the copy. To be called before any tensor, on any device, is written in place.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn make_unique(&mut self) -> Result<()> {
        if !self.is_unique() {
            COPIES_ON_WRITE.fetch_add(1, Ordering::Relaxed);
            *self = self.copy()?;
        }
        Ok(())
    }

    /// The elements of a contiguous tensor.
    ///
    /// # Errors
    /// When `T` isn't the tensor's dtype, the tensor isn't contiguous, or the memory isn't the host's.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        self.require::<T>("as_slice")?;
        if !self.is_contiguous() {
            return Err(Error::shape("as_slice", format!("the tensor isn't contiguous: strides {:?}", self.strides()))
                .expected("a contiguous tensor (call contiguous() first)")
                .shapes([self.shape()]));
        }
        let offset = if self.count() == 0 { 0 } else { self.layout.offset() };
        Ok(&self.as_storage_slice::<T>()?[offset..offset + self.count()])
    }

    /// The whole memory that the tensor views. Element `(i, j, ...)` is at the layout's
    /// `offset + i · stride₀ + j · stride₁ + ...`, which is always in bounds.
    ///
    /// # Errors
    /// When `T` isn't the tensor's dtype, or the memory isn't the host's.
    pub fn as_storage_slice<T: Element>(&self) -> Result<&[T]> {
        self.require::<T>("as_storage_slice")?;
        // SAFETY: a tensor's storage was filled with elements of its dtype when the tensor was made.
        Ok(unsafe { self.storage.slice::<T>() })
    }

    /// The elements of the tensor in row-major order, to write. When the memory is shared or the layout isn't contiguous, the
    /// tensor is copied first (and the copy counted), so that no other tensor changes.
    ///
    /// # Errors
    /// When `T` isn't the tensor's dtype, memory runs out, or the memory isn't the host's.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        self.require::<T>("as_mut_slice")?;
        self.make_unique()?;
        let (offset, count) = (self.layout.offset(), self.count());
        let storage = Arc::get_mut(&mut self.storage)
            .ok_or_else(|| Error::new(ErrorKind::Argument, "as_mut_slice", "the copy's memory is shared"))?;
        // SAFETY: a tensor's storage was filled with elements of its dtype when the tensor was made.
        let elements = unsafe { storage.slice_mut::<T>() };
        let offset = if count == 0 { 0 } else { offset };
        Ok(&mut elements[offset..offset + count])
    }

    /// The elements in row-major order; those of a CUDA device are copied, once the device has computed them.
    ///
    /// # Errors
    /// When `T` isn't the tensor's dtype, memory runs out, or the tensor has no elements (on [`Device::Meta`]).
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if let Device::Cuda(_) = self.device()
            && self.dtype() == T::DTYPE
        {
            return self.to(Device::Cpu)?.to_vec();
        }
        let elements = self.as_storage_slice::<T>()?;
        let mut values = room_for("to_vec", self.count())?;
        super::rows::for_each_row(&self.layout, |start, stride, length| {
            values.extend((0..length).map(|i| elements[start + i * stride]));
        });
        Ok(values)
    }

    /// The elements in row-major order, converted to f64 whatever the dtype.
    ///
    /// # Errors
    /// When memory runs out, or the tensor has no elements (on [`Device::Meta`]).
    pub fn to_vec_f64(&self) -> Result<Vec<f64>> {
        if self.dtype() == DType::F64 {
            return self.to_vec::<f64>();
        }
        with_element!(self.dtype(), T => {
            let mut values = room_for("to_vec", self.count())?;
            values.extend(self.to_vec::<T>()?.into_iter().map(T::to_f64));
            Ok(values)
        })
    }

    /// The only element, as f64: the value of a loss or a metric.
    ///
    /// # Errors
    /// When there isn't exactly one element, or it can't be read (on [`Device::Meta`]).
    pub fn to_scalar(&self) -> Result<f64> {
        if self.count() != 1 {
            return Err(Error::shape("to_scalar", format!("the tensor has {} elements", self.count()))
                .expected("one element")
                .shapes([self.shape()]));
        }
        Ok(self.to_vec_f64()?[0])
    }

    /// The same values in another dtype, converted one by one: for files and labels. Networks use the `cast` operation instead.
    ///
    /// # Errors
    /// When memory runs out, or the device can't be used any more.
    pub fn converted(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype() {
            return Ok(self.clone());
        }
        let storage = dispatch::convert(&self.storage, &self.layout, [self.dtype(), dtype])?;
        Ok(Tensor { storage, layout: Layout::contiguous(self.shape()), dtype })
    }
}
