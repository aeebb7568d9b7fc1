//! Backward: each block of channels from the last chunk to the first. Of a chunk, the states are computed again from those
//! kept at its beginning; then the adjoint recurrence runs against time.
//!
//! With g_t the gradient of x_t, e_t = exp(Δ_t a) and dy the gradient of y: g_t = c_t dy_t + e_{t+1} g_{t+1}, and
//! du = skip dy + Δ Σ_n g b, dΔ = u Σ_n g b + Σ_n a g_t e_t x_{t−1}, da = Σ_t Δ g_t e_t x_{t−1}, db = Σ_d g Δ u, dc = Σ_d dy x.

use std::{mem::MaybeUninit, ops::Range};

use tomograd_core::{Device, Result, Scratch, Tensor, TensorBuilder};

use super::{
    Block, Inputs, STEPS, chunks,
    forward::through,
    rows::{LANES, Row, expect, scatter},
};
use crate::{
    parallel::{PartialSlots, Partition, parallel_for},
    simd::{Kernel, Lanes16, Real, Simd, Vector, dispatch, math},
};

/// Steps of states in a parallel chunk.
const GRAIN: usize = 1 << 16;
/// Parts that blocks are divided into at least, if there are so many; each has its own partial sums of the gradients of b and c.
const PARTS: usize = 6;
/// Elements of a parallel chunk of the addition of partial sums.
const SUM_GRAIN: usize = 1 << 14;

/// The gradients of all inputs, in their order.
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
            slots: &Partition::new(slots.uninit(), 2 * of_b),
            sums: &Partition::new(sums, of_channel),
            parts,
            of_part,
        };
        // Without steps, no block has anything to write, and its sums are zero already.
        let tasks = if sizes.length == 0 { 0 } else { pairs * parts };
        let grain = (GRAIN / (LANES * of_part * of_b).max(1)).max(1);
        parallel_for(tasks, grain, |range| dispatch(Tasks { task, range }))?;
    }
    // SAFETY: every task that has steps filled its slot; without steps, a slot has no element.
    let [db, dc] = add_slots(unsafe { slots.assume_init() }, pairs, parts, of_b)?;
    let sums = PartialSlots::filled(sums, sizes.channels * of_channel).sum();
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

/// The gradients of b and c: the slots of the parts of each pair, added in their order.
fn add_slots<T: Real>(slots: &[T], pairs: usize, parts: usize, of_b: usize) -> Result<[Tensor; 2]> {
    let build = || TensorBuilder::<T>::new("selective_scan", &[pairs * of_b], Device::Cpu);
    let (mut db, mut dc) = (build()?, build()?);
    for (which, to) in [&mut db, &mut dc].into_iter().enumerate() {
        let to = Partition::new(to.uninit()?, SUM_GRAIN);
        parallel_for(pairs * of_b, SUM_GRAIN, |range| {
            for (i, to) in range.clone().zip(to.take(range)) {
                let first = (i / of_b * parts * 2 + which) * of_b + i % of_b;
                to.write((0..parts).map(|part| slots[first + part * 2 * of_b]).sum());
            }
        })?;
    }
    // SAFETY: every element was written above.
    Ok(unsafe { [db.assume_init(), dc.assume_init()] })
}

/// What all parts share.
#[derive(Clone, Copy)]
struct Task<'a, T> {
    inputs: &'a Inputs<'a, T>,
    /// The gradient of the output.
    dy: &'a [T],
    borders: &'a [T],
    du: &'a Partition<'a, MaybeUninit<T>>,
    ddelta: &'a Partition<'a, MaybeUninit<T>>,
    dz: &'a Partition<'a, MaybeUninit<T>>,
    /// For each part, its sums for b (N, L) and c (N, L).
    slots: &'a Partition<'a, MaybeUninit<T>>,
    /// For each channel of each batch element, its sums for a (N), skip and delta_bias.
    sums: &'a Partition<'a, T>,
    /// Parts of a pair of batch element and group.
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
        let count = (ARRAYS * STEPS + 1 + 2 * LANES + 3 * states) * LANES;
        let mut scratch = Scratch::<T>::new("selective_scan", count).expect("memory for rows");
        let (rows, _) = scratch.zeroed().as_chunks_mut::<LANES>();
        for index in self.range {
            let (pair, part) = (index / task.parts, index % task.parts);
            let slot = task.slots.take(index * 2 * of_b..(index + 1) * 2 * of_b);
            slot.fill(MaybeUninit::new(T::ZERO));
            // SAFETY: it was just filled.
            let (db, dc) = unsafe { slot.assume_init_mut() }.split_at_mut(of_b);
            let all = task.inputs.group_blocks();
            for i in part * task.of_part..all.min((part + 1) * task.of_part) {
                task.block::<T::Vec<S>>(pair * all + i, &task.inputs.block(pair, i), rows, db, dc);
            }
        }
    }
}

/// Arrays of a row for each step.
const ARRAYS: usize = 11;

/// The rows of a chunk's steps.
struct Chunk<'a, T> {
    u: &'a mut [Row<T>],
    /// delta + delta_bias.
    raw: &'a mut [Row<T>],
    delta: &'a mut [Row<T>],
    /// Δ u.
    drive: &'a mut [Row<T>],
    /// The gradient before the gate.
    dy: &'a mut [Row<T>],
    /// What the output before the gate is multiplied with to give the gate's gradient.
    gate: &'a mut [Row<T>],
    y: &'a mut [Row<T>],
    /// Σ_n g b.
    of_input: &'a mut [Row<T>],
    /// Σ_n a g e x.
    of_exponent: &'a mut [Row<T>],
    /// exp(Δ a) of one state.
    decay: &'a mut [Row<T>],
    /// x of one state, from before the first step.
    x: &'a mut [Row<T>],
}

impl<'a, T: Real> Chunk<'a, T> {
    #[inline(always)]
    fn new(rows: &'a mut [Row<T>], steps: usize) -> Self {
        let mut rest = rows;
        let mut next = |capacity: usize, count: usize| {
            let (array, after) = std::mem::take(&mut rest).split_at_mut(capacity);
            rest = after;
            &mut array[..count]
        };
        let [u, raw, delta, drive, dy, gate, y, of_input, of_exponent, decay] =
            std::array::from_fn(|_| next(STEPS, steps));
        let x = next(STEPS + 1, steps + 1);
        Self { u, raw, delta, drive, dy, gate, y, of_input, of_exponent, decay, x }
    }
}

/// What a block carries from chunk to chunk against time.
struct Carried<'a, T> {
    /// e_{t+1} g_{t+1} of each state.
    adjoint: &'a mut [Row<T>],
    /// The gradient of a so far, of each state.
    da: &'a mut [Row<T>],
    dskip: Row<T>,
    dbias: Row<T>,
}

impl<T: Real> Task<'_, T> {
    /// The gradients of one block; those of b and c are added to.
    #[inline(always)]
    fn block<V: Vector<Elem = T>>(
        &self,
        number: usize,
        block: &Block,
        rows: &mut [Row<T>],
        db: &mut [T],
        dc: &mut [T],
    ) {
        let inputs = self.inputs;
        let (states, length) = (inputs.sizes.states, inputs.sizes.length);
        let (a, rows) = rows.split_at_mut(states);
        let (adjoint, rows) = rows.split_at_mut(states);
        let (da, rows) = rows.split_at_mut(states);
        let (products, rows) = rows.split_at_mut(2 * LANES);
        let own = block.row * length..(block.row + block.count) * length;
        let (du, ddelta) = (self.du.take(own.clone()), self.ddelta.take(own.clone()));
        let dz = if inputs.gate.is_some() { self.dz.take(own) } else { &mut [] };
        let (skip, bias) = (inputs.per_channel(inputs.skip, block), inputs.per_channel(inputs.bias, block));
        inputs.rows_of_a(block, a);
        adjoint.fill([T::ZERO; LANES]);
        da.fill([T::ZERO; LANES]);
        let mut carried = Carried { adjoint, da, dskip: [T::ZERO; LANES], dbias: [T::ZERO; LANES] };
        for steps in chunks(length).rev() {
            let mut chunk = Chunk::new(rows, steps.len());
            self.prepare::<V>(block, &steps, &skip, &bias, &mut chunk);
            let border = number * length.div_ceil(STEPS) + steps.start / STEPS;
            let borders = &self.borders[border * states * LANES..][..states * LANES];
            let (borders, _) = borders.as_chunks::<LANES>();
            for n in 0..states {
                let b = inputs.of_state(inputs.b, block, n, &steps);
                let c = inputs.of_state(inputs.c, block, n, &steps);
                if inputs.gate.is_some() {
                    replay::<V, true>(&a[n], b, c, &borders[n], &mut chunk);
                } else {
                    replay::<V, false>(&a[n], b, c, &borders[n], &mut chunk);
                }
                let mut sum = [T::ZERO; LANES];
                for first in (0..steps.len()).step_by(LANES).rev() {
                    let part = first..steps.len().min(first + LANES);
                    let (of_b, of_c) = products.split_at_mut(LANES);
                    let sides = (&b[part.clone()], &c[part.clone()]);
                    retreat::<V>(
                        &a[n],
                        sides,
                        &mut chunk,
                        part.clone(),
                        &mut carried.adjoint[n],
                        &mut sum,
                        [of_b, of_c],
                    );
                    let to = n * length + steps.start + part.start..n * length + steps.start + part.end;
                    add_sums::<V>(of_b, &mut db[to.clone()]);
                    add_sums::<V>(of_c, &mut dc[to]);
                }
                add_row::<V>(&sum, &mut carried.da[n]);
            }
            finish::<V>(&skip, inputs.softplus, &mut chunk, &mut carried);
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

    /// What the states of a chunk have in common.
    #[inline(always)]
    fn prepare<V: Vector<Elem = T>>(
        &self,
        block: &Block,
        steps: &Range<usize>,
        skip: &Row<T>,
        bias: &Row<T>,
        chunk: &mut Chunk<'_, T>,
    ) {
        let (inputs, length) = (self.inputs, self.inputs.sizes.length);
        inputs.gather::<V>(inputs.u, block, steps, chunk.u);
        inputs.gather::<V>(inputs.delta, block, steps, chunk.raw);
        inputs.gather::<V>(self.dy, block, steps, chunk.dy);
        if steps.start >= STEPS {
            for from in [Some(inputs.u), Some(inputs.delta), Some(self.dy), inputs.gate].into_iter().flatten() {
                expect(&from[inputs.start(block, steps) - STEPS..], length, block.count, STEPS);
            }
        }
        inputs.discretise::<V>(bias, chunk.raw, chunk.u, chunk.delta, chunk.drive);
        chunk.of_input.fill([T::ZERO; LANES]);
        chunk.of_exponent.fill([T::ZERO; LANES]);
        if let Some(gate) = inputs.gate {
            inputs.gather::<V>(gate, block, steps, chunk.gate);
            through::<V>(skip, chunk.u, chunk.y);
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
}

/// One state of a chunk again: exp(Δ a) and x of every step, and its part of y where that is wanted.
#[inline(always)]
fn replay<V: Vector, const OUTPUT: bool>(
    a: &Row<V::Elem>,
    b: &[V::Elem],
    c: &[V::Elem],
    start: &Row<V::Elem>,
    chunk: &mut Chunk<'_, V::Elem>,
) {
    chunk.x[0] = *start;
    for part in (0..LANES).step_by(V::LANES) {
        let (a, mut x) = (V::load(&a[part..]), V::load(&start[part..]));
        let kept = chunk.decay.iter_mut().zip(&mut chunk.x[1..]).zip(chunk.y.iter_mut());
        for ((((delta, drive), ((decay, after), y)), &b), &c) in
            chunk.delta.iter().zip(chunk.drive.iter()).zip(kept).zip(b).zip(c)
        {
            let e = math::exp_normal(V::load(&delta[part..]).mul(a));
            x = e.mul_add(x, V::load(&drive[part..]).mul(V::splat(b)));
            e.store(&mut decay[part..]);
            x.store(&mut after[part..]);
            if OUTPUT {
                x.mul_add(V::splat(c), V::load(&y[part..])).store(&mut y[part..]);
            }
        }
    }
}

/// The adjoint recurrence of one state through up to sixteen steps: the products whose sums over channels are the gradients of
/// b and c, and what it adds to the others.
#[inline(always)]
fn retreat<V: Vector>(
    a: &Row<V::Elem>,
    (b, c): (&[V::Elem], &[V::Elem]),
    chunk: &mut Chunk<'_, V::Elem>,
    steps: Range<usize>,
    adjoint: &mut Row<V::Elem>,
    sum: &mut Row<V::Elem>,
    [of_b, of_c]: [&mut [Row<V::Elem>]; 2],
) {
    let count = steps.len();
    let (delta, drive, dy) = (&chunk.delta[steps.clone()], &chunk.drive[steps.clone()], &chunk.dy[steps.clone()]);
    let (decay, x) = (&chunk.decay[steps.clone()], &chunk.x[steps.start..=steps.end]);
    let (of_input, of_exponent) = (&mut chunk.of_input[steps.clone()], &mut chunk.of_exponent[steps]);
    let (b, c) = (&b[..count], &c[..count]);
    // Steps that aren't there add nothing.
    of_b[count..].fill([<V::Elem as Real>::ZERO; LANES]);
    of_c[count..].fill([<V::Elem as Real>::ZERO; LANES]);
    let (of_b, of_c) = (&mut of_b[..count], &mut of_c[..count]);
    for part in (0..LANES).step_by(V::LANES) {
        let a = V::load(&a[part..]);
        let (mut k, mut total) = (V::load(&adjoint[part..]), V::load(&sum[part..]));
        for t in (0..count).rev() {
            let dy = V::load(&dy[t][part..]);
            let g = dy.mul_add(V::splat(c[t]), k);
            g.mul(V::load(&drive[t][part..])).store(&mut of_b[t][part..]);
            dy.mul(V::load(&x[t + 1][part..])).store(&mut of_c[t][part..]);
            g.mul_add(V::splat(b[t]), V::load(&of_input[t][part..])).store(&mut of_input[t][part..]);
            k = g.mul(V::load(&decay[t][part..]));
            let exponent = k.mul(V::load(&x[t][part..]));
            total = exponent.mul_add(V::load(&delta[t][part..]), total);
            exponent.mul_add(a, V::load(&of_exponent[t][part..])).store(&mut of_exponent[t][part..]);
        }
        k.store(&mut adjoint[part..]);
        total.store(&mut sum[part..]);
    }
}

/// Adds the sum of each row to a step.
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

/// The gradients of u, delta and z in place of the sums and of y, and their sums over the chunk.
#[inline(always)]
fn finish<V: Vector>(
    skip: &Row<V::Elem>,
    softplus: bool,
    chunk: &mut Chunk<'_, V::Elem>,
    carried: &mut Carried<'_, V::Elem>,
) {
    for part in (0..LANES).step_by(V::LANES) {
        let skip = V::load(&skip[part..]);
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
