//! The host's memory: one reserved range of addresses, which the system fills with pages when they are first written.

use std::{
    alloc::{Layout, alloc, dealloc},
    ptr::NonNull,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    ALIGNMENT, Block, Purpose,
    pool::{self, Pool},
    ranges::{Address, Segment},
};
use crate::{Error, ErrorKind, Result};

/// The free memory and the statistics of the host.
pub(super) static POOL: Pool = Pool::new();

/// The system's memory.
#[derive(Debug)]
pub(super) struct Allocator;

/// Segments of at least twice this size are aligned to it, so that a system with transparent huge pages can use them.
const HUGE_PAGE: usize = 2 << 20;

fn memory_layout(size: usize) -> Option<Layout> {
    Layout::from_size_align(size, if size >= 2 * HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT }).ok()
}

/// Requests huge pages for the whole huge pages of a segment: fewer page faults at first use and far fewer TLB misses later,
/// above all where a kernel reads rows that are several pages apart.
fn ask_for_huge_pages(Address(start): Address, size: usize) {
    #[cfg(all(target_os = "linux", not(miri)))]
    if size >= 2 * HUGE_PAGE {
        let skipped = start.as_ptr().align_offset(HUGE_PAGE);
        let whole = size.saturating_sub(skipped) / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: the range lies within the segment and starts at a page boundary; the advice affects only performance. A
        // system that doesn't support it returns an error, which can be ignored.
        unsafe { libc::madvise(start.as_ptr().add(skipped).cast(), whole, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (start, size);
}

/// Addresses for as many bytes as the machine has memory, without memory behind them: the first time, and if `least` bytes fit.
/// `None` also where the system doesn't allow it (a limit of the address space, strict accounting). Then each segment is
/// allocated.
#[cfg(all(unix, not(miri)))]
fn reserve(least: usize) -> Option<Segment> {
    static RESERVED: AtomicBool = AtomicBool::new(false);
    // SAFETY: both calls only ask for numbers.
    let [pages, page] = unsafe { [libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)] };
    let size = usize::try_from(pages).ok()?.checked_mul(usize::try_from(page).ok()?)? / HUGE_PAGE * HUGE_PAGE;
    if size < least || RESERVED.swap(true, Ordering::Relaxed) {
        return None;
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, at an address that the system chooses, changes no memory that is in use.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    Some(Segment { start: Address(NonNull::new(start.cast())?), size, lazy: true })
}

#[cfg(not(all(unix, not(miri))))]
fn reserve(_: usize) -> Option<Segment> {
    None
}

impl pool::Allocator for Allocator {
    fn segment(&self, size: usize) -> Result<Option<Segment>> {
        let mut segment = reserve(size);
        if segment.is_none() {
            let Some(layout) = memory_layout(size) else { return Ok(None) };
            // SAFETY: the layout's size isn't zero.
            let start = NonNull::new(unsafe { alloc(layout) });
            segment = start.map(|start| Segment { start: Address(start), size, lazy: false });
        }
        if let Some(segment) = segment {
            ask_for_huge_pages(segment.start, segment.size);
        }
        Ok(segment)
    }

    fn release(&self, segment: Segment) {
        if let Some(layout) = memory_layout(segment.size) {
            // SAFETY: `segment` allocated it with this layout; a reserved one isn't released, since it is lazy.
            unsafe { dealloc(segment.start.0.as_ptr(), layout) };
        }
    }

    fn discard(&self, Address(start): Address, size: usize) {
        #[cfg(all(unix, not(miri)))]
        {
            #[cfg(target_os = "linux")]
            const ADVICE: i32 = libc::MADV_DONTNEED;
            #[cfg(not(target_os = "linux"))]
            const ADVICE: i32 = libc::MADV_FREE;
            // SAFETY: the call only asks for a number.
            let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
            let skipped = start.as_ptr().align_offset(page);
            let whole = size.saturating_sub(skipped) / page * page;
            if whole > 0 {
                // SAFETY: whole pages of a free range, whose contents nobody needs; they stay mapped.
                unsafe { libc::madvise(start.as_ptr().add(skipped).cast(), whole, ADVICE) };
            }
        }
        #[cfg(not(all(unix, not(miri))))]
        let _ = (start, size);
    }

    fn exact(&self) -> bool {
        // Sanitizers see accesses beyond a tensor, or after its end, only if it has memory of its own.
        static EXACT: OnceLock<bool> = OnceLock::new();
        *EXACT.get_or_init(|| cfg!(miri) || std::env::var_os("TOMOGRAD_EXACT_MEMORY").is_some())
    }

    fn pool(&self) -> &Pool {
        &POOL
    }

    fn exhausted(&self, operation: &str, size: usize, _: usize) -> Error {
        Error::new(ErrorKind::OutOfMemory, operation, format!("the system has no {size} bytes left"))
    }
}

impl Block {
    /// Takes a block of at least `bytes` from the host's pool, on behalf of `operation`.
    pub(crate) fn of_host(operation: &str, bytes: usize, purpose: Purpose) -> Result<Self> {
        Block::take(&Allocator, operation, bytes, purpose)
    }
}
