//! The register tile of the products between transforms.

use crate::simd::{Real, Simd, Vector, prefetch_near};

/// How many vectors of output channels a strip is wide.
pub(super) const VECTORS: usize = 2;

/// How many steps ahead the right matrix is asked for.
const AHEAD: usize = 12;

/// The width of a strip of output channels.
#[inline(always)]
pub(super) fn strip<S: Simd, T: Real>() -> usize {
    VECTORS * T::Vec::<S>::LANES
}

/// Where the left matrix lies: `a[segment + i * row + k * step]`; a sum runs over all segments in turn.
#[derive(Clone, Copy)]
pub(super) struct Left<'a, T> {
    pub a: *const T,
    pub row: usize,
    pub step: usize,
    pub segments: &'a [usize],
    /// Steps of a segment.
    pub k: usize,
}

/// `c[i * width + j] (+)= Σ_k a[i, k] b[k * width + j]` for `rows` rows and `vectors` vectors, `width` being those of the
/// vectors; each element is one chain of fused multiply-adds. `CONTIGUOUS` says which stride of the left matrix is 1: that
/// of steps (else that of rows).
///
/// # Safety
/// All of it is readable, and `c` writable.
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
    // Tiles of so many rows, while `least` rows are left. When fewer are left than the tile has, it begins earlier and
    // computes some rows again, which costs less than a small tile: that one waits for its chains of additions.
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
    // How few rows are left to a tile of `$rows`: what is added to would be added twice.
    let least = |tile: usize, few: usize| if accumulate || rows < tile { tile } else { few };
    if !S::TILES {
        // One row at a time, below.
    } else if S::REGISTERS >= 32 {
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
                    // The next rows, and what the strip has further on: both lie in the L2 cache.
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
