//! Compares every instruction set with the standard library, and the instruction sets with each other bitwise.

use super::math::{erf, exp, exp2_in_range, exp2_normal, exp2_weight, expm1, ln, ln_1p, sigmoid, softplus, tanh};
use super::*;
use crate::parallel::{Settings, with_settings};

/// Runs `f` under every instruction set and checks that all give the same bits.
fn on_all<T: Real>(f: impl Fn() -> Vec<T>) -> Vec<T> {
    let mut first: Option<Vec<T>> = None;
    for isa in Isa::available() {
        let settings = Settings::default().isa(isa).expect("it is available");
        let got = with_settings(settings, &f);
        if let Some(first) = &first {
            for (i, (a, b)) in first.iter().zip(&got).enumerate() {
                let nan = a.to_f64().is_nan() && b.to_f64().is_nan();
                assert!(nan || a.to_bits64() == b.to_bits64(), "{isa}: {b:?} at {i}, portable: {a:?}");
            }
        }
        first.get_or_insert(got);
    }
    first.expect("portable is always available")
}

/// A function of one vector, by name.
#[derive(Clone, Copy, Debug)]
enum Function {
    Exp,
    Exp2InRange,
    Exp2Normal,
    Expm1,
    Ln,
    Ln1p,
    Tanh,
    Sigmoid,
    Softplus,
    Erf,
}

struct Apply<'a, T>(Function, &'a [T]);

impl<T: Real> Kernel for Apply<'_, T> {
    type Output = Vec<T>;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<T> {
        let mut out = vec![T::ZERO; self.1.len()];
        for (x, y) in self.1.chunks(T::Vec::<S>::LANES).zip(out.chunks_mut(T::Vec::<S>::LANES)) {
            let x = T::Vec::<S>::load_partial(x);
            let result = match self.0 {
                Function::Exp => exp(x),
                Function::Exp2InRange => exp2_in_range(x),
                Function::Exp2Normal => exp2_normal(x),
                Function::Expm1 => expm1(x),
                Function::Ln => ln(x),
                Function::Ln1p => ln_1p(x),
                Function::Tanh => tanh(x),
                Function::Sigmoid => sigmoid(x),
                Function::Softplus => softplus(x),
                Function::Erf => erf(x),
            };
            result.store_partial(y);
        }
        out
    }
}

/// erf by its Taylor series below 2, and by the continued fraction of erfc beyond.
fn erf_reference(x: f64) -> f64 {
    let a = x.abs();
    let scale = 2.0 / std::f64::consts::PI.sqrt();
    let value = if a < 2.0 {
        let (mut term, mut sum, mut k) = (a, a, 0.0);
        while term.abs() > 1e-18 * sum && a > 0.0 {
            term *= 2.0 * a * a / (2.0 * k + 3.0);
            sum += term;
            k += 1.0;
        }
        scale * (-a * a).exp() * sum
    } else {
        let mut f = a;
        for k in (1..80).rev() {
            f = a + k as f64 / 2.0 / f;
        }
        1.0 - (-a * a).exp() / f / std::f64::consts::PI.sqrt()
    };
    value.copysign(x)
}

fn exact(function: Function, x: f64) -> f64 {
    match function {
        Function::Exp => x.exp(),
        Function::Exp2InRange | Function::Exp2Normal => x.exp2(),
        Function::Expm1 => x.exp_m1(),
        Function::Ln => x.ln(),
        Function::Ln1p => x.ln_1p(),
        Function::Tanh => x.tanh(),
        Function::Sigmoid if x < 0.0 => x.exp() / (1.0 + x.exp()),
        Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Function::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Function::Erf => erf_reference(x),
    }
}

const ALL: [(Function, f64); 8] = [
    (Function::Exp, 2.0),
    (Function::Expm1, 2.0),
    (Function::Ln, 2.0),
    (Function::Ln1p, 2.0),
    (Function::Tanh, 2.5),
    (Function::Sigmoid, 3.0),
    (Function::Softplus, 3.0),
    (Function::Erf, 3.0),
];

/// Numbers of all magnitudes and both signs, dense around the branch points of the functions.
fn samples<T: Real>() -> Vec<T> {
    let mut samples = vec![0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e-40, 1e-310, -1e-40];
    for i in -4000..=4000 {
        let i = i as f64;
        samples.extend([i * 0.025001, i * 0.0017, i * 0.2, i.signum() * (i.abs() * 0.17 - 600.0).exp2()]);
        samples.push(1.0 + i * 1e-7);
    }
    samples.into_iter().map(T::from_f64).collect()
}

fn functions_are_accurate<T: Real>() {
    let xs = samples::<T>();
    for (function, bound) in ALL {
        let ys = on_all(|| dispatch(Apply(function, &xs)));
        let mut worst = (0.0, T::ZERO);
        for (&x, &y) in xs.iter().zip(&ys) {
            let want = exact(function, x.to_f64());
            let rounded = T::from_f64(want);
            if rounded.to_f64().is_nan() || rounded.to_f64().is_infinite() || y.to_f64().is_infinite() {
                let overflow = want.abs() > T::MAX.to_f64() * 0.999999 && y.to_f64().abs() > T::MAX.to_f64() * 0.999;
                let same = rounded.to_f64().is_nan() && y.to_f64().is_nan() || rounded == y;
                assert!(same || overflow, "{function:?}({x:?}) = {y:?}, not {rounded:?}");
                continue;
            }
            // The ulp at the result, at least that of the smallest normal number. The f64 reference is itself wrong by about
            // an ulp.
            let exponent = want.abs().max(T::MIN_POSITIVE.to_f64()).log2().floor();
            let ulp = T::EPSILON.to_f64() * exponent.exp2();
            let error = (y.to_f64() - want).abs() / ulp;
            if error > worst.0 {
                worst = (error, x);
            }
        }
        println!("{} {function:?}: {:.2} ulp at {:?}", T::NAME, worst.0, worst.1);
        // The f64 references, above all that of erf, are themselves wrong by some ulps.
        let bound = bound * if T::MANTISSA_BITS > 30 { 4.0 } else { 1.0 };
        assert!(worst.0 <= bound, "{function:?}: {} ulp at {:?}", worst.0, worst.1);
    }
}

#[test]
fn functions_are_accurate_in_f32() {
    functions_are_accurate::<f32>();
}

#[test]
fn functions_are_accurate_in_f64() {
    functions_are_accurate::<f64>();
}

struct Weights<'a, T>(&'a [T]);

impl<T: Real> Kernel for Weights<'_, T> {
    type Output = Vec<T>;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<T> {
        let mut out = vec![T::ZERO; self.0.len()];
        for (x, y) in self.0.chunks(T::Vec::<S>::LANES).zip(out.chunks_mut(T::Vec::<S>::LANES)) {
            exp2_weight(T::Vec::<S>::load_partial(x)).store_partial(y);
        }
        out
    }
}

fn weights_are_accurate<T: Real>() {
    let xs: Vec<T> = samples::<T>().into_iter().filter(|x| x.to_f64() <= 0.5 || x.to_f64().is_nan()).collect();
    for (x, y) in xs.iter().zip(on_all(|| dispatch(Weights(&xs)))) {
        let (want, y) = (x.to_f64().exp2(), y.to_f64());
        // The f64 reference is itself wrong by about an ulp.
        let ulps = if T::MANTISSA_BITS > 30 { 3.0 } else { 1.0 };
        let bound = ulps * T::EPSILON.to_f64() * want + 2.0 * T::MIN_POSITIVE.to_f64();
        assert!((y - want).abs() <= bound || want.is_nan() && y.is_nan(), "2^{x:?} is {y:?}, not {want:?}");
        assert!(*x != T::ZERO || y == 1.0, "2^0 is {y:?}");
    }
}

#[test]
fn weights_are_accurate_in_both_types() {
    weights_are_accurate::<f32>();
    weights_are_accurate::<f64>();
}

/// Every elementwise method applied to a pair of rows.
struct Methods<'a, T>(&'a [T], &'a [T]);

impl<T: Real> Kernel for Methods<'_, T> {
    type Output = Vec<T>;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<T> {
        type V<T, S> = <T as Real>::Vec<S>;
        let mut out = Vec::new();
        for (a, b) in self.0.chunks(V::<T, S>::LANES).zip(self.1.chunks(V::<T, S>::LANES)) {
            let count = a.len();
            let (a, b) = (V::<T, S>::load_partial(a), V::<T, S>::load_partial(b));
            let c = V::<T, S>::splat(T::from_f64(0.375));
            let both = V::<T, S>::mask_and(a.lt(b), a.le(c));
            let either = V::<T, S>::mask_or(a.eq(b), b.lt(c));
            let results = [
                a.add(b),
                a.sub(b),
                a.mul(b),
                a.div(b),
                a.mul_add(b, c),
                a.neg_mul_add(b, c),
                a.sqrt(),
                a.neg(),
                a.abs(),
                a.min(b),
                a.max(b),
                a.floor(),
                a.round(),
                V::<T, S>::select(both, a, b),
                V::<T, S>::select(either, b, c),
                a.bit_and(b),
                a.bit_or(b),
                a.bit_xor(b),
                a.bits_add(b),
                a.bits_sub(b),
                a.bits_shl(3),
                a.bits_shr(9),
                V::<T, S>::splat_bits(0x12345),
            ];
            // Lane by lane, so that the order of results doesn't depend on the number of lanes.
            for lane in 0..count {
                for result in results {
                    let mut row = vec![T::ZERO; V::<T, S>::LANES];
                    result.store(&mut row);
                    out.push(row[lane]);
                }
            }
        }
        out
    }
}

fn methods_agree<T: Real>() {
    let special =
        [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, 0.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e-40, 3.3e7, -7.7];
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for x in special {
        for y in special {
            a.push(T::from_f64(x));
            b.push(T::from_f64(y));
        }
    }
    let out = on_all(|| dispatch(Methods(&a, &b)));
    let methods = out.len() / a.len();
    // `min` and `max` return the second operand unless the first is strictly smaller or larger.
    for i in 0..a.len() {
        let (x, y) = (a[i], b[i]);
        let same =
            |got: T, want: T| got.to_bits64() == want.to_bits64() || got.to_f64().is_nan() && want.to_f64().is_nan();
        assert!(same(out[i * methods + 9], x.min2(y)), "min({x:?}, {y:?})");
        assert!(same(out[i * methods + 10], x.max2(y)), "max({x:?}, {y:?})");
        assert!(same(out[i * methods + 4], x.mul_add(y, T::from_f64(0.375))), "mul_add({x:?}, {y:?})");
        assert!(same(out[i * methods + 12], x.round_ties_even()), "round({x:?})");
    }
}

#[test]
fn methods_agree_over_instruction_sets() {
    methods_agree::<f32>();
    methods_agree::<f64>();
}

struct Reductions<'a, T>(&'a [T], &'a [T]);

impl<T: Real> Kernel for Reductions<'_, T> {
    type Output = Vec<T>;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<T> {
        let lanes = Lanes16::<T::Vec<S>>::load_partial(self.0, T::from_f64(-1.0));
        let mut stored = vec![T::ZERO; self.0.len().min(16)];
        lanes.store_partial(&mut stored);
        assert_eq!(&stored, &self.0[..stored.len()]);
        vec![
            sum::<T::Vec<S>>(self.0),
            dot::<T::Vec<S>>(self.0, self.1),
            lanes.horizontal_max(),
            lanes.horizontal_min(),
            lanes.mul(lanes).horizontal_sum(),
        ]
    }
}

#[test]
fn reductions_agree_over_instruction_sets() {
    fn check<T: Real>() {
        for length in [0, 1, 7, 15, 16, 17, 100, 1000] {
            let row = |k: usize| -> Vec<T> {
                (0..length).map(|i| T::from_f64(((i * k * 7919 + 13) % 1009) as f64 / 1009.0 - 0.5)).collect()
            };
            let (a, b) = (row(1), row(3));
            let got = on_all(|| dispatch(Reductions(&a, &b)));
            let sum: f64 = a.iter().map(|x| x.to_f64()).sum();
            assert!((got[0].to_f64() - sum).abs() < 1e-4, "{} numbers: {:?}, not {sum}", length, got[0]);
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn a_bad_instruction_set_is_explained() {
    assert!(super::isa::checked("sse9").unwrap_err().contains("portable, avx2, avx512"));
    assert_eq!(super::isa::checked("Portable"), Ok(Isa::Portable));
}

struct Transposed<'a, T>(&'a [T]);

impl<T: Real> Kernel for Transposed<'_, T> {
    type Output = Vec<T>;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<T> {
        let mut out = vec![T::ZERO; 7 * 9 + 8];
        // SAFETY: 8 rows at distance 10 fit into 78 numbers, and at distance 9 into 71.
        unsafe { T::Vec::<S>::transpose_8x8(self.0.as_ptr(), 10, out.as_mut_ptr(), 9) };
        let lanes = T::Vec::<S>::LANES;
        let (a, b) = (T::Vec::<S>::load(&self.0[1..]), T::Vec::<S>::load(&self.0[1 + lanes..]));
        let (mut even, mut turns) = (vec![T::ZERO; lanes], vec![T::ZERO; 2 * lanes]);
        a.even(b).store(&mut even);
        assert!(even.iter().zip(self.0[1..].iter().step_by(2)).all(|(a, b)| a == b));
        let (first, second) = a.interleave(b);
        first.store(&mut turns);
        second.store(&mut turns[lanes..]);
        assert!((0..lanes).all(|i| turns[2 * i] == self.0[1 + i] && turns[2 * i + 1] == self.0[1 + lanes + i]));
        out
    }
}

#[test]
fn blocks_are_transposed() {
    fn check<T: Real>() {
        let from: Vec<T> = (0..78).map(|i| T::from_f64(i as f64)).collect();
        let to = on_all(|| dispatch(Transposed(&from)));
        for i in 0..8 {
            for j in 0..8 {
                assert_eq!(to[j * 9 + i], from[i * 10 + j]);
            }
        }
    }
    check::<f32>();
    check::<f64>();
}

#[test]
fn powers_of_two_are_accurate() {
    fn check<T: Real>() {
        let xs = samples::<T>();
        let ys = on_all(|| dispatch(Apply(Function::Exp2Normal, &xs)));
        let (smallest, largest) = (T::MIN_POSITIVE.to_f64(), T::MAX.to_f64());
        for (&x, &y) in xs.iter().zip(&ys) {
            let (want, y) = (x.to_f64().exp2(), y.to_f64());
            let close = (y - want).abs() <= 2.0 * T::EPSILON.to_f64() * want.log2().floor().exp2();
            let right = if want.is_nan() {
                y.is_nan()
            } else if want > largest / 2.0 {
                y == f64::INFINITY || close
            } else if want < smallest {
                y == 0.0 || (y - want).abs() < smallest * T::EPSILON.to_f64()
            } else {
                close
            };
            assert!(right, "2 to the {x:?} is {y:?}, not {want:?}");
        }
        let inside: Vec<T> = xs.into_iter().filter(|x| x.abs() < T::from_f64(T::EXPONENT_BIAS as f64)).collect();
        let normal = dispatch(Apply(Function::Exp2Normal, &inside));
        assert_eq!(on_all(|| dispatch(Apply(Function::Exp2InRange, &inside))), normal);
        assert_eq!(dispatch(Apply(Function::Exp2Normal, &[T::INFINITY, -T::INFINITY])), [T::INFINITY, T::ZERO]);
    }
    check::<f32>();
    check::<f64>();
}

struct SixteenSums<'a, T>(&'a [[T; 16]; 16]);

impl<T: Real> Kernel for SixteenSums<'_, T> {
    type Output = Vec<T>;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<T> {
        let sums = Lanes16::<T::Vec<S>>::horizontal_sums(self.0).to_array();
        for (row, sum) in self.0.iter().zip(sums) {
            assert_eq!(Lanes16::<T::Vec<S>>::load(row).horizontal_sum().to_bits64(), sum.to_bits64());
        }
        sums.to_vec()
    }
}

#[test]
fn sixteen_sums_have_the_bits_of_each() {
    fn check<T: Real>() {
        let rows: [[T; 16]; 16] =
            std::array::from_fn(|i| std::array::from_fn(|j| T::from_f64(((i * 16 + j) as f64 * 1.7).sin())));
        on_all(|| dispatch(SixteenSums(&rows)));
    }
    check::<f32>();
    check::<f64>();
}
