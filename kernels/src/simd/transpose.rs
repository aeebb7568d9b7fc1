//! Transposing matrices in blocks of 8 × 8.

use super::{Real, Vector};
use std::mem::MaybeUninit;

/// `to[j * to_stride + i] = from[i * from_stride + j]` for `rows` rows i and `columns` columns j. The last block of a row or
/// column overlaps the one before it, so that all blocks are full.
///
/// # Safety
/// All these elements are readable or writable.
#[inline(always)]
pub(crate) unsafe fn transpose<V: Vector>(
    from: *const V::Elem,
    from_stride: usize,
    [rows, columns]: [usize; 2],
    to: *mut V::Elem,
    to_stride: usize,
) {
    // SAFETY: the caller's promise; blocks stay inside the matrix.
    unsafe {
        if rows < 8 || columns < 8 {
            for i in 0..rows {
                for j in 0..columns {
                    *to.add(j * to_stride + i) = *from.add(i * from_stride + j);
                }
            }
            return;
        }
        for i in (0..rows).step_by(8).map(|i| i.min(rows - 8)) {
            for j in (0..columns).step_by(8).map(|j| j.min(columns - 8)) {
                V::transpose_8x8(from.add(i * from_stride + j), from_stride, to.add(j * to_stride + i), to_stride);
            }
        }
    }
}

/// A column of sixteen rows.
pub(crate) type Column<T> = [T; 16];

/// `to[j][i] = from[i * stride + j]` for `count` rows i, and 0 for the others.
#[inline(always)]
pub(crate) fn gather<V: Vector>(from: &[V::Elem], stride: usize, count: usize, to: &mut [Column<V::Elem>]) {
    let columns = to.len();
    assert!(count <= 16 && (count == 0 || from.len() >= (count - 1) * stride + columns), "rows to gather");
    // SAFETY: rows and columns lie inside both slices, by the check above.
    unsafe { transpose::<V>(from.as_ptr(), stride, [count, columns], to.as_mut_ptr().cast(), 16) };
    for column in to {
        column[count..].fill(V::Elem::ZERO);
    }
}

/// `to[i * stride + j] = from[j][i]` for `count` rows i.
#[inline(always)]
pub(crate) fn scatter<V: Vector>(
    from: &[Column<V::Elem>],
    to: &mut [MaybeUninit<V::Elem>],
    stride: usize,
    count: usize,
) {
    let columns = from.len();
    assert!(count <= 16 && (count == 0 || to.len() >= (count - 1) * stride + columns), "rows to scatter");
    // SAFETY: rows and columns lie inside both slices, by the check above.
    unsafe { transpose::<V>(from.as_ptr().cast(), 16, [columns, count], to.as_mut_ptr().cast(), stride) };
}
