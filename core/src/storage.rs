//! A tensor's memory, shared between its views.

use std::{mem::MaybeUninit, slice};

use crate::{
    Device, Element, Result,
    pool::{Block, Fit},
};

/// `bytes` bytes on a device, shared by the tensors that view them.
#[derive(Debug)]
pub(crate) struct Storage {
    block: Block,
    bytes: usize,
    device: Device,
}

impl Storage {
    /// Uninitialised memory for `count` elements of `T`.
    pub(crate) fn uninit<T: Element>(operation: &str, count: usize, device: Device, fit: Fit) -> Result<Self> {
        device.check(operation)?;
        let bytes = count.saturating_mul(size_of::<T>());
        Ok(Self { block: Block::take(operation, bytes, fit)?, bytes, device })
    }

    /// The device that holds the memory.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// Whole memory as elements that may be uninitialised.
    pub(crate) fn uninit_slice_mut<T: Element>(&mut self) -> &mut [MaybeUninit<T>] {
        // SAFETY: the block is at least `bytes` long, aligned to 64 bytes, borrowed exclusively, and `MaybeUninit` makes no
        // claim about its content.
        unsafe { slice::from_raw_parts_mut(self.block.pointer().as_ptr().cast(), self.bytes / size_of::<T>()) }
    }

    /// The whole memory as elements.
    ///
    /// # Safety
    /// The storage must have been filled with elements of `T`.
    pub(crate) unsafe fn slice<T: Element>(&self) -> &[T] {
        // SAFETY: length and alignment as above; the caller answers for the content. Nobody writes while a shared borrow
        // lives: a write needs `&mut Storage`.
        unsafe { slice::from_raw_parts(self.block.pointer().as_ptr().cast(), self.bytes / size_of::<T>()) }
    }

    /// The whole memory as elements, to write.
    ///
    /// # Safety
    /// The storage must have been filled with elements of `T`.
    pub(crate) unsafe fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        // SAFETY: as in `slice`, and the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.block.pointer().as_ptr().cast(), self.bytes / size_of::<T>()) }
    }
}
