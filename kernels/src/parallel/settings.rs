//! How the current thread wants its kernels run: for tests and benchmarks, and for users who share a machine.

use crate::simd::Isa;
use std::cell::Cell;

/// The order in which chunks are handed out. Results never depend on it; the tests that say so shuffle it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// First to last.
    #[default]
    Forward,
    /// A permutation drawn from this seed.
    Shuffled(u64),
}

/// What [`with_settings`] puts in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    isa: Option<Isa>,
    order: Order,
    threads: Option<usize>,
}

/// More threads than any machine that a pool is for has cores; a pool of them starts at once.
const MOST_THREADS: usize = 1024;

impl Settings {
    /// Forces an instruction set; an error says so if this processor lacks it.
    pub fn isa(mut self, isa: Isa) -> std::result::Result<Self, String> {
        if !isa.is_available() {
            return Err(format!("this processor lacks {isa}"));
        }
        self.isa = Some(isa);
        Ok(self)
    }

    /// Sets the order of chunks.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Uses a pool of this many threads (at least one, at most 1024), whatever the processor has.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads.clamp(1, MOST_THREADS));
        self
    }

    /// The settings in force on this thread.
    pub fn current() -> Self {
        CURRENT.get()
    }

    pub(super) fn chunk_order(self) -> Order {
        self.order
    }

    pub(super) fn thread_count(self) -> Option<usize> {
        self.threads
    }
}

thread_local! {
    static CURRENT: Cell<Settings> = const { Cell::new(Settings { isa: None, order: Order::Forward, threads: None }) };
}

/// Runs `f` with these settings in force on the current thread, and in every chunk that it hands out; afterwards, also
/// after a panic, the former settings are back.
pub fn with_settings<R>(settings: Settings, f: impl FnOnce() -> R) -> R {
    struct Restore(Settings);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(settings));
    f()
}

/// The instruction set in force on this thread: that of its settings, or else that of the process.
#[inline]
pub fn current_isa() -> Isa {
    match CURRENT.get().isa {
        Some(isa) => isa,
        None => crate::simd::selected_or_detected(),
    }
}
