//! Packing: copies operands into the order in which the register tile reads them.

use super::tile::{next_vectors, panel_rows};
use crate::simd::{Real, Simd, Vector};

/// Packs `rows` rows (at most a panel) of `k` elements into `to[k][panel_rows]`; missing rows become zeros.
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
        let mut done = 0;
        if rows == width && step == 1 && width == 8 {
            while done + 8 <= k {
                T::Vec::<S>::transpose_8x8(from.add(done), row_stride, to.add(done * 8), 8);
                done += 8;
            }
        }
        if rows == width && row_stride == 1 {
            for j in 0..k {
                to.add(j * panel_rows::<S>()).copy_from_nonoverlapping(from.add(j * step), panel_rows::<S>());
            }
            return;
        }
        if rows == width {
            // With a constant width, the compiler turns the copies of one step into a few wide instructions.
            for j in done..k {
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

/// Packs a block of `k` rows of `columns` elements into panels `to[panel][k][width]`, whose width [`next_vectors`]
/// determines. Columns beyond the last become zeros. A panel has room for `panel_k` ≥ `k` rows.
///
/// # Safety
/// `from[i * row_stride + j * column_stride]` is readable for i < k, j < columns; `to` is writable for `columns` rounded up
/// to vectors, times `panel_k`.
#[inline(always)]
pub(crate) unsafe fn pack_block<S: Simd, T: Real>(
    from: *const T,
    row_stride: usize,
    column_stride: usize,
    k: usize,
    columns: usize,
    panel_k: usize,
    to: *mut T,
) {
    let lanes = T::Vec::<S>::LANES;
    let panel = |first: usize| next_vectors::<S>((columns - first).div_ceil(lanes)) * lanes;
    // SAFETY: by the caller's promise; the zeros of the last panel lie inside its own room.
    unsafe {
        if column_stride == 1 {
            // Row by row, since the rows may be pages apart.
            for i in 0..k {
                let from = from.add(i * row_stride);
                let mut first = 0;
                while first < columns {
                    let width = panel(first);
                    let count = width.min(columns - first);
                    let (from, to) = (from.add(first), to.add(first * panel_k + i * width));
                    for j in (0..width).step_by(lanes) {
                        let vector = if j + lanes <= count {
                            T::Vec::<S>::load_ptr(from.add(j))
                        } else {
                            T::Vec::<S>::load_partial_ptr(from.add(j.min(count)), count.saturating_sub(j))
                        };
                        vector.store_ptr(to.add(j));
                    }
                    first += width;
                }
            }
            return;
        }
        let mut first = 0;
        while first < columns {
            let width = panel(first);
            let count = width.min(columns - first);
            let to = to.add(first * panel_k);
            let from = from.add(first * column_stride);
            // In blocks of 8 × 8, eight columns at a time from end to end: few enough streams for the hardware prefetcher, and a
            // cache line of each column is used completely while it is cached.
            for j in (0..width).step_by(8) {
                for i in (0..k).step_by(8) {
                    let from = from.add(i * row_stride);
                    if row_stride == 1 && i + 8 <= k && j + 8 <= count {
                        let from = from.add(j * column_stride);
                        T::Vec::<S>::transpose_8x8(from, column_stride, to.add(i * width + j), width);
                        continue;
                    }
                    let (size, real) = (8.min(width - j), 8.min(count.saturating_sub(j)));
                    for step in 0..8.min(k - i) {
                        let to = to.add((i + step) * width + j);
                        for x in 0..real {
                            *to.add(x) = *from.add(step * row_stride + (j + x) * column_stride);
                        }
                        for x in real..size {
                            *to.add(x) = T::ZERO;
                        }
                    }
                }
            }
            first += width;
        }
    }
}
