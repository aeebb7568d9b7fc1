//! The backward pass: each block of softmax weights, queries by keys, is recomputed once, and its contributions to all
//! gradients are added while it is in the cache.
//!
//! Every gradient is a sum in sequence over queries or keys. So the bits depend only on how the keys are divided into parts,
//! and that only in dq.

use std::{mem::MaybeUninit, ops::Range};

use tomograd_core::{Result, Scratch, Tensor, TensorBuilder};

use super::{
    CHUNK_WORK, Operands, Steps, Strip, add_biases, pack_rows, pack_strip, padded, product, rooms, scale, strip,
};
use crate::{
    attention::Attention,
    matmul::cpu::{
        block_size,
        pack::pack_panel,
        tile::{Left, Rows, panel_rows},
    },
    parallel::{Grid, PartialSlots, Partition, Tile, or_give_up, parallel_for},
    reduce::sum_to,
    simd::{Kernel, Real, Simd, Vector, dispatch, dot, math, transpose},
};

/// Queries of a block: a whole number of panels for every instruction set.
pub(super) const QUERY_BLOCK: usize = 96;
/// The approximate number of keys of a block, and the width of the widest strip; a block is a whole number of such strips.
pub(super) const KEY_BLOCK: usize = 192;
pub(super) const STRIP: usize = 48;
/// With fewer matrices than this, the keys are divided into parts to keep several threads busy.
const MATRICES: usize = 8;
/// The least number of keys of a part.
pub(super) const PART: usize = 256;
/// The approximate number of score gradients that are stored at a time, to be summed for the biases.
const SCORES: usize = 1 << 23;

/// The gradients of the inputs for which `needed` is true; `None` for the others.
pub(in crate::attention) fn backward<T: Real>(
    op: &Attention,
    inputs: &[&Tensor],
    [y, logarithms, dy]: [&Tensor; 3],
    needed: &[bool],
) -> Result<Vec<Option<Tensor>>> {
    let rank = inputs[0].rank();
    let (queries, keys) = (inputs[0].shape()[rank - 2], inputs[1].shape()[rank - 2]);
    if dy.count() * keys == 0 {
        let zeros = |x: &Tensor| Tensor::zeros(x.shape(), x.dtype(), x.device());
        return inputs.iter().zip(needed).map(|(&x, &needed)| needed.then(|| zeros(x)).transpose()).collect();
    }
    let like = |x: &&Tensor| TensorBuilder::<T>::new("attention", x.shape(), x.device());
    let mut results: Vec<TensorBuilder<T>> = inputs.iter().map(like).collect::<Result<_>>()?;
    // Slices of the first batch axis; a single one if no bias needs the gradients of the scores.
    let lift = |x: &Tensor| if rank == 2 { x.unsqueeze(0) } else { Ok(x.clone()) };
    let tensors = [inputs[0], inputs[1], inputs[2], &y.contiguous()?, &dy.contiguous()?];
    let tensors: Vec<Tensor> = tensors.into_iter().map(lift).collect::<Result<_>>()?;
    let (length, rest) = (tensors[0].shape()[0], tensors[0].shape()[1..].iter().rev().skip(2).product::<usize>());
    let biased = needed[3..].contains(&true);
    let step = if biased { (SCORES / (rest * queries * keys)).clamp(1, length) } else { length };
    for start in (0..length).step_by(step) {
        let count = step.min(length - start);
        let part = |x: &Tensor, own: bool| if own { x.narrow(0, start, count) } else { Ok(x.clone()) };
        let own = |x: &Tensor| x.rank() == tensors[0].rank() && x.shape()[0] == length;
        let mut sliced: Vec<Tensor> = tensors.iter().map(|x| part(x, true)).collect::<Result<_>>()?;
        let dy = sliced.split_off(3);
        sliced.extend(inputs[3..].iter().map(|x| part(x, own(x))).collect::<Result<Vec<_>>>()?);
        let plan = Operands::<T>::new(op, &sliced.iter().collect::<Vec<_>>())?;
        let mut shape = [sliced[0].shape(), &[keys]].concat();
        shape.remove(shape.len() - 2);
        let scores = || TensorBuilder::<T>::new("attention", &shape, dy[0].device());
        let mut scores = biased.then(scores).transpose()?;
        let range = |of_one: usize| start * of_one..(start + count) * of_one;
        let saved =
            [dy[0].as_slice::<T>()?, dy[1].as_slice::<T>()?, &logarithms.as_slice::<T>()?[range(rest * queries)]];
        let lengths = [queries * plan.size, keys * plan.size, keys * plan.value];
        let mut outputs =
            results.iter_mut().zip(lengths).map(|(result, length)| Ok(&mut result.uninit()?[range(rest * length)]));
        let mut output = || outputs.next().unwrap_or_else(|| Ok(Default::default()));
        let outputs = [output()?, output()?, output()?];
        gradients(&plan, saved, outputs, scores.as_mut().map(TensorBuilder::uninit).transpose()?)?;
        let Some(scores) = scores else { continue };
        // SAFETY: the run above wrote the gradients of all scores.
        let scores = unsafe { scores.assume_init() };
        for (i, bias) in inputs.iter().enumerate().skip(3).filter(|(i, _)| needed[*i]) {
            let sum = sum_to(&scores, part(bias, own(bias))?.shape())?;
            let sum = sum.as_slice::<T>()?;
            let target = results[i].uninit()?;
            if own(bias) {
                target[range(sum.len() / count)].write_copy_of_slice(sum);
            } else if start == 0 {
                target.write_copy_of_slice(sum);
            } else {
                // SAFETY: the first slice wrote the whole target.
                let target = unsafe { target.assume_init_mut() };
                target.iter_mut().zip(sum).for_each(|(to, &from)| *to += from);
            }
        }
    }
    // SAFETY: the slices together wrote the gradients of q, k, v and of each bias that needs one; the others are dropped.
    let finish = |(result, &needed): (TensorBuilder<T>, &bool)| needed.then(|| unsafe { result.assume_init() });
    Ok(results.into_iter().zip(needed).map(finish).collect())
}

/// The gradients of q, k and v, and of the scores if `scores` is given, from y, its gradient and the logarithms.
fn gradients<T: Real>(
    plan: &Operands<'_, T>,
    [y, dy, logarithms]: [&[T]; 3],
    [dq, dk, dv]: [&mut [MaybeUninit<T>]; 3],
    scores: Option<&mut [MaybeUninit<T>]>,
) -> Result<()> {
    let Operands { batch, queries, keys, size, value, .. } = *plan;
    let parts = (keys / PART).min(MATRICES.div_ceil(batch)).max(1);
    let part = block_size(keys, keys.div_ceil(parts), 8);
    let parts = keys.div_ceil(part);
    // Each part of the keys writes its own contribution to dq.
    let mut shares = Scratch::<T>::new("attention", if parts > 1 { parts * dq.len() } else { 0 })?;
    let work = queries * part.min(keys) * (size + value) * 5 / 2;
    {
        let targets = Targets {
            dq: Partition::new(if parts > 1 { shares.uninit() } else { &mut *dq }, queries * size),
            dk: Grid::batched(dk, batch, keys, size, part, size)?,
            dv: Grid::batched(dv, batch, keys, value, part, value)?,
            scores: scores.map(|scores| Grid::batched(scores, batch, queries, keys, queries, part)).transpose()?,
        };
        parallel_for(batch * parts, (CHUNK_WORK / work).max(1), |range| {
            dispatch(Chunks { plan, range, part, parts, y, dy, logarithms, targets: &targets });
        })?;
    }
    if parts > 1 && size > 0 {
        // SAFETY: the chunks wrote all contributions.
        let shares = unsafe { shares.uninit().assume_init_mut() };
        dq.write_copy_of_slice(PartialSlots::filled(shares, dq.len())?.sum());
    }
    Ok(())
}

/// The outputs of the chunks.
struct Targets<'a, T> {
    /// A block for each part of the keys and each matrix, the matrices of the first part first.
    dq: Partition<'a, MaybeUninit<T>>,
    dk: Grid<'a, MaybeUninit<T>>,
    dv: Grid<'a, MaybeUninit<T>>,
    scores: Option<Grid<'a, MaybeUninit<T>>>,
}

struct Chunks<'a, T> {
    plan: &'a Operands<'a, T>,
    /// Indices of (matrix, part of its keys) pairs.
    range: Range<usize>,
    part: usize,
    parts: usize,
    y: &'a [T],
    dy: &'a [T],
    logarithms: &'a [T],
    targets: &'a Targets<'a, T>,
}

/// The outputs of a part of the keys: its rows of dk and dv, and its columns of the score gradients.
struct Outputs<'a, T> {
    dk: *mut T,
    dv: *mut T,
    scores: Option<Tile<'a, MaybeUninit<T>>>,
}

/// The scratch buffers of a thread.
struct Rooms<T> {
    /// All queries, times the scale, and all rows of dy, in panels of queries.
    q: *mut T,
    dy: *mut T,
    /// The same (q without the scale) in panels of elements.
    q_elements: *mut T,
    dy_elements: *mut T,
    /// Σ_c dy y for each query.
    inner: *mut T,
    /// dq without the scale, in rows of `q_width` elements.
    dq: *mut T,
    q_width: usize,
    /// A block of keys and of values, transposed, in strips of keys; the keys also in strips of elements.
    k: *mut T,
    v: *mut T,
    k_elements: *mut T,
    /// dk without the scale and dv of a block, transposed, in strips of keys.
    dk: *mut T,
    dv: *mut T,
    /// For a block of queries and a strip of keys: the weights; the gradients of the weights, then of the scores; and the
    /// biases.
    weights: *mut T,
    scores: *mut T,
    bias: *mut T,
    /// The score gradients of a block, in panels of queries.
    packed: *mut T,
}

impl<T: Real> Kernel for Chunks<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Operands { queries, keys, size, value, .. } = *self.plan;
        let key_block = block_size(self.part.min(keys), KEY_BLOCK, STRIP);
        let (columns, q_width) = (key_block.min(self.part).next_multiple_of(16), size.next_multiple_of(16));
        let tile = QUERY_BLOCK * STRIP;
        let (_scratch, pointers) = or_give_up(rooms::<T, 15>([
            padded(queries) * size,
            padded(queries) * value,
            padded(size) * queries,
            padded(value) * queries,
            queries,
            padded(queries) * q_width,
            columns * size,
            columns * value,
            columns * q_width,
            columns * padded(size),
            columns * padded(value),
            tile,
            tile,
            if self.plan.biases.is_empty() { 0 } else { tile },
            QUERY_BLOCK * columns,
        ]));
        let [q, dy, q_elements, dy_elements, inner, dq, k, v, k_elements, dk, dv, weights, scores, bias, packed] =
            pointers;
        let rooms = Rooms {
            q,
            dy,
            q_elements,
            dy_elements,
            inner,
            dq,
            q_width,
            k,
            v,
            k_elements,
            dk,
            dv,
            weights,
            scores,
            bias,
            packed,
        };
        let steps = Steps::new::<S, T>(size.max(value).max(QUERY_BLOCK).max(key_block));
        for item in self.range.clone() {
            let (matrix, part) = (item / self.parts, item % self.parts);
            let end = keys.min((part + 1) * self.part);
            // SAFETY: the part's keys and all queries lie inside the operands, and the buffers have room for them.
            unsafe {
                self.pack_queries::<S>(&rooms, matrix);
                let tile = |grid: &Grid<'_, MaybeUninit<T>>| grid.tile_of(matrix, part, 0).as_mut_ptr().cast::<T>();
                let mut out = Outputs {
                    dk: if size > 0 { tile(&self.targets.dk) } else { std::ptr::dangling_mut() },
                    dv: tile(&self.targets.dv),
                    scores: self.targets.scores.as_ref().map(|scores| scores.tile_of(matrix, 0, part)),
                };
                for key in (part * self.part..end).step_by(key_block) {
                    self.block::<S>(&rooms, &steps, matrix, key..end.min(key + key_block), &mut out);
                }
                if size > 0 {
                    let target = self.targets.dq.block(part * self.plan.batch + matrix).as_mut_ptr().cast::<T>();
                    let factor = T::Vec::<S>::splat(self.plan.scale);
                    for query in 0..queries {
                        for from in (0..size).step_by(T::Vec::<S>::LANES) {
                            let sum = T::Vec::<S>::load_ptr(rooms.dq.add(query * q_width + from));
                            sum.mul(factor).store_partial_ptr(target.add(query * size + from), size - from);
                        }
                    }
                }
            }
        }
    }
}

impl<T: Real> Chunks<'_, T> {
    /// Packs all queries of a matrix, and sets their gradients to zero.
    ///
    /// # Safety
    /// The buffers have room for them.
    #[inline(always)]
    unsafe fn pack_queries<S: Simd>(&self, rooms: &Rooms<T>, matrix: usize) {
        let Operands { ref q, queries, size, value, .. } = *self.plan;
        let rows = matrix * queries * value..(matrix + 1) * queries * value;
        let (y, dy) = (&self.y[rows.clone()], &self.dy[rows]);
        // SAFETY: by the caller's promise.
        unsafe {
            let from = q.at(matrix, 0, 0);
            pack_rows::<S, T>(from, q.row, q.column, queries, size, rooms.q);
            scale(rooms.q, queries.next_multiple_of(panel_rows::<S>()) * size, self.plan.scale_2);
            pack_rows::<S, T>(dy.as_ptr(), value, 1, queries, value, rooms.dy);
            pack_rows::<S, T>(from, q.column, q.row, size, queries, rooms.q_elements);
            pack_rows::<S, T>(dy.as_ptr(), 1, value, value, queries, rooms.dy_elements);
            for (query, (y, dy)) in y.chunks_exact(value).zip(dy.chunks_exact(value)).enumerate() {
                rooms.inner.add(query).write(dot::<T::Vec<S>>(y, dy));
            }
            rooms.dq.write_bytes(0, padded(queries) * rooms.q_width);
        }
    }

    /// Adds the contribution of a block of keys to dq, and computes its dk and dv.
    ///
    /// # Safety
    /// The queries are packed, and the buffers have room for a block.
    #[inline(always)]
    unsafe fn block<S: Simd>(
        &self,
        rooms: &Rooms<T>,
        steps: &Steps,
        matrix: usize,
        keys: Range<usize>,
        out: &mut Outputs<'_, T>,
    ) {
        let Operands { ref k, ref v, queries, size, value, causal, .. } = *self.plan;
        let (key, count, height) = (keys.start, keys.len(), panel_rows::<S>());
        // SAFETY: by the caller's promise.
        unsafe {
            let mut next = 0;
            while let Some(strip) = next_strip::<S, T>(&mut next, count) {
                let Strip { first, columns, .. } = strip;
                pack_strip::<S, T>(
                    k.at(matrix, key + first, 0),
                    k.column,
                    k.row,
                    size,
                    columns,
                    rooms.k.add(first * size),
                );
                pack_strip::<S, T>(
                    v.at(matrix, key + first, 0),
                    v.column,
                    v.row,
                    value,
                    columns,
                    rooms.v.add(first * value),
                );
            }
            let mut next = 0;
            while let Some(Strip { first, columns, .. }) = next_strip::<S, T>(&mut next, size) {
                let from = k.at(matrix, key, first);
                pack_strip::<S, T>(from, k.row, k.column, count, columns, rooms.k_elements.add(first * count));
            }
            rooms.dk.write_bytes(0, count.next_multiple_of(16) * padded(size));
            rooms.dv.write_bytes(0, count.next_multiple_of(16) * padded(value));
            // With a causal mask, queries before the first key of the block see none of its keys.
            let first_query = if causal { (key / QUERY_BLOCK * QUERY_BLOCK).min(queries) } else { 0 };
            if let Some(tile) = &mut out.scores {
                let from = key % self.part;
                for query in 0..first_query {
                    tile.row(query)[from..from + count].fill(MaybeUninit::new(T::ZERO));
                }
            }
            for query in (first_query..queries).step_by(QUERY_BLOCK) {
                let rows = QUERY_BLOCK.min(queries - query);
                let mut next = 0;
                while let Some(strip) = next_strip::<S, T>(&mut next, count) {
                    self.weigh::<S>(rooms, steps, matrix, [query, key], rows, strip);
                    let Strip { first, columns, vectors, width } = strip;
                    if let Some(tile) = &mut out.scores {
                        let from = key % self.part + first;
                        for row in 0..rows {
                            let scores = std::slice::from_raw_parts(rooms.scores.add(row * width), columns);
                            tile.row(query + row)[from..from + columns].write_copy_of_slice(scores);
                        }
                    }
                    let sums = [
                        (rooms.dy_elements, rooms.weights, rooms.dv, value),
                        (rooms.q_elements, rooms.scores, rooms.dk, size),
                    ];
                    for (elements, factors, sum, count) in sums {
                        for element in (0..count).step_by(height) {
                            let a = Left::panel::<S>(elements.add(element * queries + query * height));
                            let c = sum.add(first * padded(count) + element * width);
                            let c = Rows { first: c, stride: width };
                            product::<S, T>(height.min(count - element), vectors, steps, rows, a, factors, Some(c), c);
                        }
                    }
                    for row in (0..rows).step_by(height) {
                        let (from, to) =
                            (rooms.scores.add(row * width), rooms.packed.add(row * count + first * height));
                        pack_panel::<S, T>(from, width, 1, height.min(rows - row), columns, to);
                    }
                }
                for row in (0..rows).step_by(height) {
                    let mut next = 0;
                    while let Some(Strip { first, vectors, .. }) = next_strip::<S, T>(&mut next, size) {
                        let a = Left::panel::<S>(rooms.packed.add(row * count));
                        let b = rooms.k_elements.add(first * count);
                        let c = rooms.dq.add((query + row) * rooms.q_width + first);
                        let c = Rows { first: c, stride: rooms.q_width };
                        product::<S, T>(height.min(rows - row), vectors, steps, count, a, b, Some(c), c);
                    }
                }
            }
            let place = key % self.part;
            let mut next = 0;
            while let Some(Strip { first, columns, width, .. }) = next_strip::<S, T>(&mut next, count) {
                let (dk, dv) = (rooms.dk.add(first * padded(size)), rooms.dv.add(first * padded(value)));
                scale(dk, size * width, self.plan.scale);
                transpose::<T::Vec<S>>(dk, width, [size, columns], out.dk.add((place + first) * size), size);
                transpose::<T::Vec<S>>(dv, width, [value, columns], out.dv.add((place + first) * value), value);
            }
        }
    }

    /// Computes the weights of a block of queries and a strip of keys, and the gradients of their scores.
    ///
    /// # Safety
    /// The queries and keys are packed in the buffers.
    #[inline(always)]
    unsafe fn weigh<S: Simd>(
        &self,
        rooms: &Rooms<T>,
        steps: &Steps,
        matrix: usize,
        [query, key]: [usize; 2],
        rows: usize,
        strip: Strip,
    ) {
        let Operands { queries, size, value, causal, .. } = *self.plan;
        let (height, Strip { first, vectors, width, .. }) = (panel_rows::<S>(), strip);
        // SAFETY: by the caller's promise.
        unsafe {
            for row in (0..rows).step_by(height) {
                for (a, b, to, steps_here) in
                    [(rooms.q, rooms.k, rooms.weights, size), (rooms.dy, rooms.v, rooms.scores, value)]
                {
                    let a = Left::panel::<S>(a.add((query + row) * steps_here));
                    let b = b.add(first * steps_here);
                    let c = Rows { first: to.add(row * width), stride: width };
                    product::<S, T>(height.min(rows - row), vectors, steps, steps_here, a, b, None, c);
                }
            }
            let place = [query, key + first];
            add_biases::<S, T>(self.plan, matrix, place, false, rows, strip, rooms.weights, rooms.bias);
            for row in 0..if causal { rows } else { 0 } {
                let seen = (query + row + 1).saturating_sub(key + first).min(width);
                std::slice::from_raw_parts_mut(rooms.weights.add(row * width + seen), width - seen).fill(-T::INFINITY);
            }
            let logarithms = &self.logarithms[matrix * queries + query..][..rows];
            for (row, &logarithm) in logarithms.iter().enumerate() {
                let (logarithm, inner) = (splat::<S, T>(logarithm), splat::<S, T>(*rooms.inner.add(query + row)));
                for i in (row * width..(row + 1) * width).step_by(T::Vec::<S>::LANES) {
                    let (weight, score) = (rooms.weights.add(i), rooms.scores.add(i));
                    let exponential = math::exp2_weight(T::Vec::<S>::load_ptr(weight).sub(logarithm));
                    exponential.store_ptr(weight);
                    exponential.mul(T::Vec::<S>::load_ptr(score).sub(inner)).store_ptr(score);
                }
            }
        }
    }
}

/// The next strip of `columns` columns, which starts at `next`.
#[inline(always)]
fn next_strip<S: Simd, T: Real>(next: &mut usize, columns: usize) -> Option<Strip> {
    let strip = (*next < columns).then(|| strip::<S, T>(*next, columns))?;
    *next += strip.width;
    Some(strip)
}

#[inline(always)]
fn splat<S: Simd, T: Real>(number: T) -> T::Vec<S> {
    T::Vec::<S>::splat(number)
}
