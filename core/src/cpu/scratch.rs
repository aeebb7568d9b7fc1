//! Temporary memory of a running kernel.

use std::{marker::PhantomData, mem::MaybeUninit};

use crate::{Device, Element, Result, dispatch, memory::Purpose, storage::Storage};

/// `count` elements of scratch memory from the CPU pool, aligned to 64 bytes, returned to the pool when dropped.
///
/// ```
/// let mut scratch = tomograd_core::Scratch::<f32>::new("example", 100)?;
/// let sums: &mut [f32] = scratch.zeroed();
/// sums[7] += 1.0;
/// # Ok::<(), tomograd_core::Error>(())
/// ```
pub struct Scratch<T: Element> {
    storage: Storage,
    element: PhantomData<T>,
}

impl<T: Element> Scratch<T> {
    /// Allocates uninitialised memory for `count` elements, on behalf of `operation`.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(operation: &str, count: usize) -> Result<Self> {
        Ok(Self {
            storage: dispatch::allocate::<T>(operation, count, Device::Cpu, Purpose::Scratch)?,
            element: PhantomData,
        })
    }

    /// The memory, uninitialised.
    pub fn uninit(&mut self) -> &mut [MaybeUninit<T>] {
        self.storage.uninit_slice_mut()
    }

    /// The memory, filled with the default value: 0.
    pub fn zeroed(&mut self) -> &mut [T] {
        for element in self.uninit() {
            element.write(T::default());
        }
        // SAFETY: the loop above wrote every element.
        unsafe { self.storage.slice_mut::<T>() }
    }

    /// The memory, after all of it has been written.
    ///
    /// # Safety
    /// Every element must have been written since `new`.
    pub unsafe fn assume_init(&self) -> &[T] {
        // SAFETY: the caller guarantees that every element was written.
        unsafe { self.storage.slice::<T>() }
    }
}
