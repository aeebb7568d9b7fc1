//! The number types that kernels are generic over.

use super::{Simd, Vector};
use std::fmt::Display;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};
use tomograd_core::Element;

/// `f32` or `f64`: the number type in which a generic kernel computes.
pub trait Real:
    Element
    + PartialOrd
    + Display
    + bytemuck::Pod
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
    + super::math::Constants
    + 'static
{
    /// The vector type of an instruction set.
    type Vec<S: Simd>: Vector<Elem = Self>;
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// The distance from 1 to the next larger number.
    const EPSILON: Self;
    /// The smallest positive normal number.
    const MIN_POSITIVE: Self;
    /// The largest finite number.
    const MAX: Self;
    /// +∞
    const INFINITY: Self;
    /// Not a number.
    const NAN: Self;
    /// The number of stored mantissa bits.
    const MANTISSA_BITS: u32;
    /// The exponent's bias.
    const EXPONENT_BIAS: u32;
    /// The name in error messages and paths.
    const NAME: &'static str;

    /// `self * factor + term`, rounded once
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The bits, zero-extended.
    fn to_bits64(self) -> u64;
    /// The square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// The absolute value.
    fn abs(self) -> Self;
    /// The largest integer that isn't greater.
    fn floor(self) -> Self;
    /// The nearest integer, ties to even.
    fn round_ties_even(self) -> Self;
    /// `if self < other { self } else { other }`, as [`Vector::min`].
    fn min2(self, other: Self) -> Self {
        if self < other { self } else { other }
    }
    /// `if self > other { self } else { other }`, as [`Vector::max`].
    fn max2(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

macro_rules! real {
    ($t:ident, $vector:ident, $mantissa:expr, $bias:expr) => {
        impl Real for $t {
            type Vec<S: Simd> = S::$vector;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const EPSILON: Self = $t::EPSILON;
            const MIN_POSITIVE: Self = $t::MIN_POSITIVE;
            const MAX: Self = $t::MAX;
            const INFINITY: Self = $t::INFINITY;
            const NAN: Self = $t::NAN;
            const MANTISSA_BITS: u32 = $mantissa;
            const EXPONENT_BIAS: u32 = $bias;
            const NAME: &'static str = stringify!($t);

            #[inline(always)]
            fn mul_add(self, factor: Self, term: Self) -> Self {
                $t::mul_add(self, factor, term)
            }
            #[inline(always)]
            #[allow(clippy::unnecessary_cast)]
            fn to_bits64(self) -> u64 {
                self.to_bits() as u64
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $t::abs(self)
            }
            #[inline(always)]
            fn floor(self) -> Self {
                $t::floor(self)
            }
            #[inline(always)]
            fn round_ties_even(self) -> Self {
                $t::round_ties_even(self)
            }
        }
    };
}

real!(f32, F32, 23, 127);
real!(f64, F64, 52, 1023);
