//! Rows of sixteen channels at one step, from and to tensors whose last axis is time.

use std::ops::Range;

use crate::simd::prefetch;
pub(super) use crate::simd::{Column as Row, gather, scatter};

/// Channels of a row.
pub(super) const LANES: usize = 16;

/// Asks for the cache lines of `steps` from each of the rows, of which the first begins at `first`. Rows that lie a page or more
/// apart are no stream that the processor follows; and asking for all at once would stall, so callers take a few at a time.
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

/// Cuts `capacity` rows off, and gives the first `count` of them.
#[inline(always)]
pub(super) fn cut<'a, T>(rows: &mut &'a mut [Row<T>], capacity: usize, count: usize) -> &'a mut [Row<T>] {
    let (array, rest) = std::mem::take(rows).split_at_mut(capacity);
    *rows = rest;
    &mut array[..count]
}
