//! The scaling of a set: its mean as a sum of two numbers, its deviation, and the linear function that kernels evaluate.
//!
//! A mean that is rounded to T has an error of up to half an ulp, which may exceed the deviation of the data. So kernels
//! subtract only the rounded mean (the high part), a difference that is exact near the mean; the rest of the mean becomes
//! part of a shift that is no larger than β and γ.

use crate::{
    norm::Moments,
    simd::{Lanes16, Real, Vector},
};

/// The mean and √(variance + ε) of a set.
#[derive(Debug, Clone, Copy)]
pub(in crate::norm) struct Scaling {
    /// The mean, as the sum of `mean` and its rounding error `rest`.
    pub mean: f64,
    pub rest: f64,
    /// √(variance + ε).
    pub deviation: f64,
}

/// (x − mean) / deviation · γ + β in the form that kernels evaluate: (x · power + center) · scale + shift.
#[derive(Debug, Clone, Copy)]
pub(in crate::norm) struct Line<T> {
    /// A power of two; 1 unless the deviation is so large or small that its square would overflow or underflow in T.
    pub power: T,
    /// −power · the mean's high part.
    pub center: T,
    pub scale: T,
    pub shift: T,
}

impl<T: Real> Line<T> {
    /// The mean's high part. Its difference from the mean is exactly 0, so it is used for missing lanes of short rows.
    pub fn mean(&self) -> T {
        T::from_f64(-self.center.to_f64() / self.power.to_f64())
    }

    /// The same function in each of sixteen lanes.
    #[inline(always)]
    pub fn lanes<V: Vector<Elem = T>>(self) -> Line<Lanes16<V>> {
        Line {
            power: Lanes16::splat(self.power),
            center: Lanes16::splat(self.center),
            scale: Lanes16::splat(self.scale),
            shift: Lanes16::splat(self.shift),
        }
    }
}

impl<V: Vector> Line<V> {
    /// The same function in every lane.
    #[inline(always)]
    pub fn splat(line: Line<V::Elem>) -> Self {
        Line {
            power: V::splat(line.power),
            center: V::splat(line.center),
            scale: V::splat(line.scale),
            shift: V::splat(line.shift),
        }
    }

    /// power · (x − the mean's high part).
    #[inline(always)]
    pub fn distance(&self, x: V) -> V {
        x.mul_add(self.power, self.center)
    }

    /// The value of the function at x.
    #[inline(always)]
    pub fn value(&self, x: V) -> V {
        self.distance(x).mul_add(self.scale, self.shift)
    }
}

/// The exponent of the largest power of two that isn't greater than a positive finite number.
fn exponent(value: f64) -> i32 {
    (value.to_bits() >> 52 & 0x7ff) as i32 - 1023
}

fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent.clamp(-1022, 1023) + 1023) as u64) << 52)
}

impl Scaling {
    /// The scaling for given statistics.
    pub fn given(mean: f64, variance: f64, epsilon: f64) -> Self {
        Self { mean, rest: 0.0, deviation: (variance + epsilon).sqrt() }
    }

    /// The scaling of a set of `rows` with these moments. If squares overflowed or underflowed in T, the moments are
    /// recomputed.
    #[inline]
    pub fn of<'a, T: Real>(moments: &mut Moments, epsilon: f64, rows: impl Iterator<Item = &'a [T]> + Clone) -> Self {
        let variance = moments.squares / moments.count.max(1.0);
        let smallest = T::MIN_POSITIVE.to_f64() / T::EPSILON.to_f64();
        if variance + epsilon >= smallest && variance.is_finite() && moments.mean.is_finite() {
            return Self { mean: moments.mean, rest: moments.rest, deviation: (variance + epsilon).sqrt() };
        }
        careful(moments, epsilon, rows)
    }

    /// The power of two by which differences from the mean are multiplied first.
    fn power<T: Real>(&self) -> f64 {
        // Within these exponents, 1 / deviation, its products with γ, and the differences neither overflow nor underflow in
        // T.
        let far = T::EXPONENT_BIAS as i32 / 2;
        let exponent = exponent(self.deviation);
        if self.deviation == 0.0 || !self.deviation.is_finite() || exponent.abs() <= far {
            return 1.0;
        }
        let most = T::EXPONENT_BIAS as i32 - 2;
        power_of_two(-exponent.clamp(-most, most))
    }

    /// The linear function with γ and β from `affine`.
    #[inline]
    pub fn line<T: Real>(&self, affine: [f64; 2]) -> Line<T> {
        let power = self.power::<T>();
        let high = T::from_f64(self.mean).to_f64();
        let scale = T::from_f64(affine[0] / (self.deviation * power));
        // The rounded scale is used here, so that x = mean gives β.
        let low = ((self.mean - high) + self.rest) * power;
        Line {
            power: T::from_f64(power),
            center: T::from_f64(-power * high),
            scale,
            shift: T::from_f64(affine[1] - low * scale.to_f64()),
        }
    }

    /// The coefficients that turn Σ g · power · (x − high) and Σ g into Σ g x̂, where high is the mean's high part and
    /// x̂ = (power · (x − high) − low) / (power · deviation).
    pub fn normaliser<T: Real>(&self) -> [f64; 2] {
        let power = self.power::<T>();
        let low = (self.mean - T::from_f64(self.mean).to_f64()) + self.rest;
        [1.0 / (self.deviation * power), -low / self.deviation]
    }
}

/// [`Scaling::of`] for values of any magnitude, in f64, multiplied by a power of two so that they are at most 2.
#[cold]
#[inline(never)]
fn careful<'a, T: Real>(moments: &mut Moments, epsilon: f64, rows: impl Iterator<Item = &'a [T]> + Clone) -> Scaling {
    let values = || rows.clone().flatten().map(|x| x.to_f64());
    let count = moments.count;
    let mut largest = 0.0f64;
    for x in values() {
        if !x.is_finite() {
            *moments = Moments { count, mean: f64::NAN, rest: 0.0, squares: f64::NAN };
            return Scaling { mean: f64::NAN, rest: 0.0, deviation: f64::NAN };
        }
        largest = largest.max(x.abs());
    }
    // Clamped to half the range of exponents, so that the square of the power is finite too.
    let power = if largest == 0.0 { 1.0 } else { power_of_two(-exponent(largest).clamp(-500, 500)) };
    let start = values().next().unwrap_or(0.0) * power;
    let distance = |x: f64| x * power - start;
    let sum: f64 = values().map(distance).sum();
    let center = sum / count.max(1.0);
    let squares: f64 = values().map(|x| (distance(x) - center).powi(2)).sum();
    let set = Moments { count, mean: start, rest: 0.0, squares }.moved(center);
    let variance = squares / count.max(1.0) + epsilon * power * power;
    let (mean, rest) = (set.mean / power, set.rest / power);
    *moments = Moments { count, mean, rest, squares: squares / power / power };
    Scaling { mean, rest, deviation: variance.sqrt() / power }
}
