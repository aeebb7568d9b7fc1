//! GFLOP/s of the dense kernels beside the peak of this machine: `cargo bench -p tomograd-kernels --bench dense [FILTER]`.

use std::hint::black_box;
use std::time::Instant;
use tomograd_kernels::matmul::cpu::{GemmShape, Start, View, gemm};
use tomograd_kernels::parallel::{self, as_uninit, parallel_for};
use tomograd_kernels::simd::{Kernel, Simd, Vector, dispatch};

/// The best of some runs, in seconds.
fn best(mut f: impl FnMut()) -> f64 {
    f();
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 3 || start.elapsed().as_secs_f64() < 0.7 {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

/// Fused multiply-adds on registers only.
struct Peak;

impl Kernel for Peak {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f32 {
        let mut sums = [S::F32::splat(black_box(1.0)); 12];
        let (a, b) = (S::F32::splat(black_box(0.999)), S::F32::splat(black_box(0.001)));
        for _ in 0..1_000_000 {
            for sum in &mut sums {
                *sum = sum.mul_add(a, b);
            }
        }
        let mut row = [0.0; 16];
        sums.into_iter().fold(S::F32::zero(), |x, y| x.add(y)).store(&mut row);
        row[0]
    }
}

struct Bench {
    filter: String,
    peak: f64,
}

impl Bench {
    fn run(&self, name: &str, flops: f64, f: impl FnMut()) {
        if !name.contains(&self.filter) {
            return;
        }
        let seconds = best(f);
        let rate = flops / seconds / 1e9;
        println!("{name:40} {:9.3} ms {rate:8.1} GFLOP/s {:5.1} % of peak", seconds * 1e3, 100.0 * rate / self.peak);
    }
}

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with("--")).unwrap_or_default();
    let lanes = match parallel::current_isa() {
        tomograd_kernels::simd::Isa::Avx512 => 16.0,
        _ => 8.0,
    };
    let threads = parallel::threads();
    let seconds = best(|| {
        parallel_for(threads, 1, |_| {
            black_box(dispatch(Peak));
        })
        .unwrap()
    });
    let peak = threads as f64 * 12e6 * 2.0 * lanes / seconds / 1e9;
    println!("{} on {threads} threads: peak {peak:.0} GFLOP/s", parallel::current_isa());
    let bench = Bench { filter, peak };
    matmul(&bench);
}

fn matmul(bench: &Bench) {
    for (batch, m, n, k) in [
        (1, 1024, 1024, 1024),
        (1, 512, 512, 512),
        (1, 128, 128, 128),
        (1, 4096, 384, 1536),
        (36, 1024, 64, 1024),
        (1536, 98, 98, 32),
    ] {
        let shape = GemmShape { batch, m, n, k };
        let a = vec![0.5f32; batch * m * k];
        let b = vec![0.25f32; batch * k * n];
        let mut out = vec![0.0f32; batch * m * n];
        let flops = 2.0 * (batch * m * n * k) as f64;
        for transposed in [false, true] {
            let name = format!("matmul {batch}x{m}x{n}x{k}{}", if transposed { " b^T" } else { "" });
            let b = if transposed { View::contiguous(&b, n, k).transposed() } else { View::contiguous(&b, k, n) };
            bench.run(&name, flops, || {
                gemm(shape, View::contiguous(&a, m, k), b, Start::Zero, as_uninit(&mut out)).unwrap();
            });
        }
    }
}
