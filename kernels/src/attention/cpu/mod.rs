//! Attention on the CPU.
//!
//! All products use the register tile of matrix multiplication, whose `a` is packed in panels of a few rows and whose `b` is
//! stored in rows of vectors. The forward pass computes transposed scores, keys by queries: each query is a lane, so the
//! softmax over keys needs no reduction across lanes, and its weights already have the layout of `b` for the product with the
//! values. The backward pass computes scores as queries by keys, because two of its three sums over weights run over queries.
//! Scores are in units of ln 2, since 2ˣ is cheaper than eˣ.

mod backward;
mod forward;
mod prefetch;

use tomograd_core::{Result, Scratch, Tensor};

use super::Attention;
use crate::{
    matmul::cpu::{
        block_size,
        pack::{pack_block, pack_panel},
        tile::{Left, ROW_UNIT, Rows, next_vectors, panel_rows, tile},
    },
    simd::{Real, Simd, Vector},
};

pub(super) use backward::backward;
pub(super) use forward::forward;

/// Keys of a block: its scores for one tile of queries fit into the L1 cache. The block size affects the bits of the forward
/// pass, because the running maximum is taken block by block.
const KEY_BLOCK: usize = 128;
/// Queries that are masked together under a causal mask: whole tiles for every instruction set.
const QUERY_GROUP: usize = 48;
/// The least number of multiply-adds of a parallel chunk.
const CHUNK_WORK: usize = 4 << 20;
/// The most steps of one tile; longer sums continue in further tiles.
const STEPS: usize = 256;
/// Block sizes around which random test cases are drawn: those along queries, along keys, and along the elements of either.
pub(super) const QUERY_BLOCKS: [usize; 6] =
    [8, 16, QUERY_GROUP, backward::QUERY_BLOCK, forward::PACKED_QUERIES, forward::QUERY_CHUNK];
pub(super) const KEY_BLOCKS: [usize; 8] = [
    8,
    16,
    backward::STRIP,
    KEY_BLOCK,
    backward::KEY_BLOCK,
    2 * KEY_BLOCK,
    2 * backward::KEY_BLOCK,
    2 * backward::PART,
];
pub(super) const ELEMENT_BLOCKS: [usize; 5] = [8, 16, ROW_UNIT, 48, STEPS];

/// The matrices of a tensor, one for each index of the batch axes, accessed by strides.
struct Matrices<'a, T> {
    data: &'a [T],
    /// The size and the stride of each batch axis.
    batch: Vec<[usize; 2]>,
    /// The distances between rows and between columns.
    row: usize,
    column: usize,
}

impl<'a, T: Real> Matrices<'a, T> {
    /// The matrices of a tensor that is broadcast to `shape`.
    fn new(tensor: &'a Tensor, shape: &[usize]) -> Result<Self> {
        let all = tensor.as_storage_slice::<T>()?;
        let view = tensor.expand(shape)?;
        let (batch, matrix) = view.strides().split_at(shape.len() - 2);
        Ok(Self {
            data: if view.count() == 0 { &[] } else { &all[view.layout().offset()..] },
            batch: shape.iter().zip(batch).map(|(&size, &stride)| [size, stride]).collect(),
            row: matrix[0],
            column: matrix[1],
        })
    }

    /// The address of an element. (For a matrix without elements, the address is never dereferenced.)
    fn at(&self, mut index: usize, row: usize, column: usize) -> *const T {
        let mut place = row * self.row + column * self.column;
        for [size, stride] in self.batch.iter().rev() {
            place += index % size * stride;
            index /= size;
        }
        self.data.as_ptr().wrapping_add(place)
    }
}

/// The operands and sizes of a pass.
struct Operands<'a, T> {
    q: Matrices<'a, T>,
    k: Matrices<'a, T>,
    v: Matrices<'a, T>,
    biases: Vec<Matrices<'a, T>>,
    /// The number of matrices.
    batch: usize,
    /// L, S, E and V, as in the shapes of [`Attention`].
    queries: usize,
    keys: usize,
    size: usize,
    value: usize,
    /// The factor of the scores.
    scale: T,
    /// The same for scores in units of ln 2.
    scale_2: T,
    causal: bool,
}

impl<'a, T: Real> Operands<'a, T> {
    fn new(op: &Attention, inputs: &[&'a Tensor]) -> Result<Self> {
        let rank = inputs[0].rank() - 2;
        let (batch, matrix) = inputs[0].shape().split_at(rank);
        let (queries, size) = (matrix[0], matrix[1]);
        let (keys, value) = (inputs[2].shape()[rank], inputs[2].shape()[rank + 1]);
        let scores = [batch, &[queries, keys]].concat();
        Ok(Self {
            q: Matrices::new(inputs[0], inputs[0].shape())?,
            k: Matrices::new(inputs[1], inputs[1].shape())?,
            v: Matrices::new(inputs[2], inputs[2].shape())?,
            biases: inputs[3..].iter().map(|bias| Matrices::new(bias, &scores)).collect::<Result<_>>()?,
            batch: batch.iter().product(),
            queries,
            keys,
            size,
            value,
            scale: T::from_f64(op.factor(size)),
            scale_2: T::from_f64(op.factor(size) * std::f64::consts::LOG2_E),
            causal: op.causal,
        })
    }

    fn key_block(&self) -> usize {
        block_size(self.keys, KEY_BLOCK, 8)
    }
}

/// Scratch memory divided into buffers of `counts` elements, each aligned to a cache line.
fn rooms<T: Real, const N: usize>(counts: [usize; N]) -> Result<(Scratch<T>, [*mut T; N])> {
    let mut total = 0;
    let starts = counts.map(|count| {
        total += count.next_multiple_of(16);
        total - count.next_multiple_of(16)
    });
    let mut scratch = Scratch::new("attention", total)?;
    let first = scratch.uninit().as_mut_ptr().cast::<T>();
    Ok((scratch, starts.map(|start| first.wrapping_add(start))))
}

/// A strip: some columns of a block, as wide as a register tile.
#[derive(Clone, Copy)]
struct Strip {
    first: usize,
    columns: usize,
    vectors: usize,
    /// The number of columns, rounded up to vectors.
    width: usize,
}

/// The strip of `columns` columns that starts at `first`. Strips are stored one after the other, in rows of `width` elements.
#[inline(always)]
fn strip<S: Simd, T: Real>(first: usize, columns: usize) -> Strip {
    let lanes = T::Vec::<S>::LANES;
    let vectors = next_vectors::<S>((columns - first).div_ceil(lanes));
    Strip { first, columns: (vectors * lanes).min(columns - first), vectors, width: vectors * lanes }
}

/// The row offsets of strips of one, two and three vectors.
struct Steps([Vec<usize>; 3]);

impl Steps {
    fn new<S: Simd, T: Real>(most: usize) -> Self {
        let steps = most.min(STEPS);
        Steps(std::array::from_fn(|i| (0..steps).map(|k| k * (i + 1) * T::Vec::<S>::LANES).collect()))
    }
}

/// A tile of a sum over any number `k` of steps: `c = start + Σ_k a[k] b[k]`, see [`tile`].
///
/// # Safety
/// `a` is readable for the rounded-up rows of `k` steps, `b` for `k` rows of the strip; `c` is writable, and `start`
/// readable, for the rounded-up rows of the strip.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn product<S: Simd, T: Real>(
    rows: usize,
    vectors: usize,
    steps: &Steps,
    k: usize,
    a: Left<T>,
    b: *const T,
    mut start: Option<Rows<T>>,
    c: Rows<T>,
) {
    let offsets = &steps.0[vectors - 1];
    let mut from = 0;
    loop {
        let here = (k - from).min(STEPS);
        // SAFETY: by the caller's promise.
        unsafe {
            let b = b.add(from * vectors * T::Vec::<S>::LANES);
            tile::<S, T, false>(rows, vectors, a.from(from), b, &offsets[..here], start.into(), c);
        }
        from += here;
        if from >= k {
            return;
        }
        start = Some(c);
    }
}

/// Packs `rows` rows of `k` elements as consecutive panels.
///
/// # Safety
/// The elements are readable; `to` has room for the rows rounded up to panels.
#[inline(always)]
unsafe fn pack_rows<S: Simd, T: Real>(
    from: *const T,
    row_stride: usize,
    step: usize,
    rows: usize,
    k: usize,
    to: *mut T,
) {
    let height = panel_rows::<S>();
    for first in (0..if k > 0 { rows } else { 0 }).step_by(height) {
        // SAFETY: by the caller's promise.
        unsafe {
            let count = height.min(rows - first);
            pack_panel::<S, T>(from.add(first * row_stride), row_stride, step, count, k, to.add(first * k));
        }
    }
}

/// Packs `k` rows of a strip.
///
/// # Safety
/// The elements are readable; `to` has room for `k` rows of the strip.
#[inline(always)]
unsafe fn pack_strip<S: Simd, T: Real>(
    from: *const T,
    row_stride: usize,
    column_stride: usize,
    k: usize,
    columns: usize,
    to: *mut T,
) {
    if k > 0 {
        // SAFETY: by the caller's promise. (The columns belong to one strip, so there is a single panel.)
        unsafe { pack_block::<S, T>(from, row_stride, column_stride, k, columns, k, to) };
    }
}

/// Multiplies `count` elements by a factor.
///
/// # Safety
/// The elements are readable and writable.
#[inline(always)]
unsafe fn scale<T: Real>(numbers: *mut T, count: usize, factor: T) {
    // SAFETY: by the caller's promise.
    for number in unsafe { std::slice::from_raw_parts_mut(numbers, count) } {
        *number *= factor;
    }
}

/// Adds the biases to `rows` rows of a strip of scores. `query` and `key` are the indices of the first score; `by_key` says
/// whether keys are the rows.
///
/// # Safety
/// The biases have these rows and columns; `scores` and `room` hold the rows of the strip.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn add_biases<S: Simd, T: Real>(
    plan: &Operands<'_, T>,
    matrix: usize,
    [query, key]: [usize; 2],
    by_key: bool,
    rows: usize,
    strip: Strip,
    scores: *mut T,
    room: *mut T,
) {
    let unit = T::Vec::<S>::splat(T::LOG2_E);
    for bias in &plan.biases {
        let strides = if by_key { [bias.column, bias.row] } else { [bias.row, bias.column] };
        // SAFETY: by the caller's promise.
        unsafe {
            pack_strip::<S, T>(bias.at(matrix, query, key), strides[0], strides[1], rows, strip.columns, room);
            for i in (0..rows * strip.width).step_by(T::Vec::<S>::LANES) {
                let score = T::Vec::<S>::load_ptr(scores.add(i));
                T::Vec::<S>::load_ptr(room.add(i)).mul_add(unit, score).store_ptr(scores.add(i));
            }
        }
    }
}

/// Rows rounded up to whole panels of every instruction set.
fn padded(rows: usize) -> usize {
    rows.next_multiple_of(ROW_UNIT)
}
