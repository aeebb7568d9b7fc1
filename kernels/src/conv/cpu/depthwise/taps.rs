//! The register tile that sums over the taps of a depthwise kernel.

use crate::conv::cpu::epilogue::Finish;
use crate::simd::{Real, Simd, Vector, prefetch};
use std::ops::Range;

/// The most rows of a tile.
pub(in crate::conv::cpu) const MOST_ROWS: usize = 16;
/// The width in vectors of the tile of a single row.
const VECTORS: usize = 8;
/// How many elements a tile may read beyond the end of a row.
pub(in crate::conv::cpu) const SLACK: usize = VECTORS * 16;
/// The largest number of taps of a column whose weights are held in registers together.
pub(in crate::conv::cpu) const GROUP: usize = 7;

/// How the taps of a plane read a packed plane: in columns of `height` taps, which read consecutive rows.
pub(super) struct Taps {
    pub planes: usize,
    pub height: usize,
    /// The offset of each column's first tap.
    pub columns: Vec<usize>,
    /// The distance from a packed row to the next.
    pub pitch: usize,
    /// The rows of taps, in groups whose weights are held in registers together. The order of summation is groups, planes,
    /// columns, rows of a group, and the weights are stored in this order.
    pub groups: Vec<Range<usize>>,
}

impl Taps {
    /// The offset of a group's weights for the columns of a plane.
    #[inline(always)]
    pub fn place(&self, group: &Range<usize>, plane: usize) -> usize {
        (group.start * self.planes + plane * group.len()) * self.columns.len()
    }
}

/// The [groups](Taps::groups) of `height` rows of taps. None has six rows, which are two groups of three: a size more to
/// compile, for kernels that hardly anybody uses.
pub(super) fn groups(height: usize) -> impl Iterator<Item = Range<usize>> {
    let size = |left: usize| if left == 6 { 3 } else { left.min(GROUP) };
    std::iter::successors(Some(0..size(height)), move |last| Some(last.end..last.end + size(height - last.end)))
        .take_while(|group| !group.is_empty())
}

/// A memory range to prefetch, some cache lines with each tile.
pub(super) struct Ahead<T> {
    pub at: *const T,
    /// The remaining cache lines, and the cache lines for each tile.
    pub lines: usize,
    pub each: usize,
}

impl<T> Ahead<T> {
    #[inline(always)]
    fn ask(&mut self) {
        let now = self.each.min(self.lines);
        for line in 0..now {
            prefetch(self.at.wrapping_byte_add(64 * line));
        }
        (self.at, self.lines) = (self.at.wrapping_byte_add(64 * now), self.lines - now);
    }
}

/// The operands of a tile.
pub(super) struct Tile<'a, T> {
    pub taps: &'a Taps,
    /// The address that each column of taps reads for the first position of the plane, for all planes in use.
    pub columns: &'a [*const T],
    /// The plane of taps that reads the first plane in use.
    pub plane: usize,
    pub weights: &'a [T],
    /// The remaining rows and columns of the output, counted from this tile.
    pub left: [usize; 2],
    pub to: *mut T,
    pub to_pitch: usize,
    /// The destination of the sums plus bias, if they are kept.
    pub kept: Option<*mut T>,
}

impl<T: Real> Tile<'_, T> {
    /// Computes as many rows and columns of sums as fit into registers, and writes those that lie inside the output. Returns
    /// the number of rows and columns written.
    ///
    /// # Safety
    /// The columns are readable for whole tiles, up to [`MOST_ROWS`] rows and [`SLACK`] elements beyond the last; `to` and
    /// `kept` are writable for the remaining positions.
    #[inline(always)]
    pub unsafe fn run<S: Simd>(&self, from: usize, finish: &Finish<S, T>, ahead: &mut [Ahead<T>; 2]) -> [usize; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            if !S::TILES {
                return self.sums::<S, 1, 1>(from, finish, ahead);
            }
            // Each size is compiled once for each number of taps. Two suffice for `f64`, the type of gradient checks.
            if const { size_of::<T>() == size_of::<f64>() } {
                return match self.left {
                    [1, _] => self.sums::<S, 1, 1>(from, finish, ahead),
                    _ => self.sums::<S, 4, 1>(from, finish, ahead),
                };
            }
            match self.left {
                [1, width] if width > VECTORS / 2 * T::Vec::<S>::LANES => {
                    self.sums::<S, 1, VECTORS>(from, finish, ahead)
                }
                [1, _] => self.sums::<S, 1, 1>(from, finish, ahead),
                [2..=4, _] => self.sums::<S, 4, 1>(from, finish, ahead),
                [rows, _] if S::WIDE && rows > 8 => self.sums::<S, 16, 1>(from, finish, ahead),
                _ => self.sums::<S, 8, 1>(from, finish, ahead),
            }
        }
    }

    /// A tile of `R` rows of `V` vectors. Each sum is a chain of FMAs over columns and rows of taps.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn sums<S: Simd, const R: usize, const V: usize>(
        &self,
        from: usize,
        finish: &Finish<S, T>,
        ahead: &mut [Ahead<T>; 2],
    ) -> [usize; 2] {
        let lanes = T::Vec::<S>::LANES;
        ahead.iter_mut().for_each(Ahead::ask);
        let mut sums = [[T::Vec::<S>::zero(); V]; R];
        // SAFETY: the caller's promise.
        unsafe {
            for group in &self.taps.groups {
                let from = from + group.start * self.taps.pitch;
                let weights = self.weights[self.taps.place(group, self.plane)..].as_ptr();
                macro_rules! group {
                    ($($taps:literal)*) => {
                        match group.len() {
                            $($taps => self.group::<S, R, V, $taps>(from, weights, &mut sums),)*
                            taps => unreachable!("a group of {taps} rows of taps"),
                        }
                    };
                }
                group!(1 2 3 4 5 7);
            }
            let [rows, width] = [self.left[0].min(R), self.left[1].min(V * lanes)];
            if self.kept.is_none() {
                // The common case: stored directly from registers.
                macro_rules! rows {
                    ($($row:literal)*) => {$(
                        if const { $row < R } && $row < rows {
                            for (i, sum) in sums[$row % R].iter().enumerate() {
                                let (value, to) = (finish.biased(*sum), self.to.add($row * self.to_pitch + i * lanes));
                                let value = if finish.only_bias() { value } else { finish.end(value) };
                                let left = width.saturating_sub(i * lanes);
                                if left >= lanes { value.store_ptr(to) } else { value.store_partial_ptr(to, left) }
                            }
                        }
                    )*};
                }
                rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            } else {
                let mut stored = [[[T::ZERO; 16]; V]; R];
                for (sums, stored) in sums.iter().zip(&mut stored) {
                    for (sum, stored) in sums.iter().zip(stored) {
                        sum.store(stored);
                    }
                }
                for (row, stored) in stored.iter().enumerate().take(rows) {
                    for (i, stored) in stored.iter().enumerate().take(width.div_ceil(lanes)) {
                        let (at, count) = (row * self.to_pitch + i * lanes, lanes.min(width - i * lanes));
                        finish.sums(stored.as_ptr(), self.to.add(at), self.kept.map(|kept| kept.add(at)), count);
                    }
                }
            }
            [rows, width]
        }
    }

    /// Adds the products of `G` rows of taps. Each source row is loaded once for all rows of sums that use it.
    ///
    /// # Safety
    /// As for [`run`](Self::run), and there are weights for all columns.
    #[inline(always)]
    unsafe fn group<S: Simd, const R: usize, const V: usize, const G: usize>(
        &self,
        from: usize,
        mut weights: *const T,
        sums: &mut [[T::Vec<S>; V]; R],
    ) {
        let (lanes, pitch) = (T::Vec::<S>::LANES, self.taps.pitch);
        // SAFETY: the caller's promise.
        unsafe {
            for column in self.columns {
                let mut factors = [T::Vec::<S>::zero(); G];
                for (tap, factor) in factors.iter_mut().enumerate() {
                    *factor = T::Vec::<S>::splat(*weights.add(tap));
                }
                // Unrolled with macros, so that the compiler knows which taps and rows meet, and with `while`, because the
                // functions of an iterator took a tenth of the crate's compile time here. The pointer advances by four
                // rows at a time, so that only small multiples of the pitch occupy the few integer registers.
                let mut four = column.add(from);
                macro_rules! rows {
                    ($($row:literal)*) => {$(
                        if const { $row < R + G - 1 } {
                            if const { $row % 4 == 0 && $row > 0 } {
                                four = four.add(4 * pitch);
                            }
                            let mut x = [T::Vec::<S>::zero(); V];
                            let mut i = 0;
                            while i < V {
                                x[i] = T::Vec::<S>::load_ptr(four.add($row % 4 * pitch + i * lanes));
                                i += 1;
                            }
                            let mut tap = 0;
                            while tap < G {
                                if $row >= tap && $row - tap < R {
                                    let mut i = 0;
                                    while i < V {
                                        sums[$row - tap][i] = x[i].mul_add(factors[tap], sums[$row - tap][i]);
                                        i += 1;
                                    }
                                }
                                tap += 1;
                            }
                        }
                    )*};
                }
                rows!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21);
                weights = weights.add(G);
            }
        }
    }
}
