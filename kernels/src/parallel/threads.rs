//! `parallel_for`: chunks that the threads of the [team](super::team) take one after the other.

use super::{Order, Settings, team, with_settings};
use std::any::Any;
use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tomograd_core::{Error, ErrorKind, Result, pieces};

thread_local! {
    /// Whether this thread is running a chunk.
    static IN_CHUNK: Cell<bool> = const { Cell::new(false) };
    /// The number of this thread, counted from 1 in the order in which threads first ran a chunk; 0 before that.
    static WORKER: Cell<u64> = const { Cell::new(0) };
}

/// One bit for each thread (modulo 64) that has run a chunk.
static SEEN: AtomicU64 = AtomicU64::new(0);

/// How many different threads (up to 64) have run chunks since [`reset_workers_seen`].
pub fn workers_seen() -> u32 {
    SEEN.load(Ordering::Relaxed).count_ones()
}

/// Resets the record of threads that have run chunks.
pub fn reset_workers_seen() {
    SEEN.store(0, Ordering::Relaxed);
}

fn note_worker() {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if WORKER.get() == 0 {
        WORKER.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    let bit = 1 << (WORKER.get() % 64);
    // Testing with a load first avoids invalidating the cache line of other cores once the bit is set.
    if SEEN.load(Ordering::Relaxed) & bit == 0 {
        SEEN.fetch_or(bit, Ordering::Relaxed);
    }
}

/// How many threads a parallel section started by this thread may use.
pub fn threads() -> usize {
    Settings::current().thread_count().unwrap_or_else(pieces::threads)
}

/// Runs `f` with parallel sections on `threads` threads (at least one).
pub fn with_threads<R>(threads: usize, f: impl FnOnce() -> R) -> R {
    with_settings(Settings::current().threads(threads), f)
}

/// Divides `0..range` into chunks of `grain` items (the last may be shorter) and calls `f` once for each.
///
/// The boundaries depend only on `range` and `grain`. A single chunk runs on the calling thread without waking another one.
/// So does a nested section, with the same chunks one after the other. Choose a grain size at which a chunk takes at least
/// about 5 µs. A chunk that panics or runs out of memory becomes an error (of the failed chunks, that of the first by
/// position); chunks that haven't started by then are skipped.
pub fn parallel_for(range: usize, grain: usize, f: impl Fn(Range<usize>) + Sync) -> Result<()> {
    in_chunks(range, grain, &f)
}

/// [`parallel_for`], compiled once for all closures: an indirect call costs little compared to a chunk.
fn in_chunks(range: usize, grain: usize, f: &(dyn Fn(Range<usize>) + Sync)) -> Result<()> {
    if range == 0 {
        return Ok(());
    }
    let grain = grain.max(1);
    let chunks = range.div_ceil(grain);
    let section = Section {
        chunks,
        chunk: &|i: usize| f(i * grain..range.min((i * grain).saturating_add(grain))),
        settings: Settings::current(),
        permutation: permutation(chunks, Settings::current().chunk_order()),
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let workers = if IN_CHUNK.get() { 1 } else { threads().min(chunks) };
    if workers == 1 {
        section.work();
        return section.result();
    }
    // The caller runs chunks too, so that one thread less has to be woken.
    team::share(workers - 1, &|| section.work());
    section.result()
}

/// The shared state of a running parallel section.
struct Section<'a> {
    chunks: usize,
    chunk: &'a (dyn Fn(usize) + Sync),
    settings: Settings,
    permutation: Option<Vec<usize>>,
    next: AtomicUsize,
    stop: AtomicBool,
    /// The failed chunk that is first by position, and its error.
    failure: Mutex<Option<(usize, Error)>>,
}

impl Section<'_> {
    /// Runs chunks until none are left.
    fn work(&self) {
        struct Leave(bool);
        impl Drop for Leave {
            fn drop(&mut self) {
                IN_CHUNK.set(self.0);
            }
        }
        let _leave = Leave(IN_CHUNK.replace(self.chunks > 1 || IN_CHUNK.get()));
        note_worker();
        with_settings(self.settings, || {
            while !self.stop.load(Ordering::Relaxed) {
                let turn = self.next.fetch_add(1, Ordering::Relaxed);
                if turn >= self.chunks {
                    break;
                }
                let chunk = self.permutation.as_ref().map_or(turn, |order| order[turn]);
                // The closure may leave its outputs partially written; the error tells the caller to discard them.
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.chunk)(chunk))) {
                    self.stop.store(true, Ordering::Relaxed);
                    let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    if failure.as_ref().is_none_or(|(first, _)| chunk < *first) {
                        *failure = Some((chunk, error_of(panic)));
                    }
                }
            }
        });
    }

    fn result(self) -> Result<()> {
        match self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

/// The error with which a chunk [gave up](or_give_up), otherwise an error with the message of the panic.
fn error_of(panic: Box<dyn Any + Send>) -> Error {
    let panic = match panic.downcast::<Error>() {
        Ok(error) => return *error,
        Err(panic) => panic,
    };
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Error::new(ErrorKind::Panic, "parallel_for", text.unwrap_or_else(|| "(no message)".to_string()))
}

/// The value of `result`. In a chunk, an error ends the chunk by unwinding, and the parallel section returns that error.
/// Chunks return no `Result`, which keeps those that can't fail simple; the usual error is a kernel's missing memory.
#[inline(always)]
pub(crate) fn or_give_up<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => give_up(error),
    }
}

#[cold]
#[inline(never)]
fn give_up(error: Error) -> ! {
    // `resume_unwind` doesn't print a panic message.
    std::panic::resume_unwind(Box::new(error))
}

/// The order of chunks; `None` means first to last.
fn permutation(chunks: usize, order: Order) -> Option<Vec<usize>> {
    let Order::Shuffled(mut state) = order else { return None };
    let mut permutation: Vec<usize> = (0..chunks).collect();
    for i in (1..chunks).rev() {
        // splitmix64; any mixing function would do, as long as the seed determines the permutation.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        permutation.swap(i, ((z ^ (z >> 31)) % (i as u64 + 1)) as usize);
    }
    Some(permutation)
}
