//! Layer norm on the CPU: row by row; each row is read from memory once.

use std::mem::MaybeUninit;

use tomograd_core::{Result, Scratch, Tensor, TensorBuilder};

use crate::{
    norm::{
        cpu::row_moments,
        cpu::scaling::{Line, Scaling},
    },
    parallel::{PartialSlots, Partition, parallel_for},
    simd::{Kernel, Lanes16, Real, Simd, Vector, dispatch},
};

/// Elements of a parallel chunk.
const GRAIN: usize = 1 << 15;

/// γ and β.
type Affine<'a, T> = Option<[&'a [T]; 2]>;

fn grain(length: usize) -> usize {
    (GRAIN / length.max(1)).max(1)
}

/// The number of values saved for each row: the fields of the [`Line`] that gives x̂.
pub(super) const KEPT: usize = 4;

fn kept<T: Real>(line: Line<T>) -> [T; KEPT] {
    [line.power, line.center, line.scale, line.shift]
}

fn line_of<T: Copy>([power, center, scale, shift]: [T; KEPT]) -> Line<T> {
    Line { power, center, scale, shift }
}

/// y and the values saved for each row, (rows, 4). The latter are copied from `known` if that is given.
pub(super) fn forward<T: Real>(
    x: &Tensor,
    length: usize,
    affine: Affine<'_, T>,
    epsilon: f64,
    known: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let elements = x.as_slice::<T>()?;
    let (rows, grain) = (elements.len().checked_div(length).unwrap_or(0), grain(length));
    let mut builder = TensorBuilder::<T>::new("layer_norm", x.shape(), x.device())?;
    let mut statistics = TensorBuilder::<T>::new("layer_norm", &[rows, KEPT], x.device())?;
    let known = known.map(Tensor::as_slice::<T>).transpose()?;
    let affine = affine.map(|[gamma, beta]| [&gamma[..length], &beta[..length]]);
    let target = Partition::new(builder.uninit()?, grain * length);
    let kept = Partition::new(statistics.uninit()?, grain * KEPT);
    parallel_for(rows, grain, |chunk| {
        let (range, pairs) = (chunk.start * length..chunk.end * length, chunk.start * KEPT..chunk.end * KEPT);
        dispatch(ForwardRows {
            x: &elements[range.clone()],
            y: target.take(range),
            known: known.map(|known| &known[pairs.clone()]),
            statistics: kept.take(pairs),
            length,
            affine,
            epsilon,
        });
    })?;
    drop((target, kept));
    // SAFETY: the chunks cover all rows, and each writes its rows and their statistics.
    Ok(unsafe { (builder.assume_init(), statistics.assume_init()) })
}

struct ForwardRows<'a, T> {
    x: &'a [T],
    y: &'a mut [MaybeUninit<T>],
    known: Option<&'a [T]>,
    statistics: &'a mut [MaybeUninit<T>],
    length: usize,
    affine: Affine<'a, T>,
    epsilon: f64,
}

impl<T: Real> Kernel for ForwardRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let rows = self.statistics.len() / KEPT;
        // As many rows at a time as there are registers for their sums.
        let together = if S::WIDE { 4 } else { 2 };
        let mut row = 0;
        while row < rows {
            row += match rows - row {
                left if left < together => self.rows::<S, 1>(row),
                _ if together == 4 => self.rows::<S, 4>(row),
                _ => self.rows::<S, 2>(row),
            };
        }
    }
}

impl<T: Real> ForwardRows<'_, T> {
    /// Processes `R` rows from `first` on and returns `R`.
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(&mut self, first: usize) -> usize {
        let row = |r: usize| (first + r) * self.length..(first + r + 1) * self.length;
        let x: [&[T]; R] = std::array::from_fn(|r| &self.x[row(r)]);
        let mut statistics = [[T::ZERO; KEPT]; R];
        if let Some(known) = self.known {
            statistics.as_flattened_mut().copy_from_slice(&known[KEPT * first..KEPT * (first + R)]);
        } else {
            let mut moments = row_moments::<S, T, R>(x);
            for r in 0..R {
                let scaling = Scaling::of(&mut moments[r], self.epsilon, std::iter::once(x[r]));
                statistics[r] = kept(scaling.line([1.0, 0.0]));
            }
        }
        for r in 0..R {
            self.statistics[KEPT * (first + r)..][..KEPT].write_copy_of_slice(&statistics[r]);
            normalise::<S, T>(x[r], line_of(statistics[r]), self.affine, &mut self.y[row(r)]);
        }
        R
    }
}

/// Computes a row of y from a row of x.
#[inline(always)]
fn normalise<S: Simd, T: Real>(x: &[T], line: Line<T>, affine: Affine<'_, T>, y: &mut [MaybeUninit<T>]) {
    let (lanes, length) = (T::Vec::<S>::LANES, x.len());
    assert!(y.len() == length && affine.iter().flatten().all(|row| row.len() == length), "rows of one length");
    let line = Line::<T::Vec<S>>::splat(line);
    let (from, to) = (x.as_ptr(), y.as_mut_ptr().cast::<T>());
    let affine = affine.map(|[gamma, beta]| [gamma.as_ptr(), beta.as_ptr()]);
    let mut i = 0;
    while i + lanes <= length {
        // SAFETY: every row has `lanes` elements from i on.
        unsafe {
            let mut value = line.value(T::Vec::<S>::load_ptr(from.add(i)));
            if let Some([gamma, beta]) = affine {
                value = value.mul_add(T::Vec::<S>::load_ptr(gamma.add(i)), T::Vec::<S>::load_ptr(beta.add(i)));
            }
            value.store_ptr(to.add(i));
        }
        i += lanes;
    }
    let left = length - i;
    if left > 0 {
        // SAFETY: every row has `left` elements from i on.
        unsafe {
            let mut value = line.value(T::Vec::<S>::load_partial_ptr(from.add(i), left));
            if let Some([gamma, beta]) = affine {
                let load = |from: *const T| T::Vec::<S>::load_partial_ptr(from.add(i), left);
                value = value.mul_add(load(gamma), load(beta));
            }
            value.store_partial_ptr(to.add(i), left);
        }
    }
}

/// The gradient of x and, if there is a γ, the gradients of γ and β in one tensor (2, length).
pub(super) fn backward<T: Real>(
    x: &Tensor,
    dy: &Tensor,
    statistics: &Tensor,
    length: usize,
    gamma: Option<&[T]>,
) -> Result<(Tensor, Option<Tensor>)> {
    let (elements, dy) = (x.as_slice::<T>()?, dy.as_slice::<T>()?);
    let statistics = statistics.as_slice::<T>()?;
    let (rows, grain) = (elements.len().checked_div(length).unwrap_or(0), grain(length));
    let mut builder = TensorBuilder::<T>::new("layer_norm", x.shape(), x.device())?;
    let width = if gamma.is_some() { 2 * length } else { 0 };
    let mut scratch = Scratch::<T>::new("layer_norm", rows.div_ceil(grain) * width)?;
    let mut slots = PartialSlots::new(scratch.zeroed(), width)?;
    let (target, sums) = (Partition::new(builder.uninit()?, grain * length), slots.slots());
    parallel_for(rows, grain, |chunk| {
        let range = chunk.start * length..chunk.end * length;
        dispatch(BackwardRows {
            x: &elements[range.clone()],
            dy: &dy[range.clone()],
            dx: target.take(range),
            statistics: &statistics[chunk.start * KEPT..chunk.end * KEPT],
            length,
            gamma,
            sums: if width == 0 { &mut [] } else { sums.block(chunk.start / grain) },
        });
    })?;
    drop((target, sums));
    // SAFETY: the chunks cover all rows, and each writes all of its own.
    let dx = unsafe { builder.assume_init() };
    let parameters = match gamma {
        None => None,
        Some(_) if rows == 0 => Some(Tensor::zeros(&[2, length], x.dtype(), x.device())?),
        Some(_) => Some(Tensor::from_slice(slots.sum(), &[2, length], x.device())?),
    };
    Ok((dx, parameters))
}

struct BackwardRows<'a, T> {
    x: &'a [T],
    dy: &'a [T],
    dx: &'a mut [MaybeUninit<T>],
    statistics: &'a [T],
    length: usize,
    gamma: Option<&'a [T]>,
    /// Σ dy x̂ and Σ dy over these rows, for each element of a row.
    sums: &'a mut [T],
}

impl<T: Real> Kernel for BackwardRows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (length, lanes) = (self.length, T::Vec::<S>::LANES);
        let count = T::from_f64(length as f64);
        let (of_gamma, of_beta) = self.sums.split_at_mut(self.sums.len() / 2);
        let rows = self.x.chunks_exact(length).zip(self.dy.chunks_exact(length));
        for (((x, dy), dx), kept) in
            rows.zip(self.dx.chunks_exact_mut(length)).zip(self.statistics.as_chunks::<KEPT>().0)
        {
            // Missing lanes are filled with the mean, where x̂ is finite.
            let mean = line_of(*kept).mean();
            let line = line_of(*kept).lanes::<T::Vec<S>>();
            let (mut plain, mut weighted) = (Lanes16::<T::Vec<S>>::zero(), Lanes16::<T::Vec<S>>::zero());
            for from in (0..length).step_by(16) {
                let part = from..length.min(from + 16);
                let dy = Lanes16::load_partial(&dy[part.clone()], T::ZERO);
                let distance = Lanes16::load_partial(&x[part.clone()], mean).mul_add(line.power, line.center);
                let normal = distance.mul_add(line.scale, line.shift);
                let mut g = dy;
                if let Some(gamma) = self.gamma {
                    g = dy.mul(Lanes16::load_partial(&gamma[part.clone()], T::ZERO));
                    let to = &mut of_gamma[part.clone()];
                    dy.mul_add(normal, Lanes16::load_partial(to, T::ZERO)).store_partial(to);
                    let to = &mut of_beta[part];
                    dy.add(Lanes16::load_partial(to, T::ZERO)).store_partial(to);
                }
                plain = plain.add(g);
                weighted = g.mul_add(normal, weighted);
            }
            // dx = r (g − mean(g) − x̂ mean(g x̂)), where r is the inverse deviation.
            let splat = |value: T| T::Vec::<S>::splat(value);
            let line = Line::<T::Vec<S>>::splat(line_of(*kept));
            let inverse = line.power.mul(line.scale);
            let (constant, slope) = (splat(plain.horizontal_sum() / count), splat(weighted.horizontal_sum() / count));
            for (j, dx) in dx.chunks_mut(lanes).enumerate() {
                let part = j * lanes..j * lanes + dx.len();
                let mut g = T::Vec::<S>::load_partial(&dy[part.clone()]);
                if let Some(gamma) = self.gamma {
                    g = g.mul(T::Vec::<S>::load_partial(&gamma[part.clone()]));
                }
                let normal = line.value(T::Vec::<S>::load_partial(&x[part]));
                let result = normal.neg_mul_add(slope, g.sub(constant)).mul(inverse);
                // SAFETY: exactly the elements of this part of the row are written.
                unsafe { result.store_partial_ptr(dx.as_mut_ptr().cast(), dx.len()) };
            }
        }
    }
}
