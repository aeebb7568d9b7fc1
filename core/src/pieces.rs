//! Work on the host by several threads: pieces of memory, each of which one thread has for itself.
//!
//! Which thread takes a piece is left to chance, what a piece is isn't: pieces are cut by their size alone. So results don't depend
//! on the number of threads. This is for files and metrics; kernels have threads of their own, which stay awake.

use std::{
    cell::Cell,
    iter::Enumerate,
    slice::ChunksMut,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use crate::{Error, Result};

/// More threads than machines have cores.
const MOST_THREADS: usize = 1024;

thread_local! {
    /// What [`with_threads`] has set.
    static CHOSEN: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The number of threads that work on pieces: that of [`with_threads`], or of the cores that the process may use.
pub fn threads() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    CHOSEN
        .get()
        .unwrap_or_else(|| *CORES.get_or_init(|| thread::available_parallelism().map_or(1, |cores| cores.get())))
}

/// Runs `f`, whose pieces are worked on by this many threads (clamped to 1..=1024).
///
/// ```
/// use tomograd_core::pieces;
/// assert_eq!(pieces::with_threads(3, pieces::threads), 3);
/// ```
pub fn with_threads<R>(threads: usize, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<usize>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CHOSEN.set(self.0);
        }
    }
    let _restore = Restore(CHOSEN.replace(Some(threads.clamp(1, MOST_THREADS))));
    f()
}

/// Cuts `all` into pieces of `size` elements (at least 1; the last piece may be shorter) and calls `work(index, piece)` once for each,
/// on several threads. Within `work`, pieces are worked on by one thread.
///
/// ```
/// use tomograd_core::pieces;
/// let mut squares = [0; 10];
/// pieces::each(&mut squares, 4, |index, piece| {
///     piece.iter_mut().zip(4 * index..).for_each(|(square, i)| *square = i * i);
///     Ok(())
/// })?;
/// assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]);
/// # Ok::<(), tomograd_core::Error>(())
/// ```
///
/// # Errors
/// That of the first piece, by position, that fails; pieces that haven't been begun by then are left out.
pub fn each<T: Send>(all: &mut [T], size: usize, work: impl Fn(usize, &mut [T]) -> Result<()> + Sync) -> Result<()> {
    let size = size.max(1);
    let threads = threads().min(all.len().div_ceil(size));
    let queue = Queue { pieces: Mutex::new(all.chunks_mut(size).enumerate()), failure: Mutex::new(None) };
    let worker = || {
        with_threads(1, || {
            while let Some((index, piece)) = queue.next() {
                if let Err(error) = work(index, piece) {
                    queue.fail(index, error);
                }
            }
        });
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Where no thread can be had, the others do its work.
            thread::Builder::new().spawn_scoped(scope, worker).ok();
        }
        worker();
    });
    match queue.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Runs two functions at once, where there are two threads for them.
///
/// ```
/// assert_eq!(tomograd_core::pieces::both(|| 1, || "two"), (1, "two"));
/// ```
pub fn both<A: Send, B>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B) -> (A, B) {
    let threads = threads();
    if threads < 2 {
        return (first(), second());
    }
    let (of_first, of_second) = (threads / 2, threads.div_ceil(2));
    thread::scope(|scope| {
        let first = scope.spawn(move || with_threads(of_first, first));
        let second = with_threads(of_second, second);
        match first.join() {
            Ok(first) => (first, second),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The pieces that nobody has taken, in order, and the first failure by position.
struct Queue<'a, T> {
    pieces: Mutex<Enumerate<ChunksMut<'a, T>>>,
    failure: Mutex<Option<(usize, Error)>>,
}

impl<'a, T> Queue<'a, T> {
    fn next(&self) -> Option<(usize, &'a mut [T])> {
        // All pieces before one that failed have been taken.
        if lock(&self.failure).is_some() { None } else { lock(&self.pieces).next() }
    }

    fn fail(&self, index: usize, error: Error) {
        let mut failure = lock(&self.failure);
        if failure.as_ref().is_none_or(|(first, _)| index < *first) {
            *failure = Some((index, error));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_worked_on_once_by_any_number_of_threads() {
        for threads in [1, 2, 7, 5000] {
            for (count, size) in [(0, 3), (1, 0), (10, 3), (1000, 7), (1000, 5000)] {
                let mut all = vec![0usize; count];
                let add = |index: usize, piece: &mut [usize]| {
                    assert_eq!(super::threads(), 1);
                    piece.iter_mut().zip(index * size.max(1)..).for_each(|(to, at)| *to += at + 1);
                    Ok(())
                };
                with_threads(threads, || each(&mut all, size, add)).unwrap();
                assert!(all.into_iter().eq(1..=count), "{threads} {count} {size}");
            }
        }
    }

    #[test]
    fn the_first_failure_is_the_error() {
        for threads in [1, 2, 4] {
            let fail = |index: usize, _: &mut [u8]| match index {
                3.. => Err(Error::argument("test", format!("piece {index}"))),
                _ => Ok(()),
            };
            let error = with_threads(threads, || each(&mut [0; 100], 1, fail)).unwrap_err();
            assert!(error.to_string().contains("piece 3"), "{error}");
        }
    }

    #[test]
    fn both_share_the_threads() {
        for (threads, shared) in [(1, (1, 1)), (2, (1, 1)), (5, (2, 3))] {
            assert_eq!(with_threads(threads, || both(super::threads, super::threads)), shared);
        }
    }
}
