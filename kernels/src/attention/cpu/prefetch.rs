//! Asking for the memory that comes next.

use crate::simd::{Real, prefetch};

/// The bytes of a cache line.
const LINE: usize = 64;

/// Rows that are needed soon, asked for a few cache lines at a time while others are worked on.
pub(super) struct Ahead<T> {
    pieces: [Piece<T>; 4],
    /// Which piece is next, its next row, and the next cache line of that.
    next: [usize; 3],
    /// How many steps of products there are for all lines.
    steps: usize,
    lines: usize,
}

/// `rows` rows of `lines` cache lines at a distance.
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

    /// Asks for the share of `steps` steps.
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
