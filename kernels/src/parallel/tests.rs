//! Chunks, partitions, slots and settings.

use super::*;
use crate::simd::Isa;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn each_item_is_seen_once_whatever_the_threads() {
    for threads in [1, 2, 5] {
        for (range, grain) in [(0, 3), (1, 3), (3, 3), (100, 7), (5, 0)] {
            let seen: Vec<AtomicUsize> = (0..range).map(|_| AtomicUsize::new(0)).collect();
            let chunks = Mutex::new(Vec::new());
            with_threads(threads, || {
                parallel_for(range, grain, |chunk| {
                    chunk.clone().for_each(|i| {
                        seen[i].fetch_add(1, Ordering::Relaxed);
                    });
                    chunks.lock().unwrap().push((chunk.start, chunk.end));
                })
            })
            .unwrap();
            assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1));
            let mut chunks = chunks.into_inner().unwrap();
            chunks.sort();
            let grain = grain.max(1);
            let expected: Vec<_> = (0..range).step_by(grain).map(|i| (i, range.min(i + grain))).collect();
            assert_eq!(chunks, expected);
        }
    }
}

#[test]
fn a_panic_is_an_error_and_the_pool_lives_on() {
    for threads in [1, 3] {
        let result = with_threads(threads, || {
            parallel_for(10, 1, |chunk| assert!(chunk.start != 4, "chunk {} is bad", chunk.start))
        });
        assert_eq!(result.unwrap_err().to_string(), "parallel_for: chunk 4 is bad");
        with_threads(threads, || parallel_for(10, 1, |_| ())).unwrap();
    }
}

#[test]
fn callers_share_helpers_that_sleep_and_wake() {
    let body = |caller: usize| {
        for round in 0..100 {
            let sum = AtomicUsize::new(0);
            with_threads(2 + caller % 3, || {
                parallel_for(20, 1, |chunk| {
                    sum.fetch_add(chunk.start, Ordering::Relaxed);
                })
            })
            .unwrap();
            assert_eq!(sum.into_inner(), 190);
            if round % 25 == 0 {
                // Longer than a helper stays awake.
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        }
    };
    std::thread::scope(|scope| (0..6).for_each(|caller| drop(scope.spawn(move || body(caller)))));
}

#[test]
fn a_nested_section_runs_inline() {
    with_threads(3, || {
        parallel_for(6, 1, |_| {
            let outer = std::thread::current().id();
            parallel_for(4, 1, |_| assert_eq!(std::thread::current().id(), outer)).unwrap();
        })
    })
    .unwrap();
}

#[test]
fn settings_reach_the_chunks_and_end_with_their_scope() {
    let before = Settings::current();
    let settings = Settings::default().isa(Isa::Portable).unwrap().order(Order::Shuffled(3)).threads(4);
    with_settings(settings, || {
        assert_eq!(threads(), 4);
        parallel_for(8, 1, |_| assert_eq!(current_isa(), Isa::Portable)).unwrap();
    });
    let panicked = std::panic::catch_unwind(|| with_settings(settings, || panic!("out")));
    assert!(panicked.is_err());
    assert_eq!(Settings::current(), before);
}

#[test]
fn shuffled_chunks_come_in_another_order() {
    let order = Mutex::new(Vec::new());
    with_settings(Settings::default().threads(1).order(Order::Shuffled(1)), || {
        parallel_for(50, 1, |chunk| order.lock().unwrap().push(chunk.start))
    })
    .unwrap();
    let mut order = order.into_inner().unwrap();
    assert!(!order.is_sorted());
    order.sort();
    assert_eq!(order, (0..50).collect::<Vec<_>>());
}

#[test]
fn workers_are_counted() {
    with_threads(2, || parallel_for(4, 1, |_| ())).unwrap();
    assert!(workers_seen() >= 1);
}

#[test]
fn a_partition_gives_each_block_once() {
    let mut numbers = vec![0; 10];
    let partition = Partition::new(&mut numbers, 4);
    parallel_for(3, 1, |chunk| partition.block(chunk.start).fill(chunk.start + 1)).unwrap();
    let twice = parallel_for(1, 1, |_| {
        partition.take(0..4);
    });
    assert!(twice.unwrap_err().to_string().contains("claimed twice"));
    let crooked = parallel_for(1, 1, |_| {
        partition.take(1..4);
    });
    assert!(crooked.unwrap_err().to_string().contains("doesn't fit"));
    assert_eq!(numbers, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]);
}

#[test]
fn a_grid_gives_each_tile_once() {
    let mut numbers = vec![0; 5 * 7];
    let grid = Grid::new(&mut numbers, 5, 7, 2, 3).unwrap();
    parallel_for(9, 1, |chunk| {
        let mut tile = grid.tile(chunk.start / 3, chunk.start % 3);
        for row in 0..tile.rows() {
            tile.row(row).fill(chunk.start + 1);
        }
    })
    .unwrap();
    assert!(
        parallel_for(1, 1, |_| {
            grid.tile(2, 2);
        })
        .is_err()
    );
    assert!(
        parallel_for(1, 1, |_| {
            grid.tile(3, 0);
        })
        .is_err()
    );
    for (i, &n) in numbers.iter().enumerate() {
        assert_eq!(n, i / 7 / 2 * 3 + i % 7 / 3 + 1);
    }
}

#[test]
fn slots_are_summed_in_a_fixed_tree() {
    let mut buffer = vec![f32::NAN; 5 * 2];
    let mut slots = PartialSlots::new(&mut buffer, 2).unwrap();
    {
        let parts = slots.slots();
        parallel_for(5, 1, |chunk| {
            let slot = parts.block(chunk.start);
            slot[0] += [1e8, 1.0, -1e8, 1.0, 0.5][chunk.start];
            slot[1] += 1.0;
        })
        .unwrap();
    }
    let tree = ((1e8f32 + 1.0) + (-1e8 + 1.0)) + 0.5;
    assert_eq!(slots.sum(), [tree, 5.0]);
    assert!(PartialSlots::<f32>::new(&mut [], 3).unwrap().sum().is_empty());
}
