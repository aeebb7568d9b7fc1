//! GFLOP/s of the dense kernels beside the peak of this machine: `cargo bench -p tomograd-kernels --bench dense [FILTER]`.

use std::hint::black_box;
use std::time::Instant;
use tomograd_kernels::Precision;
use tomograd_kernels::conv::ConvShape;
use tomograd_kernels::conv::cpu::{Epilogue, Inputs, Outputs, Path, backward_data, backward_weights, forward};
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
        let before = Instant::now();
        f();
        best = best.min(before.elapsed().as_secs_f64());
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
    conv(&bench);
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

fn conv(bench: &Bench) {
    let shape = |batch, channels: [usize; 2], size: usize, kernel: usize, stride: usize| ConvShape {
        batch,
        groups: 1,
        in_channels: channels[0],
        out_channels: channels[1],
        input: [size; 3],
        kernel: [kernel; 3],
        stride: [stride; 3],
        padding: [kernel / 2; 3],
        dilation: [1; 3],
        precision: Precision::Fast,
    };
    let up = |channels: [usize; 2], size: usize| ConvShape {
        padding: [0; 3],
        ..shape(2, [channels[1], channels[0]], size, 2, 2)
    };
    let flat = |shape: ConvShape, size: usize| ConvShape {
        input: [1, size, size],
        kernel: [1, shape.kernel[1], shape.kernel[2]],
        stride: [1, shape.stride[1], shape.stride[2]],
        padding: [0, shape.padding[1], shape.padding[2]],
        ..shape
    };
    // The layers of a 3D U-Net with small images: `size` is what the strided side has.
    let small = |shape: ConvShape, size: [usize; 3]| ConvShape { batch: 2, input: size, ..shape };
    let layers = [
        ("small_k3s2_32x64_40", small(shape(2, [32, 64], 1, 3, 2), [40, 56, 40])),
        ("small_k3s2_64x128_20", small(shape(2, [64, 128], 1, 3, 2), [20, 28, 20])),
        ("small_k3s2_128x256_10", small(shape(2, [128, 256], 1, 3, 2), [10, 14, 10])),
        ("small_k3_1x32_40", small(shape(2, [1, 32], 1, 3, 1), [40, 56, 40])),
        ("small_up_256x128_5", small(up([256, 128], 1), [10, 14, 10])),
        ("small_up_128x64_10", small(up([128, 64], 1), [20, 28, 20])),
        ("small_up_64x32_20", small(up([64, 32], 1), [40, 56, 40])),
        ("k3_32x32_64", shape(1, [32, 32], 64, 3, 1)),
        ("k3_64x32_64", shape(1, [64, 32], 64, 3, 1)),
        ("k3_64x64_32", shape(1, [64, 64], 32, 3, 1)),
        ("k3_128x128_16", shape(2, [128, 128], 16, 3, 1)),
        ("k3_256x256_8", shape(2, [256, 256], 8, 3, 1)),
        ("k3_320x320_8", shape(1, [320, 320], 8, 3, 1)),
        ("k3s2_32x64_64", shape(1, [32, 64], 64, 3, 2)),
        ("k3s2_128x256_16", shape(2, [128, 256], 16, 3, 2)),
        ("k3_16x16_32", shape(1, [16, 16], 32, 3, 1)),
        ("k3_1x32_64", shape(2, [1, 32], 64, 3, 1)),
        ("k1_32x3_64", shape(2, [32, 3], 64, 1, 1)),
        ("k3_64_g8_32", ConvShape { groups: 8, ..shape(1, [64, 64], 32, 3, 1) }),
        ("2d_k3_64x64_256", flat(shape(1, [64, 64], 1, 3, 1), 256)),
        ("2d_k7s2_3x64_224", flat(shape(8, [3, 64], 1, 7, 2), 224)),
        ("2d_k3_512x512_7", flat(shape(8, [512, 512], 1, 3, 1), 7)),
        ("2d_k1_256x128_28", flat(shape(4, [256, 128], 1, 1, 1), 28)),
        ("2d_k1_1024x128_7", flat(shape(4, [1024, 128], 1, 1, 1), 7)),
        ("2d_k1_32x192_112", flat(shape(4, [32, 192], 1, 1, 1), 112)),
        ("2d_k3_128x32_28", flat(shape(4, [128, 32], 1, 3, 1), 28)),
        ("2d_k3s2_64x128_56", flat(shape(8, [64, 128], 1, 3, 2), 56)),
        ("2d_k4s4_3x96_224", flat(ConvShape { padding: [0; 3], stride: [4; 3], ..shape(2, [3, 96], 1, 4, 4) }, 224)),
        ("2d_k16s16_3x768_224", flat(ConvShape { padding: [0; 3], ..shape(2, [3, 768], 1, 16, 16) }, 224)),
        ("up_64x32_32", up([64, 32], 64)),
        ("up_256x128_8", up([256, 128], 16)),
        ("dw_k3_96_32", ConvShape { groups: 96, ..shape(1, [96, 96], 32, 3, 1) }),
        ("dw_k7_96_32", ConvShape { groups: 96, ..shape(1, [96, 96], 32, 7, 1) }),
        ("2d_dw_k7_96_56", flat(ConvShape { groups: 96, ..shape(8, [96, 96], 1, 7, 1) }, 56)),
    ];
    for (name, shape) in layers {
        let x = vec![0.5f32; shape.input_count()];
        let w = vec![0.25f32; shape.weight_count()];
        let mut y = vec![0.125f32; shape.output_count()];
        let flops = 2.0 * shape.multiply_adds() as f64;
        let mut dx = x.clone();
        let mut dw = w.clone();
        let path = Path::choose::<f32>(&shape);
        bench.run(&format!("conv_{name} forward ({path})"), flops, || {
            let out = Outputs::one(as_uninit(&mut y), shape.out_channels);
            forward(&shape, Inputs::one(&x, shape.in_channels), &w, Epilogue::default(), out).unwrap();
        });
        bench.run(&format!("conv_{name} backward data"), flops, || {
            backward_data(&shape, &y, &w, Outputs::one(as_uninit(&mut dx), shape.in_channels)).unwrap();
        });
        bench.run(&format!("conv_{name} backward weights"), flops, || {
            backward_weights(&shape, Inputs::one(&x, shape.in_channels), &y, as_uninit(&mut dw)).unwrap();
        });
    }
}
