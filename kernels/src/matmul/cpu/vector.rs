//! Products of a matrix and a vector: a dot product for each row of the matrix, which is read in place where its rows or its
//! columns are contiguous.

use std::mem::MaybeUninit;

use tomograd_core::{Result, Scratch};

use super::{GemmShape, Start, View};
use crate::{
    parallel::{Partition, or_give_up, parallel_for},
    simd::{Kernel, Lanes16, Real, Simd, Vector, dispatch, prefetch_near},
};

/// The least number of multiply-adds of a parallel chunk.
const CHUNK_WORK: usize = 32 << 10;
/// Rows whose dot products are computed side by side.
const ROWS: usize = 4;
/// How many bytes ahead the rows are prefetched, which often come from memory.
const AHEAD: usize = 1 << 10;

/// `out[i] = start + Σ_k matrix[i, k] vector[k]` for each product of a batch.
pub(super) struct MatrixVector<'a, T> {
    matrix: View<'a, T>,
    vector: View<'a, T>,
    rows: usize,
    k: usize,
    start: Option<Start<'a, T>>,
}

impl<'a, T: Real> MatrixVector<'a, T> {
    /// The product, if one operand is a vector. The arguments are those of a product.
    pub(super) fn new(shape: GemmShape, a: View<'a, T>, b: View<'a, T>, start: Option<Start<'a, T>>) -> Option<Self> {
        let (matrix, vector, rows, start) = match shape {
            GemmShape { n: 1, m, .. } => (a, b, m, start),
            GemmShape { m: 1, n, .. } => (b.transposed(), a.transposed(), n, start.map(Start::transposed)),
            _ => return None,
        };
        Some(Self { matrix, vector, rows, k: shape.k, start })
    }

    /// Computes the products into `out`, (batch, rows). Each element is a sum in sixteen lanes, so its bits depend neither on the
    /// instruction set, nor on the number of threads, nor on the strides.
    pub(super) fn run(&self, out: &mut [MaybeUninit<T>]) -> Result<()> {
        let count = out.len();
        let grain = (CHUNK_WORK / self.k.max(1)).max(1);
        let parts = Partition::new(out, grain);
        parallel_for(count, grain, |range| {
            dispatch(Rows { product: self, first: range.start, out: parts.take(range) });
        })
    }
}

/// Computes some consecutive elements.
struct Rows<'a, T> {
    product: &'a MatrixVector<'a, T>,
    first: usize,
    out: &'a mut [MaybeUninit<T>],
}

impl<T: Real> Kernel for Rows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let MatrixVector { matrix, vector, rows, k, start } = *self.product;
        let [by_rows, by_columns] = [matrix.column_stride == 1 || k == 1, matrix.row_stride == 1];
        let copied = if vector.row_stride == 1 { 0 } else { k };
        let mut memory =
            or_give_up(Scratch::<T>::new("matmul", copied + if by_rows || by_columns { 0 } else { 16 * k }));
        let (vector_copy, rows_copy) = memory.zeroed().split_at_mut(copied);
        let mut lanes = [[T::ZERO; 16]; 16];
        let (mut done, mut copied_of) = (0, None);
        while done < self.out.len() {
            let (batch, row) = ((self.first + done) / rows, (self.first + done) % rows);
            let count = 16.min(self.out.len() - done).min(rows - row);
            let x = &vector.data[batch * vector.batch_stride..];
            let x = if copied == 0 {
                &x[..k]
            } else {
                if copied_of.replace(batch) != Some(batch) {
                    for (i, to) in vector_copy.iter_mut().enumerate() {
                        *to = x[i * vector.row_stride];
                    }
                }
                &*vector_copy
            };
            let lines = &matrix.data[batch * matrix.batch_stride + row * matrix.row_stride..];
            let sums = if by_rows {
                dots::<S, T>(lines, matrix.row_stride, x, count, &mut lanes)
            } else if by_columns {
                columns::<S, T>(lines, matrix.column_stride, x, count)
            } else {
                for i in 0..count {
                    for (j, to) in rows_copy[i * k..][..k].iter_mut().enumerate() {
                        *to = lines[i * matrix.row_stride + j * matrix.column_stride];
                    }
                }
                dots::<S, T>(rows_copy, k, x, count, &mut lanes)
            };
            for (i, to) in self.out[done..done + count].iter_mut().enumerate() {
                let begin = match start {
                    Some(Start::Zero) => T::ZERO,
                    Some(Start::Rows(numbers)) => numbers[row + i],
                    Some(Start::Columns(numbers)) => numbers[0],
                    // SAFETY: without a start, the caller's elements are initialised.
                    None => unsafe { to.assume_init() },
                };
                to.write(begin + sums[i]);
            }
            done += count;
        }
    }
}

/// The dot products of `count` rows, at most 16, and `x`. `lanes` is room for their sums in lanes.
#[inline(always)]
fn dots<S: Simd, T: Real>(rows: &[T], stride: usize, x: &[T], count: usize, lanes: &mut [[T; 16]; 16]) -> [T; 16] {
    for first in (0..count).step_by(ROWS) {
        let here = ROWS.min(count - first);
        if here == ROWS {
            products::<S, T, ROWS>(&rows[first * stride..], stride, x, &mut lanes[first..]);
            continue;
        }
        for i in first..first + here {
            products::<S, T, 1>(&rows[i * stride..], 0, x, &mut lanes[i..]);
        }
    }
    Lanes16::<T::Vec<S>>::horizontal_sums(lanes).to_array()
}

/// [`dots`] of rows whose elements lie side by side, with a distance of `stride` between two columns: vectors hold rows, and
/// sixteen of them the lanes.
#[inline(always)]
fn columns<S: Simd, T: Real>(first: &[T], stride: usize, x: &[T], count: usize) -> [T; 16] {
    let width = T::Vec::<S>::LANES;
    let mut results = [T::ZERO; 16];
    for at in (0..count).step_by(width) {
        let here = width.min(count - at);
        let mut sums = [T::Vec::<S>::zero(); 16];
        for (block, x) in x.chunks(16).enumerate() {
            for (lane, (sum, &x)) in sums.iter_mut().zip(x).enumerate() {
                let rows = &first[(block * 16 + lane) * stride + at..][..here];
                let rows = if here == width { T::Vec::<S>::load(rows) } else { T::Vec::<S>::load_partial(rows) };
                *sum = rows.mul_add(T::Vec::<S>::splat(x), *sum);
            }
        }
        let mut half = 8;
        while half > 0 {
            for i in 0..half {
                sums[i] = sums[i].add(sums[i + half]);
            }
            half /= 2;
        }
        sums[0].store_partial(&mut results[at..at + here]);
    }
    results
}

/// The products of `R` rows and `x`, summed in sixteen lanes each.
#[inline(always)]
fn products<S: Simd, T: Real, const R: usize>(rows: &[T], stride: usize, x: &[T], lanes: &mut [[T; 16]]) {
    assert!(rows.len() >= (R - 1) * stride + x.len() && lanes.len() >= R, "rows that end too early");
    let mut sums = [Lanes16::<T::Vec<S>>::zero(); R];
    let whole = x.len() / 16 * 16;
    for from in (0..whole).step_by(16) {
        // SAFETY: `x` and each row have `whole` elements, by the check above.
        unsafe {
            let x = Lanes16::load_ptr(x.as_ptr().add(from));
            for (i, sum) in sums.iter_mut().enumerate() {
                let row = rows.as_ptr().add(i * stride + from);
                prefetch_near(row.wrapping_add(AHEAD / size_of::<T>()));
                *sum = Lanes16::load_ptr(row).mul_add(x, *sum);
            }
        }
    }
    if whole < x.len() {
        let end = Lanes16::load_partial(&x[whole..], T::ZERO);
        for (i, sum) in sums.iter_mut().enumerate() {
            let row = Lanes16::load_partial(&rows[i * stride + whole..i * stride + x.len()], T::ZERO);
            *sum = row.mul_add(end, *sum);
        }
    }
    for (lanes, sum) in lanes.iter_mut().zip(sums) {
        sum.store_partial(lanes);
    }
}
