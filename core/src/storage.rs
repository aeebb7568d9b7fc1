//! A tensor's memory, shared between its views.

use std::{mem::MaybeUninit, ptr::NonNull, slice};

use crate::{
    Device, Element,
    pool::{Block, Charge},
};

/// `bytes` bytes on a device, shared by the tensors that view them.
#[derive(Debug)]
pub(crate) struct Storage {
    memory: Memory,
    bytes: usize,
}

/// What holds the bytes.
#[derive(Debug)]
enum Memory {
    /// A block of the host's pool.
    Host(Block),
    /// Nothing: the bytes are only counted.
    Meta { _charge: Charge },
}

impl Storage {
    /// A block of the host's pool that is at least `bytes` long.
    pub(crate) fn of_host(block: Block, bytes: usize) -> Self {
        Self { memory: Memory::Host(block), bytes }
    }

    /// Bytes that are only counted.
    pub(crate) fn of_meta(charge: Charge, bytes: usize) -> Self {
        Self { memory: Memory::Meta { _charge: charge }, bytes }
    }

    /// The device that holds the memory.
    pub(crate) fn device(&self) -> Device {
        match self.memory {
            Memory::Host(_) => Device::Cpu,
            Memory::Meta { .. } => Device::Meta,
        }
    }

    /// Where the host finds the elements, and how many: none of another device's memory.
    fn host<T: Element>(&self) -> (NonNull<T>, usize) {
        match &self.memory {
            Memory::Host(block) => (block.pointer().cast(), self.bytes / size_of::<T>()),
            Memory::Meta { .. } => (NonNull::dangling(), 0),
        }
    }

    /// The host's memory as elements that may be uninitialised.
    pub(crate) fn uninit_slice_mut<T: Element>(&mut self) -> &mut [MaybeUninit<T>] {
        let (pointer, count) = self.host::<T>();
        // SAFETY: a block is at least `bytes` long, aligned to 64 bytes, borrowed exclusively, and `MaybeUninit` makes no
        // claim about its content; no elements may lie at any aligned place.
        unsafe { slice::from_raw_parts_mut(pointer.as_ptr().cast(), count) }
    }

    /// The host's memory as elements.
    ///
    /// # Safety
    /// The storage must have been filled with elements of `T`.
    pub(crate) unsafe fn slice<T: Element>(&self) -> &[T] {
        let (pointer, count) = self.host::<T>();
        // SAFETY: length and alignment as above; the caller answers for the content. Nobody writes while a shared borrow
        // lives: a write needs `&mut Storage`.
        unsafe { slice::from_raw_parts(pointer.as_ptr(), count) }
    }

    /// The host's memory as elements, to write.
    ///
    /// # Safety
    /// The storage must have been filled with elements of `T`.
    pub(crate) unsafe fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        let (pointer, count) = self.host::<T>();
        // SAFETY: as in `slice`, and the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(pointer.as_ptr(), count) }
    }
}
