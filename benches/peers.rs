//! The workloads that are shared with other frameworks: one JSON object a line.
//!
//!     cargo bench --bench peers -- --json [--case NAME ...] [--threads N] [--seconds S]
//!
//! `benches/compare.py` runs it beside PyTorch, and so does `benches/scaling.py`, with cubes of any size N: `unet3d_infer_N` and
//! `conv3d_k3_32x32_N`.

mod measure;
mod resident;

use std::hint::black_box;

use measure::{Step, random};
use tomograd::{
    kernels::{
        Context, Op, Precision,
        attention::Attention,
        conv::{Conv, ConvTranspose},
        elementwise::Function,
        matmul::Matmul,
        norm::{LayerNorm, Norm, Statistics},
        pool::MaxPool,
        resample::{Interpolate, Interpolation},
        run,
        scan::SelectiveScan,
    },
    models::registry::Config,
    prelude::*,
};

fn main() -> std::process::ExitCode {
    measure::main("peers", &CASES, build)
}

/// x and weight, padding, stride, groups.
type ConvCase = (&'static str, &'static [usize], &'static [usize], usize, usize, usize);

/// The convolutions; with `_train` behind the name, forward and backward.
const CONVOLUTIONS: [ConvCase; 12] = [
    ("conv3d_k3_64x64_32", &[1, 64, 32, 32, 32], &[64, 64, 3, 3, 3], 1, 1, 1),
    ("conv3d_k3_128x128_16", &[1, 128, 16, 16, 16], &[128, 128, 3, 3, 3], 1, 1, 1),
    ("conv3d_k3_320x320_8", &[1, 320, 8, 8, 8], &[320, 320, 3, 3, 3], 1, 1, 1),
    ("conv3d_k3_16x16_32", &[1, 16, 32, 32, 32], &[16, 16, 3, 3, 3], 1, 1, 1),
    ("conv3d_k3_1x32_64", &[1, 1, 64, 64, 64], &[32, 1, 3, 3, 3], 1, 1, 1),
    ("conv3d_k3s2_32x64_64", &[1, 32, 64, 64, 64], &[64, 32, 3, 3, 3], 1, 2, 1),
    ("conv3d_k1_32x3_64", &[1, 32, 64, 64, 64], &[3, 32, 1, 1, 1], 0, 1, 1),
    ("dwconv3d_k3_96_32", &[1, 96, 32, 32, 32], &[96, 1, 3, 3, 3], 1, 1, 96),
    ("dwconv3d_k7_96_32", &[1, 96, 32, 32, 32], &[96, 1, 7, 7, 7], 3, 1, 96),
    ("gconv3d_k3_64_g8_32", &[1, 64, 32, 32, 32], &[64, 8, 3, 3, 3], 1, 1, 8),
    ("conv2d_k3_64x64_256", &[1, 64, 256, 256], &[64, 64, 3, 3], 1, 1, 1),
    ("dwconv2d_k7_96_56", &[8, 96, 56, 56], &[96, 1, 7, 7], 3, 1, 96),
];

/// All cases, in the order of the shared list.
const CASES: [&str; 32] = [
    "conv3d_k3_32x32_64",
    "conv3d_k3_64x64_32",
    "conv3d_k3_128x128_16",
    "conv3d_k3_320x320_8",
    "conv3d_k3_16x16_32",
    "conv3d_k3_1x32_64",
    "conv3d_k3s2_32x64_64",
    "conv3d_k1_32x3_64",
    "conv3d_k3_32x32_64_train",
    "conv3d_k3_64x64_32_train",
    "dwconv3d_k3_96_32",
    "dwconv3d_k7_96_32",
    "dwconv3d_k3_96_32_train",
    "gconv3d_k3_64_g8_32",
    "conv2d_k3_64x64_256",
    "dwconv2d_k7_96_56",
    "convt3d_k2s2_64x32_32",
    "instancenorm_lrelu_32_64",
    "instancenorm_lrelu_32_64_train",
    "maxpool3d_32_64",
    "upsample_trilinear_32_32",
    "matmul_1024",
    "layernorm_4096_384",
    "attention_12h_1024_64",
    "attention_12h_1024_64_train",
    "window_attention_3d_512w_3h_98_32",
    "selective_scan_192_16_4096",
    "selective_scan_192_16_4096_train",
    "unet3d_train_2x64",
    "unet3d_infer_64",
    "unet3d_hippocampus_train",
    "unet2d_infer_512",
];

/// An operation run forward, and when `train` backward too, for the gradients of all inputs.
fn op_step(op: impl Op + Clone, inputs: Vec<Tensor>, train: bool) -> Step {
    let context = Context::default().precision(Precision::Fast).inference(!train);
    if !train {
        return Box::new(move || {
            let references: Vec<&Tensor> = inputs.iter().collect();
            black_box(run(&op, &references, &context)?);
            Ok(())
        });
    }
    let mut cotangent = None;
    Box::new(move || {
        let tape = Tape::recording(context);
        let leaves = inputs.iter().map(|input| tape.leaf(input.clone())).collect::<Result<Vec<_>>>()?;
        let output = Var::apply(op.clone(), &leaves.iter().collect::<Vec<_>>())?;
        let ones = match cotangent.take() {
            Some(ones) => ones,
            None => Tensor::ones(output.shape(), output.dtype(), output.value().device())?,
        };
        cotangent = Some(Tensor::clone(&ones));
        black_box(tape.backward_with(&[(&output, ones)])?);
        Ok(())
    })
}

/// Queries, keys and values of one shape.
fn attention_inputs(shape: &[usize]) -> Result<Vec<Tensor>> {
    ["q", "k", "v"].iter().map(|name| random(shape, name)).collect()
}

/// Inputs of a selective scan: positive steps, and states that decay.
fn scan_inputs(batch: usize, channels: usize, states: usize, length: usize) -> Result<Vec<Tensor>> {
    let uniform = |name: &str, shape: &[usize], low, high| {
        Tensor::uniform(shape, low, high, Seed::new(0).named(name), DType::F32, Device::Cpu)
    };
    let (over_time, over_states) = ([batch, channels, length], [batch, states, length]);
    Ok(vec![
        random(&over_time, "u")?,
        uniform("delta", &over_time, 0.0, 0.1)?,
        uniform("a", &[channels, states], -1.5, -0.5)?,
        random(&over_states, "b")?,
        random(&over_states, "c")?,
        random(&[channels], "skip")?,
    ])
}

fn build(case: &str) -> Result<Option<Step>> {
    let (name, train) = case.strip_suffix("_train").map_or((case, false), |name| (name, true));
    let size_of = |prefix: &str| name.strip_prefix(prefix).and_then(|size| size.parse::<usize>().ok());
    if let Some(n) = size_of("unet3d_infer_") {
        return Ok(Some(infer(&UNet3dConfig::new(3), &[1, 1, n, n, n])?));
    }
    if let Some(n) = size_of("conv3d_k3_32x32_") {
        let op = Conv { padding: vec![1; 3], ..Conv::new(3)? };
        return Ok(Some(op_step(op, vec![random(&[1, 32, n, n, n], "x")?, random(&[32, 32, 3, 3, 3], "w")?], train)));
    }
    if let Some(&(_, x, weight, padding, stride, groups)) = CONVOLUTIONS.iter().find(|&&(known, ..)| known == name) {
        let rank = x.len() - 2;
        let op = Conv { padding: vec![padding; rank], stride: vec![stride; rank], groups, ..Conv::new(rank)? };
        return Ok(Some(op_step(op, vec![random(x, "x")?, random(weight, "w")?], train)));
    }
    Ok(Some(match case {
        "convt3d_k2s2_64x32_32" => op_step(
            ConvTranspose::new(3, 2)?,
            vec![random(&[1, 64, 32, 32, 32], "x")?, random(&[64, 32, 2, 2, 2], "w")?],
            train,
        ),
        "instancenorm_lrelu_32_64" | "instancenorm_lrelu_32_64_train" => {
            let activation = Some(Function::LeakyRelu(0.01));
            let op = Norm { statistics: Statistics::Instance, epsilon: 1e-5, affine: true, activation };
            op_step(op, vec![random(&[1, 32, 64, 64, 64], "x")?, random(&[32], "g")?, random(&[32], "b")?], train)
        }
        "maxpool3d_32_64" => op_step(
            MaxPool { stride: vec![2; 3], ..MaxPool::new(&[2; 3])? },
            vec![random(&[1, 32, 64, 64, 64], "x")?],
            train,
        ),
        "upsample_trilinear_32_32" => {
            let op = Interpolate { size: vec![64; 3], mode: Interpolation::Linear };
            op_step(op, vec![random(&[1, 32, 32, 32, 32], "x")?], train)
        }
        "matmul_1024" => op_step(Matmul, vec![random(&[1024, 1024], "x")?, random(&[1024, 1024], "w")?], train),
        "layernorm_4096_384" => {
            let op = LayerNorm { axes: 1, epsilon: 1e-5, affine: true };
            op_step(op, vec![random(&[4096, 384], "x")?, random(&[384], "g")?, random(&[384], "b")?], train)
        }
        "attention_12h_1024_64" | "attention_12h_1024_64_train" => {
            op_step(Attention::default(), attention_inputs(&[1, 12, 1024, 64])?, train)
        }
        "window_attention_3d_512w_3h_98_32" => {
            op_step(Attention::default(), attention_inputs(&[512, 3, 98, 32])?, train)
        }
        "selective_scan_192_16_4096" | "selective_scan_192_16_4096_train" => {
            let op = SelectiveScan { skip: true, ..SelectiveScan::default() };
            op_step(op, scan_inputs(1, 192, 16, 4096)?, train)
        }
        "unet3d_train_2x64" => train_unet([2, 1, 64, 64, 64])?,
        "unet3d_hippocampus_train" => train_unet([2, 1, 40, 56, 40])?,
        "unet2d_infer_512" => infer(&UNet2dConfig::new(2), &[1, 1, 512, 512])?,
        _ => return Ok(None),
    }))
}

fn infer<C>(config: &C, shape: &[usize]) -> Result<Step>
where
    C: Config<Network: Module>,
{
    let mut params = Params::new(Device::Cpu, Seed::new(0));
    let net = config.build(params.root())?;
    let image = random(shape, "x")?;
    Ok(Box::new(move || {
        let pass = Pass::eval(&params)?;
        black_box(net.forward(&pass.input(&image), &pass)?);
        Ok(())
    }))
}

fn train_unet(shape: [usize; 5]) -> Result<Step> {
    let mut params = Params::new(Device::Cpu, Seed::new(0));
    let net = UNet3d::new(params.root(), &UNet3dConfig::new(3))?;
    let mut optimizer = Sgd::new(&params, 1e-3)?.momentum(0.99)?.nesterov()?.decay(3e-5)?;
    let image = random(&shape, "x")?;
    let mut draw = Seed::new(0).named("label").random();
    let labels: Vec<i64> = (0..image.count()).map(|_| draw.below(3) as i64).collect();
    let label = Tensor::from_slice(&labels, &[shape[0], shape[2], shape[3], shape[4]], Device::Cpu)?;
    Ok(Box::new(move || {
        let pass = Pass::train(&params, Seed::new(0))?;
        let logits = net.forward(&pass.input(&image), &pass)?;
        let loss = DiceCe::default().forward(&logits, &label)?;
        drop(logits);
        let update = pass.backward(loss)?;
        optimizer.step(&mut params, update)
    }))
}
