//! Outputs that are divided among chunks, checked at run time.
//!
//! A chunk of [`parallel_for`](super::parallel_for) captures by `&`, so writing one output from many chunks needs a guarantee
//! that no two chunks write the same element. Here it is a flag for each block of the output: a block is handed out once, and
//! a second request panics (which `parallel_for` turns into an error).

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{AddAssign, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use tomograd_core::{Error, Result};

/// One bit for each block: whether it has been taken.
struct Claims(Vec<AtomicU64>);

impl Claims {
    fn new(blocks: usize) -> Self {
        Claims((0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    #[inline]
    fn claim(&self, block: usize) {
        let bit = 1u64 << (block % 64);
        // Relaxed is sufficient: the flag alone decides the ownership of the block, and the end of the parallel section
        // synchronises the writes with later reads.
        let before = self.0[block / 64].fetch_or(bit, Ordering::Relaxed);
        assert!(before & bit == 0, "block {block} of an output was claimed twice");
    }
}

/// A slice divided into blocks of equal length (the last may be shorter), each of which can be taken once.
pub struct Partition<'a, T> {
    start: *mut T,
    len: usize,
    block: usize,
    claims: Claims,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: a shared partition hands out each element as `&mut` at most once; so sharing it is equivalent to sending the parts.
unsafe impl<T: Send> Sync for Partition<'_, T> {}
// SAFETY: it stands for a `&mut [T]`.
unsafe impl<T: Send> Send for Partition<'_, T> {}

impl<'a, T> Partition<'a, T> {
    /// Splits `slice` into blocks of `block` elements (at least one). With `parallel_for(n, grain, ..)` over items of `size`
    /// elements, `block` is `grain * size`.
    pub fn new(slice: &'a mut [T], block: usize) -> Self {
        let block = block.max(1);
        Partition {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            block,
            claims: Claims::new(slice.len().div_ceil(block)),
            slice: PhantomData,
        }
    }

    /// Takes the elements of a range whose ends are block boundaries (or the end of the slice). Panics if they aren't, or if
    /// a part of the range has been taken before.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub fn take(&self, range: Range<usize>) -> &'a mut [T] {
        let (start, end) = (range.start, range.end);
        assert!(
            start <= end
                && end <= self.len
                && (start % self.block == 0 || start == end)
                && (end % self.block == 0 || end == self.len || start == end),
            "{range:?} of an output of {} elements doesn't fit its blocks of {}",
            self.len,
            self.block
        );
        if start < end {
            (start / self.block..end.div_ceil(self.block)).for_each(|block| self.claims.claim(block));
        }
        // SAFETY: the range lies inside the slice that `new` borrowed for 'a, and no other caller has these blocks.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), end - start) }
    }

    /// Takes block `i`. Panics if it doesn't exist or has been taken before.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub fn block(&self, i: usize) -> &'a mut [T] {
        let start = i.saturating_mul(self.block);
        self.take(start..start.saturating_add(self.block).min(self.len))
    }
}

/// Rows of equal length, divided into tiles of `row_block` rows by `column_block` columns, each of which can be taken once:
/// an output such as (channels, voxels), of which a chunk owns some channels of some voxels. There may be several such planes
/// in sequence (a batch); a tile never spans two planes.
pub struct Grid<'a, T> {
    start: *mut T,
    planes: usize,
    rows: usize,
    columns: usize,
    row_block: usize,
    column_block: usize,
    claims: Claims,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: as for `Partition`: tiles don't overlap, and each is handed out once.
unsafe impl<T: Send> Sync for Grid<'_, T> {}
// SAFETY: it stands for a `&mut [T]`.
unsafe impl<T: Send> Send for Grid<'_, T> {}

impl<'a, T> Grid<'a, T> {
    /// Divides `slice`, `rows` rows of `columns` elements, into tiles; block sizes of 0 count as 1.
    ///
    /// # Errors
    /// When the length of the slice isn't `rows * columns`.
    pub fn new(slice: &'a mut [T], rows: usize, columns: usize, row_block: usize, column_block: usize) -> Result<Self> {
        Self::batched(slice, 1, rows, columns, row_block, column_block)
    }

    /// Divides each of `planes` planes of `rows` rows of `columns` elements into tiles.
    ///
    /// # Errors
    /// When the length of the slice isn't `planes * rows * columns`.
    pub fn batched(
        slice: &'a mut [T],
        planes: usize,
        rows: usize,
        columns: usize,
        row_block: usize,
        column_block: usize,
    ) -> Result<Self> {
        let count = planes.checked_mul(rows).and_then(|rows| rows.checked_mul(columns));
        if count != Some(slice.len()) {
            let what = format!("an output of {} elements in {planes} planes of {rows} × {columns}", slice.len());
            return Err(Error::shape("parallel", what).expected("as many elements"));
        }
        let (row_block, column_block) = (row_block.max(1), column_block.max(1));
        // An empty slice has no tiles; otherwise a huge number of rows of no columns would need as many flags.
        let tiles =
            if slice.is_empty() { 0 } else { planes * rows.div_ceil(row_block) * columns.div_ceil(column_block) };
        Ok(Grid {
            start: slice.as_mut_ptr(),
            planes,
            rows,
            columns,
            row_block,
            column_block,
            claims: Claims::new(tiles),
            slice: PhantomData,
        })
    }

    /// Takes the tile in row `i` and column `j` of tiles of the first plane. Panics if it doesn't exist or has been taken
    /// before.
    #[inline]
    pub fn tile(&self, i: usize, j: usize) -> Tile<'a, T> {
        self.tile_of(0, i, j)
    }

    /// Takes the tile in row `i` and column `j` of tiles of a plane. Panics if it doesn't exist or has been taken before.
    #[inline]
    pub fn tile_of(&self, plane: usize, i: usize, j: usize) -> Tile<'a, T> {
        let (row, column) = (i.saturating_mul(self.row_block), j.saturating_mul(self.column_block));
        assert!(plane < self.planes && row < self.rows && column < self.columns, "there is no tile {plane}, {i}, {j}");
        let (row_blocks, column_blocks) =
            (self.rows.div_ceil(self.row_block), self.columns.div_ceil(self.column_block));
        self.claims.claim((plane * row_blocks + i) * column_blocks + j);
        Tile {
            // SAFETY: the first element of the tile is inside the slice.
            start: unsafe { self.start.add((plane * self.rows + row) * self.columns + column) },
            rows: self.row_block.min(self.rows - row),
            columns: self.column_block.min(self.columns - column),
            stride: self.columns,
            grid: PhantomData,
        }
    }
}

/// A tile of a [`Grid`]: some columns of some rows, to which this value has exclusive access.
pub struct Tile<'a, T> {
    start: *mut T,
    rows: usize,
    columns: usize,
    stride: usize,
    grid: PhantomData<&'a mut [T]>,
}

impl<T> Tile<'_, T> {
    /// The number of rows.
    #[inline]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    #[inline]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The distance between two rows, in elements.
    #[inline]
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// One row of the tile; panics if it doesn't exist.
    #[inline]
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of a tile of {}", self.rows);
        // SAFETY: the row lies inside the tile, which is borrowed mutably here.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.columns) }
    }

    /// The address of the first element, for kernels that use the stride. They must stay inside `rows` × `columns`.
    #[inline]
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.start
    }
}

/// Numbered partial results of chunks, summed in a fixed tree.
///
/// Each slot has `width` numbers, initially zero.
pub struct PartialSlots<'a, T> {
    numbers: &'a mut [T],
    width: usize,
}

impl<'a, T: Copy + Default + AddAssign + Send> PartialSlots<'a, T> {
    /// Slots in a buffer of `count * width` numbers (scratch or a `Vec`), which is set to zero.
    ///
    /// # Errors
    /// When the length of the buffer isn't a multiple of `width`.
    pub fn new(numbers: &'a mut [T], width: usize) -> Result<Self> {
        let slots = Self::filled(numbers, width)?;
        slots.numbers.fill(T::default());
        Ok(slots)
    }

    /// Slots that have been written already.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn filled(numbers: &'a mut [T], width: usize) -> Result<Self> {
        let width = width.max(1);
        if !numbers.len().is_multiple_of(width) {
            let what = format!("{} partial results in slots of {width}", numbers.len());
            return Err(Error::shape("parallel", what).expected("whole slots"));
        }
        Ok(PartialSlots { numbers, width })
    }

    /// The slots as a partition for a parallel section: slot `i` is block `i`.
    pub fn slots(&mut self) -> Partition<'_, T> {
        Partition::new(self.numbers, self.width)
    }

    /// Sums the slots pairwise (1 into 0, 3 into 2, ...; then 2 into 0, ...) and returns the sums; an empty slice if there
    /// are no slots.
    pub fn sum(self) -> &'a [T] {
        let count = self.numbers.len() / self.width;
        let mut step = 1;
        while step < count {
            for i in (0..count - step).step_by(2 * step) {
                let (left, right) = self.numbers.split_at_mut((i + step) * self.width);
                for (a, b) in left[i * self.width..][..self.width].iter_mut().zip(right) {
                    *a += *b;
                }
            }
            step *= 2;
        }
        let width = self.width.min(self.numbers.len());
        &self.numbers[..width]
    }
}

/// An initialised slice as a slice of `MaybeUninit`, for kernels that write either.
pub fn as_uninit<T: Copy>(slice: &mut [T]) -> &mut [MaybeUninit<T>] {
    // SAFETY: `MaybeUninit<T>` has the layout of `T`. Callers, all in this crate, only write initialised `T`s through it, and
    // `T: Copy` excludes destructors.
    unsafe { std::slice::from_raw_parts_mut(slice.as_mut_ptr().cast(), slice.len()) }
}
