//! The register tile of the products between the transforms.

use crate::simd::{Real, Simd, Vector, prefetch_near};

/// The width of a strip of output channels, in vectors.
pub(super) const VECTORS: usize = 2;

/// How many steps ahead the right matrix is prefetched.
const AHEAD: usize = 12;

/// The width of a strip of output channels, in elements.
#[inline(always)]
pub(super) fn strip<S: Simd, T: Real>() -> usize {
    VECTORS * T::Vec::<S>::LANES
}

/// The layout of the left matrix: `a[segment + i * row + k * step]`; a sum runs over the segments one after the other.
#[derive(Clone, Copy)]
pub(super) struct Left<'a, T> {
    pub a: *const T,
    pub row: usize,
    pub step: usize,
    pub segments: &'a [usize],
    /// Steps (values of k) of a segment.
    pub k: usize,
}

/// `c[i * width + j] (+)= Σ_k a[i, k] b[k * width + j]` for `rows` rows and a width of `vectors` vectors. Each element is one
/// chain of FMAs. `CONTIGUOUS` says which stride of the left matrix is 1: that of `k` if true, that of `i` if false.
///
/// # Safety
/// All operands are readable, and `c` is writable.
#[inline(always)]
pub(super) unsafe fn product<S: Simd, T: Real, const CONTIGUOUS: bool>(
    rows: usize,
    vectors: usize,
    left: Left<'_, T>,
    b: *const T,
    c: *mut T,
    accumulate: bool,
) {
    let width = vectors * T::Vec::<S>::LANES;
    let mut done = 0;
    // Tiles of `$rows` rows, while at least `$least` rows are left. If fewer rows are left than a tile has, the tile starts
    // earlier and recomputes some rows: this costs less than a small tile, which is limited by the latency of its FMA chains.
    macro_rules! tiles {
        ($rows:literal, $least:expr) => {
            while rows - done >= $least {
                let first = done.min(rows.saturating_sub($rows));
                // SAFETY: the caller's promise, for these rows.
                unsafe {
                    let left = Left { a: left.a.add(first * left.row), ..left };
                    let c = c.add(first * width);
                    if vectors == 2 {
                        tile::<S, T, CONTIGUOUS, $rows, 2>(left, b, c, accumulate);
                    } else {
                        tile::<S, T, CONTIGUOUS, $rows, 1>(left, b, c, accumulate);
                    }
                }
                done = first + $rows;
            }
        };
    }
    // The number of remaining rows from which a tile is used. When accumulating, recomputed rows would be added twice, so
    // only full tiles are allowed.
    let least = |tile: usize, few: usize| if accumulate || rows < tile { tile } else { few };
    if !S::TILES {
        // One row at a time, below.
    } else if S::WIDE {
        tiles!(12, least(12, 9));
        tiles!(8, least(8, 5));
        tiles!(4, least(4, 1));
    } else {
        tiles!(6, least(6, 5));
        tiles!(4, least(4, 1));
    }
    if S::TILES {
        tiles!(2, 2);
    }
    tiles!(1, 1);
}

#[inline(always)]
unsafe fn tile<S: Simd, T: Real, const CONTIGUOUS: bool, const R: usize, const V: usize>(
    left: Left<'_, T>,
    mut b: *const T,
    c: *mut T,
    accumulate: bool,
) {
    let lanes = T::Vec::<S>::LANES;
    let mut sums = [[T::Vec::<S>::zero(); V]; R];
    // SAFETY: the caller's promise.
    unsafe {
        if accumulate {
            for (i, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
                *sum = T::Vec::<S>::load_ptr(c.add(i * lanes));
            }
        }
        for &segment in left.segments {
            let mut a = left.a.add(segment);
            for step in 0..left.k {
                if CONTIGUOUS {
                    // Prefetches the next rows and later parts of the strip; both are in the L2 cache.
                    prefetch_near(left.a.wrapping_add(segment + R * left.row + step * R));
                    for j in 0..V {
                        prefetch_near(b.wrapping_add((AHEAD * V + j) * lanes));
                    }
                }
                let mut row = [T::Vec::<S>::zero(); V];
                for (j, vector) in row.iter_mut().enumerate() {
                    *vector = T::Vec::<S>::load_ptr(b.add(j * lanes));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let factor = T::Vec::<S>::splat(*a.add(if CONTIGUOUS { i * left.row } else { i }));
                    for (sum, vector) in sums.iter_mut().zip(row) {
                        *sum = factor.mul_add(vector, *sum);
                    }
                }
                b = b.add(V * lanes);
                a = a.add(if CONTIGUOUS { 1 } else { left.step });
            }
        }
        for (i, sum) in sums.as_flattened().iter().enumerate() {
            sum.store_ptr(c.add(i * lanes));
        }
    }
}
