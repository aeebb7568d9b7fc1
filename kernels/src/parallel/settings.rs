//! Execution settings of the current thread: for tests, benchmarks, and users who share a machine.

use crate::simd::Isa;
use std::cell::Cell;

/// The order in which chunks are handed out. Results never depend on it; tests shuffle it to verify that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// First to last.
    #[default]
    Forward,
    /// A permutation drawn from this seed.
    Shuffled(u64),
}

/// The settings that [`with_settings`] applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    isa: Option<Isa>,
    order: Order,
    threads: Option<usize>,
}

/// The largest pool: more threads than the machines it is meant for have cores, and few enough to start quickly.
const MOST_THREADS: usize = 1024;

impl Settings {
    /// Forces an instruction set; an error if this processor doesn't support it.
    pub fn isa(mut self, isa: Isa) -> std::result::Result<Self, String> {
        if !isa.is_available() {
            return Err(format!("this processor lacks {isa}"));
        }
        self.isa = Some(isa);
        Ok(self)
    }

    /// Sets the order in which chunks are handed out.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Uses a pool of this many threads (clamped to 1..=1024), whatever the number of cores.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads.clamp(1, MOST_THREADS));
        self
    }

    /// The current settings of this thread.
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

/// Runs `f` with these settings on the current thread and in all chunks of its parallel sections. The previous settings are
/// restored afterwards, also after a panic.
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

/// The instruction set of this thread: that of its settings, otherwise that of the process.
#[inline]
pub fn current_isa() -> Isa {
    match CURRENT.get().isa {
        Some(isa) => isa,
        None => crate::simd::selected_or_detected(),
    }
}
