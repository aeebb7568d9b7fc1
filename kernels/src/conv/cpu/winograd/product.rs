//! The register tile of the products between transforms.

use crate::simd::{Real, Simd, Vector};

/// How many vectors of output channels a strip is wide.
pub(super) const VECTORS: usize = 2;

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
    macro_rules! tiles {
        ($rows:literal) => {
            while rows - done >= $rows {
                // SAFETY: the caller's promise, for the next rows.
                unsafe {
                    let left = Left { a: left.a.add(done * left.row), ..left };
                    let c = c.add(done * width);
                    if vectors == 2 {
                        tile::<S, T, CONTIGUOUS, $rows, 2>(left, b, c, accumulate);
                    } else {
                        tile::<S, T, CONTIGUOUS, $rows, 1>(left, b, c, accumulate);
                    }
                }
                done += $rows;
            }
        };
    }
    if S::REGISTERS >= 32 {
        tiles!(12);
        tiles!(8);
    } else {
        tiles!(6);
    }
    tiles!(4);
    tiles!(2);
    tiles!(1);
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
            for _ in 0..left.k {
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
