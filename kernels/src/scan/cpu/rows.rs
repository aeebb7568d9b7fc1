//! Rows of sixteen channels at one step, gathered from and scattered to tensors whose last axis is time.

use std::ops::Range;

use crate::simd::prefetch;
pub(super) use crate::simd::{Column as Row, gather, scatter};

/// The number of channels of a row.
pub(super) const LANES: usize = 16;

/// Prefetches the cache lines of `steps` elements from each of the rows; row 0 starts at `first`. Hardware prefetchers don't
/// follow rows that are a page or more apart. Prefetching all rows at once would stall, so callers prefetch a few at a time.
#[inline(always)]
pub(super) fn expect<T>(from: &[T], first: usize, stride: usize, rows: Range<usize>, steps: usize) {
    for i in rows {
        for t in (0..steps).step_by(64 / size_of::<T>()) {
            if let Some(address) = from.get(first + i * stride + t) {
                prefetch(address);
            }
        }
    }
}

/// Takes `capacity` rows from the front of `rows` and returns the first `count` of them.
#[inline(always)]
pub(super) fn cut<'a, T>(rows: &mut &'a mut [Row<T>], capacity: usize, count: usize) -> &'a mut [Row<T>] {
    let (array, rest) = std::mem::take(rows).split_at_mut(capacity);
    *rows = rest;
    &mut array[..count]
}
