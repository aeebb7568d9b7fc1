//! Creating tensors: filled with a value, from values, from random numbers, and from memory that a kernel fills.

use std::{cell::RefCell, marker::PhantomData, mem::MaybeUninit, ptr, sync::Arc};

use half::{bf16, f16};

use super::Tensor;
use crate::{
    DType, Device, Element, Error, Layout, Result, Seed, dispatch, dtype::with_element, element_count, memory::Purpose,
    pieces, room_for, storage::Storage,
};

/// The uninitialised memory of a new tensor, to be filled by a kernel.
///
/// ```
/// use tomograd_core::{Device, TensorBuilder};
/// let mut builder = TensorBuilder::<f32>::new("iota", &[2, 2], Device::Cpu)?;
/// for (i, element) in builder.uninit()?.iter_mut().enumerate() {
///     element.write(i as f32);
/// }
/// // SAFETY: the loop above wrote every element.
/// let tensor = unsafe { builder.assume_init() };
/// assert_eq!(tensor.to_vec::<f32>()?, [0.0, 1.0, 2.0, 3.0]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub struct TensorBuilder<T: Element> {
    storage: Storage,
    layout: Layout,
    element: PhantomData<T>,
}

impl<T: Element> TensorBuilder<T> {
    /// Allocates memory for a tensor of `shape`, on behalf of `operation`.
    ///
    /// # Errors
    /// When the size overflows, memory runs out, or the device can't be used.
    pub fn new(operation: &str, shape: &[usize], device: Device) -> Result<Self> {
        Self::of(operation, shape, device, Purpose::Tensor)
    }

    /// [`new`](Self::new) for a tensor that a kernel needs only while it runs: its memory counts as scratch.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn temporary(operation: &str, shape: &[usize], device: Device) -> Result<Self> {
        Self::of(operation, shape, device, Purpose::Scratch)
    }

    fn of(operation: &str, shape: &[usize], device: Device, purpose: Purpose) -> Result<Self> {
        let count = element_count(operation, shape)?;
        Ok(Self {
            storage: dispatch::allocate::<T>(operation, count, device, purpose)?,
            layout: Layout::contiguous(shape),
            element: PhantomData,
        })
    }

    /// The elements in row-major order, to be written by the host.
    ///
    /// # Errors
    /// When the memory isn't the host's.
    pub fn uninit(&mut self) -> Result<&mut [MaybeUninit<T>]> {
        self.storage.device().require_host("uninit")?;
        Ok(&mut self.storage.uninit_slice_mut::<T>()[..self.layout.count()])
    }

    /// The finished tensor.
    ///
    /// # Safety
    /// Every element must have been written.
    pub unsafe fn assume_init(self) -> Tensor {
        Tensor { storage: Arc::new(self.storage), layout: self.layout, dtype: T::DTYPE }
    }

    /// The finished tensor, its elements copied from `values`.
    ///
    /// # Errors
    /// When `values` has another length, or the device can't be used any more.
    pub fn copy_from_slice(mut self, values: &[T]) -> Result<Tensor> {
        if values.len() != self.layout.count() {
            return Err(Error::shape(
                "from_slice",
                format!("{} values for {} elements", values.len(), self.layout.count()),
            )
            .shapes([self.layout.shape()]));
        }
        match self.storage.device() {
            Device::Cpu => {
                for (element, &value) in self.uninit()?.iter_mut().zip(values) {
                    element.write(value);
                }
            }
            Device::Cuda(_) => self.storage.upload(values)?,
            Device::Meta => {}
        }
        // SAFETY: the loop or the copy wrote every element, as the lengths are equal; a meta tensor has none.
        Ok(unsafe { self.assume_init() })
    }

    /// The finished tensor, whose element `i` (row-major) is `value(i)`, computed by the host on every device. For a meta
    /// tensor, `value` isn't called.
    ///
    /// # Errors
    /// When memory runs out, or the device can't be used any more.
    pub fn fill_with(mut self, mut value: impl FnMut(usize) -> T) -> Result<Tensor> {
        match self.storage.device() {
            Device::Cpu => {
                for (i, element) in self.uninit()?.iter_mut().enumerate() {
                    element.write(value(i));
                }
            }
            Device::Cuda(_) => {
                let mut values = room_for("fill_with", self.layout.count())?;
                values.extend((0..self.layout.count()).map(value));
                return self.copy_from_slice(&values);
            }
            Device::Meta => {}
        }
        // SAFETY: the loop wrote every element; a meta tensor has none.
        Ok(unsafe { self.assume_init() })
    }

    /// The finished tensor, whose elements `index · size` to `(index + 1) · size` (row-major) `work(index, piece)` computes from zeros, by
    /// several threads of the host on every device ([`pieces::each`](crate::pieces::each)). For a meta tensor, `work` isn't called.
    ///
    /// # Errors
    /// When a piece fails, memory runs out, or the device can't be used any more.
    pub fn fill_pieces(self, size: usize, work: impl Fn(usize, &mut [T]) -> Result<()> + Sync) -> Result<Tensor> {
        let unwritten = |all: &mut [MaybeUninit<T>]| pieces::each(all, size, |index, piece| work(index, zeroed(piece)));
        // SAFETY: `each` calls `zeroed` on all pieces, or returns an error.
        unsafe { self.fill_by(unwritten, |all| pieces::each(all, size, &work)) }
    }

    /// As [`fill_pieces`](Self::fill_pieces), one piece after the other in the calling thread, as bytes come from a file.
    ///
    /// # Errors
    /// When a piece fails, memory runs out, or the device can't be used any more.
    pub fn fill_in_order(self, size: usize, work: impl FnMut(usize, &mut [T]) -> Result<()>) -> Result<Tensor> {
        let (size, work) = (size.max(1), RefCell::new(work));
        let in_order = |(index, piece): (usize, &mut [T])| (work.borrow_mut())(index, piece);
        let unwritten =
            |all: &mut [MaybeUninit<T>]| all.chunks_mut(size).map(zeroed).enumerate().try_for_each(in_order);
        // SAFETY: `zeroed` is called on all pieces, unless one before them fails.
        unsafe { self.fill_by(unwritten, |all| all.chunks_mut(size).enumerate().try_for_each(in_order)) }
    }

    /// The finished tensor. `unwritten` writes all elements of the host's memory; `written` those of a copy of zeros that goes to a
    /// device.
    ///
    /// # Safety
    /// Where `unwritten` returns `Ok`, it has written every element.
    unsafe fn fill_by(
        mut self,
        unwritten: impl FnOnce(&mut [MaybeUninit<T>]) -> Result<()>,
        written: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<Tensor> {
        match self.storage.device() {
            Device::Cpu => unwritten(self.uninit()?)?,
            Device::Cuda(_) => {
                let mut values = room_for("fill", self.layout.count())?;
                values.resize(self.layout.count(), T::default());
                written(&mut values)?;
                return self.copy_from_slice(&values);
            }
            Device::Meta => {}
        }
        // SAFETY: `unwritten` has written all, as the caller promises; a meta tensor has no elements.
        Ok(unsafe { self.assume_init() })
    }
}

/// Zeros in a piece of new memory, right before they are overwritten, so that they don't go through memory.
fn zeroed<T: Element>(piece: &mut [MaybeUninit<T>]) -> &mut [T] {
    piece.fill(MaybeUninit::new(T::default()));
    // SAFETY: every element has been written, and a `MaybeUninit<T>` lies in memory as a `T`.
    unsafe { &mut *(ptr::from_mut(piece) as *mut [T]) }
}

/// The bits of the next smaller number of a half type, given the bits of a finite number that isn't the smallest one.
fn before(bits: u16) -> u16 {
    match bits {
        // From zero, the negative number nearest to zero; for negative numbers, whose magnitude grows with the bits, one
        // more.
        0 => 0x8001,
        0x8000.. => bits + 1,
        _ => bits - 1,
    }
}

/// The largest number of `dtype` that isn't greater than the finite `value`. Integer conversion saturates, so for integers it
/// is `value` rounded down, even where the dtype has no such number.
fn largest_up_to(dtype: DType, value: f64) -> f64 {
    let stepped = |rounded: f64, below: f64| if rounded > value { below } else { rounded };
    match dtype {
        DType::F64 => value,
        DType::F32 => stepped(f64::from(value as f32), f64::from((value as f32).next_down())),
        DType::F16 => {
            let rounded = f16::from_f64(value);
            stepped(rounded.to_f64(), f16::from_bits(before(rounded.to_bits())).to_f64())
        }
        DType::BF16 => {
            let rounded = bf16::from_f64(value);
            stepped(rounded.to_f64(), bf16::from_bits(before(rounded.to_bits())).to_f64())
        }
        DType::I64 | DType::I32 | DType::U8 | DType::Bool => value.floor(),
    }
}

/// The largest number of `dtype` that is less than `value`; see [`largest_up_to`].
fn largest_below(dtype: DType, value: f64) -> f64 {
    largest_up_to(dtype, value.next_down())
}

impl Tensor {
    /// A tensor of `shape` whose elements are copied from `values` in row-major order.
    ///
    /// # Errors
    /// When the number of values isn't that of the shape, memory runs out, or the device can't be used.
    pub fn from_slice<T: Element>(values: &[T], shape: &[usize], device: Device) -> Result<Tensor> {
        TensorBuilder::<T>::new("from_slice", shape, device)?.copy_from_slice(values)
    }

    /// A tensor of [`Device::Meta`] with shape and dtype but no elements, on behalf of `operation`.
    ///
    /// # Errors
    /// When the size overflows, or is beyond the limit that was set for the device.
    pub fn meta(operation: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
        with_element!(dtype, T => {
            let builder = TensorBuilder::<T>::new(operation, shape, Device::Meta)?;
            // SAFETY: a meta tensor has no elements to be written.
            Ok(unsafe { builder.assume_init() })
        })
    }

    /// A tensor of rank 0.
    ///
    /// # Errors
    /// When memory runs out, or the device can't be used.
    pub fn scalar<T: Element>(value: T, device: Device) -> Result<Tensor> {
        Self::from_slice(&[value], &[], device)
    }

    /// A tensor whose elements are all `value`, converted to `dtype`.
    ///
    /// # Errors
    /// When the size overflows, memory runs out, or the device can't be used.
    pub fn full(shape: &[usize], value: f64, dtype: DType, device: Device) -> Result<Tensor> {
        let storage = dispatch::fill(shape, value, dtype, device)?;
        Ok(Tensor { storage, layout: Layout::contiguous(shape), dtype })
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// When the size overflows, memory runs out, or the device can't be used.
    pub fn zeros(shape: &[usize], dtype: DType, device: Device) -> Result<Tensor> {
        Self::full(shape, 0.0, dtype, device)
    }

    /// A tensor of ones.
    ///
    /// # Errors
    /// When the size overflows, memory runs out, or the device can't be used.
    pub fn ones(shape: &[usize], dtype: DType, device: Device) -> Result<Tensor> {
        Self::full(shape, 1.0, dtype, device)
    }

    /// The values 0, 1, ... `count - 1`.
    ///
    /// # Errors
    /// When memory runs out, or the device can't be used.
    pub fn arange(count: usize, dtype: DType, device: Device) -> Result<Tensor> {
        with_element!(dtype, T => TensorBuilder::<T>::new("arange", &[count], device)?.fill_with(|i| T::from_f64(i as f64)))
    }

    /// Values drawn uniformly from `low..high`; element `i` depends only on `seed` and `i`. A value that rounding to `dtype`
    /// would move out of the range becomes the nearest number of `dtype` inside, so `high` never occurs. If `dtype` has no
    /// number in the range, the values are `low`, rounded. Integers are truncated; for `bool`, any value but 0 is true.
    ///
    /// # Errors
    /// When `low..high` isn't a range of finite width, the size overflows, memory runs out, or the device can't be used.
    pub fn uniform(shape: &[usize], low: f64, high: f64, seed: Seed, dtype: DType, device: Device) -> Result<Tensor> {
        if !(low <= high && (high - low).is_finite()) {
            return Err(Error::argument("uniform", format!("values from {low} to {high}"))
                .expected("finite bounds, the lower one first"));
        }
        let mut random = seed.random();
        let (least, greatest) = (-largest_up_to(dtype, -low), largest_below(dtype, high));
        let inside = move |value: f64, rounded: f64| {
            if dtype == DType::Bool || low == high {
                rounded
            } else if least > greatest {
                low
            } else if rounded >= high {
                greatest
            } else if rounded < low {
                least
            } else {
                value
            }
        };
        with_element!(dtype, T => {
            TensorBuilder::<T>::new("uniform", shape, device)?.fill_with(|_| {
                let value = random.uniform_in(low, high);
                T::from_f64(inside(value, T::from_f64(value).to_f64()))
            })
        })
    }

    /// Values drawn from the normal distribution with this mean and standard deviation.
    ///
    /// # Errors
    /// When the mean isn't finite, the deviation isn't finite and at least 0, the size overflows, memory runs out, or the
    /// device can't be used.
    pub fn normal(
        shape: &[usize],
        mean: f64,
        deviation: f64,
        seed: Seed,
        dtype: DType,
        device: Device,
    ) -> Result<Tensor> {
        // Box and Muller's method never gives a value further than nine standard deviations from the mean.
        if !(mean.is_finite() && deviation >= 0.0 && (mean.abs() + 9.0 * deviation).is_finite()) {
            return Err(Error::argument("normal", format!("a mean of {mean} and a deviation of {deviation}"))
                .expected("a finite mean and a finite deviation of at least 0"));
        }
        let mut random = seed.random();
        with_element!(dtype, T => {
            TensorBuilder::<T>::new("normal", shape, device)?.fill_with(|_| T::from_f64(mean + deviation * random.normal()))
        })
    }
}
