//! The passes of a norm over memory: one row (a channel of an image) after the other, in blocks of fixed length.

use std::mem::MaybeUninit;

use tomograd_core::{Result, Tensor, TensorBuilder};

use crate::{
    elementwise::Function,
    norm::Moments,
    norm::cpu::scaling::{Line, Scaling},
    parallel::{Partition, parallel_for},
    simd::{Kernel, Lanes16, Real, Simd, Vector, dispatch},
};

/// Elements summed in lanes of their own type before their sum is added in f64; bounds the error of f32 sums to about 2⁸ ε.
const BLOCK: usize = 4096;
/// Elements of a parallel chunk.
const GRAIN: usize = 1 << 14;

/// The number of (image, channel) pairs, the elements of a pair, and the pairs of a parallel chunk.
fn rows(x: &Tensor) -> (usize, usize, usize) {
    let pairs = x.shape()[0] * x.shape()[1];
    let length: usize = x.shape()[2..].iter().product();
    (pairs, length, (GRAIN / length.max(1)).max(1))
}

/// An activation for which kernels are specialised at compile time.
trait Activate: Copy + Send + Sync {
    fn value<V: Vector>(self, x: V) -> V;
    fn derivative<V: Vector>(self, x: V) -> V;
}

#[derive(Clone, Copy)]
struct Identity;

impl Activate for Identity {
    #[inline(always)]
    fn value<V: Vector>(self, x: V) -> V {
        x
    }
    #[inline(always)]
    fn derivative<V: Vector>(self, _: V) -> V {
        V::splat(<V::Elem as Real>::ONE)
    }
}

#[derive(Clone, Copy)]
struct Rectifier;

impl Activate for Rectifier {
    #[inline(always)]
    fn value<V: Vector>(self, x: V) -> V {
        Function::Relu.value(x)
    }
    #[inline(always)]
    fn derivative<V: Vector>(self, x: V) -> V {
        Function::Relu.derivative(x)
    }
}

#[derive(Clone, Copy)]
struct Leaky(f64);

impl Activate for Leaky {
    #[inline(always)]
    fn value<V: Vector>(self, x: V) -> V {
        Function::LeakyRelu(self.0).value(x)
    }
    #[inline(always)]
    fn derivative<V: Vector>(self, x: V) -> V {
        Function::LeakyRelu(self.0).derivative(x)
    }
}

impl Activate for Function {
    #[inline(always)]
    fn value<V: Vector>(self, x: V) -> V {
        Function::value(self, x)
    }
    #[inline(always)]
    fn derivative<V: Vector>(self, x: V) -> V {
        Function::derivative(self, x)
    }
}

/// Runs `$body` with `$activate` as a value of the type for which kernels of the activation are specialised.
macro_rules! specialised {
    ($activation:expr, $activate:ident => $body:expr) => {
        match $activation {
            None => {
                let $activate = Identity;
                $body
            }
            Some(Function::Relu) => {
                let $activate = Rectifier;
                $body
            }
            Some(Function::LeakyRelu(slope)) => {
                let $activate = Leaky(slope);
                $body
            }
            Some($activate) => $body,
        }
    };
}

/// The moments of a row.
struct RowMoments<'a, T>(&'a [T]);

impl<T: Real> Kernel for RowMoments<'_, T> {
    type Output = Moments;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Moments {
        row_moments::<S, T, 1>([self.0])[0]
    }
}

/// The moments of `R` rows of equal length. Their sums are independent, which hides the latency of additions.
#[inline(always)]
pub(in crate::norm) fn row_moments<S: Simd, T: Real, const R: usize>(rows: [&[T]; R]) -> [Moments; R] {
    let mut moments = [Moments::default(); R];
    let length = rows[0].len();
    for from in (0..length).step_by(BLOCK) {
        let blocks = rows.map(|row| &row[from..length.min(from + BLOCK)]);
        let count = blocks[0].len() as f64;
        // All sums are of differences, in the first pass from the first element: sums of the elements themselves would lose
        // the variance beside a large mean.
        let mut centers = blocks.map(|block| block[0]);
        let mut sums = [Lanes16::<T::Vec<S>>::zero(); R];
        distances::<S, T, R>(
            blocks,
            centers,
            #[inline(always)]
            |r, distance| sums[r] = sums[r].add(distance),
        );
        for (center, sum) in centers.iter_mut().zip(sums) {
            *center = T::from_f64(center.to_f64() + sum.horizontal_sum().to_f64() / count);
        }
        // The second pass takes differences from the rounded mean; their sum corrects its rounding error.
        let mut sums = [Lanes16::<T::Vec<S>>::zero(); R];
        let mut squares = sums;
        distances::<S, T, R>(
            blocks,
            centers,
            #[inline(always)]
            |r, distance| {
                sums[r] = sums[r].add(distance);
                squares[r] = distance.mul_add(distance, squares[r]);
            },
        );
        for r in 0..R {
            let (sum, squares) = (sums[r].horizontal_sum().to_f64(), squares[r].horizontal_sum().to_f64());
            moments[r] = moments[r].join(Moments::from_distances(count, centers[r].to_f64(), sum, squares));
        }
    }
    moments
}

/// Calls `take` with the differences of each block from its center, sixteen elements of one block, then of the next.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // One index for several rows.
fn distances<S: Simd, T: Real, const R: usize>(
    blocks: [&[T]; R],
    centers: [T; R],
    mut take: impl FnMut(usize, Lanes16<T::Vec<S>>),
) {
    let whole = blocks[0].len() / 16;
    let wholes = blocks.map(|block| &block.as_chunks::<16>().0[..whole]);
    for i in 0..whole {
        for r in 0..R {
            take(r, Lanes16::load(&wholes[r][i]).sub(Lanes16::splat(centers[r])));
        }
    }
    if 16 * whole < blocks[0].len() {
        for r in 0..R {
            // Missing lanes are filled with the center, so that their difference is 0.
            let rest = Lanes16::load_partial(&blocks[r][16 * whole..], centers[r]);
            take(r, rest.sub(Lanes16::splat(centers[r])));
        }
    }
}

/// The moments of each channel of each image.
pub(super) fn moments<T: Real>(x: &Tensor) -> Result<Vec<Moments>> {
    let (pairs, length, grain) = rows(x);
    let elements = x.as_slice::<T>()?;
    let mut moments = vec![Moments::default(); pairs];
    let target = Partition::new(&mut moments, grain);
    parallel_for(pairs, grain, |chunk| {
        for (moments, pair) in target.take(chunk.clone()).iter_mut().zip(chunk) {
            *moments = dispatch(RowMoments(&elements[pair * length..][..length]));
        }
    })?;
    drop(target);
    Ok(moments)
}

/// The addresses from which a row is read and to which its result is written. They are equal if `x` is `None`: then y holds
/// x.
fn source_and_target<T>(x: Option<&[T]>, y: &mut [MaybeUninit<T>]) -> (*const T, *mut T) {
    let to = y.as_mut_ptr().cast::<T>();
    let from = x.map_or(to.cast_const(), |x| {
        assert_eq!(x.len(), y.len(), "a row and its result");
        x.as_ptr()
    });
    (from, to)
}

/// y = activation((x · power + center) · scale + shift) over a row.
struct ApplyRow<'a, T, A> {
    /// `None`: y holds x.
    x: Option<&'a [T]>,
    y: &'a mut [MaybeUninit<T>],
    line: Line<T>,
    activate: A,
}

impl<T: Real, A: Activate> Kernel for ApplyRow<'_, T, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let lanes = T::Vec::<S>::LANES;
        let count = self.y.len();
        let (from, to) = source_and_target(self.x, self.y);
        let line = Line::<T::Vec<S>>::splat(self.line);
        let mut i = 0;
        while i + lanes <= count {
            // SAFETY: both rows have i + lanes elements; in place, each vector is read before it is written.
            unsafe {
                let x = T::Vec::<S>::load_ptr(from.add(i));
                self.activate.value(line.value(x)).store_ptr(to.add(i));
            }
            i += lanes;
        }
        if i < count {
            // SAFETY: both rows have count - i elements left.
            unsafe {
                let x = T::Vec::<S>::load_partial_ptr(from.add(i), count - i);
                self.activate.value(line.value(x)).store_partial_ptr(to.add(i), count - i);
            }
        }
    }
}

fn apply_rows<T: Real>(
    x: Option<&[T]>,
    y: &mut [MaybeUninit<T>],
    (pairs, length, grain): (usize, usize, usize),
    scalings: &[Scaling],
    affine: &[Vec<f64>; 2],
    activation: Option<Function>,
) -> Result<()> {
    let channels = affine[0].len();
    let target = Partition::new(y, grain * length);
    specialised!(activation, activate => parallel_for(pairs, grain, |chunk| {
        let rows = target.take(chunk.start * length..chunk.end * length);
        for (y, pair) in rows.chunks_mut(length.max(1)).zip(chunk) {
            let line = scalings[pair].line(affine.each_ref().map(|values| values[pair % channels]));
            dispatch(ApplyRow { x: x.map(|x| &x[pair * length..][..length]), y, line, activate });
        }
    })?);
    Ok(())
}

/// y in newly allocated memory.
pub(super) fn apply<T: Real>(
    x: &Tensor,
    scalings: &[Scaling],
    affine: &[Vec<f64>; 2],
    activation: Option<Function>,
) -> Result<Tensor> {
    let mut builder = TensorBuilder::<T>::new("norm", x.shape(), x.device())?;
    apply_rows(Some(x.as_slice::<T>()?), builder.uninit()?, rows(x), scalings, affine, activation)?;
    // SAFETY: the row of every pair was written completely.
    Ok(unsafe { builder.assume_init() })
}

/// y in x's memory if no other tensor uses that, otherwise in new memory.
pub(super) fn apply_in_place<T: Real>(
    mut x: Tensor,
    scalings: &[Scaling],
    affine: &[Vec<f64>; 2],
    activation: Option<Function>,
) -> Result<Tensor> {
    if !x.is_unique() {
        return apply::<T>(&x, scalings, affine, activation);
    }
    let sizes = rows(&x);
    let y = crate::parallel::as_uninit(x.as_mut_slice::<T>()?);
    apply_rows::<T>(None, y, sizes, scalings, affine, activation)?;
    Ok(x)
}

/// Σ g and Σ g x̂ of a row.
struct SumsRow<'a, T, A> {
    x: &'a [T],
    dy: &'a [T],
    line: Line<T>,
    normaliser: [f64; 2],
    activate: A,
}

impl<T: Real, A: Activate> Kernel for SumsRow<'_, T, A> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> [f64; 2] {
        let line = self.line.lanes::<T::Vec<S>>();
        let mean = self.line.mean();
        let mut sums = [0.0; 2];
        for (x, dy) in self.x.chunks(BLOCK).zip(self.dy.chunks(BLOCK)) {
            let (mut plain, mut weighted) = (Lanes16::<T::Vec<S>>::zero(), Lanes16::<T::Vec<S>>::zero());
            for (x, dy) in x.chunks(16).zip(dy.chunks(16)) {
                // Missing lanes get a gradient of zero, and the mean as x, where every derivative is finite.
                let (x, dy) = (Lanes16::load_partial(x, mean), Lanes16::load_partial(dy, T::ZERO));
                let distance = x.mul_add(line.power, line.center);
                let g = dy.mul(derivative(self.activate, distance.mul_add(line.scale, line.shift)));
                plain = plain.add(g);
                weighted = g.mul_add(distance, weighted);
            }
            sums[0] += plain.horizontal_sum().to_f64();
            sums[1] += weighted.horizontal_sum().to_f64();
        }
        let [factor, offset] = self.normaliser;
        [sums[0], sums[1] * factor + sums[0] * offset]
    }
}

#[inline(always)]
fn derivative<V: Vector, A: Activate>(activate: A, x: Lanes16<V>) -> Lanes16<V> {
    x.map(
        #[inline(always)]
        |x| activate.derivative(x),
    )
}

/// For each (image, channel): Σ g and Σ g x̂, where g = dy · activation'(γ x̂ + β).
pub(super) fn backward_sums<T: Real>(
    x: &Tensor,
    dy: &Tensor,
    scalings: &[Scaling],
    affine: &[Vec<f64>; 2],
    activation: Option<Function>,
) -> Result<Vec<[f64; 2]>> {
    let (pairs, length, grain) = rows(x);
    let channels = affine[0].len();
    let (x, dy) = (x.as_slice::<T>()?, dy.as_slice::<T>()?);
    let mut sums = vec![[0.0; 2]; pairs];
    let target = Partition::new(&mut sums, grain);
    specialised!(activation, activate => parallel_for(pairs, grain, |chunk| {
        for (sums, pair) in target.take(chunk.clone()).iter_mut().zip(chunk) {
            let line = scalings[pair].line(affine.each_ref().map(|values| values[pair % channels]));
            let normaliser = scalings[pair].normaliser::<T>();
            let range = pair * length..(pair + 1) * length;
            *sums = dispatch(SumsRow { x: &x[range.clone()], dy: &dy[range], line, normaliser, activate });
        }
    })?);
    drop(target);
    Ok(sums)
}

/// dx = factor · g + slope · (x · power + center) + constant for a row. The last two terms are the gradient through mean and
/// variance.
struct DataRow<'a, T, A> {
    x: &'a [T],
    /// `None`: dx holds dy.
    dy: Option<&'a [T]>,
    dx: &'a mut [MaybeUninit<T>],
    line: Line<T>,
    factor: T,
    slope: T,
    constant: T,
    activate: A,
}

impl<T: Real, A: Activate> Kernel for DataRow<'_, T, A> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let lanes = T::Vec::<S>::LANES;
        let splat = |value: T| T::Vec::<S>::splat(value);
        let line = Line::<T::Vec<S>>::splat(self.line);
        let (factor, slope, constant) = (splat(self.factor), splat(self.slope), splat(self.constant));
        assert_eq!(self.x.len(), self.dx.len(), "rows of one length");
        let (from, to) = source_and_target(self.dy, self.dx);
        for (part, x) in self.x.chunks(lanes).enumerate() {
            let (i, count) = (part * lanes, x.len());
            let x = T::Vec::<S>::load_partial(x);
            // SAFETY: all rows have i + count elements; in place, each vector is read before it is written.
            unsafe {
                let dy = T::Vec::<S>::load_partial_ptr(from.add(i), count);
                let distance = line.distance(x);
                let g = dy.mul(self.activate.derivative(distance.mul_add(line.scale, line.shift)));
                let result = g.mul_add(factor, distance.mul_add(slope, constant));
                result.store_partial_ptr(to.add(i), count);
            }
        }
    }
}

/// dx = γ g / deviation + `through[1]` x̂ + `through[0]`, with `through` for each pair. dx reuses dy's memory if no other
/// tensor uses that.
pub(super) fn backward_data<T: Real>(
    x: &Tensor,
    mut dy: Tensor,
    scalings: &[Scaling],
    affine: &[Vec<f64>; 2],
    activation: Option<Function>,
    through: &[[f64; 2]],
) -> Result<Tensor> {
    let (pairs, length, grain) = rows(x);
    let channels = affine[0].len();
    let values = x.as_slice::<T>()?;
    let write = |dy: Option<&[T]>, dx: &mut [MaybeUninit<T>]| -> Result<()> {
        let target = Partition::new(dx, grain * length);
        specialised!(activation, activate => parallel_for(pairs, grain, |chunk| {
            let rows = target.take(chunk.start * length..chunk.end * length);
            for (dx, pair) in rows.chunks_mut(length.max(1)).zip(chunk) {
                let channel = pair % channels;
                let line = scalings[pair].line(affine.each_ref().map(|values| values[channel]));
                let ([constant, slope], [normal, offset]) = (through[pair], scalings[pair].normaliser::<T>());
                let range = pair * length..(pair + 1) * length;
                dispatch(DataRow {
                    x: &values[range.clone()],
                    dy: dy.map(|dy| &dy[range]),
                    dx,
                    line,
                    factor: T::from_f64(affine[0][channel] / scalings[pair].deviation),
                    slope: T::from_f64(slope * normal),
                    constant: T::from_f64(slope.mul_add(offset, constant)),
                    activate,
                });
            }
        })?);
        Ok(())
    };
    if dy.is_unique() {
        write(None, crate::parallel::as_uninit(dy.as_mut_slice::<T>()?))?;
        return Ok(dy);
    }
    let mut builder = TensorBuilder::<T>::new("norm", x.shape(), x.device())?;
    write(Some(dy.as_slice::<T>()?), builder.uninit()?)?;
    // SAFETY: the row of every pair was written completely.
    Ok(unsafe { builder.assume_init() })
}
