//! Register tiles of several output rows, which share the input rows that they read.

use crate::simd::{Real, Simd, Vector};

/// How a tile of rows reads.
pub(super) struct Rows<'a, T> {
    pub kernel: [usize; 2],
    pub pitch: usize,
    pub offsets: &'a [usize],
    pub weights: &'a [T],
    pub sum_pitch: usize,
}

impl<T: Real> Rows<'_, T> {
    /// The sums of `R` rows of `V` vectors: each input row is loaded once for all output rows that it counts for. Every sum
    /// still takes its taps in sequence.
    ///
    /// # Safety
    /// Everything that the positions and taps reach is readable, and the rows of sums are writable for whole vectors.
    #[inline(always)]
    pub unsafe fn tile<S: Simd, const R: usize, const V: usize>(&self, from: *const T, to: *mut T) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.kernel[0] {
                3 => self.fixed::<S, R, V, 3>(from, to),
                5 => self.fixed::<S, R, V, 5>(from, to),
                7 => self.fixed::<S, R, V, 7>(from, to),
                _ => self.fixed::<S, R, V, 0>(from, to),
            }
        }
    }

    /// [`tile`](Self::tile) with the kernel's height `H` known at compile time; 0 is any height.
    #[inline(always)]
    unsafe fn fixed<S: Simd, const R: usize, const V: usize, const H: usize>(&self, from: *const T, to: *mut T) {
        let lanes = T::Vec::<S>::LANES;
        let [height, width] = self.kernel;
        // Taps may be turned round: then offsets go down, and input rows are taken from the last. Sum j is that of output row
        // j, or of row R - 1 - j: either way input row number r, in the order taken, meets tap row r - j.
        let turned = self.offsets[width] < self.offsets[0];
        let mut sums = [[T::Vec::<S>::zero(); V]; R];
        // SAFETY: the caller's promise.
        unsafe {
            // A plane of the kernel at a time.
            let planes = self.offsets.chunks_exact(height * width);
            for (offsets, weights) in planes.zip(self.weights.chunks_exact(height * width)) {
                // Input row 0 of the tile for the first column of taps.
                let first = from.add(if turned { offsets[(height - 1) * width] } else { offsets[0] });
                let row_at = |row: usize| first.add(if turned { height + R - 2 - row } else { row } * self.pitch);
                // Written out for known heights, so that which taps meet is known as well.
                macro_rules! rows {
                    ($($row:literal)*) => {$(
                        if $row < H + R - 1 {
                            self.row::<S, R, V>($row, H, row_at($row), offsets, weights, &mut sums);
                        }
                    )*};
                }
                if H > 0 {
                    rows!(0 1 2 3 4 5 6 7 8 9);
                } else {
                    for row in 0..height + R - 1 {
                        self.row::<S, R, V>(row, height, row_at(row), offsets, weights, &mut sums);
                    }
                }
            }
            for (j, row) in sums.iter().enumerate() {
                let to = to.add(if turned { R - 1 - j } else { j } * self.sum_pitch);
                for (i, sum) in row.iter().enumerate() {
                    sum.store_ptr(to.add(i * lanes));
                }
            }
        }
    }

    /// What one input row adds.
    ///
    /// # Safety
    /// As [`tile`](Self::tile).
    #[inline(always)]
    unsafe fn row<S: Simd, const R: usize, const V: usize>(
        &self,
        row: usize,
        height: usize,
        from: *const T,
        offsets: &[usize],
        weights: &[T],
        sums: &mut [[T::Vec<S>; V]; R],
    ) {
        let lanes = T::Vec::<S>::LANES;
        let width = self.kernel[1];
        // SAFETY: the caller's promise; taps below the height are inside the weights.
        unsafe {
            for column in 0..width {
                let from = from.offset(*offsets.get_unchecked(column) as isize - offsets[0] as isize);
                let mut vectors = [T::Vec::<S>::zero(); V];
                for (i, vector) in vectors.iter_mut().enumerate() {
                    *vector = T::Vec::<S>::load_ptr(from.add(i * lanes));
                }
                for (j, sums) in sums.iter_mut().enumerate() {
                    let tap = row.wrapping_sub(j);
                    if tap < height {
                        let weight = T::Vec::<S>::splat(*weights.get_unchecked(tap * width + column));
                        for (sum, vector) in sums.iter_mut().zip(vectors) {
                            *sum = vector.mul_add(weight, *sum);
                        }
                    }
                }
            }
        }
    }
}
