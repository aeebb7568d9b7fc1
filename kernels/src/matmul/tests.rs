//! Compares products of all shapes and strides with the reference, and their bits between instruction sets.

use super::cpu::{GemmShape, Start, View, gemm, gemm_add};
use super::reference;
use crate::parallel::{Order, Settings, as_uninit, with_settings};
use crate::simd::{Isa, Real};
use proptest::prelude::*;

fn numbers<T: Real>(count: usize, seed: u64) -> Vec<T> {
    let mut random = tomograd_core::Seed::new(seed).random();
    (0..count).map(|_| T::from_f64(random.uniform_in(-1.0, 1.0))).collect()
}

/// The settings under which results must be bitwise equal.
fn ways() -> Vec<Settings> {
    let mut ways = Vec::new();
    for isa in Isa::available() {
        ways.push(Settings::default().isa(isa).unwrap().threads(1));
    }
    ways.push(Settings::default().threads(2));
    ways.push(Settings::default().threads(5).order(Order::Shuffled(7)));
    ways
}

/// The starting value of a product.
#[derive(Clone, Copy, Debug)]
enum Case {
    Zero,
    Rows,
    Columns,
    Existing,
}

fn check<T: Real>(shape: GemmShape, [ta, tb, shared]: [bool; 3], case: Case, seed: u64) {
    let GemmShape { batch, m, n, k } = shape;
    let (a, b) = (numbers::<T>(batch * m * k, seed), numbers::<T>(batch * k * n, seed + 1));
    let a = if ta { View::contiguous(&a, k, m).transposed() } else { View::contiguous(&a, m, k) };
    let a = if shared { a.shared() } else { a };
    let b = if tb { View::contiguous(&b, n, k).transposed() } else { View::contiguous(&b, k, n) };
    let (rows, columns, existing) = (numbers(m, 5), numbers(n, 6), numbers(batch * m * n, 7));
    let (exact, magnitude) = reference::matmul(shape, a, b).unwrap();
    let mut first: Option<Vec<T>> = None;
    for way in ways() {
        let mut out = if matches!(case, Case::Existing) { existing.clone() } else { vec![T::NAN; batch * m * n] };
        with_settings(way, || match case {
            Case::Zero => gemm(shape, a, b, Start::Zero, as_uninit(&mut out)),
            Case::Rows => gemm(shape, a, b, Start::Rows(&rows), as_uninit(&mut out)),
            Case::Columns => gemm(shape, a, b, Start::Columns(&columns), as_uninit(&mut out)),
            Case::Existing => gemm_add(shape, a, b, &mut out),
        })
        .unwrap();
        for (i, &y) in out.iter().enumerate() {
            let start = match case {
                Case::Zero => 0.0,
                Case::Rows => rows[i / n % m].to_f64(),
                Case::Columns => columns[i % n].to_f64(),
                Case::Existing => existing[i].to_f64(),
            };
            // A chain of k FMAs: |error| ≤ (k + 1) ε/2 Σ|a||b|, to first order.
            let bound = 0.51 * (k + 1) as f64 * T::EPSILON.to_f64() * (magnitude[i] + start.abs());
            let error = (y.to_f64() - exact[i] - start).abs();
            assert!(error <= bound, "{shape:?} {case:?} {way:?}: element {i} is {y}, off by {error}");
        }
        let same = |other: &Vec<T>| other.iter().zip(&out).all(|(a, b)| a.to_bits64() == b.to_bits64());
        assert!(first.as_ref().is_none_or(same), "{shape:?} {case:?} {way:?}: other bits");
        first.get_or_insert(out);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn products_are_right(
        batch in 0usize..4, m in 0usize..70, n in 0usize..120, k in 0usize..50, flags: [bool; 3], case in 0..4, seed in 0u64..99,
    ) {
        let case = [Case::Zero, Case::Rows, Case::Columns, Case::Existing][case as usize];
        check::<f32>(GemmShape { batch, m, n, k }, flags, case, seed);
        check::<f64>(GemmShape { batch, m, n: n / 2, k }, flags, case, seed);
    }
}

#[test]
fn products_of_many_blocks_are_right() {
    for (m, n, k) in [
        (300, 500, 200),
        (270, 50, 1100),
        (280, 530, 270),
        (1, 1000, 400),
        (1000, 1, 400),
        (530, 3, 390),
        (5, 97, 700),
        (17, 990, 33),
        // The largest products that read the weights of a linear layer in place, and the next.
        (96, 130, 300),
        (97, 130, 300),
        (288, 130, 300),
        (289, 130, 300),
    ] {
        check::<f32>(GemmShape { batch: 1, m, n, k }, [false; 3], Case::Zero, 1);
        check::<f32>(GemmShape { batch: 2, m, n, k }, [true, true, true], Case::Existing, 1);
        check::<f32>(GemmShape { batch: 1, m, n, k }, [false; 3], Case::Rows, 2);
        check::<f32>(GemmShape { batch: 1, m, n, k }, [false, true, false], Case::Columns, 2);
    }
}

#[test]
fn slices_that_do_not_fit_are_errors() {
    let shape = GemmShape { batch: 1, m: 2, n: 2, k: 2 };
    let (short, right) = ([0.0f32; 3], [0.0f32; 4]);
    let mut out = [0.0f32; 4];
    let (short, right) = (View::contiguous(&short, 2, 2), View::contiguous(&right, 2, 2));
    assert!(gemm(shape, short, right, Start::Zero, as_uninit(&mut out)).is_err());
    assert!(gemm(shape, right, short, Start::Zero, as_uninit(&mut out)).is_err());
    assert!(gemm(shape, right, right, Start::Zero, as_uninit(&mut out[..3])).is_err());
    assert!(gemm(shape, right, right, Start::Rows(&[0.0]), as_uninit(&mut out)).is_err());
}
