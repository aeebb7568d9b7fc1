//! The feature `cust-interop`: streams and memory of this crate lent to code that is written with [`cust`](cust).
//!
//! Nothing changes its owner. [`stream`] lends the queue of a device, so that a kernel which is launched there runs behind all that was
//! queued before, without a wait; [`view`] and [`view_mut`] lend the memory of a tensor for as long as they borrow it. What is lent is
//! never destroyed or freed by `cust`: the stream is behind a shared reference, and `cust`'s pointers and slices own nothing.
//!
//! A program with this feature needs NVIDIA's library `libcuda` when it is linked and when it starts, since `cust` links it; without the
//! feature the library is loaded when a device is used first.
//!
//! ```no_run
//! use cust::{launch, module::Module};
//! use tomograd_core::{DType, Device, Result, Tensor, cuda::interop};
//!
//! /// Doubles the elements of a tensor of f32 by a kernel `twice(float* x, int count)` of one's own.
//! fn twice(x: &mut Tensor, machine_code: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//!     let stream = interop::stream(x.device())?; // the device is this thread's from here on
//!     let module = Module::from_cubin(machine_code, &[])?;
//!     let kernel = module.get_function("twice")?;
//!     let view = interop::view_mut::<f32>(x)?;
//!     let (blocks, count) = (view.len().div_ceil(256) as u32, view.len() as i32);
//!     // SAFETY: the kernel takes these arguments, and writes only the elements that are lent.
//!     unsafe { launch!(kernel<<<blocks, 256, 0, stream>>>(view.pointer(), count))? };
//!     stream.synchronize()?; // before the module is unloaded
//!     Ok(())
//! }
//! # let mut x = Tensor::zeros(&[1000], DType::F32, Device::Cuda(0))?;
//! # twice(&mut x, &[])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{
    ffi::c_void,
    marker::PhantomData,
    mem::{ManuallyDrop, transmute_copy},
    ops::Deref,
    ptr::NonNull,
};

use cust::{
    memory::{DeviceCopy, DevicePointer, DeviceSlice},
    stream::Stream,
};

use super::gpu::Gpu;
use crate::{DType, Device, Error, ErrorKind, Result, Tensor};

/// A stream of this crate as `cust` knows one. It isn't destroyed when this is dropped, and stays valid for the rest of the process.
#[derive(Debug)]
pub struct Lent(ManuallyDrop<Stream>);

impl Lent {
    fn new(stream: NonNull<c_void>) -> Self {
        // cust has no constructor for a stream that exists. A `Stream` (version 0.3.2, to which the manifest holds it) is a struct of one
        // field, the driver's handle: with the size of a pointer it can be nothing else.
        const { assert!(size_of::<Stream>() == size_of::<*mut c_void>()) };
        const { assert!(align_of::<Stream>() == align_of::<*mut c_void>()) };
        // SAFETY: the only field of a `Stream` is the handle, a pointer, which fills it as the sizes show.
        Self(ManuallyDrop::new(unsafe { transmute_copy::<NonNull<c_void>, Stream>(&stream) }))
    }
}

impl Deref for Lent {
    type Target = Stream;

    fn deref(&self) -> &Stream {
        &self.0
    }
}

/// The stream of a CUDA device, into which this crate queues all of its work there. The device's primary context becomes that of the
/// calling thread, which `cust` needs; another thread calls this too.
///
/// # Errors
/// When the device isn't a CUDA device, can't be used, or is an emulated one.
pub fn stream(device: Device) -> Result<Lent> {
    let Device::Cuda(index) = device else {
        let what = format!("{device} has no stream");
        return Err(Error::new(ErrorKind::Device, "stream", what).expected("a CUDA device"));
    };
    let stream = Gpu::open(index, "stream")?.driver().stream()?;
    stream.map(Lent::new).ok_or_else(|| {
        let what = format!("{device} isn't a device of the system's driver");
        Error::new(ErrorKind::Device, "stream", what).expected("an NVIDIA GPU; an emulated device has no stream")
    })
}

mod sealed {
    pub trait Sealed {}
}

/// A type that elements are lent as: that of the tensor's dtype, and `u16` for the bits of f16 and bf16, for which `cust` has no types.
pub trait Lendable: DeviceCopy + sealed::Sealed {
    /// Whether elements of this dtype are lent as this type.
    fn fits(dtype: DType) -> bool;
}

macro_rules! lendable {
    ($($type:ty => $($dtype:ident)|+;)*) => {$(
        impl sealed::Sealed for $type {}
        impl Lendable for $type {
            fn fits(dtype: DType) -> bool {
                matches!(dtype, $(DType::$dtype)|+)
            }
        }
    )*};
}

lendable! {
    f32 => F32;
    f64 => F64;
    u16 => F16 | BF16;
    i64 => I64;
    i32 => I32;
    u8 => U8;
    bool => Bool;
}

/// The elements of a contiguous tensor in device memory, lent to read while the tensor is borrowed.
#[derive(Debug)]
pub struct View<'a, T: Lendable> {
    elements: DeviceSlice<T>,
    tensor: PhantomData<&'a Tensor>,
}

/// The elements of a [unique](Tensor::is_unique) tensor in device memory, lent to read and write while the tensor is borrowed.
#[derive(Debug)]
pub struct ViewMut<'a, T: Lendable> {
    elements: DeviceSlice<T>,
    tensor: PhantomData<&'a mut Tensor>,
}

macro_rules! of_views {
    ($($name:ident, $may:literal;)*) => {$(
        impl<T: Lendable> $name<'_, T> {
            /// The number of elements.
            pub fn len(&self) -> usize {
                self.elements.len()
            }

            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                self.elements.is_empty()
            }

            /// The address of the first element, for the arguments of a launch. The launch belongs into [`stream`]; in another one,
            /// that stream must have been synchronised before, and the launch be done before this is dropped.
            pub fn pointer(&self) -> DevicePointer<T> {
                self.elements.as_device_ptr()
            }

            /// The elements as a slice of `cust`, which may be copied freely and knows no lifetime.
            ///
            /// # Safety
            #[doc = concat!("The slice and its copies may be used only while this lives, and only to ", $may, ".")]
            /// Work of this crate is in [`stream`]: other streams, and copies of `cust` that wait by themselves, see it after that
            /// stream was synchronised, and what they do must be done before this is dropped, or be waited for in that stream.
            pub unsafe fn slice(&self) -> DeviceSlice<T> {
                self.elements
            }
        }
    )*};
}

of_views! {
    View, "read";
    ViewMut, "read and write";
}

/// The elements of a tensor as a slice of `cust`.
fn elements<T: Lendable>(tensor: &Tensor, operation: &str) -> Result<DeviceSlice<T>> {
    let wrong = |kind, what: String, expected: &str| Err(Error::new(kind, operation, what).expected(expected));
    if !T::fits(tensor.dtype()) {
        let what = format!("a tensor of {} as {}", tensor.dtype(), std::any::type_name::<T>());
        return wrong(ErrorKind::DType, what, "the dtype's own type, or u16 for f16 and bf16");
    }
    if !tensor.is_contiguous() {
        return wrong(ErrorKind::Argument, format!("{tensor:?} isn't contiguous"), "a contiguous tensor");
    }
    let Some((_, start)) = tensor.storage.cuda() else {
        return wrong(ErrorKind::Device, format!("a tensor on {}", tensor.device()), "a tensor on a CUDA device");
    };
    // An emulated device's memory is the host's.
    stream(tensor.device())?;
    let first = if tensor.count() == 0 { 0 } else { tensor.layout.offset() * tensor.dtype().size() };
    let pointer = DevicePointer::from_raw(start.as_ptr().addr() as u64 + first as u64);
    // SAFETY: a contiguous tensor's elements lie one behind the other from its first one on, and `T` has their size.
    Ok(unsafe { DeviceSlice::from_raw_parts(pointer, tensor.count()) })
}

/// Lends the elements of a contiguous tensor on a CUDA device to read.
///
/// # Errors
/// When the tensor isn't on a CUDA device, isn't contiguous, or its dtype doesn't fit `T`.
pub fn view<T: Lendable>(tensor: &Tensor) -> Result<View<'_, T>> {
    Ok(View { elements: elements(tensor, "view")?, tensor: PhantomData })
}

/// Lends the elements of a [unique](Tensor::is_unique) tensor on a CUDA device to read and write.
///
/// # Errors
/// As [`view`], and when the tensor shares its memory ([`Tensor::make_unique`] copies it then).
pub fn view_mut<T: Lendable>(tensor: &mut Tensor) -> Result<ViewMut<'_, T>> {
    if !tensor.is_unique() {
        let what = format!("{tensor:?} is shared or not contiguous");
        return Err(Error::argument("view_mut", what).expected("a tensor that is unique; see Tensor::make_unique"));
    }
    Ok(ViewMut { elements: elements(tensor, "view_mut")?, tensor: PhantomData })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs no device. To run it, the linker needs a `libcuda`.
    #[test]
    fn a_lent_stream_is_the_same_and_is_not_destroyed() {
        let handle = NonNull::without_provenance(std::num::NonZero::new(0x1230).unwrap());
        let lent = Lent::new(handle);
        assert_eq!(lent.as_inner().cast::<c_void>(), handle.as_ptr());
        // Destroying what isn't a stream would end the process.
        drop(lent);
    }

    #[test]
    fn what_is_not_on_a_cuda_device_is_refused() {
        assert_eq!(stream(Device::Cpu).unwrap_err().kind(), ErrorKind::Device);
        let mut x = Tensor::zeros(&[2], DType::F32, Device::Cpu).unwrap();
        assert_eq!(view::<f32>(&x).unwrap_err().kind(), ErrorKind::Device);
        assert_eq!(view::<f64>(&x).unwrap_err().kind(), ErrorKind::DType);
        assert_eq!(view_mut::<u16>(&mut x).unwrap_err().kind(), ErrorKind::DType);
        let shared = x.clone();
        assert_eq!(view_mut::<f32>(&mut x).unwrap_err().kind(), ErrorKind::Argument);
        drop(shared);
    }
}
