//! Register tiles of sums over taps.

use crate::conv::cpu::epilogue::Finish;
use crate::conv::cpu::pack::equal_blocks;
use crate::simd::{Real, Simd, Vector, prefetch};
use std::ops::Range;

/// The most rows of a tile.
pub(in crate::conv::cpu) const MOST_ROWS: usize = 16;
/// Vectors of the tile of a single row.
const VECTORS: usize = 8;
/// How many numbers a tile may take in beyond a row.
pub(in crate::conv::cpu) const SLACK: usize = VECTORS * 16;
/// The most taps of a column whose weights are in registers together.
pub(in crate::conv::cpu) const GROUP: usize = 7;

/// How the taps of a plane read a packed plane: in columns of `height` taps, which read rows that follow one another.
pub(super) struct Taps {
    pub planes: usize,
    pub height: usize,
    /// Where each column begins.
    pub columns: Vec<usize>,
    /// From a packed row to the next.
    pub pitch: usize,
    /// The rows of taps, in groups whose weights are in registers together. Sums go in sequence over groups, planes, columns
    /// and the rows of a group, and weights lie in this order.
    pub groups: Vec<Range<usize>>,
}

impl Taps {
    /// Where the weights of the columns of a plane begin, in a group.
    #[inline(always)]
    pub fn place(&self, group: &Range<usize>, plane: usize) -> usize {
        (group.start * self.planes + plane * group.len()) * self.columns.len()
    }
}

/// The [groups](Taps::groups) of so many rows.
pub(super) fn groups(height: usize) -> impl Iterator<Item = Range<usize>> {
    let size = equal_blocks(height, GROUP);
    (0..height).step_by(size).map(move |first| first..height.min(first + size))
}

/// Memory that is asked for ahead, some cache lines with each tile.
pub(super) struct Ahead<T> {
    pub at: *const T,
    /// Cache lines: those that are left, and those of a tile.
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

/// What a tile reads and writes.
pub(super) struct Tile<'a, T> {
    pub taps: &'a Taps,
    /// Where the columns of taps read for the first position of the plane: those of the planes in use.
    pub columns: &'a [*const T],
    /// The plane of taps that reads the first of them.
    pub plane: usize,
    pub weights: &'a [T],
    /// Rows and numbers of a row that there are, from this tile on.
    pub left: [usize; 2],
    pub to: *mut T,
    pub to_pitch: usize,
    /// Where the sums go with their bias, if they are kept.
    pub kept: Option<*mut T>,
}

impl<T: Real> Tile<'_, T> {
    /// Makes as many rows and columns of sums as fit into registers, finishes and writes those that there are, and gives how
    /// many these are.
    ///
    /// # Safety
    /// The columns are readable for whole tiles, up to [`MOST_ROWS`] rows and [`SLACK`] numbers behind the last; `to` and
    /// `kept` are writable for the positions that are left.
    #[inline(always)]
    pub unsafe fn run<S: Simd>(&self, from: usize, finish: &Finish<S, T>, ahead: &mut [Ahead<T>; 2]) -> [usize; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            if !S::TILES {
                return self.sums::<S, 1, 1>(from, finish, ahead);
            }
            match self.left {
                [1, width] if width > VECTORS / 2 * T::Vec::<S>::LANES => {
                    self.sums::<S, 1, VECTORS>(from, finish, ahead)
                }
                [1, _] => self.sums::<S, 1, 1>(from, finish, ahead),
                [2..=4, _] => self.sums::<S, 4, 1>(from, finish, ahead),
                [rows, _] if rows > 8 && S::REGISTERS >= 32 => self.sums::<S, 16, 1>(from, finish, ahead),
                _ => self.sums::<S, 8, 1>(from, finish, ahead),
            }
        }
    }

    /// A tile of `R` rows of `V` vectors. Sums go in sequence over columns and rows of taps.
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
                group!(1 2 3 4 5 6 7);
            }
            let [rows, width] = [self.left[0].min(R), self.left[1].min(V * lanes)];
            if finish.only_bias() && self.kept.is_none() && width == V * lanes {
                // The common case goes from register to memory.
                macro_rules! rows {
                    ($($row:literal)*) => {$(
                        if $row < R && $row < rows {
                            for (i, sum) in sums[$row % R].iter().enumerate() {
                                finish.biased(*sum).store_ptr(self.to.add($row * self.to_pitch + i * lanes));
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

    /// Adds what `G` rows of taps read. Each row is loaded once for all rows of sums that it counts for.
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
                // Written out, so that which taps and rows meet is known to the compiler; and going on by four rows at a
                // time, since it keeps the multiples of the pitch, and there are few registers for them.
                let mut four = column.add(from);
                macro_rules! rows {
                    ($($row:literal)*) => {$(
                        if $row < R + G - 1 {
                            if $row % 4 == 0 && $row > 0 {
                                four = four.add(4 * pitch);
                            }
                            let mut x = [T::Vec::<S>::zero(); V];
                            for (i, x) in x.iter_mut().enumerate() {
                                *x = T::Vec::<S>::load_ptr(four.add($row % 4 * pitch + i * lanes));
                            }
                            for (tap, &factor) in factors.iter().enumerate() {
                                if $row >= tap && $row - tap < R {
                                    for (sum, x) in sums[$row - tap].iter_mut().zip(x) {
                                        *sum = x.mul_add(factor, *sum);
                                    }
                                }
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
