//! Softmax on the CPU. The tensor is treated as (outer, size, inner), with the softmax along the middle axis.
//!
//! Along the last axis (inner = 1) a row is reduced in sixteen virtual lanes. Otherwise vectors hold neighbouring columns,
//! and the axis is traversed in sequence, a few columns at a time, so that the second and third traversal read from the L1
//! cache.

use std::{mem::MaybeUninit, ops::Range};

use tomograd_core::{Result, Tensor, TensorBuilder};

use crate::{
    op::with_real,
    parallel::{Grid, Partition, Tile, parallel_for},
    simd::{Kernel, Lanes16, Real, Simd, Vector, dispatch, dot, math, sum},
};

/// Elements of a parallel chunk: about 50 µs of work.
const GRAIN: usize = 1 << 15;
/// The least number of columns of a tile.
pub(super) const COLUMNS: usize = 64;
/// For a longer axis than this, tiles have the least number of columns.
pub(super) const LONG: usize = GRAIN / COLUMNS;

pub(super) fn forward(x: &Tensor, axis: usize, logarithm: bool) -> Result<Tensor> {
    let x = x.contiguous()?;
    with_real!("softmax", x.dtype(), T => apply::<T>(x.as_slice::<T>()?, None, &x, axis, logarithm))
}

/// dx = y (dy − Σ dy y); for the logarithm, dx = dy − exp(y) Σ dy.
pub(super) fn backward(y: &Tensor, gradient: &Tensor, axis: usize, logarithm: bool) -> Result<Tensor> {
    let (y, gradient) = (y.contiguous()?, gradient.contiguous()?);
    with_real!("softmax", y.dtype(), T => {
        apply::<T>(y.as_slice::<T>()?, Some(gradient.as_slice::<T>()?), &y, axis, logarithm)
    })
}

/// The forward pass for x or, if a gradient is given, the backward pass for the output x.
fn apply<T: Real>(x: &[T], gradient: Option<&[T]>, like: &Tensor, axis: usize, logarithm: bool) -> Result<Tensor> {
    let shape = like.shape();
    let (size, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let mut builder = TensorBuilder::<T>::new("softmax", shape, like.device())?;
    let out = builder.uninit()?;
    if out.is_empty() {
        // SAFETY: there is no element.
        return Ok(unsafe { builder.assume_init() });
    }
    let outer = out.len() / (size * inner);
    if inner == 1 {
        let grain = (GRAIN / size).max(1);
        let target = Partition::new(out, grain * size);
        parallel_for(outer, grain, |rows| {
            let range = rows.start * size..rows.end * size;
            let gradient = gradient.map(|gradient| &gradient[range.clone()]);
            dispatch(Rows { x: &x[range.clone()], gradient, out: target.take(range), size, logarithm });
        })?;
    } else {
        // Columns of a tile: whole vectors, and at least some cache lines of each row.
        let columns = (GRAIN / size).next_multiple_of(COLUMNS);
        let tiles = inner.div_ceil(columns);
        let grid = Grid::batched(out, outer, size, inner, size, columns)?;
        let grain = (GRAIN / (size * columns.min(inner))).max(1);
        parallel_for(outer * tiles, grain, |range| {
            dispatch(Columns { x, gradient, grid: &grid, range, tiles, columns, inner, size, logarithm });
        })?;
    }
    // SAFETY: rows, or tiles, cover the output, and each writes all of its own.
    Ok(unsafe { builder.assume_init() })
}

struct Rows<'a, T> {
    x: &'a [T],
    gradient: Option<&'a [T]>,
    out: &'a mut [MaybeUninit<T>],
    size: usize,
    logarithm: bool,
}

impl<T: Real> Kernel for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (i, x) in self.x.chunks_exact(self.size).enumerate() {
            let out = self.out[i * self.size..][..self.size].write_copy_of_slice(x);
            match self.gradient {
                None => forward_row::<T::Vec<S>>(x, out, self.logarithm),
                Some(gradient) => {
                    backward_row::<T::Vec<S>>(x, &gradient[i * self.size..][..self.size], out, self.logarithm);
                }
            }
        }
    }
}

/// `out` contains a copy of x.
#[inline(always)]
fn forward_row<V: Vector>(x: &[V::Elem], out: &mut [V::Elem], logarithm: bool) {
    let mut largest = Lanes16::<V>::splat(-V::Elem::INFINITY);
    let mut blocks = x.chunks_exact(16);
    for block in &mut blocks {
        largest = largest.max(Lanes16::load(block));
    }
    largest = largest.max(Lanes16::load_partial(blocks.remainder(), -V::Elem::INFINITY));
    // A NaN that the maximum doesn't propagate is propagated by the exponentials.
    let largest = largest.horizontal_max();
    let shift = V::splat(largest);
    if logarithm {
        let mut total = Lanes16::<V>::zero();
        for block in x.chunks(16) {
            let block = Lanes16::<V>::load_partial(block, -V::Elem::INFINITY);
            total = total.add(block.map(|x| math::exp(x.sub(shift))));
        }
        // Every lane holds the same logarithm.
        let logarithm = math::ln(V::splat(total.horizontal_sum()));
        for out in out.chunks_mut(V::LANES) {
            V::load_partial(out).sub(shift).sub(logarithm).store_partial(out);
        }
    } else {
        for out in out.chunks_mut(V::LANES) {
            math::exp(V::load_partial(out).sub(shift)).store_partial(out);
        }
        let inverse = V::splat(V::Elem::ONE).div(V::splat(sum::<V>(out)));
        for out in out.chunks_mut(V::LANES) {
            V::load_partial(out).mul(inverse).store_partial(out);
        }
    }
}

/// `out` contains a copy of y.
#[inline(always)]
fn backward_row<V: Vector>(y: &[V::Elem], gradient: &[V::Elem], out: &mut [V::Elem], logarithm: bool) {
    let total = V::splat(if logarithm { sum::<V>(gradient) } else { dot::<V>(gradient, y) });
    for (out, gradient) in out.chunks_mut(V::LANES).zip(gradient.chunks(V::LANES)) {
        adjoint(V::load_partial(out), V::load_partial(gradient), total, logarithm).store_partial(out);
    }
}

#[inline(always)]
fn adjoint<V: Vector>(y: V, gradient: V, total: V, logarithm: bool) -> V {
    if logarithm { math::exp(y).neg_mul_add(total, gradient) } else { y.mul(gradient.sub(total)) }
}

struct Columns<'a, T> {
    x: &'a [T],
    gradient: Option<&'a [T]>,
    grid: &'a Grid<'a, MaybeUninit<T>>,
    /// Indices of tiles, counted over all planes.
    range: Range<usize>,
    tiles: usize,
    columns: usize,
    inner: usize,
    size: usize,
    logarithm: bool,
}

impl<T: Real> Kernel for Columns<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for i in self.range.clone() {
            let (plane, tile) = (i / self.tiles, i % self.tiles);
            let first = plane * self.size * self.inner + tile * self.columns;
            let mut tile = self.grid.tile_of(plane, 0, tile);
            for start in (0..tile.columns()).step_by(T::Vec::<S>::LANES) {
                let count = (tile.columns() - start).min(T::Vec::<S>::LANES);
                let x = &self.x[first + start..];
                match self.gradient {
                    None => self.forward::<T::Vec<S>>(x, &mut tile, start, count),
                    Some(gradient) => {
                        self.backward::<T::Vec<S>>(x, &gradient[first + start..], &mut tile, start, count);
                    }
                }
            }
        }
    }
}

impl<T: Real> Columns<'_, T> {
    /// Elements of row `row` in `count` neighbouring columns.
    #[inline(always)]
    fn load<V: Vector<Elem = T>>(&self, from: &[T], row: usize, count: usize) -> V {
        V::load_partial(&from[row * self.inner..][..count])
    }

    #[inline(always)]
    fn forward<V: Vector<Elem = T>>(&self, x: &[T], tile: &mut Tile<'_, MaybeUninit<T>>, start: usize, count: usize) {
        let mut largest = self.load::<V>(x, 0, count);
        for row in 1..self.size {
            largest = largest.max(self.load(x, row, count));
        }
        let mut total = V::zero();
        if self.logarithm {
            for row in 0..self.size {
                total = total.add(math::exp(self.load::<V>(x, row, count).sub(largest)));
            }
            let logarithm = math::ln(total);
            for row in 0..self.size {
                write(self.load::<V>(x, row, count).sub(largest).sub(logarithm), tile, row, start, count);
            }
            return;
        }
        for row in 0..self.size {
            let power = math::exp(self.load::<V>(x, row, count).sub(largest));
            total = total.add(power);
            write(power, tile, row, start, count);
        }
        let inverse = V::splat(T::ONE).div(total);
        for row in 0..self.size {
            let target = &mut tile.row(row)[start..start + count];
            // SAFETY: the previous loop wrote these elements.
            let target = unsafe { target.assume_init_mut() };
            V::load_partial(target).mul(inverse).store_partial(target);
        }
    }

    #[inline(always)]
    fn backward<V: Vector<Elem = T>>(
        &self,
        y: &[T],
        gradient: &[T],
        tile: &mut Tile<'_, MaybeUninit<T>>,
        start: usize,
        count: usize,
    ) {
        let mut total = V::zero();
        for row in 0..self.size {
            let gradient = self.load::<V>(gradient, row, count);
            total =
                if self.logarithm { total.add(gradient) } else { gradient.mul_add(self.load(y, row, count), total) };
        }
        for row in 0..self.size {
            let (y, gradient) = (self.load::<V>(y, row, count), self.load::<V>(gradient, row, count));
            write(adjoint(y, gradient, total, self.logarithm), tile, row, start, count);
        }
    }
}

#[inline(always)]
fn write<V: Vector>(value: V, tile: &mut Tile<'_, MaybeUninit<V::Elem>>, row: usize, start: usize, count: usize) {
    let target = &mut tile.row(row)[start..start + count];
    // SAFETY: exactly the `count` elements of the target are written, which may be uninitialised before.
    unsafe { value.store_partial_ptr(target.as_mut_ptr().cast(), count) }
}
