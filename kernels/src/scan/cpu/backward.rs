//! The backward pass: each block of channels is processed from its last chunk to the first. The states of a chunk are
//! recomputed from those saved at its start; then the adjoint recurrence runs backward in time.
//!
//! With g_t the gradient of x_t, e_t = exp(Δ_t a) and dy the gradient of y: g_t = c_t dy_t + e_{t+1} g_{t+1}, and
//! du = skip dy + Δ Σ_n g b, dΔ = u Σ_n g b + Σ_n a g_t e_t x_{t−1}, da = Σ_t Δ g_t e_t x_{t−1}, db = Σ_d g Δ u, dc = Σ_d dy x.

use std::{mem::MaybeUninit, ops::Range};

use tomograd_core::{Device, Result, Scratch, Tensor, TensorBuilder};

use super::{
    Block, Inputs, STEPS, chunks,
    forward::through,
    limit, power,
    rows::{LANES, Row, cut, expect, scatter},
};
use crate::{
    parallel::{PartialSlots, Partition, or_give_up, parallel_for},
    simd::{Kernel, Lanes16, Real, Simd, Vector, dispatch, math, vectors},
};

/// The least number of steps times states of a parallel chunk.
const GRAIN: usize = 1 << 16;
/// The least number of parts into which blocks are divided, if there are as many blocks. Each part has its own partial sums
/// of the gradients of b and c.
pub(super) const PARTS: usize = 6;
/// Elements of a parallel chunk when partial sums are added.
const SUM_GRAIN: usize = 1 << 14;

/// The gradients of all inputs, in the order of the inputs.
pub(in crate::scan) fn backward<T: Real>(inputs: &Inputs<'_, T>, dy: &[T], borders: &Tensor) -> Result<Vec<Tensor>> {
    let sizes = inputs.sizes;
    let (pairs, blocks) = (sizes.batch * sizes.groups, inputs.group_blocks());
    let of_part = blocks.div_ceil(PARTS.div_ceil(pairs.max(1)).max(1)).max(1);
    let parts = blocks.div_ceil(of_part);
    let (of_b, of_channel) = (sizes.states * sizes.length, sizes.states + 2);
    let build = |count| TensorBuilder::<T>::new("selective_scan", &[count], Device::Cpu);
    let (mut du, mut ddelta) = (build(dy.len())?, build(dy.len())?);
    let mut dz = build(if inputs.gate.is_some() { dy.len() } else { 0 })?;
    let mut slots = Scratch::<T>::new("selective_scan", pairs * parts * 2 * of_b)?;
    let mut sums = Scratch::<T>::new("selective_scan", sizes.batch * sizes.channels * of_channel)?;
    let sums = sums.zeroed();
    {
        let task = Task {
            inputs,
            dy,
            borders: borders.as_slice::<T>()?,
            du: &Partition::new(du.uninit()?, sizes.length),
            ddelta: &Partition::new(ddelta.uninit()?, sizes.length),
            dz: &Partition::new(dz.uninit()?, sizes.length),
            slots: &Partition::new(slots.uninit(), of_b),
            sums: &Partition::new(sums, of_channel),
            pairs,
            parts,
            of_part,
        };
        // If the length is 0, no block has anything to write, and the sums are zero already.
        let tasks = if sizes.length == 0 { 0 } else { pairs * parts };
        let grain = (GRAIN / (LANES * of_part * of_b).max(1)).max(1);
        parallel_for(tasks, grain, |range| dispatch(Tasks { task, range }))?;
    }
    // SAFETY: every task with steps filled its slot; without steps, slots have no elements.
    let [db, dc] = add_slots(unsafe { slots.assume_init() }, parts, pairs * of_b)?;
    let sums = PartialSlots::filled(sums, sizes.channels * of_channel)?.sum();
    let pick = |columns: Range<usize>| -> Result<Tensor> {
        let picked: Vec<T> = sums.chunks_exact(of_channel).flat_map(|sums| &sums[columns.clone()]).copied().collect();
        let picked = if sizes.batch == 0 { vec![T::ZERO; sizes.channels * columns.len()] } else { picked };
        Tensor::from_slice(&picked, &[picked.len()], Device::Cpu)
    };
    let (da, dskip, dbias) = (pick(0..sizes.states)?, sizes.states..sizes.states + 1, sizes.states + 1..of_channel);
    // SAFETY: the tasks cover all channels, and each writes all steps of its own.
    let (du, ddelta, dz) = unsafe { (du.assume_init(), ddelta.assume_init(), dz.assume_init()) };
    let mut gradients = vec![du, ddelta, da, db, dc];
    if inputs.skip.is_some() {
        gradients.push(pick(dskip)?);
    }
    if inputs.gate.is_some() {
        gradients.push(dz);
    }
    if inputs.bias.is_some() {
        gradients.push(pick(dbias)?);
    }
    Ok(gradients)
}

/// The gradients of b and c: the slots of all parts, added in order.
fn add_slots<T: Real>(slots: &[T], parts: usize, count: usize) -> Result<[Tensor; 2]> {
    let build = || TensorBuilder::<T>::new("selective_scan", &[count], Device::Cpu);
    let (mut db, mut dc) = (build()?, build()?);
    for (which, to) in [&mut db, &mut dc].into_iter().enumerate() {
        let to = Partition::new(to.uninit()?, SUM_GRAIN);
        parallel_for(count, SUM_GRAIN, |range| {
            let to = to.take(range.clone());
            to.fill(MaybeUninit::new(T::ZERO));
            // SAFETY: `to` was just filled.
            let to = unsafe { to.assume_init_mut() };
            for part in which * parts..(which + 1) * parts {
                for (to, &from) in to.iter_mut().zip(&slots[part * count..][range.clone()]) {
                    *to += from;
                }
            }
        })?;
    }
    // SAFETY: every element was written above.
    Ok(unsafe { [db.assume_init(), dc.assume_init()] })
}

/// The data that all parts share.
#[derive(Clone, Copy)]
struct Task<'a, T> {
    inputs: &'a Inputs<'a, T>,
    /// The gradient of the output.
    dy: &'a [T],
    borders: &'a [T],
    du: &'a Partition<'a, MaybeUninit<T>>,
    ddelta: &'a Partition<'a, MaybeUninit<T>>,
    dz: &'a Partition<'a, MaybeUninit<T>>,
    /// The partial sums of each part, (B, G, N, L): first those for b of all parts, then those for c.
    slots: &'a Partition<'a, MaybeUninit<T>>,
    /// For each channel of each batch element: its sums for a (N), skip and delta_bias.
    sums: &'a Partition<'a, T>,
    /// The number of (batch element, group) pairs.
    pairs: usize,
    /// Parts of a pair.
    parts: usize,
    /// Blocks of a part.
    of_part: usize,
}

struct Tasks<'a, T> {
    task: Task<'a, T>,
    range: Range<usize>,
}

impl<T: Real> Kernel for Tasks<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (task, states) = (&self.task, self.task.inputs.sizes.states);
        let of_b = states * task.inputs.sizes.length;
        let count = (ARRAYS * STEPS + TOGETHER * (2 * STEPS + 1 + 2 * LANES) + 4 * states) * LANES;
        let mut scratch = or_give_up(Scratch::<T>::new("selective_scan", count));
        let (rows, _) = scratch.zeroed().as_chunks_mut::<LANES>();
        for index in self.range {
            let (pair, part) = (index / task.parts, index % task.parts);
            let [db, dc] = [part, task.parts + part].map(|slot| {
                let first = (slot * task.pairs + pair) * of_b;
                let slot = task.slots.take(first..first + of_b);
                slot.fill(MaybeUninit::new(T::ZERO));
                // SAFETY: `slot` was just filled.
                unsafe { slot.assume_init_mut() }
            });
            let all = task.inputs.group_blocks();
            for i in part * task.of_part..all.min((part + 1) * task.of_part) {
                task.block::<T::Vec<S>>(pair * all + i, &task.inputs.block(pair, i), rows, [&mut *db, &mut *dc]);
            }
        }
    }
}

/// The number of arrays with a row for each step.
const ARRAYS: usize = 9;
/// States that are processed together: their recurrences are independent, which hides latency, and they share loads.
const TOGETHER: usize = 2;

/// The arrays of a chunk, with a row for each step.
struct Chunk<'a, T> {
    u: &'a mut [Row<T>],
    /// delta + delta_bias.
    raw: &'a mut [Row<T>],
    delta: &'a mut [Row<T>],
    /// Δ u.
    drive: &'a mut [Row<T>],
    /// The gradient before the gate.
    dy: &'a mut [Row<T>],
    /// The factor with which the output before the gate is multiplied to give the gate's gradient.
    gate: &'a mut [Row<T>],
    y: &'a mut [Row<T>],
    /// Σ_n g b.
    of_input: &'a mut [Row<T>],
    /// Σ_n a g e x.
    of_exponent: &'a mut [Row<T>],
    /// exp(Δ a) of each state that is processed together.
    decay: [&'a mut [Row<T>]; TOGETHER],
    /// x of each of these states, starting with the value before the first step.
    x: [&'a mut [Row<T>]; TOGETHER],
    /// Whether exp(Δ a) is a normal number at every step.
    bounded: bool,
}

impl<'a, T: Real> Chunk<'a, T> {
    #[inline(always)]
    fn new(rows: &'a mut [Row<T>], steps: usize) -> Self {
        let rest = &mut &mut *rows;
        let [u, raw, delta, drive, dy, gate, y, of_input, of_exponent] = [(); ARRAYS].map(|()| cut(rest, STEPS, steps));
        let decay = [(); TOGETHER].map(|()| cut(rest, STEPS, steps));
        let x = [(); TOGETHER].map(|()| cut(rest, STEPS + 1, steps + 1));
        Self { u, raw, delta, drive, dy, gate, y, of_input, of_exponent, decay, x, bounded: false }
    }
}

/// The values of a block that are carried from chunk to chunk, backward in time, and constants that each chunk reads.
struct Carried<'a, T> {
    /// a of each state.
    a: &'a [Row<T>],
    /// a / ln 2 of each state.
    exponents: &'a [Row<T>],
    limit: T,
    skip: Row<T>,
    bias: Row<T>,
    /// e_{t+1} g_{t+1} of each state.
    adjoint: &'a mut [Row<T>],
    /// The gradient of a for each state, as summed so far.
    da: &'a mut [Row<T>],
    dskip: Row<T>,
    dbias: Row<T>,
    /// For each state that is processed together, the products whose sums over channels are the gradients of b and c.
    products: &'a mut [Row<T>],
    /// The gradients of b and c, (N, L), as summed so far.
    sums: [&'a mut [T]; 2],
}

impl<T: Real> Task<'_, T> {
    /// The gradients of one block; those of b and c are added to `sums`.
    #[inline(always)]
    fn block<V: Vector<Elem = T>>(&self, number: usize, block: &Block, rows: &mut [Row<T>], sums: [&mut [T]; 2]) {
        let inputs = self.inputs;
        let (states, length) = (inputs.sizes.states, inputs.sizes.length);
        let rest = &mut &mut *rows;
        let [a, exponents, adjoint, da] = [(); 4].map(|()| cut(rest, states, states));
        let products = cut(rest, 2 * TOGETHER * LANES, 2 * TOGETHER * LANES);
        let own = block.row * length..(block.row + block.count) * length;
        let (du, ddelta) = (self.du.take(own.clone()), self.ddelta.take(own.clone()));
        let dz = if inputs.gate.is_some() { self.dz.take(own) } else { &mut [] };
        inputs.rows_of_a(block, T::ONE, a);
        inputs.rows_of_a(block, T::LOG2_E, exponents);
        adjoint.fill([T::ZERO; LANES]);
        da.fill([T::ZERO; LANES]);
        let mut carried = Carried {
            limit: limit(exponents),
            a,
            exponents,
            skip: inputs.per_channel(inputs.skip, block),
            bias: inputs.per_channel(inputs.bias, block),
            adjoint,
            da,
            dskip: [T::ZERO; LANES],
            dbias: [T::ZERO; LANES],
            products,
            sums,
        };
        for steps in chunks(length).rev() {
            let mut chunk = Chunk::new(rest, steps.len());
            self.prepare::<V>(block, &steps, &carried, &mut chunk);
            let border = number * length.div_ceil(STEPS) + steps.start / STEPS;
            let borders = &self.borders[border * states * LANES..][..states * LANES];
            let (borders, _) = borders.as_chunks::<LANES>();
            for n in (0..states).step_by(TOGETHER) {
                if V::CALLS {
                    for n in n..states.min(n + TOGETHER) {
                        self.states::<V, 1>(block, &steps, n, borders, &mut chunk, &mut carried);
                    }
                } else if n + TOGETHER <= states {
                    self.states::<V, TOGETHER>(block, &steps, n, borders, &mut chunk, &mut carried);
                } else {
                    self.states::<V, 1>(block, &steps, n, borders, &mut chunk, &mut carried);
                }
                let share = block.share(n / TOGETHER, states.div_ceil(TOGETHER));
                if let Some(from) = steps.start.checked_sub(STEPS) {
                    inputs.expect(block, from, share.clone());
                    expect(self.dy, block.row * length + from, length, share.clone(), STEPS);
                }
                for output in [&*du, &*ddelta, &*dz] {
                    expect(output, steps.start, length, share.clone(), STEPS);
                }
            }
            finish::<V>(inputs.softplus, &mut chunk, &mut carried);
            scatter::<V>(chunk.of_input, &mut du[steps.start..], length, block.count);
            scatter::<V>(chunk.of_exponent, &mut ddelta[steps.start..], length, block.count);
            if inputs.gate.is_some() {
                scatter::<V>(chunk.y, &mut dz[steps.start..], length, block.count);
            }
        }
        for lane in 0..block.count {
            let sums = self.sums.block(block.row + lane);
            for (sum, da) in sums.iter_mut().zip(carried.da.iter()) {
                *sum = da[lane];
            }
            sums[states] = carried.dskip[lane];
            sums[states + 1] = carried.dbias[lane];
        }
    }

    /// Computes the arrays that all states of a chunk share.
    #[inline(always)]
    fn prepare<V: Vector<Elem = T>>(
        &self,
        block: &Block,
        steps: &Range<usize>,
        carried: &Carried<'_, T>,
        chunk: &mut Chunk<'_, T>,
    ) {
        let inputs = self.inputs;
        inputs.gather::<V>(inputs.u, block, steps, chunk.u);
        inputs.gather::<V>(inputs.delta, block, steps, chunk.raw);
        inputs.gather::<V>(self.dy, block, steps, chunk.dy);
        let (bias, limit) = (&carried.bias, carried.limit);
        chunk.bounded = inputs.discretise::<V>(bias, limit, chunk.raw, chunk.u, chunk.delta, chunk.drive);
        chunk.of_input.fill([T::ZERO; LANES]);
        chunk.of_exponent.fill([T::ZERO; LANES]);
        if let Some(gate) = inputs.gate {
            inputs.gather::<V>(gate, block, steps, chunk.gate);
            through::<V>(inputs.skip.is_some().then_some(&carried.skip), chunk.u, chunk.y);
            let (gates, dys) = (chunk.gate.as_flattened_mut(), chunk.dy.as_flattened_mut());
            for (gate, dy) in gates.chunks_exact_mut(V::LANES).zip(dys.chunks_exact_mut(V::LANES)) {
                let (z, before) = (V::load(gate), V::load(dy));
                // silu' = s (1 + z (1 − s)).
                let (s, one) = (math::sigmoid(z), V::splat(T::ONE));
                before.mul(s.mul(z.mul_add(one.sub(s), one))).store(gate);
                before.mul(z.mul(s)).store(dy);
            }
        }
    }

    /// Processes `K` states from `first` on: recomputes the chunk, then runs the adjoint recurrence.
    #[inline(always)]
    fn states<V: Vector<Elem = T>, const K: usize>(
        &self,
        block: &Block,
        steps: &Range<usize>,
        first: usize,
        borders: &[Row<T>],
        chunk: &mut Chunk<'_, T>,
        carried: &mut Carried<'_, T>,
    ) {
        let (inputs, length) = (self.inputs, self.inputs.sizes.length);
        let [b, c] =
            [inputs.b, inputs.c].map(|from| std::array::from_fn(|i| inputs.of_state(from, block, first + i, steps)));
        for i in 0..K {
            let exponents = &carried.exponents[first + i];
            replay::<V>(exponents, (b[i], c[i]), &borders[first + i], chunk, i, inputs.gate.is_some());
        }
        let mut da = [[T::ZERO; LANES]; K];
        for start in (0..steps.len()).step_by(LANES).rev() {
            let part = start..steps.len().min(start + LANES);
            retreat::<V, K>(first, [b, c], chunk, part.clone(), carried, &mut da);
            for i in 0..K {
                for (which, sums) in carried.sums.iter_mut().enumerate() {
                    let products = &carried.products[(2 * i + which) * LANES..][..LANES];
                    add_sums::<V>(products, &mut sums[(first + i) * length + steps.start..][part.clone()]);
                }
            }
        }
        for (da, total) in da.iter().zip(&mut carried.da[first..]) {
            add_row::<V>(da, total);
        }
    }
}

/// Recomputes state `i` of a chunk: exp(Δ a) and x of every step, and its contribution to y if that is needed.
#[inline(always)]
fn replay<V: Vector>(
    exponents: &Row<V::Elem>,
    sides: (&[V::Elem], &[V::Elem]),
    start: &Row<V::Elem>,
    chunk: &mut Chunk<'_, V::Elem>,
    i: usize,
    output: bool,
) {
    match (chunk.bounded, output) {
        (true, true) => replay_as::<V, true, true>(exponents, sides, start, chunk, i),
        (true, false) => replay_as::<V, true, false>(exponents, sides, start, chunk, i),
        (false, true) => replay_as::<V, false, true>(exponents, sides, start, chunk, i),
        (false, false) => replay_as::<V, false, false>(exponents, sides, start, chunk, i),
    }
}

#[inline(always)]
fn replay_as<V: Vector, const BOUNDED: bool, const OUTPUT: bool>(
    exponents: &Row<V::Elem>,
    (b, c): (&[V::Elem], &[V::Elem]),
    start: &Row<V::Elem>,
    chunk: &mut Chunk<'_, V::Elem>,
    i: usize,
) {
    chunk.x[i][0] = *start;
    for part in (0..LANES).step_by(V::LANES) {
        let (exponents, mut x) = (V::load(&exponents[part..]), V::load(&start[part..]));
        let kept = chunk.decay[i].iter_mut().zip(&mut chunk.x[i][1..]).zip(chunk.y.iter_mut());
        let given = chunk.delta.iter().zip(chunk.drive.iter()).zip(b.iter().zip(c));
        for (((delta, drive), (&b, &c)), ((decay, after), y)) in given.zip(kept) {
            let e = power::<V, BOUNDED>(V::load(&delta[part..]).mul(exponents));
            x = e.mul_add(x, V::load(&drive[part..]).mul(V::splat(b)));
            e.store(&mut decay[part..]);
            x.store(&mut after[part..]);
            if OUTPUT {
                x.mul_add(V::splat(c), V::load(&y[part..])).store(&mut y[part..]);
            }
        }
    }
}

/// The adjoint recurrence of `K` states over up to sixteen steps: computes the products whose sums over channels are the
/// gradients of b and c, and adds to the other gradients.
#[inline(always)]
fn retreat<V: Vector, const K: usize>(
    first: usize,
    [b, c]: [[&[V::Elem]; K]; 2],
    chunk: &mut Chunk<'_, V::Elem>,
    steps: Range<usize>,
    carried: &mut Carried<'_, V::Elem>,
    da: &mut [Row<V::Elem>; K],
) {
    let count = steps.len();
    let (delta, drive, dy) = (&chunk.delta[steps.clone()], &chunk.drive[steps.clone()], &chunk.dy[steps.clone()]);
    let decay: [_; K] = std::array::from_fn(|i| &chunk.decay[i][steps.clone()]);
    let x: [_; K] = std::array::from_fn(|i| &chunk.x[i][steps.start..=steps.end]);
    let (b, c) = (b.map(|b| &b[steps.clone()]), c.map(|c| &c[steps.clone()]));
    let (of_input, of_exponent) = (&mut chunk.of_input[steps.clone()], &mut chunk.of_exponent[steps]);
    let (products, _) = carried.products.as_chunks_mut::<LANES>();
    // Steps beyond the end contribute zeros.
    products.iter_mut().for_each(|rows| rows[count..].fill([<V::Elem as Real>::ZERO; LANES]));
    for part in (0..LANES).step_by(V::LANES) {
        let load = |rows: &[Row<V::Elem>]| -> [V; K] {
            vectors(
                #[inline(always)]
                |i| V::load(&rows[i][part..]),
            )
        };
        let (a, mut k, mut total) = (load(&carried.a[first..]), load(&carried.adjoint[first..]), load(da));
        let mut after: [V; K] = vectors(
            #[inline(always)]
            |i| V::load(&x[i][count][part..]),
        );
        for t in (0..count).rev() {
            let (dy, drive, delta) = (V::load(&dy[t][part..]), V::load(&drive[t][part..]), V::load(&delta[t][part..]));
            let mut by_input = V::load(&of_input[t][part..]);
            let mut by_exponent = V::load(&of_exponent[t][part..]);
            for i in 0..K {
                let g = dy.mul_add(V::splat(c[i][t]), k[i]);
                g.mul(drive).store(&mut products[2 * i][t][part..]);
                dy.mul(after[i]).store(&mut products[2 * i + 1][t][part..]);
                by_input = g.mul_add(V::splat(b[i][t]), by_input);
                after[i] = V::load(&x[i][t][part..]);
                k[i] = g.mul(V::load(&decay[i][t][part..]));
                let exponent = k[i].mul(after[i]);
                total[i] = exponent.mul_add(delta, total[i]);
                by_exponent = exponent.mul_add(a[i], by_exponent);
            }
            by_input.store(&mut of_input[t][part..]);
            by_exponent.store(&mut of_exponent[t][part..]);
        }
        for i in 0..K {
            k[i].store(&mut carried.adjoint[first + i][part..]);
            total[i].store(&mut da[i][part..]);
        }
    }
}

/// Adds the sum of each row to the element of its step.
#[inline(always)]
fn add_sums<V: Vector>(rows: &[Row<V::Elem>], to: &mut [V::Elem]) {
    let rows: &[Row<V::Elem>; LANES] = rows.try_into().expect("sixteen rows");
    let sums = Lanes16::<V>::horizontal_sums(rows);
    sums.add(Lanes16::load_partial(to, <V::Elem as Real>::ZERO)).store_partial(to);
}

#[inline(always)]
fn add_row<V: Vector>(row: &Row<V::Elem>, to: &mut Row<V::Elem>) {
    for part in (0..LANES).step_by(V::LANES) {
        V::load(&row[part..]).add(V::load(&to[part..])).store(&mut to[part..]);
    }
}

/// Replaces the sums and y by the gradients of u, delta and z, and adds up those of skip and delta_bias over the chunk.
#[inline(always)]
fn finish<V: Vector>(softplus: bool, chunk: &mut Chunk<'_, V::Elem>, carried: &mut Carried<'_, V::Elem>) {
    for part in (0..LANES).step_by(V::LANES) {
        let skip = V::load(&carried.skip[part..]);
        let (mut dskip, mut dbias) = (V::zero(), V::zero());
        for t in 0..chunk.u.len() {
            let (u, dy) = (V::load(&chunk.u[t][part..]), V::load(&chunk.dy[t][part..]));
            let of_input = V::load(&chunk.of_input[t][part..]);
            let mut ddelta = u.mul_add(of_input, V::load(&chunk.of_exponent[t][part..]));
            if softplus {
                ddelta = ddelta.mul(math::sigmoid(V::load(&chunk.raw[t][part..])));
            }
            dskip = dy.mul_add(u, dskip);
            dbias = dbias.add(ddelta);
            V::load(&chunk.delta[t][part..]).mul_add(of_input, skip.mul(dy)).store(&mut chunk.of_input[t][part..]);
            ddelta.store(&mut chunk.of_exponent[t][part..]);
            V::load(&chunk.gate[t][part..]).mul(V::load(&chunk.y[t][part..])).store(&mut chunk.y[t][part..]);
        }
        V::load(&carried.dskip[part..]).add(dskip).store(&mut carried.dskip[part..]);
        V::load(&carried.dbias[part..]).add(dbias).store(&mut carried.dbias[part..]);
    }
}
