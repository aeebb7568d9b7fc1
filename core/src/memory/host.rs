//! The host's memory, as the pool gets it from the system.

use std::{
    alloc::{Layout, alloc, dealloc},
    ptr::NonNull,
};

use super::{
    ALIGNMENT, Address, Block, Fit,
    pool::{self, Pool},
};
use crate::{Error, ErrorKind, Result};

/// The free blocks and the statistics of the host.
pub(super) static POOL: Pool = Pool::new();

/// The system's allocator.
#[derive(Debug)]
pub(super) struct Allocator;

/// Blocks of at least twice this size are aligned to it, so that a system with transparent huge pages can use them.
const HUGE_PAGE: usize = 2 << 20;

fn memory_layout(capacity: usize) -> Option<Layout> {
    Layout::from_size_align(capacity, if capacity >= 2 * HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT }).ok()
}

/// Requests huge pages for the whole huge pages of a large block: fewer page faults at first use and far fewer TLB misses
/// later, above all where a kernel reads rows that are several pages apart.
fn ask_for_huge_pages(pointer: NonNull<u8>, layout: Layout) {
    #[cfg(target_os = "linux")]
    if layout.align() == HUGE_PAGE {
        let whole = layout.size() / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: the range lies within our block and starts at a page boundary; the advice affects only performance. A
        // system that doesn't support it returns an error, which can be ignored.
        unsafe { libc::madvise(pointer.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (pointer, layout);
}

impl pool::Allocator for Allocator {
    fn allocate(&self, capacity: usize) -> Result<Option<Address>> {
        let Some(layout) = memory_layout(capacity) else { return Ok(None) };
        // SAFETY: the layout's size isn't zero.
        let pointer = NonNull::new(unsafe { alloc(layout) });
        if let Some(pointer) = pointer {
            ask_for_huge_pages(pointer, layout);
        }
        Ok(pointer.map(Address))
    }

    fn free(&self, Address(pointer): Address, capacity: usize) {
        if let Some(layout) = memory_layout(capacity) {
            // SAFETY: `allocate` gave this address for this capacity, and so with this layout.
            unsafe { dealloc(pointer.as_ptr(), layout) };
        }
    }

    fn pool(&self) -> &Pool {
        &POOL
    }

    fn exhausted(&self, operation: &str, capacity: usize, _: usize) -> Error {
        Error::new(ErrorKind::OutOfMemory, operation, format!("the system has no {capacity} bytes left"))
    }
}

impl Block {
    /// Takes a block of at least `bytes` from the host's pool, on behalf of `operation`.
    pub(crate) fn of_host(operation: &str, bytes: usize, fit: Fit) -> Result<Self> {
        Block::take(&Allocator, operation, bytes, fit)
    }
}
