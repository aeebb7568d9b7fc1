//! What the kernels that operations launch cost on aligned sizes, by the emulator: sectors of loads for each that their bytes fill, and
//! cycles of the banks of shared memory. TOMOGRAD_COSTS names a file that gets a line a kernel for docs/cuda-kernels.md.

use std::collections::BTreeMap;

use tomograd_core::{DType, Result, Seed, Tensor};
use tomograd_emulator::{Measured, device, measured};
use tomograd_kernels::{
    Context, HalfPolicy, Op,
    attention::Attention,
    cast::cast,
    compare::Compare,
    conv::{Conv, ConvTranspose},
    cumulative::CumulativeSum,
    dropout::Dropout,
    elementwise::{Chain, Function},
    matmul::Matmul,
    pool::AveragePool,
    reduce::{Combine, Reduce},
    resample::{Interpolate, Interpolation},
    scan::SelectiveScan,
    softmax::Softmax,
    sort::Sort,
    testing,
};

use super::{both_of, cotangents_of, moved, references};

/// An operation with the shapes of its inputs.
type Aligned = (Box<dyn Op>, Vec<Vec<usize>>);

fn conv(rank: usize, groups: usize, padding: usize) -> Conv {
    let ones = vec![1; rank];
    let (stride, dilation, padding) = (ones.clone(), ones, vec![padding; rank]);
    Conv { stride, padding, dilation, groups, two_inputs: false, bias: false }
}

fn operations() -> Vec<Aligned> {
    let mut all: Vec<Aligned> = Vec::new();
    for size in [32, 64, 128] {
        let shapes = vec![vec![1, 64, size], vec![1, 128, size], vec![1, 128, size]];
        all.push((Box::new(Attention::default()), shapes));
    }
    all.push((Box::new(Attention::default()), vec![vec![1, 32, 256], vec![1, 64, 256], vec![1, 64, 256]]));
    let scan = SelectiveScan { skip: true, gate: true, delta_bias: true, delta_softplus: true };
    let (long, states) = (vec![1, 2, 1024], vec![1, 1, 4, 1024]);
    let shapes = vec![long.clone(), long.clone(), vec![2, 4], states.clone(), states, vec![2], long, vec![2]];
    all.push((Box::new(scan), shapes));
    all.push((Box::new(conv(3, 1, 1)), vec![vec![1, 16, 4, 8, 32], vec![64, 16, 3, 3, 3]]));
    for kernel in [3, 5, 7] {
        for shape in [&[1, 2, 64, 64][..], &[1, 2, 16, 32, 64]] {
            let weight = [&[2, 1][..], &vec![kernel; shape.len() - 2]].concat();
            all.push((Box::new(conv(shape.len() - 2, 2, kernel / 2)), vec![shape.to_vec(), weight]));
        }
    }
    all.push((Box::new(Matmul), vec![vec![64, 128], vec![128, 64]]));
    let transposed = ConvTranspose {
        stride: vec![2; 3],
        padding: vec![0; 3],
        output_padding: vec![0; 3],
        dilation: vec![1; 3],
        groups: 1,
        bias: false,
    };
    all.push((Box::new(transposed), vec![vec![1, 16, 4, 8, 16], vec![16, 16, 2, 2, 2]]));
    all.push((Box::new(Softmax { axis: 1 }), vec![vec![64, 256]]));
    all.push((Box::new(Softmax { axis: 1 }), vec![vec![2, 16, 256]]));
    all.push((Box::new(Reduce { axes: vec![1], combine: Combine::Sum, keep_axes: false }), vec![vec![64, 1024]]));
    all.push((Box::new(Reduce { axes: vec![0], combine: Combine::Sum, keep_axes: false }), vec![vec![64, 1024]]));
    all.push((Box::new(Chain::unary(Function::Gelu)), vec![vec![64, 256]]));
    all.push((Box::new(Dropout { seed: Seed::new(1), probability: 0.5, whole_channels: false }), vec![vec![64, 256]]));
    all.push((Box::new(CumulativeSum { axis: 1, reverse: false }), vec![vec![4, 1024]]));
    all.push((Box::new(Sort { axis: 1, descending: false, count: None }), vec![vec![2, 2048]]));
    all.push((Box::new(Compare::Less), vec![vec![64, 256], vec![64, 256]]));
    for mode in [Interpolation::Nearest, Interpolation::Linear] {
        all.push((Box::new(Interpolate { size: vec![8, 16, 64], mode }), vec![vec![1, 2, 4, 8, 32]]));
    }
    let pool = AveragePool {
        kernel: vec![2; 3],
        stride: vec![2; 3],
        padding: vec![0; 3],
        ceil_mode: false,
        count_include_pad: false,
    };
    all.push((Box::new(pool), vec![vec![1, 2, 8, 16, 64]]));
    all
}

/// The launches of a forward and a backward pass.
fn launches(op: &dyn Op, shapes: &[Vec<usize>], dtype: DType) -> Result<Vec<Measured>> {
    let Some(device) = device() else { return Ok(Vec::new()) };
    let mut random = Seed::new(2026).named("costs").random();
    let inputs: Vec<Tensor> =
        shapes.iter().map(|shape| cast(&testing::values(&mut random, shape)?, dtype)).collect::<Result<_>>()?;
    let inputs = moved(&inputs, device)?;
    let outputs = tomograd_kernels::run(op, &references(&inputs), &Context::default())?.outputs;
    let cotangents = cotangents_of(&outputs, &mut random)?;
    let differentiable = vec![true; inputs.len()];
    let (results, launches) = measured(|| both_of(op, &differentiable, &inputs, &cotangents, &Context::default()));
    results?;
    Ok(launches)
}

/// Loads of convolution, attention and the scan touch at most 1.3 sectors for each that their bytes fill, and none of their kernels has a
/// third of its cycles of shared memory lost to conflicts of banks.
#[test]
fn loads_on_aligned_sizes_are_of_whole_sectors() -> Result<()> {
    let mut found: BTreeMap<String, Measured> = BTreeMap::new();
    for (op, shapes) in operations() {
        // Elsewhere, half precision has the kernels of f32.
        let halves = device().is_some_and(|device| op.half_policy(device) == HalfPolicy::Keep);
        for dtype in if halves { &[DType::F32, DType::F16, DType::BF16][..] } else { &[DType::F32] } {
            for launch in launches(&*op, &shapes, *dtype)? {
                // The launch that loads the most.
                let known = found.entry(launch.kernel.clone()).or_insert_with(|| launch.clone());
                if launch.report.load_sectors[1] > known.report.load_sectors[1] {
                    *known = launch;
                }
            }
        }
    }
    let (mut lines, mut wrong) = (String::new(), Vec::new());
    for (kernel, Measured { blocks, report, .. }) in &found {
        let sectors = report.sectors_a_useful_one();
        let banks = report.shared_cycles[0] as f64 / report.shared_cycles[1].max(1) as f64;
        let barriers = report.barriers as f64 / *blocks as f64;
        lines += &format!("{kernel}\t\t\t{sectors:.2}\t{banks:.2}\t{barriers:.0}\n");
        let heavy = ["attention", "scan", "conv", "depthwise"].iter().any(|name| kernel.starts_with(name));
        if heavy && (sectors > 1.3 || banks > 1.34) {
            wrong.push(format!("{kernel}: {sectors:.2} sectors, {banks:.2} cycles of banks for a useful one"));
        }
    }
    println!("{lines}");
    if let Ok(file) = std::env::var("TOMOGRAD_COSTS") {
        std::fs::write(file, lines).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
