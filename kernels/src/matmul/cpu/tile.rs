//! The register tile (micro-kernel): the inner loop of matrix multiplication and of dense convolution.

use crate::simd::{Real, Simd, Vector, prefetch_near};
use std::ops::Range;

/// The number of rows of a tile and of a packed panel.
#[inline(always)]
pub(crate) const fn panel_rows<S: Simd>() -> usize {
    if S::WIDE { 8 } else { 6 }
}

/// The rows of a panel, if the panels together have `rows` rows: full panels and a rest. With panels of six rows, a rest of
/// one or two rows is avoided by sharing the rows of the last two panels more evenly: a tile of two rows takes as long as one
/// of four, since it is limited by the latency of its FMA chains.
#[inline(always)]
pub(crate) fn rows_of_panel<S: Simd>(panel: usize, rows: usize) -> Range<usize> {
    let height = panel_rows::<S>();
    let last = rows.div_ceil(height) - 1;
    let moved = if height == 6 && last > 0 && matches!(rows % 6, 1 | 2) { 2 } else { 0 };
    let start = |panel: usize| panel * height - if panel == last { moved } else { 0 };
    start(panel)..if panel == last { rows } else { start(panel + 1) }
}

/// The width of a tile in vectors: 8 × 3 takes 24 of 32 registers for accumulators, 6 × 2 takes 12 of 16. (4 × 3 would need
/// all 16 registers in its inner loop, and compilers then move values between registers.)
#[inline(always)]
pub(crate) const fn tile_vectors<S: Simd>() -> usize {
    if S::WIDE { 3 } else { 2 }
}

/// The width in vectors of the next tile if `left` vectors are left: the largest possible, except that four are divided into
/// two and two rather than three and one.
#[inline(always)]
pub(crate) fn next_vectors<S: Simd>(left: usize) -> usize {
    if left == 4 { 2 } else { left.min(tile_vectors::<S>()) }
}

/// A number of rows that is a whole number of panels for every instruction set.
pub(crate) const ROW_UNIT: usize = 24;

/// The number of columns of a tile.
#[inline(always)]
pub(crate) fn tile_columns<S: Simd, T: Real>() -> usize {
    tile_vectors::<S>() * T::Vec::<S>::LANES
}

/// How many steps ahead a streaming panel is prefetched. (With 16 registers it isn't: a step then has half as many FMAs, too
/// few to hide the prefetch instructions.)
const AHEAD: usize = 8;

/// Rows at a constant distance.
#[derive(Clone, Copy)]
pub(crate) struct Rows<T> {
    pub first: *mut T,
    pub stride: usize,
}

/// The starting values of a tile's sums, which are only read.
#[derive(Clone, Copy)]
pub(crate) enum Begin<T> {
    /// Zeros.
    Zero,
    /// A value for each sum. Rows at a distance of 0 are one row.
    Tile(Rows<T>),
    /// A value for each row, of so many rows.
    Rows(*const T, usize),
}

impl<T> From<Option<Rows<T>>> for Begin<T> {
    fn from(rows: Option<Rows<T>>) -> Self {
        rows.map_or(Self::Zero, Self::Tile)
    }
}

/// The left operand of a tile: element (i, k) is at `first[i * row + k * step]`.
#[derive(Clone, Copy)]
pub(crate) struct Left<T> {
    pub first: *const T,
    pub row: usize,
    pub step: usize,
    /// The distance to the panel that is read next, to be prefetched; 0 if it isn't known.
    pub next: usize,
}

impl<T> Left<T> {
    /// A packed panel.
    #[inline(always)]
    pub fn panel<S: Simd>(first: *const T) -> Self {
        Left { first, row: 1, step: panel_rows::<S>(), next: 0 }
    }

    /// The operand from step `k` on.
    #[inline(always)]
    pub fn from(self, k: usize) -> Self {
        Left { first: self.first.wrapping_add(k * self.step), ..self }
    }
}

/// Computes a tile of `rows` rows (at most a panel's) and `vectors` vectors: the starting values plus, in sequence over k,
/// the products of a column of `a` and a row of `b`:
///
/// `c[i, j] = start[i, j] + Σ_k a[i, k] * b[offsets[k] + j]`
///
/// Each element is one chain of FMAs from zero or its starting value, so its bits depend neither on the size of the tile nor
/// on where the range of k was split. The number of rows is rounded up, see [`rounded_rows`]. If `a` and `b` are packed and
/// stream from the L2 cache or beyond (`STREAMING`), they are prefetched some steps ahead, and so is `c`.
///
/// # Safety
/// `a` is readable for the rounded-up rows of `offsets.len()` steps, `b` for `vectors` vectors from each offset, and `c`
/// writable for the rounded-up rows of `vectors` vectors; so is `start` readable, which may be `c`, or has its number of rows.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, T: Real, const STREAMING: bool>(
    rows: usize,
    vectors: usize,
    a: Left<T>,
    b: *const T,
    offsets: &[usize],
    start: Begin<T>,
    c: Rows<T>,
) {
    if !S::TILES {
        let lanes = T::Vec::<S>::LANES;
        let rows_from = |rows: Rows<T>, i: usize, j: usize| Rows {
            first: rows.first.wrapping_add(i * rows.stride + j * lanes),
            ..rows
        };
        for i in 0..rounded_rows::<S>(rows) {
            let a = Left { first: a.first.wrapping_add(i * a.row), ..a };
            for j in 0..vectors {
                let start = match start {
                    Begin::Zero => Begin::Zero,
                    Begin::Tile(rows) => Begin::Tile(rows_from(rows, i, j)),
                    Begin::Rows(numbers, count) => Begin::Rows(numbers.wrapping_add(i.min(count - 1)), 1),
                };
                // SAFETY: the caller's promise, for this row and vector.
                unsafe { fixed::<S, T, false, 1, 1>(a, b.wrapping_add(j * lanes), offsets, start, rows_from(c, i, j)) };
            }
        }
        return;
    }
    macro_rules! sized {
        ($rows:literal) => {
            // SAFETY: as the caller's promise for `tile`.
            unsafe {
                if S::WIDE {
                    if vectors > 2 {
                        return fixed::<S, T, STREAMING, $rows, 3>(a, b, offsets, start, c);
                    }
                }
                if vectors > 1 {
                    fixed::<S, T, STREAMING, $rows, 2>(a, b, offsets, start, c);
                } else {
                    fixed::<S, T, STREAMING, $rows, 1>(a, b, offsets, start, c);
                }
            }
        };
    }
    if rows > 4 {
        if S::WIDE { sized!(8) } else { sized!(6) }
    } else if rows > 2 {
        sized!(4)
    } else if rows == 2 {
        sized!(2)
    } else {
        sized!(1)
    }
}

/// The number of rows that [`tile`] computes for `rows` rows.
#[inline(always)]
pub(crate) fn rounded_rows<S: Simd>(rows: usize) -> usize {
    if rows > 4 { panel_rows::<S>() } else { rows.next_power_of_two() }
}

/// How many tiles may use a panel of the left operand for which reading it in place is faster than packing it.
pub(crate) const FEW_TILES: usize = 6;

/// Whether a left operand is read in place: few tiles use each of its panels, its steps are contiguous, and the tiles of its
/// panels, which have `rows` rows each, read no row beyond the last.
#[inline(always)]
pub(crate) fn in_place<S: Simd>(tiles: usize, step: usize, mut rows: impl Iterator<Item = usize>) -> bool {
    tiles <= FEW_TILES && step == 1 && rows.all(|rows| rounded_rows::<S>(rows) == rows)
}

/// [`tile`] with a size that is known at compile time, so that the accumulators stay in registers.
#[inline(always)]
unsafe fn fixed<S: Simd, T: Real, const STREAMING: bool, const R: usize, const V: usize>(
    mut a: Left<T>,
    b: *const T,
    offsets: &[usize],
    start: Begin<T>,
    c: Rows<T>,
) {
    let lanes = T::Vec::<S>::LANES;
    let mut sums = [[T::Vec::<S>::zero(); V]; R];
    // SAFETY: by the caller's promise, every access is inside `a`, `b`, `start` or `c`.
    unsafe {
        match start {
            Begin::Zero => {}
            Begin::Tile(start) => {
                for (i, row) in sums.iter_mut().enumerate() {
                    for (j, sum) in row.iter_mut().enumerate() {
                        *sum = T::Vec::<S>::load_ptr(start.first.add(i * start.stride + j * lanes));
                    }
                }
            }
            Begin::Rows(numbers, count) => {
                for (i, row) in sums.iter_mut().enumerate() {
                    *row = [T::Vec::<S>::splat(*numbers.add(i.min(count - 1))); V];
                }
            }
        }
        // The rows of the output are prefetched one at a time during the loop: all at once they would delay the loads.
        let part = if STREAMING { offsets.len().div_ceil(R) } else { offsets.len() }.max(1);
        for (i, offsets) in offsets.chunks(part).enumerate() {
            for j in 0..if STREAMING { V } else { 0 } {
                prefetch_near(c.first.wrapping_add(i * c.stride + j * lanes));
            }
            for (k, &offset) in offsets.iter().enumerate() {
                let b = b.add(offset);
                if STREAMING && S::WIDE {
                    for j in 0..V {
                        prefetch_near(b.wrapping_add((AHEAD * V + j) * lanes));
                    }
                    if a.next > 0 {
                        // A row that is read in place is too short for the hardware to follow it, so the next panel's are
                        // prefetched while this one's are read, in turn: there are R steps at least to a cache line.
                        prefetch_near(a.first.wrapping_add(a.next + k % R * a.row));
                    } else {
                        prefetch_near(a.from(2 * AHEAD).first);
                    }
                }
                let mut row = [T::Vec::<S>::zero(); V];
                for (j, vector) in row.iter_mut().enumerate() {
                    *vector = T::Vec::<S>::load_ptr(b.add(j * lanes));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = T::Vec::<S>::splat(*a.first.add(i * a.row));
                    for (sum, vector) in sums.iter_mut().zip(row) {
                        *sum = factor.mul_add(vector, *sum);
                    }
                }
                a = a.from(1);
            }
        }
        for (i, row) in sums.iter().enumerate() {
            for (j, sum) in row.iter().enumerate() {
                sum.store_ptr(c.first.add(i * c.stride + j * lanes));
            }
        }
    }
}
