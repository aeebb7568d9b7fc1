//! Prefetching the memory that is needed next.

use crate::simd::{Real, prefetch};

/// The size of a cache line in bytes.
const LINE: usize = 64;

/// Memory that is needed soon, prefetched a few cache lines at a time during other work.
pub(super) struct Ahead<T> {
    pieces: [Piece<T>; 4],
    /// The next piece, the next row in it, and the next cache line of that row.
    next: [usize; 3],
    /// The number of steps over which the prefetches are spread.
    steps: usize,
    lines: usize,
}

/// `rows` rows of `lines` cache lines each, at a distance of `stride` elements.
#[derive(Clone, Copy)]
pub(super) struct Piece<T> {
    first: *const T,
    rows: usize,
    stride: usize,
    lines: usize,
}

impl<T: Real> Piece<T> {
    pub const NONE: Self = Piece { first: std::ptr::null(), rows: 0, stride: 0, lines: 0 };

    pub fn new(first: *const T, rows: usize, stride: usize, length: usize) -> Self {
        let lines = |numbers: usize| (numbers * size_of::<T>()).div_ceil(LINE);
        if stride == length {
            return Piece { first, rows: 1, stride, lines: lines(rows * length) };
        }
        Piece { first, rows, stride, lines: lines(length) }
    }
}

impl<T: Real> Ahead<T> {
    pub fn new(pieces: [Piece<T>; 4], steps: usize) -> Self {
        let lines = pieces.iter().map(|piece| piece.rows * piece.lines).sum();
        Self { pieces, next: [0; 3], steps: steps.max(1), lines }
    }

    /// Prefetches the lines that `steps` steps account for.
    #[inline(always)]
    pub fn ask(&mut self, steps: usize) {
        let mut left = (self.lines * steps).div_ceil(self.steps);
        let [mut which, mut row, mut line] = self.next;
        while left > 0 && which < self.pieces.len() {
            let Piece { first, rows, stride, lines } = self.pieces[which];
            let count = left.min(lines - line);
            let from = first.wrapping_add(row * stride).cast::<u8>().wrapping_add(line * LINE);
            for i in 0..count {
                prefetch(from.wrapping_add(i * LINE));
            }
            (left, line) = (left - count, line + count);
            if line == lines {
                (row, line) = (row + 1, 0);
            }
            if row >= rows {
                (which, row) = (which + 1, 0);
            }
        }
        self.next = [which, row, line];
    }
}
