//! Global memory: what a kernel may touch, and what has been written.

use std::{
    alloc::{Layout, alloc, dealloc},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::Emulator;

/// As a device's allocator aligns.
const ALIGNMENT: usize = 256;
/// Bytes around an allocation, so that what goes beyond it doesn't fall into another one.
const MARGIN: usize = 4096;

/// The runtime knows no threads of the host's: whoever calls it holds this.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn layout(bytes: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.checked_add(2 * MARGIN)?, ALIGNMENT).ok()
}

impl Emulator {
    /// Global memory of `bytes` that nobody has written, aligned to 256 bytes; null when there is no room.
    pub fn allocate(&self, bytes: usize) -> *mut u8 {
        let Some(layout) = layout(bytes) else { return std::ptr::null_mut() };
        // SAFETY: the layout isn't empty.
        let memory = unsafe { alloc(layout) };
        if memory.is_null() {
            return memory;
        }
        // SAFETY: inside what was allocated.
        let begin = unsafe { memory.add(MARGIN) };
        self.allocated(begin, bytes);
        begin
    }

    /// Gives memory back; a kernel that still uses it is out of bounds.
    ///
    /// # Safety
    /// `memory` is from [`Emulator::allocate`] of as many bytes, and isn't used again.
    pub unsafe fn free(&self, memory: *mut u8, bytes: usize) {
        self.freed(memory);
        let Some(layout) = layout(bytes) else { return };
        // SAFETY: as it was allocated; the caller answers for the rest.
        unsafe { dealloc(memory.sub(MARGIN), layout) };
    }

    /// Says that kernels may use memory of the host's, which nobody has written yet; an earlier allocation at this address is
    /// replaced.
    pub fn allocated(&self, memory: *const u8, bytes: usize) {
        let _turn = turn();
        // SAFETY: the runtime notes the range and doesn't touch it.
        unsafe { (self.functions.allocated)(memory.cast(), bytes as u64) };
    }

    /// Says that kernels may no longer use an allocation.
    pub fn freed(&self, memory: *const u8) {
        let _turn = turn();
        // SAFETY: the runtime forgets the range and doesn't touch it.
        unsafe { (self.functions.freed)(memory.cast()) };
    }

    /// Says that the host has written a part of an allocation.
    pub fn written(&self, memory: *const u8, bytes: usize) {
        let _turn = turn();
        // SAFETY: the runtime looks the range up and changes its shadow alone.
        unsafe { (self.functions.written)(memory.cast(), bytes as u64) };
    }

    /// Says that the host has copied between parts of allocations: what nobody wrote there, nobody wrote here.
    pub fn copied(&self, to: *mut u8, from: *const u8, bytes: usize) {
        let _turn = turn();
        // SAFETY: as in `written`.
        unsafe { (self.functions.copied)(to.cast(), from.cast(), bytes as u64) };
    }

    /// How many bytes of a part of an allocation nobody wrote; `usize::MAX` for memory that isn't inside one allocation.
    pub fn uninitialised(&self, memory: *const u8, bytes: usize) -> usize {
        let _turn = turn();
        // SAFETY: as in `written`.
        unsafe { (self.functions.unwritten)(memory.cast(), bytes as u64) as usize }
    }
}
