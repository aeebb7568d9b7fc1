//! Elementary functions of vectors: polynomials of this project's own, so that every instruction set gives the same bits.
//!
//! Errors against the exact value in units in the last place (ulp), as the tests measure them: [`exp`], [`ln`], [`expm1`],
//! [`ln_1p`], [`tanh`] and [`exp2_normal`] within 2, [`sigmoid`] and [`erf`] within 3, [`exp2_weight`] within 1. Subnormal
//! results are rounded correctly, never flushed to zero (except by [`exp2_normal`] and [`exp2_weight`]). NaN gives NaN.

use super::{Real, Vector};
use tomograd_core::Element;

/// The coefficients of the polynomials for a number type, starting with the constant term.
#[doc(hidden)]
pub trait Constants: Sized + 'static {
    /// `(exp(r) - 1 - r) / r²` for |r| ≤ ln 2 / 2: Taylor polynomial.
    const EXP: &'static [Self];
    /// `(ln((1+s)/(1-s)) - 2s) / s³`, in s², for |s| ≤ 0.172: Taylor polynomial.
    const LN: &'static [Self];
    /// `erf(x) / x`, in x², for |x| ≤ 1: interpolated at Chebyshev nodes.
    const ERF_SMALL: &'static [Self];
    /// `erfc(x) exp(x²)`, in (x-2)/(x+2), from 1 to `ERF_ONE`: interpolated at Chebyshev nodes.
    const ERFC_LARGE: &'static [Self];
    /// From this value on, `erf` rounds to 1.
    const ERF_ONE: Self;
    /// ln 2 rounded, and the remainder.
    const LN_2: [Self; 2];
    /// 1 / ln 2
    const LOG2_E: Self;
    /// Below the first, `exp` is zero; above the second, infinite.
    const EXP_RANGE: [Self; 2];
    /// `(2^r - 1) / r` for |r| ≤ ½: interpolated at Chebyshev nodes.
    const EXP2: &'static [Self];
    /// √½ rounded
    const SQRT_HALF: Self;
    /// A power of two that makes any subnormal number normal, and its exponent.
    const NORMALISE: [Self; 2];
    /// 2 to the number of stored mantissa bits: a number whose ulp is 1.
    const UNIT_ULP: Self;
}

impl Constants for f32 {
    const EXP: &'static [f32] = &[1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];
    const LN: &'static [f32] = &[2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0];
    #[allow(clippy::excessive_precision)]
    const ERF_SMALL: &'static [f32] =
        &[1.128379166, -0.3761262667, 0.1128359472, -0.02685421201, 0.005189087423, -0.0008016864287, 7.875875063e-5];
    #[allow(clippy::excessive_precision)]
    const ERFC_LARGE: &'static [f32] =
        &[0.2553956763, -0.4271859898, 0.2416582015, -0.07896830613, 0.003732371759, 0.006811140131, -0.0008379754387];
    const ERF_ONE: f32 = 4.0;
    const LN_2: [f32; 2] = [std::f32::consts::LN_2, (std::f64::consts::LN_2 - std::f32::consts::LN_2 as f64) as f32];
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const EXP_RANGE: [f32; 2] = [-104.0, 89.0];
    #[allow(clippy::excessive_precision, clippy::approx_constant)]
    const EXP2: &'static [f32] =
        &[0.693147188, 0.2402265076, 0.05550357114, 0.009618082557, 0.001339086336, 0.0001545316295];
    const SQRT_HALF: f32 = std::f32::consts::FRAC_1_SQRT_2;
    const NORMALISE: [f32; 2] = [16777216.0, 24.0];
    const UNIT_ULP: f32 = 8388608.0;
}

impl Constants for f64 {
    const EXP: &'static [f64] = &[
        1.0 / 2.0,
        1.0 / 6.0,
        1.0 / 24.0,
        1.0 / 120.0,
        1.0 / 720.0,
        1.0 / 5040.0,
        1.0 / 40320.0,
        1.0 / 362880.0,
        1.0 / 3628800.0,
        1.0 / 39916800.0,
        1.0 / 479001600.0,
        1.0 / 6227020800.0,
    ];
    const LN: &'static [f64] = &[
        2.0 / 3.0,
        2.0 / 5.0,
        2.0 / 7.0,
        2.0 / 9.0,
        2.0 / 11.0,
        2.0 / 13.0,
        2.0 / 15.0,
        2.0 / 17.0,
        2.0 / 19.0,
        2.0 / 21.0,
    ];
    #[allow(clippy::approx_constant)]
    const ERF_SMALL: &'static [f64] = &[
        1.1283791670955126,
        -0.37612638903183543,
        0.11283791670945006,
        -0.02686617064323777,
        0.0052239776071164225,
        -0.0008548325975389692,
        0.00012055294904839707,
        -1.492473690741966e-05,
        1.6447424703317362e-06,
        -1.6208483801871705e-07,
        1.3720064546777686e-08,
        -7.795898827002142e-10,
    ];
    const ERFC_LARGE: &'static [f64] = &[
        0.25539567631050575,
        -0.4271858474139579,
        0.24165819424246987,
        -0.07897858101585253,
        0.00373289240349224,
        0.006997461747753573,
        -0.0008471431980760424,
        -0.0009819773208131022,
        4.3554202452705896e-05,
        0.00017436697232946864,
        2.754312818566672e-05,
        -2.7647305443610053e-05,
        -1.4067532694582058e-05,
        1.820143195975009e-06,
        3.917059299925389e-06,
    ];
    const ERF_ONE: f64 = 6.0;
    // The second part is ln 2 minus the first one, to 53 bits.
    const LN_2: [f64; 2] = [std::f64::consts::LN_2, 2.3190468138462996e-17];
    const LOG2_E: f64 = std::f64::consts::LOG2_E;
    const EXP_RANGE: [f64; 2] = [-746.0, 710.0];
    #[allow(clippy::approx_constant)]
    const EXP2: &'static [f64] = &[
        0.6931471805599453,
        0.24022650695910072,
        0.05550410866482163,
        0.009618129107628488,
        0.001333355814640647,
        0.0001540353039337073,
        1.5252733841556773e-5,
        1.3215486808705563e-6,
        1.017805708773774e-7,
        7.0548973041554993e-9,
        4.4558179083360645e-10,
        2.5729324177362304e-11,
    ];
    const SQRT_HALF: f64 = std::f64::consts::FRAC_1_SQRT_2;
    const NORMALISE: [f64; 2] = [18014398509481984.0, 54.0];
    const UNIT_ULP: f64 = 4503599627370496.0;
}

/// `c[0] + c[1] x + c[2] x² + ...`, by Horner's rule.
#[inline(always)]
pub fn polynomial<V: Vector>(x: V, coefficients: &[V::Elem]) -> V {
    if V::CALLS { called_polynomial(x, coefficients) } else { inlined_polynomial(x, coefficients) }
}

#[inline(never)]
fn called_polynomial<V: Vector>(x: V, coefficients: &[V::Elem]) -> V {
    inlined_polynomial(x, coefficients)
}

#[inline(always)]
fn inlined_polynomial<V: Vector>(x: V, coefficients: &[V::Elem]) -> V {
    let mut sum = V::zero();
    for (i, &c) in coefficients.iter().rev().enumerate() {
        sum = if i == 0 { V::splat(c) } else { sum.mul_add(x, V::splat(c)) };
    }
    sum
}

/// 2ⁿ for integers `n` that are exponents of normal numbers.
#[inline(always)]
fn power_of_two<V: Vector>(n: V) -> V {
    // Adding 2^mantissa leaves the biased exponent in the low bits; the shift moves it to the exponent's bits and drops the
    // rest.
    let bias = V::Elem::from_f64(V::Elem::EXPONENT_BIAS as f64);
    n.add(V::splat(V::Elem::UNIT_ULP + bias)).bits_shl(V::Elem::MANTISSA_BITS)
}

/// `n` and `exp(r) - 1` with `x = n ln 2 + r`, for `x` in the range of `exp`.
#[inline(always)]
fn reduce<V: Vector>(x: V) -> (V, V) {
    let n = x.mul(V::splat(V::Elem::LOG2_E)).round();
    let [high, low] = V::Elem::LN_2;
    let r = n.neg_mul_add(V::splat(high), x);
    let r = n.neg_mul_add(V::splat(low), r);
    (n, r.mul(r).mul_add(polynomial(r, V::Elem::EXP), r))
}

/// `(1 + small) 2ⁿ`. The power is applied as two normal factors, which reach subnormal numbers and infinity with one
/// rounding.
#[inline(always)]
fn scale<V: Vector>(n: V, small: V) -> V {
    let half = n.mul(V::splat(V::Elem::from_f64(0.5))).floor();
    small.add(V::splat(V::Elem::ONE)).mul(power_of_two(half)).mul(power_of_two(n.sub(half)))
}

#[inline(always)]
fn clamp<V: Vector>(x: V, low: V::Elem, high: V::Elem) -> V {
    // This order of operands propagates NaN.
    V::splat(low).max(V::splat(high).min(x))
}

/// The exponential.
#[inline(always)]
pub fn exp<V: Vector>(x: V) -> V {
    let [low, high] = V::Elem::EXP_RANGE;
    let (n, small) = reduce(clamp(x, low, high));
    scale(n, small)
}

/// 2ˣ with half the instructions of [`exp`], for normal results: |x| at most 126 (`f32`) or 1022 (`f64`). Outside that range
/// the result is unspecified, except that NaN gives NaN.
#[inline(always)]
pub fn exp2_in_range<V: Vector>(x: V) -> V {
    // x = n + r. The low bits of the first sum are n plus the bias, so the shift turns them into 2ⁿ.
    let bias = V::splat(V::Elem::UNIT_ULP + V::Elem::from_f64(V::Elem::EXPONENT_BIAS as f64));
    let biased = x.add(bias);
    let r = x.sub(biased.sub(bias));
    let mantissa = polynomial(r, V::Elem::EXP2).mul_add(r, V::splat(V::Elem::ONE));
    mantissa.mul(biased.bits_shl(V::Elem::MANTISSA_BITS))
}

/// 2ˣ for the weights of a softmax, whose largest exponent is about 0, with half the instructions of [`exp`]. Subnormal
/// results become zero (around the smallest normal number, results within a factor of 2 may be either); 1 for 0, NaN for NaN.
/// For x ≥ 127.5 (`f32`) or 1023.5 (`f64`) the result is unspecified.
#[inline(always)]
pub fn exp2_weight<V: Vector>(x: V) -> V {
    exp2_in_range(V::splat(-V::Elem::from_f64(V::Elem::EXPONENT_BIAS as f64)).max(x))
}

/// 2ˣ with few instructions. Subnormal results become 0, except those within half a binade below the smallest normal number,
/// which are correct. Results in the last half binade before overflow become infinite.
#[inline(always)]
pub fn exp2_normal<V: Vector>(x: V) -> V {
    let bias = V::Elem::from_f64(V::Elem::EXPONENT_BIAS as f64);
    exp2_in_range(clamp(x, -bias, bias + V::Elem::ONE))
}

/// `exp(x) - 1`, accurate near zero too.
#[inline(always)]
pub fn expm1<V: Vector>(x: V) -> V {
    let [low, high] = V::Elem::EXP_RANGE;
    let (n, small) = reduce(clamp(x, low, high));
    // Up to n = 60 as 2ⁿ (exp(r) - 1) + (2ⁿ - 1). Beyond that, the subtracted 1 doesn't change the result.
    let whole = V::splat(V::Elem::from_f64(60.0));
    let power = power_of_two(clamp(n, V::Elem::from_f64(-120.0), V::Elem::from_f64(60.0)));
    let near = power.mul_add(small, power.sub(V::splat(V::Elem::ONE)));
    // Zero keeps its sign.
    let near = V::select(x.eq(V::zero()), x, near);
    V::select(whole.lt(n), scale(n, small), near)
}

/// The natural logarithm: -∞ at ±0, NaN for negative numbers.
#[inline(always)]
pub fn ln<V: Vector>(x: V) -> V {
    let splat = |value: V::Elem| V::splat(value);
    let [factor, shift] = V::Elem::NORMALISE;
    let denormal = x.lt(splat(V::Elem::MIN_POSITIVE));
    let scaled = V::select(denormal, x.mul(splat(factor)), x);
    // x = 2^e m with m from √½ to √2. Shifting the bits so that √½ falls on a power of two gives the exponent of this
    // interval.
    let root = splat(V::Elem::SQRT_HALF);
    let moved = scaled.bits_add(splat(V::Elem::ONE)).bits_sub(root);
    let m = moved.bit_and(V::splat_bits((1 << V::Elem::MANTISSA_BITS) - 1)).bits_add(root);
    let biased = moved.bits_shr(V::Elem::MANTISSA_BITS).bit_or(splat(V::Elem::UNIT_ULP));
    let e = biased.sub(splat(V::Elem::UNIT_ULP + V::Elem::from_f64(V::Elem::EXPONENT_BIAS as f64)));
    let e = V::select(denormal, e.sub(splat(shift)), e);
    // ln m = f - f²/2 + s (f²/2 + R(s²)), s = f / (2 + f). The large terms are exact, so their rounding errors don't
    // accumulate.
    let f = m.sub(splat(V::Elem::ONE));
    let s = f.div(f.add(splat(V::Elem::from_f64(2.0))));
    let s2 = s.mul(s);
    let half_square = f.mul(f).mul(splat(V::Elem::from_f64(0.5)));
    let rest = s2.mul(polynomial(s2, V::Elem::LN));
    let [high, low] = V::Elem::LN_2;
    let correction = s.mul_add(half_square.add(rest), e.mul(splat(low)));
    let result = e.mul_add(splat(high), f.sub(half_square.sub(correction)));
    // The special cases: infinity, NaN, zero and negative numbers.
    let infinity = splat(V::Elem::INFINITY);
    let result = V::select(x.lt(infinity), result, x);
    let result = V::select(x.eq(V::zero()), infinity.neg(), result);
    V::select(x.lt(V::zero()), splat(V::Elem::NAN), result)
}

/// `ln(1 + x)`, accurate near zero too.
#[inline(always)]
pub fn ln_1p<V: Vector>(x: V) -> V {
    let one = V::splat(V::Elem::ONE);
    let u = x.add(one);
    // The rounding error of u, as a first-order correction of the logarithm.
    let lost = x.sub(u.sub(one)).div(u);
    let result = ln(u).add(lost);
    let result = V::select(u.eq(one), x, result);
    // In these cases the correction would be 0/0 or ∞-∞.
    let plain = V::mask_or(u.eq(V::zero()), u.eq(V::splat(V::Elem::INFINITY)));
    V::select(plain, ln(u), result)
}

/// The hyperbolic tangent.
#[inline(always)]
pub fn tanh<V: Vector>(x: V) -> V {
    // From |x| = 22 on, the result rounds to 1 in f64.
    let twice = V::splat(V::Elem::from_f64(44.0)).min(x.abs().add(x.abs()));
    let (n, small) = reduce(twice);
    let power = power_of_two(n);
    let e = power.mul_add(small, power.sub(V::splat(V::Elem::ONE)));
    let magnitude = e.div(e.add(V::splat(V::Elem::from_f64(2.0))));
    magnitude.bit_or(sign(x))
}

/// The sign bit.
#[inline(always)]
fn sign<V: Vector>(x: V) -> V {
    x.bit_and(V::zero().neg())
}

/// The logistic function, `1 / (1 + exp(-x))`.
#[inline(always)]
pub fn sigmoid<V: Vector>(x: V) -> V {
    let one = V::splat(V::Elem::ONE);
    // exp(-|x|) can't overflow. For negative x the result is e / (1 + e), which is accurate for small values.
    let e = exp(x.abs().neg());
    V::select(x.lt(V::zero()), e, one).div(e.add(one))
}

/// `ln(1 + exp(x))`
#[inline(always)]
pub fn softplus<V: Vector>(x: V) -> V {
    V::zero().max(x).add(ln_1p(exp(x.abs().neg())))
}

/// The error function.
#[inline(always)]
pub fn erf<V: Vector>(x: V) -> V {
    let one = V::splat(V::Elem::ONE);
    let two = V::splat(V::Elem::from_f64(2.0));
    let a = V::splat(V::Elem::ERF_ONE).min(x.abs());
    let square = a.mul(a);
    let small = a.mul(polynomial(square, V::Elem::ERF_SMALL));
    let t = a.sub(two).div(a.add(two));
    let large = exp(square.neg()).neg_mul_add(polynomial(t, V::Elem::ERFC_LARGE), one);
    V::select(a.lt(one), small, large).bit_or(sign(x))
}
