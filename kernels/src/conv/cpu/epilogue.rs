//! What happens to an output on its way to memory: bias, folded norm, activation; and the moments that a norm needs.

use crate::parallel::Partition;
use crate::simd::{Lanes16, Real, Simd, Vector, sum};
use std::mem::MaybeUninit;
use tomograd_core::{Error, Result, Scratch};

/// The function that ends a fused convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// `max(0, x)`
    Relu,
    /// `x` above zero, else `slope x`.
    LeakyRelu(f64),
}

/// The mean of a channel of an image, and the sum of squared distances from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// How many numbers.
    pub count: f64,
    /// Their mean.
    pub mean: f64,
    /// Σ (x - mean)²
    pub squares: f64,
}

impl Moments {
    /// Those of two sets together.
    pub fn join(self, other: Moments) -> Moments {
        let count = self.count + other.count;
        if other.count == 0.0 {
            return self;
        }
        if self.count == 0.0 {
            return other;
        }
        let delta = other.mean - self.mean;
        Moments {
            count,
            mean: self.mean + delta * (other.count / count),
            squares: self.squares + other.squares + delta * delta * (self.count * other.count / count),
        }
    }
}

/// What is done to an output before it is stored: `activation(scale · (sum + bias) + shift)`, and the moments, taken of
/// `sum + bias`, for the norm that follows.
pub struct Epilogue<'a, T> {
    /// A number for each output channel.
    pub bias: Option<&'a [T]>,
    /// Two numbers for each output channel: a norm, folded.
    pub scale_shift: Option<(&'a [T], &'a [T])>,
    /// The activation.
    pub activation: Activation,
    /// Where the moments go: (N, output channels).
    pub moments: Option<&'a mut [Moments]>,
}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Epilogue { bias: None, scale_shift: None, activation: Activation::Identity, moments: None }
    }
}

impl<'a, T: Real> Epilogue<'a, T> {
    /// The same numbers as those of another type, which must be the same one.
    pub(super) fn cast<U: Real>(self) -> Epilogue<'a, U> {
        let cast = |numbers: &'a [T]| bytemuck::cast_slice::<T, U>(numbers);
        Epilogue {
            bias: self.bias.map(cast),
            scale_shift: self.scale_shift.map(|(scale, shift)| (cast(scale), cast(shift))),
            activation: self.activation,
            moments: self.moments,
        }
    }
}

impl<'a, T> Epilogue<'a, T> {
    /// Only a bias, if there is one.
    pub fn bias(bias: Option<&'a [T]>) -> Self {
        Epilogue { bias, ..Self::default() }
    }

    pub(super) fn check(&self, batch: usize, channels: usize) -> Result<()> {
        let (scale, shift) = self.scale_shift.unzip();
        for (name, numbers) in [("bias", self.bias), ("scale", scale), ("shift", shift)] {
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

/// Moments of parts of channels, numbered: `parts` for each channel of each image.
pub(super) struct PartialMoments {
    numbers: Scratch<f64>,
    parts: usize,
}

impl PartialMoments {
    /// Room for those that an epilogue wants, if it wants any.
    pub fn new<T>(epilogue: &Epilogue<'_, T>, parts: usize) -> Result<Option<Self>> {
        let Some(moments) = &epilogue.moments else { return Ok(None) };
        let mut numbers = Scratch::new("conv", 3 * moments.len() * parts)?;
        numbers.zeroed();
        Ok(Some(PartialMoments { numbers, parts }))
    }

    /// The slots to hand out.
    pub fn slots(&mut self) -> MomentSlots<'_> {
        MomentSlots(Partition::new(self.numbers.uninit(), 3))
    }

    /// Joins those of each channel in a fixed tree.
    pub fn join(self, into: &mut [Moments]) {
        // SAFETY: `new` filled it with zeros, and slots are only overwritten.
        let numbers = unsafe { self.numbers.assume_init() };
        for (moments, numbers) in into.iter_mut().zip(numbers.chunks_exact(3 * self.parts.max(1))) {
            *moments = join(numbers);
        }
    }
}

/// The moments of parts together: those of the first half with those of the second, and so on down.
fn join(numbers: &[f64]) -> Moments {
    match numbers {
        [] => Moments::default(),
        &[count, mean, squares] => Moments { count, mean, squares },
        _ => {
            let (first, second) = numbers.split_at(numbers.len() / 3 / 2 * 3);
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
        let numbers = [moments.count, moments.mean, moments.squares];
        for (to, number) in self.0.block(slot).iter_mut().zip(numbers) {
            to.write(number);
        }
    }
}

/// The mean of some rows, then their squared distances from it: two passes over what is still in a cache. Rows are summed
/// in `f32` lanes, and their sums in `f64`.
#[inline(always)]
pub(super) fn moments_of<'a, S: Simd, T: Real>(rows: usize, row: impl Fn(usize) -> &'a [T]) -> Moments {
    let count = (0..rows).map(|i| row(i).len()).sum::<usize>() as f64;
    let mut total = 0.0;
    for i in 0..rows {
        total += sum::<T::Vec<S>>(row(i)).to_f64();
    }
    let mean = total / count;
    let center = Lanes16::<T::Vec<S>>::splat(T::from_f64(mean));
    let (mut squares, mut rest) = (0.0, 0.0);
    for i in 0..rows {
        let mut total = Lanes16::<T::Vec<S>>::zero();
        let mut blocks = row(i).chunks_exact(16);
        for block in &mut blocks {
            let distance = Lanes16::load(block).sub(center);
            total = distance.mul_add(distance, total);
        }
        if !blocks.remainder().is_empty() {
            let distance = Lanes16::load_partial(blocks.remainder(), T::from_f64(mean)).sub(center);
            total = distance.mul_add(distance, total);
        }
        squares += total.horizontal_sum().to_f64();
    }
    // The centre was rounded to T: Σ (x - m)² = Σ (x - c)² - n (m - c)².
    let shift = mean - T::from_f64(mean).to_f64();
    rest += count * shift * shift;
    Moments { count, mean, squares: (squares - rest).max(0.0) }
}

/// The epilogue of one channel.
pub(super) struct Finish<S: Simd, T: Real> {
    bias: T::Vec<S>,
    /// Without one, numbers all the same: compilers compute with them before they know, and with what lies about on a stack
    /// (numbers next to zero) that would be slow.
    scale_shift: [T::Vec<S>; 2],
    scaled: bool,
    activation: Activation,
    /// The factor below zero.
    slope: T::Vec<S>,
}

impl<S: Simd, T: Real> Finish<S, T> {
    #[inline(always)]
    pub fn new(epilogue: &Epilogue<'_, T>, channel: usize) -> Self {
        let splat = |x: T| T::Vec::<S>::splat(x);
        Finish {
            bias: splat(epilogue.bias.map_or(T::ZERO, |bias| bias[channel])),
            scale_shift: epilogue
                .scale_shift
                .map_or([T::Vec::<S>::zero(); 2], |(scale, shift)| [splat(scale[channel]), splat(shift[channel])]),
            scaled: epilogue.scale_shift.is_some(),
            activation: epilogue.activation,
            slope: splat(match epilogue.activation {
                Activation::LeakyRelu(slope) => T::from_f64(slope),
                _ => T::ZERO,
            }),
        }
    }

    /// Whether a bias is all.
    #[inline(always)]
    pub fn only_bias(&self) -> bool {
        !self.scaled && self.activation == Activation::Identity
    }

    /// Sums with their bias.
    #[inline(always)]
    pub fn biased(&self, sums: T::Vec<S>) -> T::Vec<S> {
        sums.add(self.bias)
    }

    #[inline(always)]
    fn end(&self, x: T::Vec<S>) -> T::Vec<S> {
        let [scale, shift] = self.scale_shift;
        let x = if self.scaled { x.mul_add(scale, shift) } else { x };
        let zero = T::Vec::<S>::zero();
        match self.activation {
            Activation::Identity => x,
            Activation::Relu => zero.max(x),
            Activation::LeakyRelu(_) => T::Vec::<S>::select(x.lt(zero), x.mul(self.slope), x),
        }
    }

    /// Finishes a row where it is: the bias is in it already.
    #[inline(always)]
    pub fn in_place(&self, row: &mut [T]) {
        for vector in row.chunks_mut(T::Vec::<S>::LANES) {
            self.end(T::Vec::<S>::load_partial(vector)).store_partial(vector);
        }
    }

    /// Finishes two rows of sums and writes their numbers in turn, `count` in all; if `kept`, the rows then hold the sums plus
    /// bias.
    ///
    /// # Safety
    /// The rows hold `count` numbers together, with room for a vector more in each; `to` is writable for `count`.
    #[inline(always)]
    pub unsafe fn rows(&self, even: *mut T, odd: *mut T, to: *mut T, count: usize, kept: bool) {
        let lanes = T::Vec::<S>::LANES;
        // SAFETY: whole vectors stay inside the rows and their room; stores to `to` stop at `count`.
        unsafe {
            for x in (0..count.div_ceil(2)).step_by(lanes) {
                let (even, odd) = (even.add(x), odd.add(x));
                let a = T::Vec::<S>::load_ptr(even).add(self.bias);
                let b = T::Vec::<S>::load_ptr(odd).add(self.bias);
                let (real, to) = (count - 2 * x, to.add(2 * x));
                if kept {
                    // What lies beyond the last number may belong to the next row, whose bias is still to come.
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

    /// Finishes `count` sums, and writes them with their bias to `kept` too.
    ///
    /// # Safety
    /// `sums` are readable, and `to` and `kept` writable for `count` numbers.
    #[inline(always)]
    pub unsafe fn sums(&self, sums: *const T, to: *mut T, kept: Option<*mut T>, count: usize) {
        let lanes = T::Vec::<S>::LANES;
        // SAFETY: vectors stay inside of `count`; the partial one too.
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

    /// Finishes a row of sums and writes it with a distance of `spread`; `sums` then holds the sums plus bias.
    ///
    /// # Safety
    /// `to` is writable for as many numbers at that distance.
    #[inline(always)]
    pub unsafe fn row(&self, sums: &mut [T], to: *mut T, spread: usize) {
        let lanes = T::Vec::<S>::LANES;
        let count = sums.len();
        let mut x = 0;
        // SAFETY: vectors stay inside the rows; the partial one too.
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

/// Sums of distances from a first guess of the mean, the mean of the first row, in sixteen lanes.
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
            self.shift = sum::<T::Vec<S>>(row) / T::from_f64(row.len() as f64);
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
        Moments { count, mean: self.shift.to_f64() + sum / count, squares: (squares - sum * sum / count).max(0.0) }
    }
}
