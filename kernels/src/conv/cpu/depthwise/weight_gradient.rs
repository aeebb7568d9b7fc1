//! The gradient of depthwise weights: vectors hold positions, in sixteen virtual lanes.

use super::{DepthwiseConv, Ring, Taps};
use crate::conv::ConvShape;
use crate::conv::cpu::pack::equal_blocks;
use crate::conv::cpu::tensors::Inputs;
use crate::parallel::{Partition, or_give_up, parallel_for};
use crate::simd::{Kernel, Lanes16, Real, Simd, Vector, dispatch};
use std::mem::MaybeUninit;
use std::ops::Range;
use tomograd_core::{Result, Scratch};

/// The taps whose sums are held in registers together: taps of a column, and columns.
pub(in crate::conv::cpu) const ROWS: usize = 4;
const COLUMNS: usize = 3;
/// The number of columns in a tile if a column has a single tap.
pub(in crate::conv::cpu) const SINGLE: usize = 8;

/// Computes the gradient of the weights; every element of `dw` is written.
pub(in crate::conv::cpu) fn backward_weights<T: Real>(
    shape: &ConvShape,
    x: Inputs<'_, T>,
    dy: &[T],
    dw: &mut [MaybeUninit<T>],
) -> Result<()> {
    let plan = DepthwiseConv::forward(shape, &[]);
    if plan.batch == 0 || plan.positions.contains(&0) {
        dw.fill(MaybeUninit::new(T::ZERO));
        return Ok(());
    }
    let (taps, partition) = (plan.taps(), Partition::new(dw, plan.outputs * shape.taps()));
    parallel_for(plan.channels, plan.grain(plan.channels), |range| {
        dispatch(Gradients { plan: &plan, taps: &taps, range, x, dy, partition: &partition })
    })
}

struct Gradients<'a, T> {
    plan: &'a DepthwiseConv<'a, T>,
    taps: &'a Taps,
    range: Range<usize>,
    x: Inputs<'a, T>,
    dy: &'a [T],
    partition: &'a Partition<'a, MaybeUninit<T>>,
}

/// A strip of a plane: sixteen columns of some rows.
#[derive(Clone, Copy)]
struct Strip {
    rows: usize,
    /// The offset of the strip, and the distance of its rows in a packed plane and in the gradient.
    from: usize,
    pitch: [usize; 2],
    /// The number of positions in a row.
    count: usize,
}

/// The strips of a plane; `pitch` is the row distance of a packed plane. A single row is cut into pieces that serve as rows
/// of a strip. This isn't possible if `taps`, the taps of a column, are several: they read consecutive packed rows at
/// distance `pitch`.
fn strips([_, height, width]: [usize; 3], pitch: usize, taps: usize) -> Vec<Strip> {
    let strip = |rows, from, pitch| Strip { rows, from, pitch, count: 16.min(width - from) };
    if height > 1 || taps > 1 {
        return (0..width).step_by(16).map(|from| strip(height, from, [pitch, width])).collect();
    }
    let whole = width / 16;
    let strips = [strip(whole, 0, [16; 2]), strip(1, 16 * whole, [16; 2])];
    strips.into_iter().filter(|strip| strip.rows * strip.count > 0).collect()
}

impl<T: Real> Kernel for Gradients<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let plan = self.plan;
        let scratch = |count: usize| or_give_up(Scratch::<T>::new("conv", count));
        let mut memory = scratch(Ring::room(plan));
        let mut ring = Ring::new(plan, self.x, memory.zeroed());
        let taps = plan.order.len();
        let mut totals = scratch(plan.outputs * taps * 16);
        let [depth, height, width] = plan.positions;
        let strips = strips(plan.positions, self.taps.pitch, self.taps.height);
        for channel in self.range.clone() {
            let totals = totals.zeroed();
            for n in 0..plan.batch {
                ring.restart();
                for z in 0..depth {
                    ring.turn::<S>(n, channel, z);
                    let (planes, first) = ring.planes();
                    for output in 0..plan.outputs {
                        let plane = ((n * plan.channels + channel) * plan.outputs + output) * depth + z;
                        let dy = &self.dy[plane * height * width..][..height * width];
                        let totals = &mut totals[output * taps * 16..];
                        for (plane, &from) in (first..).zip(planes) {
                            for group in &self.taps.groups {
                                let totals = &mut totals[self.taps.place(group, plane) * 16..];
                                for &strip in &strips {
                                    // SAFETY: the ring holds what taps read from the plane's positions and sixteen more.
                                    unsafe { self.strip::<S>(strip, from, group, dy, totals) };
                                }
                            }
                        }
                    }
                }
            }
            let to = self.partition.block(channel);
            for (output, to) in to.chunks_exact_mut(taps).enumerate() {
                for (at, &tap) in plan.order.iter().enumerate() {
                    let lanes = Lanes16::<T::Vec<S>>::load(&totals[(output * taps + at) * 16..]);
                    to[tap].write(lanes.horizontal_sum());
                }
            }
        }
    }
}

impl<T: Real> Gradients<'_, T> {
    /// Adds the products of a strip of the gradient and the source rows of a group of taps, in sixteen lanes for each tap.
    ///
    /// # Safety
    /// `from` is readable for what the taps read from the strip's positions, sixteen in each row.
    #[inline(always)]
    unsafe fn strip<S: Simd>(&self, strip: Strip, from: *const T, group: &Range<usize>, dy: &[T], totals: &mut [T]) {
        let mut column = 0;
        while column < self.taps.columns.len() {
            let left = self.taps.columns.len() - column;
            let columns = match group.len() {
                _ if !S::TILES => 1,
                1 if left >= SINGLE => SINGLE,
                _ => equal_blocks(left, COLUMNS),
            };
            let size = if S::TILES { equal_blocks(group.len(), ROWS) } else { 1 };
            for row in (0..group.len()).step_by(size) {
                let totals = &mut totals[(column * group.len() + row) * 16..];
                let columns_from = &self.taps.columns[column..][..columns];
                // SAFETY: the caller's promise.
                unsafe {
                    let from = from.add((group.start + row) * self.taps.pitch);
                    macro_rules! tile {
                        ($($rows:literal $columns:literal),*) => {
                            match (size.min(group.len() - row), columns) {
                                $(($rows, $columns) => {
                                    tile::<S, T, $rows, $columns>(strip, from, columns_from, dy, totals, group.len())
                                })*
                                (rows, columns) => unreachable!("a tile of {rows} × {columns} taps"),
                            }
                        };
                    }
                    if S::TILES {
                        tile!(1 1, 1 2, 1 3, 1 8, 2 1, 2 2, 2 3, 3 1, 3 2, 3 3, 4 1, 4 2, 4 3);
                    } else {
                        tile!(1 1);
                    }
                }
            }
            column += columns;
        }
    }
}

/// [`Gradients::strip`] for `H` taps in each of `W` columns; `height` is the number of taps of a column in the group.
///
/// # Safety
/// As for [`Gradients::strip`].
#[inline(always)]
unsafe fn tile<S: Simd, T: Real, const H: usize, const W: usize>(
    strip: Strip,
    from: *const T,
    columns: &[usize],
    dy: &[T],
    totals: &mut [T],
    height: usize,
) {
    let lanes = T::Vec::<S>::LANES;
    assert!(columns.len() == W && totals.len() >= ((W - 1) * height + H) * 16, "a tile of taps and its sums");
    assert!(dy.len() >= strip.from + (strip.rows - 1) * strip.pitch[1] + strip.count, "a strip of the gradient");
    let (dy, totals) = (dy.as_ptr(), totals.as_mut_ptr());
    // SAFETY: the caller's promise for what is read of x; the lengths of gradient and sums were checked.
    unsafe {
        // A wide register has all sixteen lanes. Narrower ones process them in parts, with equal results: lanes are
        // independent.
        for part in (0..strip.count).step_by(lanes) {
            let count = lanes.min(strip.count - part);
            let at = strip.from + part;
            let mut sums = [[T::Vec::<S>::zero(); H]; W];
            let x: [*const T; W] = std::array::from_fn(|j| from.add(columns[j] + at));
            let place = |i: usize, j: usize| totals.add((j * height + i) * 16 + part);
            for (j, sums) in sums.iter_mut().enumerate() {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = T::Vec::<S>::load_ptr(place(i, j));
                }
            }
            for row in 0..strip.rows + H - 1 {
                let mut values = [T::Vec::<S>::zero(); W];
                for (value, x) in values.iter_mut().zip(x) {
                    *value = T::Vec::<S>::load_ptr(x.add(row * strip.pitch[0]));
                }
                for i in 0..H {
                    // Tap i reads row `row` of x for row `row` - i of the gradient.
                    let of = row.wrapping_sub(i);
                    if of < strip.rows {
                        let dy = dy.add(at + of * strip.pitch[1]);
                        let dy = if count == lanes {
                            T::Vec::<S>::load_ptr(dy)
                        } else {
                            T::Vec::<S>::load_partial_ptr(dy, count)
                        };
                        for (sums, value) in sums.iter_mut().zip(values) {
                            sums[i] = value.mul_add(dy, sums[i]);
                        }
                    }
                }
            }
            for (j, sums) in sums.into_iter().enumerate() {
                for (i, sum) in sums.into_iter().enumerate() {
                    sum.store_ptr(place(i, j));
                }
            }
        }
    }
}
