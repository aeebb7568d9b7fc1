//! Work on many files at once.

use std::{
    num::NonZero,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// The results of `work` on all items, in their order, by as many threads as there are processors.
pub(crate) fn in_order<I: Send, O: Send>(items: Vec<I>, work: impl Fn(I) -> O + Sync) -> Vec<O> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(items.len());
    let items: Vec<Mutex<Option<I>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
    let results: Vec<Mutex<Option<O>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    // A thread that panics ends the program when the scope joins it, so that no lock is poisoned here.
    let taken = |slot: &Mutex<Option<I>>| slot.lock().map_or(None, |mut slot| slot.take());
    let worker = || {
        while let Some((item, result)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            items.get(at).zip(results.get(at))
        } {
            if let Some(item) = taken(item) {
                let done = work(item);
                if let Ok(mut result) = result.lock() {
                    *result = Some(done);
                }
            }
        }
    };
    thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(worker)));
    results.into_iter().filter_map(|result| result.into_inner().ok().flatten()).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_have_the_order_of_the_items() {
        let slow_first = |item: u64| {
            std::thread::sleep(std::time::Duration::from_millis(20 - item));
            item * 2
        };
        assert_eq!(super::in_order((0..20).collect(), slow_first), (0..20).map(|item| item * 2).collect::<Vec<_>>());
        assert!(super::in_order(Vec::<u8>::new(), |item| item).is_empty());
    }
}
