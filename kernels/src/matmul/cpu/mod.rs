//! Matrix multiplication on the CPU: packed operands, a register tile, and blocks that fit into the caches.
//!
//! An output element is one chain of FMAs over k, from its starting value; that of a product with a vector is a sum in sixteen
//! lanes. So its bits depend neither on the blocking, nor on the instruction set, nor on the number of threads.

pub(crate) mod pack;
pub(super) mod product;
pub(crate) mod tile;
mod vector;

use crate::parallel::{Grid, Partition, as_uninit, current_isa, or_give_up, parallel_for, threads};
use crate::simd::{Isa, Kernel, Real, Simd, Vector, dispatch, transpose};
use pack::{pack_block, pack_panel};
use std::mem::MaybeUninit;
use tile::{
    Begin, FEW_TILES, Left, ROW_UNIT, Rows, in_place, next_vectors, panel_rows, rounded_rows, tile, tile_columns,
};
use tomograd_core::{Error, Result, Scratch};
use vector::MatrixVector;

/// The sizes of a batch of products: `(batch, m, k) · (batch, k, n) = (batch, m, n)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmShape {
    /// The number of products.
    pub batch: usize,
    /// The rows of the left matrix and of the result.
    pub m: usize,
    /// The columns of the right matrix and of the result.
    pub n: usize,
    /// The inner size.
    pub k: usize,
}

/// A batch of strided matrices in a slice, with a stride for each axis. A transposed matrix has its strides exchanged; a
/// matrix that all products share has a batch stride of 0.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    /// The elements, starting with the first.
    pub data: &'a [T],
    /// The distance between two matrices.
    pub batch_stride: usize,
    /// The distance between two rows.
    pub row_stride: usize,
    /// The distance between two columns.
    pub column_stride: usize,
}

impl<'a, T: Copy> View<'a, T> {
    /// A batch of `rows` × `columns` matrices, contiguous and row-major.
    pub fn contiguous(data: &'a [T], rows: usize, columns: usize) -> Self {
        View { data, batch_stride: rows.saturating_mul(columns), row_stride: columns, column_stride: 1 }
    }

    /// The first matrix for every product of the batch.
    pub fn shared(self) -> Self {
        View { batch_stride: 0, ..self }
    }

    /// The transposed matrices.
    pub fn transposed(self) -> Self {
        View { row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    /// An element, or `None` if it lies beyond the slice.
    pub fn get(&self, batch: usize, row: usize, column: usize) -> Option<T> {
        let [batch, row, column] = [(batch, self.batch_stride), (row, self.row_stride), (column, self.column_stride)]
            .map(|(i, s)| i.checked_mul(s));
        self.data.get(batch?.checked_add(row?)?.checked_add(column?)?).copied()
    }

    /// Checks that the slice is long enough.
    fn check(&self, name: &str, batch: usize, rows: usize, columns: usize) -> Result<()> {
        if batch == 0 || rows == 0 || columns == 0 {
            return Ok(());
        }
        let last = (|| {
            let batch = self.batch_stride.checked_mul(batch - 1)?;
            let row = self.row_stride.checked_mul(rows - 1)?;
            let column = self.column_stride.checked_mul(columns - 1)?;
            batch.checked_add(row)?.checked_add(column)
        })();
        if last.is_none_or(|last| last >= self.data.len()) {
            let what = format!("the {name} matrix reaches beyond its {} elements", self.data.len());
            return Err(Error::shape("matmul", what).shapes([&[batch, rows, columns][..]]));
        }
        Ok(())
    }
}

/// The starting value of the sums.
#[derive(Clone, Copy, Debug, Default)]
pub enum Start<'a, T> {
    /// Zero.
    #[default]
    Zero,
    /// A value for each row of the result.
    Rows(&'a [T]),
    /// A value for each column of the result.
    Columns(&'a [T]),
}

impl<T> Start<'_, T> {
    fn transposed(self) -> Self {
        match self {
            Start::Rows(numbers) => Start::Columns(numbers),
            Start::Columns(numbers) => Start::Rows(numbers),
            start => start,
        }
    }
}

/// `out[b] = start + a[b] · b[b]`; `out` is contiguous. Every element of `out` is written.
///
/// # Errors
/// When a slice doesn't fit the shape, or memory for packing runs out.
pub fn gemm<T: Real>(
    shape: GemmShape,
    a: View<'_, T>,
    b: View<'_, T>,
    start: Start<'_, T>,
    out: &mut [MaybeUninit<T>],
) -> Result<()> {
    let starts = match start {
        Start::Zero => None,
        Start::Rows(numbers) => Some((numbers, shape.m)),
        Start::Columns(numbers) => Some((numbers, shape.n)),
    };
    if let Some((numbers, expected)) = starts
        && numbers.len() != expected
    {
        return Err(Error::shape("matmul", format!("a bias of {} numbers", numbers.len()))
            .expected(format!("{expected} numbers")));
    }
    check(shape, a, b, out.len())?;
    if shape.k > 0 {
        return run(shape, a, b, Some(start), out);
    }
    // Sums over nothing.
    let rows = out.chunks_exact_mut(shape.n.max(1));
    match start {
        Start::Zero => out.fill(MaybeUninit::new(T::ZERO)),
        Start::Rows(numbers) => {
            rows.zip(numbers.iter().cycle()).for_each(|(row, &number)| row.fill(MaybeUninit::new(number)));
        }
        Start::Columns(numbers) => rows.for_each(|row| {
            row.iter_mut().zip(numbers).for_each(|(to, &number)| {
                to.write(number);
            });
        }),
    }
    Ok(())
}

/// `out[b] += a[b] · b[b]`: the sums start from the values in `out`.
///
/// # Errors
/// As [`gemm`].
pub fn gemm_add<T: Real>(shape: GemmShape, a: View<'_, T>, b: View<'_, T>, out: &mut [T]) -> Result<()> {
    check(shape, a, b, out.len())?;
    run(shape, a, b, None, as_uninit(out))
}

pub(super) fn check<T: Real>(shape: GemmShape, a: View<'_, T>, b: View<'_, T>, out: usize) -> Result<()> {
    let GemmShape { batch, m, n, k } = shape;
    a.check("left", batch, m, k)?;
    b.check("right", batch, k, n)?;
    let expected = batch.checked_mul(m).and_then(|rows| rows.checked_mul(n));
    if expected != Some(out) {
        return Err(Error::shape("matmul", format!("an output of {out} elements")).shapes([&[batch, m, n][..]]));
    }
    Ok(())
}

/// The length in k of a packed block.
pub(super) const K_BLOCK: usize = 256;
/// How many such blocks a tile processes at once if the right matrix was packed in advance. These long panels stream from the
/// L2 cache; panels that a thread packs for itself, one block at a time, stay in the L1 cache.
#[inline(always)]
const fn long_k_blocks<S: Simd>() -> usize {
    if S::WIDE { 4 } else { 2 }
}
/// The approximate size of an output block: the part of the left matrix for its rows fits into the L2 cache.
pub(super) const ROW_BLOCK: usize = 264;
pub(super) const COLUMN_BLOCK: usize = 528;
/// The least number of multiply-adds of a parallel chunk, if there are chunks enough.
const CHUNK_WORK: usize = 4 << 20;
/// The least number of multiply-adds for which another thread is woken.
const LEAST_SHARE: usize = 256 << 10;
/// How many multiply-adds take as long as packing an element.
const PACKING: usize = 8;

/// The block size that divides `size` into equal blocks of about `most` at most, each a multiple of `unit`.
pub(crate) fn block_size(size: usize, most: usize, unit: usize) -> usize {
    size.div_ceil(size.div_ceil(most).max(1)).next_multiple_of(unit).max(unit)
}

/// The most columns for which the left matrix of a product is read in place.
fn in_place_columns<T>() -> usize {
    let vector_bytes = if current_isa() == Isa::Avx512 { 3 * 64 } else { 2 * 32 };
    FEW_TILES * vector_bytes / size_of::<T>()
}

/// The sizes of an output block: it fits into the caches, and there are enough blocks for all threads to have an equal share of
/// the work, unless the product is so small that waking a thread costs more than it saves.
fn block_sizes(shape: GemmShape, left_in_advance: bool, threads: usize) -> [usize; 2] {
    let GemmShape { batch, m, n, k } = shape;
    let (rows, columns) = (m.div_ceil(ROW_BLOCK), n.div_ceil(COLUMN_BLOCK));
    let work = batch.saturating_mul(m).saturating_mul(n).saturating_mul(k);
    let threads = threads.min(work / LEAST_SHARE).max(1);
    let sizes = |rows: usize, columns: usize| {
        let unit = if left_in_advance || columns > 1 { ROW_UNIT } else { 8 };
        [m.div_ceil(rows).next_multiple_of(unit), n.div_ceil(columns).next_multiple_of(16)]
    };
    // The elements that the busiest thread computes, and those of both operands that are packed for them.
    let time = |&[row_block, column_block]: &[usize; 2]| {
        let blocks = batch * m.div_ceil(row_block) * n.div_ceil(column_block);
        blocks.div_ceil(threads) * (row_block * column_block + (row_block + column_block) * PACKING)
    };
    let more = |least: usize| least..least + threads;
    let candidates = more(rows).flat_map(|rows| [(rows, columns)]).chain(more(columns).map(|columns| (rows, columns)));
    candidates.map(|(rows, columns)| sizes(rows, columns)).min_by_key(time).unwrap_or_else(|| sizes(rows, columns))
}

/// The plan of a product: its blocks, and its packed operands.
struct Product<'a, T> {
    shape: GemmShape,
    a: View<'a, T>,
    b: View<'a, T>,
    /// Whether the transposed product is computed: the rows of the output are the columns of this product.
    swapped: bool,
    /// `None`: the sums start from what the output holds.
    start: Option<Start<'a, T>>,
    row_block: usize,
    column_block: usize,
    /// The left matrices if packed in advance: panels over all of k, one after the other.
    packed_a: Option<&'a [T]>,
    packed_b: PackedB<'a, T>,
}

/// The right matrices if packed in advance: for each block of k, whole rows in panels as [`pack_block`] makes them. All
/// blocks have room for `k_block` steps of k; the last one may be filled only in part.
struct PackedB<'a, T> {
    data: Option<&'a [MaybeUninit<T>]>,
    k_block: usize,
    /// The number of columns, rounded up.
    columns: usize,
}

/// The sums start from `start`, or from what the output holds.
fn run<T: Real>(
    shape: GemmShape,
    a: View<'_, T>,
    b: View<'_, T>,
    start: Option<Start<'_, T>>,
    out: &mut [MaybeUninit<T>],
) -> Result<()> {
    if out.is_empty() || shape.k == 0 {
        return Ok(());
    }
    if let Some(product) = MatrixVector::new(shape, a, b, start) {
        return product.run(out);
    }
    // Vectors hold columns, so with few columns the transposed product is faster; so it is for a right matrix whose columns are
    // contiguous, the weights of a linear layer, if it can then be read in place. The result is bitwise the same.
    let few = shape.n < 16 && shape.m > shape.n;
    let swapped =
        few || (b.row_stride == 1 && b.column_stride != 1 && (16..=in_place_columns::<T>()).contains(&shape.m));
    let (shape, a, b, start) = if swapped {
        (GemmShape { m: shape.n, n: shape.m, ..shape }, b.transposed(), a.transposed(), start.map(Start::transposed))
    } else {
        (shape, a, b, start)
    };
    let GemmShape { batch, m, n, k } = shape;
    let [row_block, column_block] = block_sizes(shape, a.batch_stride == 0 && batch > 1, threads());
    let (rows, columns) = (m.div_ceil(row_block), n.div_ceil(column_block));
    let packed_b = PackedB { data: None, k_block: block_size(k, K_BLOCK, 1), columns: n.next_multiple_of(16) };
    let mut plan = Product { shape, a, b, swapped, start, row_block, column_block, packed_a: None, packed_b };
    // With several column blocks, each would pack the left matrix again, and with several row blocks the right one; the same
    // holds for products that share a matrix. In these cases the matrix is packed once in advance.
    let grain = |numbers: usize| (CHUNK_WORK / 16 / numbers.max(1)).max(1);
    let (mut a_scratch, mut b_scratch);
    if columns > 1 || (a.batch_stride == 0 && batch > 1) {
        let (matrices, panels) = (if a.batch_stride == 0 { 1 } else { batch }, m.div_ceil(ROW_UNIT));
        a_scratch = Scratch::new("matmul", matrices * panels * ROW_UNIT * k)?;
        let parts = Partition::new(a_scratch.uninit(), ROW_UNIT * k);
        parallel_for(matrices * panels, grain(ROW_UNIT * k), |range| {
            dispatch(PackA { plan: &plan, range: range.clone(), panels, parts: &parts })
        })?;
        drop(parts);
        // SAFETY: the panels, padding included, cover the whole scratch.
        plan.packed_a = Some(unsafe { a_scratch.assume_init() });
    }
    if rows > 1 || (b.batch_stride == 0 && batch > 1) {
        let (matrices, blocks) = (if b.batch_stride == 0 { 1 } else { batch }, k.div_ceil(plan.packed_b.k_block));
        let block = plan.packed_b.k_block * plan.packed_b.columns;
        b_scratch = Scratch::new("matmul", matrices * blocks * block)?;
        let parts = Partition::new(b_scratch.uninit(), block);
        parallel_for(matrices * blocks, grain(block), |range| {
            dispatch(PackB { plan: &plan, range: range.clone(), blocks, parts: &parts })
        })?;
        drop(parts);
        plan.packed_b.data = Some(b_scratch.uninit());
    }
    let grid = if swapped {
        Grid::batched(out, batch, n, m, column_block, row_block)?
    } else {
        Grid::batched(out, batch, m, n, row_block, column_block)?
    };
    let work = row_block.min(m) * column_block.min(n) * k;
    let blocks = batch * rows * columns;
    let grain = (CHUNK_WORK / work.max(1)).min(blocks / threads()).max(1);
    parallel_for(blocks, if blocks * work < 2 * LEAST_SHARE { blocks } else { grain }, |range| {
        dispatch(Blocks { plan: &plan, range: range.clone(), rows, columns, grid: &grid })
    })?;
    Ok(())
}

/// Packs the left matrices, `ROW_UNIT` rows at a time.
struct PackA<'a, T> {
    plan: &'a Product<'a, T>,
    range: std::ops::Range<usize>,
    panels: usize,
    parts: &'a Partition<'a, MaybeUninit<T>>,
}

impl<T: Real> Kernel for PackA<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Product { shape, a, .. } = self.plan;
        for i in self.range {
            let (matrix, row) = (i / self.panels, i % self.panels * ROW_UNIT);
            let to = self.parts.block(i);
            // SAFETY: the view was checked against the shape, and rows from `m` on aren't read; a part has room for that many
            // rows.
            unsafe { pack_rows::<S, T>(a, matrix, row, shape.m, 0, shape.k, ROW_UNIT, to.as_mut_ptr().cast()) };
        }
    }
}

/// Packs the right matrices, a block of k at a time.
struct PackB<'a, T> {
    plan: &'a Product<'a, T>,
    range: std::ops::Range<usize>,
    blocks: usize,
    parts: &'a Partition<'a, MaybeUninit<T>>,
}

impl<T: Real> Kernel for PackB<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Product { shape, b, column_block, packed_b: PackedB { k_block, .. }, .. } = self.plan;
        for i in self.range {
            let (matrix, row) = (i / self.blocks, i % self.blocks * k_block);
            let to = self.parts.block(i).as_mut_ptr().cast::<T>();
            for column in (0..shape.n).step_by(*column_block) {
                let (rows, columns) = ((*k_block).min(shape.k - row), (*column_block).min(shape.n - column));
                // SAFETY: the view was checked against the shape; a part has room for `k_block` rows of the rounded-up
                // columns.
                unsafe {
                    let start = matrix * b.batch_stride + row * b.row_stride + column * b.column_stride;
                    let (start, to) = (b.data.as_ptr().add(start), to.add(column * k_block));
                    pack_block::<S, T>(start, b.row_stride, b.column_stride, rows, columns, *k_block, to);
                }
            }
        }
    }
}

/// Packs `rows` rows from `row` on (none beyond `m`), steps `from..to` of k, as consecutive panels.
///
/// # Safety
/// The view holds rows up to `m` and k up to `to`; `out` has room for `rows` rounded up to panels.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn pack_rows<S: Simd, T: Real>(
    a: &View<'_, T>,
    matrix: usize,
    row: usize,
    m: usize,
    from: usize,
    to: usize,
    rows: usize,
    out: *mut T,
) {
    let width = panel_rows::<S>();
    for first in (0..rows).step_by(width) {
        let count = m.saturating_sub(row + first).min(width);
        // SAFETY: rows beyond `m` aren't read, and for them the pointer stays at the start of the view.
        unsafe {
            let start = if count > 0 { matrix * a.batch_stride + (row + first) * a.row_stride } else { 0 };
            let start = a.data.as_ptr().add(start + if count > 0 { from * a.column_stride } else { 0 });
            pack_panel::<S, T>(start, a.row_stride, a.column_stride, count, to - from, out.add(first * (to - from)));
        }
    }
}

/// Computes a range of output blocks.
struct Blocks<'a, T> {
    plan: &'a Product<'a, T>,
    range: std::ops::Range<usize>,
    rows: usize,
    columns: usize,
    grid: &'a Grid<'a, MaybeUninit<T>>,
}

impl<T: Real> Kernel for Blocks<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Product { shape, a, b, swapped, start: begin, row_block, column_block, packed_a, ref packed_b } =
            *self.plan;
        let GemmShape { m, n, k, .. } = shape;
        let width = tile_columns::<S, T>();
        let lanes = T::Vec::<S>::LANES;
        let height = panel_rows::<S>();
        let k_block = packed_b.k_block * if packed_b.data.is_some() { long_k_blocks::<S>() } else { 1 };
        let scratch = |count| or_give_up(Scratch::<T>::new("matmul", count));
        let mut b_scratch =
            scratch(if packed_b.data.is_some() { 0 } else { column_block.next_multiple_of(width) * k_block });
        let mut a_scratch = scratch(if packed_a.is_some() { 0 } else { row_block.next_multiple_of(height) * k_block });
        // If all of k is one block, a single buffer tile is enough, for tiles at the edges.
        let waiting_panels = if k_block < k { row_block.div_ceil(height) * column_block.div_ceil(width) } else { 1 };
        let mut waiting_scratch = scratch(waiting_panels * height * width);
        let waiting = waiting_scratch.uninit().as_mut_ptr().cast::<T>();
        let own_b = b_scratch.uninit().as_mut_ptr().cast::<T>();
        // The offsets of the steps of k in panels of one, two and three vectors.
        let step =
            |k: usize, width| k / packed_b.k_block * packed_b.k_block * packed_b.columns + k % packed_b.k_block * width;
        let steps: [Vec<usize>; 3] = std::array::from_fn(|i| (0..k_block).map(|k| step(k, (i + 1) * lanes)).collect());
        let strides: Vec<usize> = (0..k_block).map(|i| i * b.row_stride).collect();
        for block in self.range {
            let (batch, i, j) =
                (block / (self.rows * self.columns), block / self.columns % self.rows, block % self.columns);
            let mut out = if swapped { self.grid.tile_of(batch, j, i) } else { self.grid.tile_of(batch, i, j) };
            let (first_row, first_column) = (i * row_block, j * column_block);
            let (rows, columns) = (row_block.min(m - first_row), column_block.min(n - first_column));
            let row_panels = if k_block < k { rows.div_ceil(height) } else { 0 };
            let (row_stride, column_stride) = if swapped { (1, out.stride()) } else { (out.stride(), 1) };
            let out = out.as_mut_ptr().cast::<T>();
            // With few columns, packing the left matrix costs more than it saves.
            let panels = (0..rows).step_by(height).map(|row| height.min(rows - row));
            let left_in_place = packed_a.is_none() && in_place::<S>(columns.div_ceil(width), a.column_stride, panels);
            // For few rows, packing the right matrix costs more than it saves if its rows can be read directly.
            let direct = packed_b.data.is_none() && rows <= 32 && k <= 256 && b.column_stride == 1;
            for from in (0..k).step_by(k_block) {
                let steps_here = k_block.min(k - from);
                // SAFETY: views were checked against the shape; scratch has the size of a block; a left operand is read in
                // place only if the rows of its tiles aren't rounded up; tiles stay inside the block that the grid handed out,
                // or are written to a buffer tile first.
                unsafe {
                    let b_start = b
                        .data
                        .as_ptr()
                        .add(batch * b.batch_stride + from * b.row_stride + first_column * b.column_stride);
                    let mut whole = 0;
                    while direct && whole < columns {
                        let vectors = next_vectors::<S>((columns - whole).div_ceil(lanes));
                        if whole + vectors * lanes > columns {
                            break;
                        }
                        whole += vectors * lanes;
                    }
                    if whole < columns && packed_b.data.is_none() {
                        let start = b_start.add(whole * b.column_stride);
                        let (row, column) = (b.row_stride, b.column_stride);
                        pack_block::<S, T>(start, row, column, steps_here, columns - whole, steps_here, own_b);
                    }
                    // The start of the block's packed columns, and the length of its panels in k.
                    let (packed_start, panel_steps) = match packed_b.data {
                        Some(packed) => {
                            let matrix = if b.batch_stride == 0 { 0 } else { batch };
                            let blocks = matrix * k.div_ceil(packed_b.k_block) + from / packed_b.k_block;
                            let start = (blocks * packed_b.columns + first_column) * packed_b.k_block;
                            (packed.as_ptr().cast::<T>().add(start), packed_b.k_block)
                        }
                        None => (own_b.cast_const(), steps_here),
                    };
                    // The left operand of the first panel, and the distance to the next.
                    let (left, next_panel) = match packed_a {
                        Some(packed) => {
                            let matrix = if a.batch_stride == 0 { 0 } else { batch };
                            let start = (matrix * m.next_multiple_of(ROW_UNIT) + first_row) * k + from * height;
                            (Left::panel::<S>(packed.as_ptr().add(start)), height * k)
                        }
                        None if left_in_place => {
                            let start = batch * a.batch_stride + first_row * a.row_stride + from;
                            let first = a.data.as_ptr().add(start);
                            let next = height * a.row_stride;
                            (Left { first, row: a.row_stride, step: 1, next }, next)
                        }
                        None => {
                            let to = a_scratch.uninit().as_mut_ptr().cast::<T>();
                            pack_rows::<S, T>(&a, batch, first_row, m, from, from + steps_here, rows, to);
                            (Left::panel::<S>(to), height * steps_here)
                        }
                    };
                    let (mut column, mut panel) = (0, 0);
                    while column < columns {
                        let vectors = next_vectors::<S>((columns - column).div_ceil(lanes));
                        let (b_start, offsets) = if column < whole {
                            (b_start.add(column), &strides[..steps_here])
                        } else {
                            (packed_start.add((column - whole) * panel_steps), &steps[vectors - 1][..steps_here])
                        };
                        let tile_width = (vectors * lanes).min(columns - column);
                        for row in (0..rows).step_by(height) {
                            let tile_rows = height.min(rows - row);
                            let left = Left { first: left.first.add(row / height * next_panel), ..left };
                            let to = out.add(row * row_stride + column * column_stride);
                            // Between blocks of k, the sums are kept in a contiguous buffer tile: output rows may be a power
                            // of two apart, which leads to conflict misses in the caches.
                            let waiting = waiting.add(if row_panels > 0 {
                                (panel * row_panels + row / height) * height * width
                            } else {
                                0
                            });
                            let waiting = Rows { first: waiting, stride: width };
                            let last = from + steps_here == k;
                            let fits = column_stride == 1
                                && tile_width == vectors * lanes
                                && tile_rows == rounded_rows::<S>(tile_rows);
                            let out = Rows { first: to, stride: row_stride };
                            let start = match begin {
                                _ if from > 0 => Begin::Tile(waiting),
                                Some(Start::Zero) => Begin::Zero,
                                None if fits => Begin::Tile(out),
                                Some(Start::Rows(numbers)) => {
                                    Begin::Rows(numbers[first_row + row..].as_ptr(), tile_rows)
                                }
                                Some(Start::Columns(numbers)) if tile_width == vectors * lanes => {
                                    let first = numbers[first_column + column..].as_ptr().cast_mut();
                                    Begin::Tile(Rows { first, stride: 0 })
                                }
                                _ => {
                                    for r in 0..tile_rows {
                                        for x in 0..tile_width {
                                            *waiting.first.add(r * width + x) = match begin {
                                                Some(Start::Columns(numbers)) => numbers[first_column + column + x],
                                                _ => *to.add(r * row_stride + x * column_stride),
                                            };
                                        }
                                    }
                                    Begin::Tile(waiting)
                                }
                            };
                            let c = if last && fits { out } else { waiting };
                            tile::<S, T, true>(tile_rows, vectors, left, b_start, offsets, start, c);
                            if last && row_stride == 1 && column_stride != 1 {
                                let size = [tile_rows, tile_width];
                                transpose::<T::Vec<S>>(waiting.first, width, size, to, column_stride);
                            } else if last && !fits {
                                for r in 0..tile_rows {
                                    let from = waiting.first.add(r * width);
                                    for x in 0..tile_width {
                                        *to.add(r * row_stride + x * column_stride) = *from.add(x);
                                    }
                                }
                            }
                        }
                        column += vectors * lanes;
                        panel += 1;
                    }
                }
            }
        }
    }
}
