//! Each path of convolutions of many shapes, measured beside what the cost model says: `cargo bench -p tomograd-kernels
//! --bench paths`. It prints a table in Markdown; benches/results/paths.md is one.

use std::time::Instant;
use tomograd_kernels::Precision;
use tomograd_kernels::conv::ConvShape;
use tomograd_kernels::conv::cpu::{Epilogue, Inputs, Outputs, Path};
use tomograd_kernels::parallel::{self, as_uninit};

/// Channels, and sizes of the image: volumes and planes of networks for segmentation and classification.
const CHANNELS: [[usize; 2]; 14] = [
    [1, 16],
    [1, 32],
    [3, 64],
    [8, 8],
    [8, 16],
    [16, 16],
    [32, 3],
    [32, 32],
    [64, 32],
    [64, 64],
    [128, 64],
    [128, 128],
    [256, 256],
    [320, 320],
];
const SIZES: [[usize; 3]; 14] = [
    [64, 64, 64],
    [40, 56, 40],
    [32, 32, 32],
    [20, 28, 20],
    [16, 16, 16],
    [10, 14, 10],
    [8, 8, 8],
    [5, 7, 5],
    [4, 4, 4],
    [1, 256, 256],
    [1, 128, 128],
    [1, 56, 56],
    [1, 28, 28],
    [1, 7, 7],
];

/// Milliseconds of the forward pass: the least of some runs.
fn measure(path: Path, shape: &ConvShape) -> f64 {
    let x = vec![0.5f32; shape.input_count()];
    let w = vec![0.25f32; shape.weight_count()];
    let mut y = vec![0.125f32; shape.output_count()];
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    let mut runs = 0;
    // Long enough for both cores to reach their speed.
    while runs < 4 || begin.elapsed().as_secs_f64() < 0.15 {
        let start = Instant::now();
        let out = Outputs::one(as_uninit(&mut y), shape.out_channels);
        path.forward(shape, Inputs::one(&x, shape.in_channels), &w, Epilogue::default(), out).expect("it suits");
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
        runs += 1;
    }
    best
}

fn main() {
    println!("Measured with {} on {} threads.\n", parallel::current_isa(), parallel::threads());
    println!("| channels | size | Winograd ms | model ms | dense ms | model ms | chosen | of the best |");
    println!("|---|---|---:|---:|---:|---:|---|---:|");
    let (mut right, mut total, mut worst) = (0, 0, 1.0f64);
    let (mut chosen_sum, mut best_sum) = (0.0, 0.0);
    for channels in CHANNELS {
        for size in SIZES {
            let flat = size[0] == 1;
            let shape = ConvShape {
                batch: 1,
                groups: 1,
                in_channels: channels[0],
                out_channels: channels[1],
                input: size,
                kernel: if flat { [1, 3, 3] } else { [3; 3] },
                stride: [1; 3],
                padding: if flat { [0, 1, 1] } else { [1; 3] },
                dilation: [1; 3],
                precision: Precision::Fast,
            };
            if shape.multiply_adds() > 8 << 30 {
                continue;
            }
            let [winograd, dense] =
                [Path::Winograd, Path::Dense].map(|path| (measure(path, &shape), path.estimate(&shape)));
            let chosen = Path::choose::<f32>(&shape);
            let taken = if chosen == Path::Winograd { winograd.0 } else { dense.0 };
            let loss = taken / winograd.0.min(dense.0);
            total += 1;
            right += usize::from(loss < 1.05);
            worst = worst.max(loss);
            chosen_sum += taken;
            best_sum += winograd.0.min(dense.0);
            println!(
                "| {}→{} | {}×{}×{} | {:.3} | {:.3} | {:.3} | {:.3} | {chosen} | {loss:.2} |",
                channels[0], channels[1], size[0], size[1], size[2], winograd.0, winograd.1, dense.0, dense.1
            );
        }
    }
    println!(
        "\nThe path that the model chose was the faster one, or within 5 % of it, for {right} of {total} shapes; at worst it \
         took {worst:.2} times as long, and all shapes together {:.3} times.",
        chosen_sum / best_sum
    );
}
