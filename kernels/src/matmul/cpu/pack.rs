//! Packing: operands in the order in which the register tile reads them.

use super::tile::panel_rows;
use crate::simd::{Real, Simd, Vector};

/// Packs `rows` rows (at most a panel) of `k` numbers into `to[k][panel_rows]`; missing rows are zeros.
///
/// # Safety
/// `from[i * row_stride + j * step]` is readable for all i < rows, j < k; `to` is writable for `k` panels.
#[inline(always)]
pub(crate) unsafe fn pack_panel<S: Simd, T: Real>(
    from: *const T,
    row_stride: usize,
    step: usize,
    rows: usize,
    k: usize,
    to: *mut T,
) {
    let width = panel_rows::<S>();
    // SAFETY: by the caller's promise.
    unsafe {
        if rows == width {
            // A constant width lets the copies of one step become a few wide instructions.
            for j in 0..k {
                for i in 0..panel_rows::<S>() {
                    *to.add(j * panel_rows::<S>() + i) = *from.add(i * row_stride + j * step);
                }
            }
            return;
        }
        for j in 0..k {
            for i in 0..width {
                *to.add(j * width + i) = if i < rows { *from.add(i * row_stride + j * step) } else { T::ZERO };
            }
        }
    }
}

/// Packs a block of `k` rows of `columns` numbers into panels `to[panel][k][width]`, `width` being a tile's columns;
/// columns beyond the last are zeros.
///
/// # Safety
/// `from[i * row_stride + j * column_stride]` is readable for i < k, j < columns; `to` is writable for
/// `columns.div_ceil(width) * width * k` numbers.
#[inline(always)]
pub(crate) unsafe fn pack_block<S: Simd, T: Real>(
    from: *const T,
    row_stride: usize,
    column_stride: usize,
    k: usize,
    columns: usize,
    width: usize,
    to: *mut T,
) {
    let lanes = T::Vec::<S>::LANES;
    // SAFETY: by the caller's promise; the last panel is filled up with zeros inside its own room.
    unsafe {
        for panel in 0..columns.div_ceil(width) {
            let first = panel * width;
            let count = width.min(columns - first);
            let to = to.add(first * k);
            let from = from.add(first * column_stride);
            if column_stride == 1 {
                for i in 0..k {
                    let (from, to) = (from.add(i * row_stride), to.add(i * width));
                    for j in (0..width).step_by(lanes) {
                        let vector = if j + lanes <= count {
                            T::Vec::<S>::load_ptr(from.add(j))
                        } else {
                            T::Vec::<S>::load_partial_ptr(from.add(j.min(count)), count.saturating_sub(j))
                        };
                        vector.store_ptr(to.add(j));
                    }
                }
            } else {
                // Eight rows at a time: a cache line of each column gives its numbers while it is at hand.
                for start in (0..k).step_by(8) {
                    let steps = 8.min(k - start);
                    for j in 0..width {
                        for i in start..start + steps {
                            *to.add(i * width + j) =
                                if j < count { *from.add(i * row_stride + j * column_stride) } else { T::ZERO };
                        }
                    }
                }
            }
        }
    }
}
