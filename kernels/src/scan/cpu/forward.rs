//! The forward pass: each block of channels is processed from the first chunk to the last; the states are kept between
//! chunks.

use std::{mem::MaybeUninit, ops::Range};

use tomograd_core::{Device, Result, Scratch, TensorBuilder};

use super::{
    Inputs, STEPS, Sizes, chunks, limit, power,
    rows::{LANES, Row, cut, expect, scatter},
};
use crate::{
    Forward,
    parallel::{Partition, or_give_up, parallel_for},
    simd::{Kernel, Real, Simd, Vector, dispatch, math},
};

/// The least number of steps times states of a parallel chunk.
const GRAIN: usize = 1 << 17;

/// The shape of what is saved for the backward pass: the states at the start of each chunk, by blocks of channels.
pub(in crate::scan) fn borders(sizes: Sizes, keep: bool) -> [usize; 4] {
    let blocks = sizes.batch * sizes.groups * (sizes.channels / sizes.groups).div_ceil(LANES);
    [blocks, if keep { sizes.length.div_ceil(STEPS) } else { 0 }, sizes.states, LANES]
}

/// The output and, for the backward pass, the states at the start of each chunk: (blocks of channels, chunks, N, 16).
pub(in crate::scan) fn forward<T: Real>(inputs: &Inputs<'_, T>, keep: bool) -> Result<Forward> {
    let sizes = inputs.sizes;
    let borders = borders(sizes, keep);
    let [blocks, kept, ..] = borders;
    let shape = [sizes.batch, sizes.channels, sizes.length];
    let mut output = TensorBuilder::<T>::new("selective_scan", &shape, Device::Cpu)?;
    let mut borders = TensorBuilder::<T>::new("selective_scan", &borders, Device::Cpu)?;
    let grain = (GRAIN / (LANES * sizes.states * sizes.length).max(1)).max(1);
    let (rows, kept_size) = (output.uninit()?, kept * sizes.states * LANES);
    if !rows.is_empty() {
        let rows = Partition::new(rows, sizes.length);
        let borders = Partition::new(borders.uninit()?, kept_size);
        parallel_for(blocks, grain, |range| {
            dispatch(Blocks { inputs, rows: &rows, borders: &borders, kept_size, range });
        })?;
    }
    // SAFETY: the blocks cover all channels and write all of their steps. Saved states exist only if they are kept, and each
    // block writes its own. An empty output has no blocks or no steps, and so no saved states either.
    let (output, borders) = unsafe { (output.assume_init(), borders.assume_init()) };
    Ok(Forward { outputs: vec![output], state: if keep { vec![borders] } else { Vec::new() } })
}

struct Blocks<'a, T> {
    inputs: &'a Inputs<'a, T>,
    /// The output, divided into a block for each channel.
    rows: &'a Partition<'a, MaybeUninit<T>>,
    borders: &'a Partition<'a, MaybeUninit<T>>,
    /// The number of saved state elements of a block; 0 if they aren't kept.
    kept_size: usize,
    range: Range<usize>,
}

impl<T: Real> Kernel for Blocks<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (inputs, of_group) = (self.inputs, self.inputs.group_blocks());
        let (states, length) = (inputs.sizes.states, inputs.sizes.length);
        let mut scratch = or_give_up(Scratch::<T>::new("selective_scan", (5 * STEPS + 2 * states) * LANES));
        let (rows, _) = scratch.zeroed().as_chunks_mut::<LANES>();
        let (a, rows) = rows.split_at_mut(states);
        let (state, rows) = rows.split_at_mut(states);
        for index in self.range {
            let block = inputs.block(index / of_group, index % of_group);
            let output = self.rows.take(block.row * length..(block.row + block.count) * length);
            let borders = self.borders.take(index * self.kept_size..(index + 1) * self.kept_size);
            let mut borders = borders.chunks_exact_mut((states * LANES).max(1));
            let (skip, bias) = (inputs.per_channel(inputs.skip, &block), inputs.per_channel(inputs.bias, &block));
            inputs.rows_of_a(&block, T::LOG2_E, a);
            let limit = limit(a);
            state.fill([T::ZERO; LANES]);
            for steps in chunks(length) {
                let rest = &mut &mut *rows;
                let [u, raw, delta, drive, y] = [(); 5].map(|()| cut(rest, STEPS, steps.len()));
                inputs.gather::<T::Vec<S>>(inputs.u, &block, &steps, u);
                inputs.gather::<T::Vec<S>>(inputs.delta, &block, &steps, raw);
                let bounded = inputs.discretise::<T::Vec<S>>(&bias, limit, raw, u, delta, drive);
                if let Some(border) = borders.next() {
                    border.write_copy_of_slice(state.as_flattened());
                }
                through::<T::Vec<S>>(inputs.skip.is_some().then_some(&skip), u, y);
                for (n, (a, state)) in a.iter().zip(state.iter_mut()).enumerate() {
                    let b = inputs.of_state(inputs.b, &block, n, &steps);
                    let c = inputs.of_state(inputs.c, &block, n, &steps);
                    if bounded {
                        recur::<T::Vec<S>, true>(a, b, c, delta, drive, state, y);
                    } else {
                        recur::<T::Vec<S>, false>(a, b, c, delta, drive, state, y);
                    }
                    let share = block.share(n, states);
                    inputs.expect(&block, steps.end, share.clone());
                    expect(output, steps.start, length, share, STEPS);
                }
                if let Some(gate) = inputs.gate {
                    inputs.gather::<T::Vec<S>>(gate, &block, &steps, u);
                    multiply_silu::<T::Vec<S>>(u, y);
                }
                scatter::<T::Vec<S>>(y, &mut output[steps.start..], length, block.count);
            }
        }
    }
}

/// y = skip · u, the part of the output that bypasses the states; 0 without a skip, even for an infinite u.
#[inline(always)]
pub(super) fn through<V: Vector>(skip: Option<&Row<V::Elem>>, u: &[Row<V::Elem>], y: &mut [Row<V::Elem>]) {
    let Some(skip) = skip else {
        y.fill([V::Elem::ZERO; LANES]);
        return;
    };
    for part in (0..LANES).step_by(V::LANES) {
        let skip = V::load(&skip[part..]);
        for (u, y) in u.iter().zip(y.iter_mut()) {
            V::load(&u[part..]).mul(skip).store(&mut y[part..]);
        }
    }
}

/// One state: x = exp(Δ a) x + b Δ u and y += c x; `a` holds a / ln 2.
#[inline(always)]
fn recur<V: Vector, const BOUNDED: bool>(
    a: &Row<V::Elem>,
    b: &[V::Elem],
    c: &[V::Elem],
    delta: &[Row<V::Elem>],
    drive: &[Row<V::Elem>],
    state: &mut Row<V::Elem>,
    y: &mut [Row<V::Elem>],
) {
    for part in (0..LANES).step_by(V::LANES) {
        let (a, mut x) = (V::load(&a[part..]), V::load(&state[part..]));
        for ((((delta, drive), y), &b), &c) in delta.iter().zip(drive).zip(y.iter_mut()).zip(b).zip(c) {
            let decay = power::<V, BOUNDED>(V::load(&delta[part..]).mul(a));
            x = decay.mul_add(x, V::load(&drive[part..]).mul(V::splat(b)));
            x.mul_add(V::splat(c), V::load(&y[part..])).store(&mut y[part..]);
        }
        x.store(&mut state[part..]);
    }
}

#[inline(always)]
fn multiply_silu<V: Vector>(z: &[Row<V::Elem>], y: &mut [Row<V::Elem>]) {
    for (z, y) in z.as_flattened().chunks_exact(V::LANES).zip(y.as_flattened_mut().chunks_exact_mut(V::LANES)) {
        let z = V::load(z);
        V::load(y).mul(z.mul(math::sigmoid(z))).store(y);
    }
}
