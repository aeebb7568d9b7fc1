//! The forward pass: processes blocks of keys for strips of queries, with a running maximum and sum.

use std::{mem::MaybeUninit, ops::Range};

use tomograd_core::{Result, Tensor, TensorBuilder};

use super::{
    CHUNK_WORK, Matrices, Operands, QUERY_GROUP, Steps, Strip, add_biases, pack_rows, pack_strip, padded,
    prefetch::{Ahead, Piece},
    product, rooms, scale, strip,
};
use crate::{
    attention::Attention,
    matmul::cpu::{
        block_size,
        tile::{Begin, Left, Rows, next_vectors, panel_rows, rounded_rows, tile},
    },
    parallel::{Grid, or_give_up, parallel_for},
    simd::{Kernel, Real, Simd, Vector, dispatch, math, transpose, vectors},
};

/// The approximate number of queries that share packed keys and values.
pub(super) const QUERY_CHUNK: usize = 528;
/// With fewer queries than this, keys and values are read in place: packing would cost more than it saves.
pub(super) const PACKED_QUERIES: usize = 192;

/// y, and for each query the logarithm of the sum in units of ln 2, log₂ Σ_j 2^score; 0 for a query that sees no key.
pub(in crate::attention) fn forward<T: Real>(op: &Attention, inputs: &[&Tensor]) -> Result<(Tensor, Tensor)> {
    let plan = Operands::<T>::new(op, inputs)?;
    let Operands { batch, queries, keys, value, .. } = plan;
    let lead = &inputs[0].shape()[..inputs[0].rank() - 2];
    let (shape, device) = ([lead, &[queries, value]].concat(), inputs[0].device());
    if batch * queries * keys * value == 0 {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, inputs[0].dtype(), device);
        return Ok((zeros(&shape)?, zeros(&[batch, queries])?));
    }
    let mut y = TensorBuilder::<T>::new("attention", &shape, device)?;
    let mut logarithms = TensorBuilder::<T>::new("attention", &[batch, queries], device)?;
    let chunk = block_size(queries, QUERY_CHUNK, QUERY_GROUP);
    let chunks = queries.div_ceil(chunk);
    let work = queries.min(chunk) * keys * (plan.size + value);
    let y_target = Grid::batched(y.uninit()?, batch, queries, value, chunk, value)?;
    let target = Grid::batched(logarithms.uninit()?, batch, 1, queries, 1, chunk)?;
    parallel_for(batch * chunks, (CHUNK_WORK / work).max(1), |range| {
        dispatch(Chunks { plan: &plan, range, chunk, chunks, y: &y_target, logarithms: &target });
    })?;
    drop((y_target, target));
    // SAFETY: the chunks cover all queries, and each writes all of its own.
    Ok(unsafe { (y.assume_init(), logarithms.assume_init()) })
}

struct Chunks<'a, T> {
    plan: &'a Operands<'a, T>,
    /// Indices of (matrix, chunk of its queries) pairs.
    range: Range<usize>,
    chunk: usize,
    chunks: usize,
    y: &'a Grid<'a, MaybeUninit<T>>,
    logarithms: &'a Grid<'a, MaybeUninit<T>>,
}

/// The scratch buffers of a thread. Buffers for queries consist of consecutive strips.
struct Rooms<T> {
    /// The queries of the chunk, times the scale, transposed: E rows for each strip.
    q: *mut T,
    /// A block of keys in panels of keys, and of values in panels of elements.
    k: *mut T,
    v: *mut T,
    /// For a block of keys and the queries of a strip, keys as rows: the scores, later their weights; and the biases.
    scores: *mut T,
    bias: *mut T,
    /// For each query, the running maximum of its scores, the sum of weights, and the weighted sum of values, transposed:
    /// `values` rows for each strip.
    largest: *mut T,
    totals: *mut T,
    sums: *mut T,
    /// V, rounded up to panels.
    values: usize,
}

/// A block of keys or values as the left operand of tiles. The panel of row `i` starts `i * next` elements after the first.
#[derive(Clone, Copy)]
struct Panels<T> {
    first: Left<T>,
    next: usize,
}

impl<T: Real> Panels<T> {
    /// Packed panels of `k` steps.
    #[inline(always)]
    fn packed<S: Simd>(first: *const T, k: usize) -> Self {
        Panels { first: Left::panel::<S>(first), next: k }
    }

    #[inline(always)]
    fn at(&self, row: usize) -> Left<T> {
        Left { first: self.first.first.wrapping_add(row * self.next), ..self.first }
    }
}

/// The next strip of `queries` queries, which starts at `first`, and the end of its group.
#[inline(always)]
fn next_strip<S: Simd, T: Real>(first: &mut usize, queries: usize) -> Option<(Strip, usize)> {
    let group = queries.min((*first / QUERY_GROUP + 1) * QUERY_GROUP);
    let strip = (*first < queries).then(|| strip::<S, T>(*first, group))?;
    *first += strip.width;
    Some((strip, group))
}

impl<T: Real> Kernel for Chunks<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Operands { keys, size, value, .. } = *self.plan;
        let (key_block, values) = (self.plan.key_block(), padded(value));
        let columns = self.chunk.min(self.plan.queries).next_multiple_of(16);
        let strip_room = padded(key_block) * QUERY_GROUP;
        let (_scratch, [q, k, v, scores, bias, largest, totals, sums]) = or_give_up(rooms::<T, 8>([
            size * columns,
            padded(key_block) * size,
            values * key_block,
            strip_room,
            if self.plan.biases.is_empty() { 0 } else { strip_room },
            columns,
            columns,
            values * columns,
        ]));
        let rooms = Rooms { q, k, v, scores, bias, largest, totals, sums, values };
        let steps = Steps::new::<S, T>(size.max(key_block));
        let value_rows: Vec<usize> = (0..key_block).map(|key| key * self.plan.v.row).collect();
        for item in self.range.clone() {
            let (matrix, first_query) = (item / self.chunks, item % self.chunks * self.chunk);
            let queries = self.chunk.min(self.plan.queries - first_query);
            let mut y = self.y.tile_of(matrix, item % self.chunks, 0);
            let y = y.as_mut_ptr().cast::<T>();
            // SAFETY: the chunk's queries and the block's keys lie inside the operands, and the buffers have room for them.
            unsafe {
                self.pack_queries::<S>(&rooms, matrix, first_query, queries);
                for first_key in (0..keys).step_by(key_block) {
                    if self.plan.causal && first_key >= first_query + queries {
                        break;
                    }
                    let count = key_block.min(keys - first_key);
                    let panels = [
                        self.key_panels::<S>(&rooms, matrix, first_key, count),
                        self.value_panels::<S>(&rooms, matrix, first_key, count),
                    ];
                    let height = panel_rows::<S>();
                    let steps_of_strip = count.div_ceil(height) * size + value.div_ceil(height) * count;
                    let steps_of_all = queries.div_ceil(QUERY_GROUP) * steps_of_strip;
                    let mut ahead = Ahead::new(self.pieces_ahead(item, first_key + count, (y, queries)), steps_of_all);
                    let mut next = 0;
                    while let Some((strip, group)) = next_strip::<S, T>(&mut next, queries) {
                        let place = [first_query + strip.first, first_key];
                        // Keys that no query of the group sees are skipped.
                        let last = if self.plan.causal { first_query + group } else { keys };
                        let seen = count.min(last.saturating_sub(first_key));
                        if seen > 0 {
                            self.block::<S>(&rooms, &steps, matrix, place, strip, seen, panels, &mut ahead);
                            if self.by_rows::<S>(strip) {
                                self.sum_rows::<S>(&rooms, matrix, strip, &value_rows[..seen]);
                            }
                        }
                    }
                }
                self.finish::<S>(&rooms, item, queries, y);
            }
        }
    }
}

impl<T: Real> Chunks<'_, T> {
    /// What to prefetch while the block of keys that ends before `key` is processed: the next block, or the output and the
    /// next matrix.
    fn pieces_ahead(&self, item: usize, key: usize, (y, queries): (*const T, usize)) -> [Piece<T>; 4] {
        let Operands { ref q, ref k, ref v, keys, size, value, .. } = *self.plan;
        let part = |x: &Matrices<'_, T>, matrix, first, count, length| {
            // Elements that aren't contiguous aren't prefetched.
            let count = if x.column == 1 { count } else { 0 };
            Piece::new(x.at(matrix, first, 0), count, x.row, length)
        };
        let (matrix, next, last) = (item / self.chunks, (item + 1) / self.chunks, self.plan.batch * self.chunks - 1);
        let block = |first: usize| self.plan.key_block().min(keys - first);
        if key < keys {
            let (k, v) = (part(k, matrix, key, block(key), size), part(v, matrix, key, block(key), value));
            return [k, v, Piece::NONE, Piece::NONE];
        }
        let y = Piece::new(y, queries, value, value);
        if item == last {
            return [y, Piece::NONE, Piece::NONE, Piece::NONE];
        }
        let first_query = (item + 1) % self.chunks * self.chunk;
        let queries = self.chunk.min(self.plan.queries - first_query);
        let (k, v) = (part(k, next, 0, block(0), size), part(v, next, 0, block(0), value));
        [y, part(q, next, first_query, queries, size), k, v]
    }

    /// A block of keys in panels of keys, packed or in place.
    ///
    /// # Safety
    /// The keys exist, and the buffer has room for them.
    #[inline(always)]
    unsafe fn key_panels<S: Simd>(&self, rooms: &Rooms<T>, matrix: usize, first: usize, count: usize) -> Panels<T> {
        let Operands { ref k, keys, size, queries, .. } = *self.plan;
        let (height, from) = (panel_rows::<S>(), k.at(matrix, first, 0));
        let last = (count - 1) / height * height;
        let readable = first + last + rounded_rows::<S>(count - last) <= keys;
        if queries < PACKED_QUERIES && k.column == 1 && readable {
            return Panels { first: Left { first: from, row: k.row, step: 1, next: 0 }, next: k.row };
        }
        // SAFETY: by the caller's promise.
        unsafe { pack_rows::<S, T>(from, k.row, k.column, count, size, rooms.k) };
        Panels::packed::<S>(rooms.k, size)
    }

    /// A block of values in panels of elements, packed or in place.
    ///
    /// # Safety
    /// As for [`key_panels`](Self::key_panels).
    #[inline(always)]
    unsafe fn value_panels<S: Simd>(&self, rooms: &Rooms<T>, matrix: usize, first: usize, count: usize) -> Panels<T> {
        let Operands { ref v, value, queries, .. } = *self.plan;
        let (height, from) = (panel_rows::<S>(), v.at(matrix, first, 0));
        let last = (value - 1) / height * height;
        if queries < PACKED_QUERIES && v.column == 1 && rounded_rows::<S>(value - last) == value - last {
            return Panels { first: Left { first: from, row: 1, step: v.row, next: 0 }, next: 1 };
        }
        // SAFETY: by the caller's promise.
        unsafe { pack_rows::<S, T>(from, v.column, v.row, value, count, rooms.v) };
        Panels::packed::<S>(rooms.v, count)
    }

    /// Whether the sums of a strip are stored as rows, one for each query, rather than as columns: for so few queries that
    /// columns would leave most of a vector empty.
    #[inline(always)]
    fn by_rows<S: Simd>(&self, strip: Strip) -> bool {
        let (plan, lanes) = (self.plan, T::Vec::<S>::LANES);
        2 * strip.columns <= lanes
            && plan.keys <= plan.key_block()
            && plan.v.column == 1
            && plan.value.is_multiple_of(lanes)
    }

    /// Computes the weighted sums of values for a strip that is summed [`by_rows`](Self::by_rows).
    ///
    /// # Safety
    /// The buffers hold the strip's weights, and there are values for them.
    #[inline(always)]
    unsafe fn sum_rows<S: Simd>(&self, rooms: &Rooms<T>, matrix: usize, strip: Strip, value_rows: &[usize]) {
        let (plan, lanes) = (self.plan, T::Vec::<S>::LANES);
        let weights = Left { first: rooms.scores.cast_const(), row: 1, step: strip.width, next: 0 };
        let (values, sums) = (plan.v.at(matrix, 0, 0), rooms.sums.wrapping_add(strip.first * rooms.values));
        let mut first = 0;
        while first < plan.value {
            let vectors = next_vectors::<S>((plan.value - first) / lanes);
            let c = Rows { first: sums.wrapping_add(first), stride: plan.value };
            // SAFETY: by the caller's promise. Half a vector of queries is at most one panel, and the buffer of sums has room
            // for as many rows of values as a vector has lanes.
            unsafe {
                tile::<S, T, false>(
                    strip.columns,
                    vectors,
                    weights,
                    values.wrapping_add(first),
                    value_rows,
                    Begin::Zero,
                    c,
                )
            };
            first += vectors * lanes;
        }
    }

    /// # Safety
    /// The queries exist, and the buffers have room for them.
    #[inline(always)]
    unsafe fn pack_queries<S: Simd>(&self, rooms: &Rooms<T>, matrix: usize, first_query: usize, queries: usize) {
        let Operands { q, size, scale_2, .. } = self.plan;
        let mut next = 0;
        while let Some((strip, _)) = next_strip::<S, T>(&mut next, queries) {
            // SAFETY: by the caller's promise.
            unsafe {
                let (from, to) = (q.at(matrix, first_query + strip.first, 0), rooms.q.add(strip.first * size));
                pack_strip::<S, T>(from, q.column, q.row, *size, strip.columns, to);
                scale(to, size * strip.width, *scale_2);
            }
        }
    }

    /// Adds the contributions of the first `seen` keys of a block to the sums of a strip of queries. For strips that are
    /// summed [`by_rows`](Self::by_rows), only computes the weights.
    ///
    /// # Safety
    /// The panels are those of the block's keys and values, and the strip's queries are packed in the buffers.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn block<S: Simd>(
        &self,
        rooms: &Rooms<T>,
        steps: &Steps,
        matrix: usize,
        [query, key]: [usize; 2],
        strip: Strip,
        seen: usize,
        [keys, values]: [Panels<T>; 2],
        ahead: &mut Ahead<T>,
    ) {
        let (height, size, width) = (panel_rows::<S>(), self.plan.size, strip.width);
        // SAFETY: by the caller's promise; tiles write rows up to whole panels, for which the buffers have room.
        unsafe {
            let q = rooms.q.add(strip.first * size);
            for row in (0..seen).step_by(height) {
                let c = Rows { first: rooms.scores.add(row * width), stride: width };
                ahead.ask(size);
                product::<S, T>(height.min(seen - row), strip.vectors, steps, size, keys.at(row), q, None, c);
            }
            add_biases::<S, T>(self.plan, matrix, [query, key], true, seen, strip, rooms.scores, rooms.bias);
            if self.plan.causal {
                for row in (0..seen).filter(|row| key + row > query) {
                    let hidden = (key + row - query).min(width);
                    std::slice::from_raw_parts_mut(rooms.scores.add(row * width), hidden).fill(-T::INFINITY);
                }
            }
            let sums = rooms.sums.add(strip.first * rooms.values);
            let state = [rooms.largest.add(strip.first), rooms.totals.add(strip.first), sums];
            let (scores, value) = (rooms.scores, self.plan.value);
            match strip.vectors {
                3 => weigh::<T::Vec<S>, 3>(scores, seen, state, value, key == 0),
                2 => weigh::<T::Vec<S>, 2>(scores, seen, state, value, key == 0),
                _ => weigh::<T::Vec<S>, 1>(scores, seen, state, value, key == 0),
            }
            let rows = if self.by_rows::<S>(strip) { 0 } else { self.plan.value };
            for row in (0..rows).step_by(height) {
                let c = Rows { first: sums.add(row * width), stride: width };
                ahead.ask(seen);
                let start = (key > 0).then_some(c);
                product::<S, T>(height.min(rows - row), strip.vectors, steps, seen, values.at(row), scores, start, c);
            }
        }
    }

    /// Divides by the sums of weights and writes the chunk's output, whose rows start at `y`.
    ///
    /// # Safety
    /// The buffers hold the sums, and the output has room for the queries.
    #[inline(always)]
    unsafe fn finish<S: Simd>(&self, rooms: &Rooms<T>, item: usize, queries: usize, y: *mut T) {
        let (value, lanes) = (self.plan.value, T::Vec::<S>::LANES);
        let splat = |number: T| T::Vec::<S>::splat(number);
        let mut tile = self.logarithms.tile_of(item / self.chunks, 0, item % self.chunks);
        let logarithms = tile.row(0);
        let mut next = 0;
        while let Some((strip, _)) = next_strip::<S, T>(&mut next, queries) {
            let Strip { first, columns, width, .. } = strip;
            // SAFETY: by the caller's promise.
            unsafe {
                let (sums, totals) = (rooms.sums.add(first * rooms.values), rooms.totals.add(first));
                for column in (0..width).step_by(lanes) {
                    let total = T::Vec::<S>::load_ptr(totals.add(column));
                    let largest = T::Vec::<S>::load_ptr(rooms.largest.add(first + column));
                    // The total is 0 where the query sees no key.
                    let none = total.eq(splat(T::ZERO));
                    T::Vec::<S>::select(none, total, splat(T::ONE).div(total)).store_ptr(totals.add(column));
                    let logarithm = math::ln(total).mul_add(splat(T::LOG2_E), largest);
                    let to = &mut logarithms[first + column..];
                    let count = lanes.min(to.len());
                    T::Vec::<S>::select(none, splat(T::ZERO), logarithm)
                        .store_partial_ptr(to.as_mut_ptr().cast(), count);
                }
                if self.by_rows::<S>(strip) {
                    for (row, i) in (0..columns).flat_map(|row| (0..value).step_by(lanes).map(move |i| (row, i))) {
                        let sum = T::Vec::<S>::load_ptr(sums.add(row * value + i));
                        sum.mul(splat(*totals.add(row))).store_ptr(y.add((first + row) * value + i));
                    }
                    continue;
                }
                for row in 0..value {
                    for column in (0..width).step_by(lanes) {
                        let place = sums.add(row * width + column);
                        let inverse = T::Vec::<S>::load_ptr(totals.add(column));
                        T::Vec::<S>::load_ptr(place).mul(inverse).store_ptr(place);
                    }
                }
                transpose::<T::Vec<S>>(sums, width, [value, columns], y.add(first * value), value);
            }
        }
    }
}

/// Turns `rows` rows of scores into weights 2^(score − largest), where `largest` is the maximum over all keys so far, and
/// adds them to the totals. Rescales the previous totals and sums from the previous maximum to the new one.
///
/// # Safety
/// `scores` holds the rows, `state` one maximum and one total for each column, and `values` rows of sums. These are still
/// uninitialised when this is the `first` block.
#[inline(always)]
unsafe fn weigh<V: Vector, const N: usize>(
    scores: *mut V::Elem,
    rows: usize,
    [largest_place, total_place, sums]: [*mut V::Elem; 3],
    values: usize,
    first: bool,
) {
    let width = N * V::LANES;
    // SAFETY: by the caller's promise.
    unsafe {
        let load = |from: *mut V::Elem, row: usize| -> [V; N] {
            vectors(
                #[inline(always)]
                |j| V::load_ptr(from.add(row * width + j * V::LANES)),
            )
        };
        let mut largest = load(scores, 0);
        let quads = rows / 4;
        for row in (0..4 * quads).step_by(4) {
            let (a, b, c, d) = (load(scores, row), load(scores, row + 1), load(scores, row + 2), load(scores, row + 3));
            for j in 0..N {
                largest[j] = largest[j].max(a[j].max(b[j]).max(c[j].max(d[j])));
            }
        }
        for row in 4 * quads..rows {
            let a = load(scores, row);
            for j in 0..N {
                largest[j] = largest[j].max(a[j]);
            }
        }
        let mut totals = [V::zero(); N];
        let mut shift = [V::zero(); N];
        for j in 0..N {
            let place = largest_place.add(j * V::LANES);
            if !first {
                let before = V::load_ptr(place);
                largest[j] = largest[j].max(before);
            }
            // If all scores are −∞, any finite shift gives weights of zero.
            shift[j] = V::select(largest[j].eq(V::splat(-V::Elem::INFINITY)), V::zero(), largest[j]);
            if !first {
                let factor = math::exp2_weight(V::load_ptr(place).sub(shift[j]));
                totals[j] = V::load_ptr(total_place.add(j * V::LANES)).mul(factor);
                for row in 0..values {
                    let sum = sums.add(row * width + j * V::LANES);
                    V::load_ptr(sum).mul(factor).store_ptr(sum);
                }
            }
            largest[j].store_ptr(place);
        }
        for row in 0..rows {
            for j in 0..N {
                let place = scores.add(row * width + j * V::LANES);
                let weight = math::exp2_weight(V::load_ptr(place).sub(shift[j]));
                weight.store_ptr(place);
                totals[j] = totals[j].add(weight);
            }
        }
        for (j, total) in totals.into_iter().enumerate() {
            total.store_ptr(total_place.add(j * V::LANES));
        }
    }
}
