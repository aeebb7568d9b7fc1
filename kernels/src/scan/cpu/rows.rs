//! Rows of sixteen channels at one step, from and to tensors whose last axis is time.

use std::{mem::MaybeUninit, ops::Range};

use crate::simd::{Real, Vector, prefetch};

/// Channels of a row.
pub(super) const LANES: usize = 16;

/// Sixteen channels at one step.
pub(super) type Row<T> = [T; LANES];

/// `to[t][i] = from[i * stride + t]` for `count` channels i, and 0 for the others.
#[inline(always)]
pub(super) fn gather<V: Vector>(from: &[V::Elem], stride: usize, count: usize, to: &mut [Row<V::Elem>]) {
    let steps = to.len();
    assert!(count <= LANES && (count == 0 || from.len() >= (count - 1) * stride + steps), "rows to gather");
    let (whole_channels, whole_steps) = (count / 8 * 8, steps / 8 * 8);
    for i in (0..whole_channels).step_by(8) {
        for t in (0..whole_steps).step_by(8) {
            // SAFETY: channels up to i + 7 and steps up to t + 7 are inside of both, by the check above.
            unsafe {
                V::transpose_8x8(from.as_ptr().add(i * stride + t), stride, to[t].as_mut_ptr().add(i), LANES);
            }
        }
    }
    for (t, row) in to.iter_mut().enumerate() {
        let first = if t < whole_steps { whole_channels } else { 0 };
        for (i, value) in row.iter_mut().enumerate().skip(first) {
            *value = if i < count { from[i * stride + t] } else { V::Elem::ZERO };
        }
    }
}

/// `to[i * stride + t] = from[t][i]` for `count` channels i.
#[inline(always)]
pub(super) fn scatter<V: Vector>(from: &[Row<V::Elem>], to: &mut [MaybeUninit<V::Elem>], stride: usize, count: usize) {
    let steps = from.len();
    assert!(count <= LANES && (count == 0 || to.len() >= (count - 1) * stride + steps), "rows to scatter");
    let (whole_channels, whole_steps) = (count / 8 * 8, steps / 8 * 8);
    for i in (0..whole_channels).step_by(8) {
        for t in (0..whole_steps).step_by(8) {
            // SAFETY: channels up to i + 7 and steps up to t + 7 are inside of both, by the check above.
            unsafe {
                let to = to.as_mut_ptr().add(i * stride + t).cast();
                V::transpose_8x8(from[t].as_ptr().add(i), LANES, to, stride);
            }
        }
    }
    for (t, row) in from.iter().enumerate() {
        let first = if t < whole_steps { whole_channels } else { 0 };
        for (i, &value) in row.iter().enumerate().take(count).skip(first) {
            to[i * stride + t].write(value);
        }
    }
}

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
