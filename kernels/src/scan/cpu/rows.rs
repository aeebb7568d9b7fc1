//! Rows of sixteen channels at one step, from and to tensors whose last axis is time.

use std::mem::MaybeUninit;

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

/// Asks for what `gather` of `steps` will read: rows that lie a page or more apart are no stream that the processor follows.
#[inline(always)]
pub(super) fn expect<T>(from: &[T], stride: usize, count: usize, steps: usize) {
    let line = 64 / size_of::<T>();
    for i in 0..count {
        for t in (0..steps).step_by(line) {
            if let Some(address) = from.get(i * stride + t) {
                prefetch(address);
            }
        }
    }
}
