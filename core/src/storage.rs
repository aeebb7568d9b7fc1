//! The memory of a tensor, shared between its views.

use std::{mem::MaybeUninit, ptr::NonNull, slice};

use crate::{
    Device, Element,
    cuda::Gpu,
    memory::{Block, Charge},
};

/// `bytes` bytes on a device, shared by the tensors that view them.
#[derive(Debug)]
pub(crate) struct Storage {
    memory: Memory,
    bytes: usize,
}

/// The owner of the bytes.
#[derive(Debug)]
enum Memory {
    /// A block of the host's pool.
    Host(Block),
    /// A block of a CUDA device's pool.
    Cuda(Block, &'static Gpu),
    /// No memory: the bytes are only counted.
    Meta { _charge: Charge },
}

impl Storage {
    /// Storage of `bytes` bytes in a block of the host's pool, which is at least that long.
    pub(crate) fn of_host(block: Block, bytes: usize) -> Self {
        Self { memory: Memory::Host(block), bytes }
    }

    /// Storage of `bytes` bytes in a block of a CUDA device's pool, which is at least that long.
    pub(crate) fn of_cuda(block: Block, bytes: usize, gpu: &'static Gpu) -> Self {
        Self { memory: Memory::Cuda(block, gpu), bytes }
    }

    /// Storage without memory, whose bytes are only counted.
    pub(crate) fn of_meta(charge: Charge, bytes: usize) -> Self {
        Self { memory: Memory::Meta { _charge: charge }, bytes }
    }

    /// The device that holds the memory.
    pub(crate) fn device(&self) -> Device {
        match self.memory {
            Memory::Host(_) => Device::Cpu,
            Memory::Cuda(_, gpu) => gpu.device(),
            Memory::Meta { .. } => Device::Meta,
        }
    }

    /// The length in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The CUDA device that holds the memory, and the address there; `None` for the memory of other devices.
    pub(crate) fn cuda(&self) -> Option<(&'static Gpu, NonNull<u8>)> {
        match &self.memory {
            Memory::Cuda(block, gpu) => Some((gpu, block.pointer())),
            _ => None,
        }
    }

    /// The address and number of the elements in host memory; no elements for the memory of another device.
    fn host<T: Element>(&self) -> (NonNull<T>, usize) {
        match &self.memory {
            Memory::Host(block) => (block.pointer().cast(), self.bytes / size_of::<T>()),
            Memory::Cuda(..) | Memory::Meta { .. } => (NonNull::dangling(), 0),
        }
    }

    /// The host's memory as elements that may be uninitialised.
    pub(crate) fn uninit_slice_mut<T: Element>(&mut self) -> &mut [MaybeUninit<T>] {
        let (pointer, count) = self.host::<T>();
        // SAFETY: a block is at least `bytes` long, aligned to 64 bytes and borrowed exclusively, and `MaybeUninit` allows
        // any content; an empty slice may be at any aligned address.
        unsafe { slice::from_raw_parts_mut(pointer.as_ptr().cast(), count) }
    }

    /// The host's memory as elements.
    ///
    /// # Safety
    /// The storage must have been filled with elements of `T`.
    pub(crate) unsafe fn slice<T: Element>(&self) -> &[T] {
        let (pointer, count) = self.host::<T>();
        // SAFETY: length and alignment as above; the caller guarantees the content. Nobody writes during a shared borrow,
        // since a write needs `&mut Storage`.
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
