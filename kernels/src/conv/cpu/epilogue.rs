//! The epilogue of a convolution: bias, folded norm and activation, applied before outputs are stored; and the moments for a
//! norm.

use crate::elementwise::Function;
use crate::norm::Moments;
use crate::parallel::Partition;
use crate::simd::{Lanes16, Real, Simd, Vector};
use std::mem::MaybeUninit;
use tomograd_core::{Error, Result, Scratch};

/// The activation at the end of a fused convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// No activation.
    #[default]
    Identity,
    /// `max(0, x)`
    Relu,
    /// `x` if it isn't negative, otherwise `slope · x`.
    LeakyRelu(f64),
}

/// The epilogue of a convolution: `function(activation((sum + bias + center) · scale + shift))`. The moments are those of
/// `sum + bias`, for a norm that follows.
pub struct Epilogue<'a, T> {
    /// One value for each output channel.
    pub bias: Option<&'a [T]>,
    /// A folded norm, (x + center) · scale + shift: one center, scale and shift for each output channel.
    pub norm: Option<[&'a [T]; 3]>,
    /// The activation.
    pub activation: Activation,
    /// A function of the result, which only the pointwise and depthwise paths apply: they have a last pass over outputs that
    /// are still in cache.
    pub function: Option<Function>,
    /// The destination of the moments: (N, output channels).
    pub moments: Option<&'a mut [Moments]>,
}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Epilogue { bias: None, norm: None, activation: Activation::Identity, function: None, moments: None }
    }
}

impl<'a, T: Real> Epilogue<'a, T> {
    /// The same epilogue with its type parameter changed to `U`, which must be the same type as `T`.
    pub(super) fn cast<U: Real>(self) -> Epilogue<'a, U> {
        let cast = |numbers: &'a [T]| bytemuck::cast_slice::<T, U>(numbers);
        Epilogue {
            bias: self.bias.map(cast),
            norm: self.norm.map(|numbers| numbers.map(cast)),
            activation: self.activation,
            function: self.function,
            moments: self.moments,
        }
    }
}

impl<'a, T> Epilogue<'a, T> {
    /// Only a bias, if there is one.
    pub fn bias(bias: Option<&'a [T]>) -> Self {
        Epilogue { bias, ..Self::default() }
    }

    /// Checks the numbers of numbers, and that there is a function only if the path applies it.
    pub(super) fn check(&self, batch: usize, channels: usize, function: bool) -> Result<()> {
        if let (Some(function), false) = (self.function, function) {
            return Err(Error::argument("conv", format!("the function {} after a convolution", function.name()))
                .expected("a pointwise or depthwise convolution"));
        }
        let norm = |k: usize| self.norm.map(|numbers| numbers[k]);
        for (name, numbers) in [("bias", self.bias), ("center", norm(0)), ("scale", norm(1)), ("shift", norm(2))] {
            if let Some(numbers) = numbers.filter(|numbers| numbers.len() != channels) {
                return Err(Error::shape("conv", format!("a {name} of {} numbers", numbers.len()))
                    .expected(format!("{channels}, the output's channels")));
            }
        }
        if let Some(moments) = self.moments.as_ref().filter(|moments| moments.len() != batch * channels) {
            return Err(
                Error::shape("conv", format!("{} moments", moments.len())).expected(format!("{batch} × {channels}"))
            );
        }
        Ok(())
    }
}

/// The moments of `parts` parts of each channel of each image, each in a slot of its own.
pub(super) struct PartialMoments {
    numbers: Scratch<f64>,
    parts: usize,
}

impl PartialMoments {
    /// Allocates the slots, if the epilogue asks for moments.
    pub fn new<T>(epilogue: &Epilogue<'_, T>, parts: usize) -> Result<Option<Self>> {
        let Some(moments) = &epilogue.moments else { return Ok(None) };
        let mut numbers = Scratch::new("conv", 4 * moments.len() * parts)?;
        numbers.zeroed();
        Ok(Some(PartialMoments { numbers, parts }))
    }

    /// The slots, for chunks to fill.
    pub fn slots(&mut self) -> MomentSlots<'_> {
        MomentSlots(Partition::new(self.numbers.uninit(), 4))
    }

    /// Combines the moments of each channel's parts in a fixed tree.
    pub fn join(self, into: &mut [Moments]) {
        // SAFETY: `new` filled the memory with zeros, and slots are only overwritten.
        let numbers = unsafe { self.numbers.assume_init() };
        for (moments, numbers) in into.iter_mut().zip(numbers.chunks_exact(4 * self.parts.max(1))) {
            *moments = join(numbers);
        }
    }
}

/// Combines the moments of some parts recursively: those of the first half with those of the second.
fn join(numbers: &[f64]) -> Moments {
    match numbers {
        [] => Moments::default(),
        &[count, mean, rest, squares] => Moments { count, mean, rest, squares },
        _ => {
            let (first, second) = numbers.split_at(numbers.len() / 4 / 2 * 4);
            join(first).join(join(second))
        }
    }
}

/// Slots of [`PartialMoments`], each to be filled by one chunk.
pub(super) struct MomentSlots<'a>(Partition<'a, MaybeUninit<f64>>);

impl MomentSlots<'_> {
    /// Fills a slot.
    #[inline]
    pub fn set(&self, slot: usize, moments: Moments) {
        let numbers = [moments.count, moments.mean, moments.rest, moments.squares];
        for (to, number) in self.0.block(slot).iter_mut().zip(numbers) {
            to.write(number);
        }
    }
}

/// The sum of a row's differences from `center`.
#[inline(always)]
fn sum_of_distances<S: Simd, T: Real>(row: &[T], center: T) -> T {
    let centers = Lanes16::<T::Vec<S>>::splat(center);
    let mut total = Lanes16::<T::Vec<S>>::zero();
    let mut blocks = row.chunks_exact(16);
    for block in &mut blocks {
        total = total.add(Lanes16::load(block).sub(centers));
    }
    if !blocks.remainder().is_empty() {
        total = total.add(Lanes16::load_partial(blocks.remainder(), center).sub(centers));
    }
    total.horizontal_sum()
}

/// The mean of some rows, then the squared differences from it: two passes over data that is still in cache. Each row is
/// summed in lanes of `T`, and the sums of the rows in `f64`. All sums are of differences (in the first pass from the first
/// element), since sums of the elements themselves would lose the variance beside a large mean.
#[inline(always)]
pub(super) fn moments_of<'a, S: Simd, T: Real>(rows: usize, row: impl Fn(usize) -> &'a [T]) -> Moments {
    let count = (0..rows).map(|i| row(i).len()).sum::<usize>() as f64;
    let first = (0..rows).find_map(|i| row(i).first().copied()).unwrap_or(T::ZERO);
    let mut total = 0.0;
    for i in 0..rows {
        total += sum_of_distances::<S, T>(row(i), first).to_f64();
    }
    let center = T::from_f64(first.to_f64() + total / count);
    let centers = Lanes16::<T::Vec<S>>::splat(center);
    let (mut sum, mut squares) = (0.0, 0.0);
    for i in 0..rows {
        let (mut plain, mut total) = (Lanes16::<T::Vec<S>>::zero(), Lanes16::<T::Vec<S>>::zero());
        let mut blocks = row(i).chunks_exact(16);
        for block in &mut blocks {
            let distance = Lanes16::load(block).sub(centers);
            plain = plain.add(distance);
            total = distance.mul_add(distance, total);
        }
        if !blocks.remainder().is_empty() {
            let distance = Lanes16::load_partial(blocks.remainder(), center).sub(centers);
            plain = plain.add(distance);
            total = distance.mul_add(distance, total);
        }
        sum += plain.horizontal_sum().to_f64();
        squares += total.horizontal_sum().to_f64();
    }
    Moments::from_distances(count, center.to_f64(), sum, squares)
}

/// The epilogue for one channel.
pub(super) struct Finish<S: Simd, T: Real> {
    bias: T::Vec<S>,
    /// Zeros if there is no norm, rather than uninitialised: compilers compute the norm speculatively before testing
    /// `normed`, and leftover stack contents can be subnormals, which are slow.
    norm: [T::Vec<S>; 3],
    normed: bool,
    activation: Activation,
    /// The slope of leaky ReLU for negative values.
    slope: T::Vec<S>,
}

impl<S: Simd, T: Real> Finish<S, T> {
    #[inline(always)]
    pub fn new(epilogue: &Epilogue<'_, T>, channel: usize) -> Self {
        let splat = |x: T| T::Vec::<S>::splat(x);
        Finish {
            bias: splat(epilogue.bias.map_or(T::ZERO, |bias| bias[channel])),
            norm: match epilogue.norm {
                Some([center, scale, shift]) => [splat(center[channel]), splat(scale[channel]), splat(shift[channel])],
                None => [T::Vec::<S>::zero(); 3],
            },
            normed: epilogue.norm.is_some(),
            activation: epilogue.activation,
            slope: splat(match epilogue.activation {
                Activation::LeakyRelu(slope) => T::from_f64(slope),
                _ => T::ZERO,
            }),
        }
    }

    /// Whether the epilogue is at most a bias.
    #[inline(always)]
    pub fn only_bias(&self) -> bool {
        !self.normed && self.activation == Activation::Identity
    }

    /// Adds the bias to sums.
    #[inline(always)]
    pub fn biased(&self, sums: T::Vec<S>) -> T::Vec<S> {
        sums.add(self.bias)
    }

    /// Applies norm and activation to sums that contain the bias.
    #[inline(always)]
    pub fn end(&self, x: T::Vec<S>) -> T::Vec<S> {
        let [center, scale, shift] = self.norm;
        let x = if self.normed { x.add(center).mul_add(scale, shift) } else { x };
        let zero = T::Vec::<S>::zero();
        match self.activation {
            Activation::Identity => x,
            Activation::Relu => zero.max(x),
            Activation::LeakyRelu(_) => T::Vec::<S>::select(x.lt(zero), x.mul(self.slope), x),
        }
    }

    /// Applies norm and activation, then the function, to a row in place; the row contains the bias already.
    #[inline(always)]
    pub fn in_place(&self, row: &mut [T], function: Option<Function>) {
        if self.only_bias() && function.is_none() {
            return;
        }
        let mut vectors = row.chunks_exact_mut(T::Vec::<S>::LANES);
        for vector in &mut vectors {
            self.end_with(T::Vec::<S>::load(vector), function).store(vector);
        }
        let rest = vectors.into_remainder();
        if !rest.is_empty() {
            self.end_with(T::Vec::<S>::load_partial(rest), function).store_partial(rest);
        }
    }

    /// The function of [`end`](Self::end).
    #[inline(always)]
    fn end_with(&self, x: T::Vec<S>, function: Option<Function>) -> T::Vec<S> {
        let x = self.end(x);
        match function {
            Some(function) => function.value(x),
            None => x,
        }
    }

    /// Finishes a row of even and a row of odd columns and writes them interleaved, `count` elements in all. If `kept`, both
    /// rows hold the sums plus bias afterwards.
    ///
    /// # Safety
    /// The rows hold `count` elements together, with room for one more vector in each; `to` is writable for `count`.
    #[inline(always)]
    pub unsafe fn rows(&self, even: *mut T, odd: *mut T, to: *mut T, count: usize, kept: bool) {
        let lanes = T::Vec::<S>::LANES;
        // SAFETY: whole vectors stay inside the rows and the room behind them; stores to `to` stop at `count`.
        unsafe {
            for x in (0..count.div_ceil(2)).step_by(lanes) {
                let (even, odd) = (even.add(x), odd.add(x));
                let a = T::Vec::<S>::load_ptr(even).add(self.bias);
                let b = T::Vec::<S>::load_ptr(odd).add(self.bias);
                let (real, to) = (count - 2 * x, to.add(2 * x));
                if kept {
                    // Elements after the last one may belong to the next row, whose bias hasn't been added yet.
                    a.store_partial_ptr(even, real.div_ceil(2));
                    b.store_partial_ptr(odd, real / 2);
                }
                let (first, second) = self.end(a).interleave(self.end(b));
                if real >= 2 * lanes {
                    first.store_ptr(to);
                    second.store_ptr(to.add(lanes));
                } else {
                    first.store_partial_ptr(to, real);
                    second.store_partial_ptr(to.add(real.min(lanes)), real.saturating_sub(lanes));
                }
            }
        }
    }

    /// Finishes `count` sums; also writes the sums plus bias to `kept`, if given.
    ///
    /// # Safety
    /// `sums` is readable, and `to` and `kept` writable, for `count` elements.
    #[inline(always)]
    pub unsafe fn sums(&self, sums: *const T, to: *mut T, kept: Option<*mut T>, count: usize) {
        let lanes = T::Vec::<S>::LANES;
        // SAFETY: all vectors, also the partial one, stay within `count`.
        unsafe {
            for x in (0..count).step_by(lanes) {
                let here = lanes.min(count - x);
                let store = |vector: T::Vec<S>, to: *mut T| {
                    if here == lanes { vector.store_ptr(to) } else { vector.store_partial_ptr(to, here) }
                };
                let sum = T::Vec::<S>::load_partial_ptr(sums.add(x), here).add(self.bias);
                if let Some(kept) = kept {
                    store(sum, kept.add(x));
                }
                store(self.end(sum), to.add(x));
            }
        }
    }

    /// Finishes a row of sums and writes it with a stride of `spread`; afterwards `sums` holds the sums plus bias.
    ///
    /// # Safety
    /// `to` is writable for as many elements at that stride.
    #[inline(always)]
    pub unsafe fn row(&self, sums: &mut [T], to: *mut T, spread: usize) {
        let lanes = T::Vec::<S>::LANES;
        let count = sums.len();
        let mut x = 0;
        // SAFETY: all vectors, also the partial one, stay within the rows.
        unsafe {
            while x < count {
                let here = lanes.min(count - x);
                let from = sums.as_mut_ptr().add(x);
                if here == lanes && spread == 1 {
                    let sum = T::Vec::<S>::load_ptr(from).add(self.bias);
                    sum.store_ptr(from);
                    self.end(sum).store_ptr(to.add(x));
                } else {
                    let sum = T::Vec::<S>::load_partial_ptr(from, here).add(self.bias);
                    sum.store_partial_ptr(from, here);
                    if spread == 1 {
                        self.end(sum).store_partial_ptr(to.add(x), here);
                    } else {
                        let mut row = [MaybeUninit::<T>::uninit(); 16];
                        self.end(sum).store_ptr(row.as_mut_ptr().cast());
                        for (i, number) in row[..here].iter().enumerate() {
                            *to.add((x + i) * spread) = number.assume_init();
                        }
                    }
                }
                x += lanes;
            }
        }
    }
}

/// Sums of differences and of squared differences from a shift, in sixteen lanes. The shift is the mean of the first row.
#[derive(Clone, Copy)]
pub(super) struct Shifted<S: Simd, T: Real> {
    count: usize,
    shift: T,
    sums: Lanes16<T::Vec<S>>,
    squares: Lanes16<T::Vec<S>>,
}

impl<S: Simd, T: Real> Shifted<S, T> {
    #[inline(always)]
    pub fn new() -> Self {
        Shifted { count: 0, shift: T::ZERO, sums: Lanes16::zero(), squares: Lanes16::zero() }
    }

    #[inline(always)]
    pub fn add(&mut self, row: &[T]) {
        if self.count == 0 {
            let first = row[0];
            self.shift = first + sum_of_distances::<S, T>(row, first) / T::from_f64(row.len() as f64);
        }
        self.count += row.len();
        let shift = Lanes16::splat(self.shift);
        let mut blocks = row.chunks_exact(16);
        for block in &mut blocks {
            let distance = Lanes16::load(block).sub(shift);
            self.sums = self.sums.add(distance);
            self.squares = distance.mul_add(distance, self.squares);
        }
        if !blocks.remainder().is_empty() {
            let distance = Lanes16::load_partial(blocks.remainder(), self.shift).sub(shift);
            self.sums = self.sums.add(distance);
            self.squares = distance.mul_add(distance, self.squares);
        }
    }

    #[inline(always)]
    pub fn moments(&self) -> Moments {
        let count = self.count as f64;
        let sum = self.sums.to_array().iter().map(|x| x.to_f64()).sum::<f64>();
        let squares = self.squares.to_array().iter().map(|x| x.to_f64()).sum::<f64>();
        Moments::from_distances(count, self.shift.to_f64(), sum, squares)
    }
}
