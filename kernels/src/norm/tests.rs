//! Cases that the random cases of the operations can't cover, because finite differences need smooth statistics: means far
//! larger than the spread, constant sets, magnitudes near the limits of the number types, a small ε.

use tomograd_core::{DType, Device, Random, Result, Seed, Tensor};

use super::{LayerNorm, Norm, Statistics, largest, proofs::Plain};
use crate::{
    Context, Recompute, Saved,
    cast::cast,
    conv::{Conv, ConvNormActivation},
    elementwise::Function,
    parallel::{Settings, with_settings},
    run, run_backward, run_recompute,
    simd::Isa,
    testing::{self, Proven},
};

/// Values of shape (`rows`, `length`), where each row has its own mean and spread.
fn hard_rows(random: &mut Random, rows: usize, length: usize, dtype: DType) -> Vec<f64> {
    let mut values = Vec::new();
    for _ in 0..rows {
        let pick = |random: &mut Random, of: &[f64]| of[random.below(of.len() as u64) as usize];
        let mean = random.normal() * pick(random, &[0.0, 1.0, 1e4]);
        let spread = pick(random, &[0.0, 1e-3, 1e-2, 1.0]);
        // Factors of all magnitudes: the squares of 1e25 in f32 and of 1e200 in f64 overflow.
        let factor = match random.below(6) {
            0 => pick(random, if dtype == DType::F32 { &[1e19, 1e25, 1e33, 1e-25] } else { &[1e200, 1e300, 1e-200] }),
            _ => 1.0,
        };
        values.extend((0..length).map(|_| factor * (mean + spread * random.normal())));
    }
    values
}

/// The inputs in `dtype`, and the same values as f64 for the reference.
fn rounded(inputs: &[Tensor], dtype: DType) -> Result<[Vec<Tensor>; 2]> {
    let narrow: Vec<Tensor> = inputs.iter().map(|x| cast(x, dtype)).collect::<Result<_>>()?;
    let wide = narrow.iter().map(|x| cast(x, DType::F64)).collect::<Result<_>>()?;
    Ok([narrow, wide])
}

fn bits(tensor: &Tensor) -> Vec<u64> {
    tensor.to_vec_f64().unwrap().into_iter().map(f64::to_bits).collect()
}

/// Checks the forward pass against the reference within the operation's own bound, with bitwise equal results on all
/// instruction sets; the recomputed output; and the gradient of x against that in f64, which is accurate at these means.
fn check<O: Proven + Recompute + Clone>(
    op: &O,
    inputs: &[Tensor],
    dtype: DType,
    random: &mut Random,
    deviation: impl Fn(usize, &[Tensor]) -> f64,
) {
    let place = || format!("{op:?} {:?} {dtype}", inputs[0].shape());
    let [narrow, wide] = rounded(inputs, dtype).unwrap();
    let reference = op.reference(&wide).unwrap();
    let scales = op.scale(&wide, &reference).unwrap();
    let unit = if dtype == DType::F64 { f64::EPSILON } else { f64::from(f32::EPSILON) } / 2.0;
    let mut first: Option<Vec<Vec<u64>>> = None;
    for isa in Isa::available() {
        let settings = Settings::default().isa(isa).unwrap();
        let references: Vec<&Tensor> = narrow.iter().collect();
        let forward = with_settings(settings, || run(op, &references, &Context::default())).unwrap();
        for (k, ((y, expected), scale)) in forward.outputs.iter().zip(&reference).zip(&scales).enumerate() {
            let all = [y, expected, scale].map(|tensor| tensor.to_vec_f64().unwrap());
            for (i, &y) in all[0].iter().enumerate() {
                // Values beyond the range of the type become infinite.
                let expected = if dtype == DType::F32 { f64::from(all[1][i] as f32) } else { all[1][i] };
                let bound = O::TOLERANCE * unit * all[2][i];
                let close = (y - all[1][i]).abs() <= bound || y == expected;
                assert!(close, "{} {isa:?}: output {k}, element {i} is {y}, not {expected} within {bound:e}", place());
            }
        }
        let saved = Saved::new(op, &references, &forward);
        let again = with_settings(Settings::default().isa(isa).unwrap(), || {
            run_recompute(op, &saved, &Context::default()).unwrap()
        });
        assert_eq!(bits(&again), bits(&forward.outputs[0]), "{}: made again", place());
        let these: Vec<Vec<u64>> = forward.outputs.iter().map(bits).collect();
        assert_eq!(first.get_or_insert(these.clone()), &these, "{} {isa:?}: other bits", place());
    }
    if dtype == DType::F64 {
        return;
    }
    let dy = testing::values(random, reference[0].shape()).unwrap();
    let gradient = |inputs: &[Tensor], dy: Tensor| {
        let references: Vec<&Tensor> = inputs.iter().collect();
        let forward = run(op, &references, &Context::default()).unwrap();
        let saved = Saved::new(op, &references, &forward);
        let mut needed = vec![false; inputs.len()];
        needed[0] = true;
        let mut cotangents = vec![None; forward.outputs.len()];
        cotangents[0] = Some(dy);
        let gradients = run_backward(op, saved, cotangents, &needed, &Context::default()).unwrap();
        gradients[0].as_ref().unwrap().to_vec_f64().unwrap()
    };
    let dy = cast(&dy, DType::F32).unwrap();
    let got = gradient(&narrow, dy.clone());
    let exact = gradient(&wide, cast(&dy, DType::F64).unwrap());
    // γ / deviation times dy, its mean and its component along x̂, which are values of a few units.
    let length = got.len() / (inputs[0].shape()[0] * inputs[0].shape()[1]);
    let gamma = inputs.get(1).map_or(1.0, |gamma| largest(gamma).unwrap());
    for (row, (got, exact)) in got.chunks(length).zip(exact.chunks(length)).enumerate() {
        let bound = 640.0 * unit * (1.0 + gamma) / deviation(row, &wide) + f64::from(f32::MIN_POSITIVE);
        for (got, exact) in got.iter().zip(exact) {
            assert!((got - exact).abs() <= bound, "{}: dx {got}, not {exact} within {bound:e}, row {row}", place());
        }
    }
}

/// √(variance + ε) of a row.
fn deviation(row: usize, inputs: &[Tensor]) -> f64 {
    let shape = inputs[0].shape();
    let values = inputs[0].to_vec::<f64>().unwrap();
    let plain = Plain::of(&values[row * shape[2]..][..shape[2]]);
    (plain.squares() / plain.count + EPSILON).sqrt()
}

const EPSILON: f64 = 1e-5;
const LENGTHS: [usize; 8] = [2, 3, 15, 16, 33, 257, 4096, 5000];

#[test]
fn norms_are_exact_at_any_mean_and_magnitude() {
    for number in 0..60u64 {
        let mut random = Seed::new(19).named("norm").at(number).random();
        for dtype in [DType::F32, DType::F64] {
            let (batch, channels) = (1 + random.below(2) as usize, 4);
            let length = LENGTHS[random.below(8) as usize];
            let statistics = [Statistics::Instance, Statistics::Group(4), Statistics::Batch][random.below(3) as usize];
            let activation = [None, Some(Function::LeakyRelu(0.01)), Some(Function::Silu)][random.below(3) as usize];
            let norm = Norm { statistics, epsilon: EPSILON, affine: random.bernoulli(0.5), activation };
            let mut values = hard_rows(&mut random, channels, length, dtype);
            // Each image has a part of each channel's row.
            let parts = hard_rows(&mut random, channels, length, dtype);
            values = (0..batch * channels * length)
                .map(|i| if i < values.len() { values[i] } else { parts[i - values.len()] })
                .collect();
            if statistics == Statistics::Batch {
                // The second image repeats the values of the first in another order, so that a channel has one mean.
                for i in channels * length..values.len() {
                    let (channel, place) = (i / length % channels, i % length);
                    values[i] = values[channel * length + (place * 7 + 1) % length];
                }
            }
            let mut inputs = vec![Tensor::from_slice(&values, &[batch, channels, length], Device::Cpu).unwrap()];
            for _ in 1..norm.input_count() {
                inputs.push(testing::values(&mut random, &[channels]).unwrap());
            }
            check(&norm, &inputs, dtype, &mut random, deviation);
        }
    }
}

#[test]
fn given_statistics_are_exact_at_any_mean_and_magnitude() {
    for number in 0..30u64 {
        let mut random = Seed::new(19).named("running").at(number).random();
        let (channels, length) = (3, 37);
        let values = hard_rows(&mut random, channels, length, DType::F32);
        let norm = Norm {
            statistics: Statistics::Running,
            epsilon: EPSILON,
            affine: random.bernoulli(0.5),
            activation: [None, Some(Function::Relu)][random.below(2) as usize],
        };
        let mut inputs = vec![Tensor::from_slice(&values, &[1, channels, length], Device::Cpu).unwrap()];
        for _ in 0..2 * usize::from(norm.affine) {
            inputs.push(testing::values(&mut random, &[channels]).unwrap());
        }
        // Statistics close to those of the values; both fit into f32.
        let row = |c: usize| &values[c * length..(c + 1) * length];
        let mean: Vec<f64> = (0..channels).map(|c| row(c).iter().map(|x| x / length as f64).sum()).collect();
        let spread = |c: usize| row(c).iter().fold(0.0f64, |most, x| most.max((x - mean[c]).abs()));
        let variance: Vec<f64> = (0..channels).map(|c| spread(c).powi(2).min(1e38)).collect();
        inputs.push(Tensor::from_slice(&mean, &[channels], Device::Cpu).unwrap());
        inputs.push(Tensor::from_slice(&variance, &[channels], Device::Cpu).unwrap());
        if values.iter().any(|x| x.abs() > 1e20) {
            // A variance that overflows f32 can't be an input.
            continue;
        }
        check(&norm, &inputs, DType::F32, &mut random, |row, inputs| {
            let variance = inputs[inputs.len() - 1].to_vec::<f64>().unwrap();
            (variance[row] + EPSILON).sqrt()
        });
    }
}

#[test]
fn layer_norms_are_exact_at_any_mean_and_magnitude() {
    for number in 0..60u64 {
        let mut random = Seed::new(19).named("layer").at(number).random();
        for dtype in [DType::F32, DType::F64] {
            let (rows, length) = (1 + random.below(6) as usize, LENGTHS[random.below(8) as usize]);
            let norm = LayerNorm { axes: 1, epsilon: EPSILON, affine: random.bernoulli(0.5) };
            let values = hard_rows(&mut random, rows, length, dtype);
            let mut inputs = vec![Tensor::from_slice(&values, &[1, rows, length], Device::Cpu).unwrap()];
            for _ in 0..2 * usize::from(norm.affine) {
                inputs.push(testing::values(&mut random, &[length]).unwrap());
            }
            check(&norm, &inputs, dtype, &mut random, deviation);
        }
    }
}

/// The normalised values of one channel.
fn normalised(values: &[f32], epsilon: f64) -> Vec<f32> {
    let norm = Norm { statistics: Statistics::Instance, epsilon, affine: false, activation: None };
    let x = Tensor::from_slice(values, &[1, 1, values.len()], Device::Cpu).unwrap();
    run(&norm, &[&x], &Context::default()).unwrap().outputs[0].to_vec::<f32>().unwrap()
}

#[test]
fn a_constant_channel_becomes_beta() {
    for constant in [1000.1, 1e6, -3.3e7, 1e25, 3e38, 1e-30, 0.0] {
        for length in [1, 2, 7, 1000, 70_000] {
            assert_eq!(normalised(&vec![constant; length], 1e-5), vec![0.0; length], "{length} times {constant}");
        }
        let x = Tensor::from_slice(&[constant; 3], &[1, 1, 3], Device::Cpu).unwrap();
        let parameter = |value: f32| Tensor::from_slice(&[value], &[1], Device::Cpu).unwrap();
        let norm = Norm { statistics: Statistics::Running, epsilon: EPSILON, affine: true, activation: None };
        let inputs = [x, parameter(2.0), parameter(0.7), parameter(constant), parameter(0.0)];
        let y = run(&norm, &inputs.each_ref(), &Context::default()).unwrap();
        assert_eq!(y.outputs[0].to_vec::<f32>().unwrap(), [0.7; 3], "a given mean of {constant}");
    }
}

#[test]
fn squares_do_not_overflow_or_vanish() {
    let root = 1.5f32.sqrt();
    for size in [1e25f32, 3e38, 1e19] {
        let y = normalised(&[-size, 0.0, size], 1e-5);
        assert!((y[0] + root).abs() < 1e-6 && y[1].abs() < 1e-6 && (y[2] - root).abs() < 1e-6, "{size}: {y:?}");
    }
    // The squares overflow f32, but the variance doesn't.
    let norm = Norm { statistics: Statistics::Batch, epsilon: EPSILON, affine: false, activation: None };
    let x = Tensor::from_slice(&[-1e19f32, 0.0, 1e19, -1e19, 0.0, 1e19], &[2, 1, 3], Device::Cpu).unwrap();
    let outputs = run(&norm, &[&x], &Context::default()).unwrap().outputs;
    assert!(outputs[1].to_vec::<f32>().unwrap()[0].abs() < 1e12);
    assert!((outputs[2].to_vec::<f32>().unwrap()[0] / 8e37 - 1.0).abs() < 1e-6);
    let y = normalised(&[-1e-30, 0.0, 1e-30], 0.0);
    assert!((y[0] + root).abs() < 1e-6 && y[1].abs() < 1e-6 && (y[2] - root).abs() < 1e-6, "{y:?}");
}

#[test]
fn what_is_not_a_number_stays_in_its_set() {
    let norm = Norm { statistics: Statistics::Instance, epsilon: EPSILON, affine: false, activation: None };
    for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = [1.0f32, 2.0, 3.0, 4.0];
        values[1] = wrong;
        let x = Tensor::from_slice(&values, &[1, 2, 2], Device::Cpu).unwrap();
        let y = run(&norm, &[&x], &Context::default()).unwrap().outputs[0].to_vec::<f32>().unwrap();
        assert!(y[0].is_nan() && y[1].is_nan(), "{wrong}: {y:?}");
        assert!((y[2] + 1.0).abs() < 1e-4 && (y[3] - 1.0).abs() < 1e-4, "{wrong}: {y:?}");
    }
}

/// A norm folded into the convolution's epilogue gives bitwise the same result as a separate norm.
#[test]
fn a_folded_norm_has_the_bits_of_one_that_follows() {
    for (number, mean) in [0.0, 1e4, 1e6].into_iter().enumerate() {
        let mut random = Seed::new(19).named("folded").at(number as u64).random();
        let conv = Conv {
            stride: vec![1; 2],
            padding: vec![1; 2],
            dilation: vec![1; 2],
            groups: 1,
            two_inputs: false,
            bias: true,
        };
        let activation = Some(Function::LeakyRelu(0.01));
        let norm = Norm { statistics: Statistics::Running, epsilon: EPSILON, affine: true, activation };
        let values = |random: &mut Random, shape: &[usize], mean: f64| {
            cast(&testing::map(&testing::values(random, shape).unwrap(), |x| x + mean).unwrap(), DType::F32).unwrap()
        };
        let mut inputs = vec![values(&mut random, &[1, 3, 9, 21], 0.0), values(&mut random, &[5, 3, 3, 3], 0.0)];
        inputs.extend([mean, 0.0, 0.0, mean, 10.0].map(|mean| values(&mut random, &[5], mean)));
        let op = ConvNormActivation { conv, norm };
        let references: Vec<&Tensor> = inputs.iter().collect();
        let [folded, following] = [true, false].map(|inference| {
            bits(&run(&op, &references, &Context { inference, ..Context::default() }).unwrap().outputs[0])
        });
        assert_eq!(folded, following, "a mean of {mean}");
    }
}

/// The moments that the convolution's epilogue computes beside a large mean. A kernel with a single nonzero tap copies its
/// input.
#[test]
fn a_fused_convolution_keeps_the_spread_next_to_a_large_mean() {
    for (rank, kernel) in [(1, 1), (2, 3), (3, 3)] {
        for groups in [1, 16] {
            let mut random = Seed::new(19).named("fused").at(rank as u64).random();
            let spatial = &[10, 11, 37][3 - rank..];
            let channels = 16;
            let conv = Conv {
                stride: vec![1; rank],
                padding: vec![0; rank],
                dilation: vec![1; rank],
                groups,
                two_inputs: false,
                bias: false,
            };
            let norm = Norm { statistics: Statistics::Instance, epsilon: EPSILON, affine: false, activation: None };
            let shape = [&[1, channels], spatial].concat();
            let x = testing::map(&testing::values(&mut random, &shape).unwrap(), |x| 1e4 + 1e-3 * x).unwrap();
            let size = [&[channels, channels / groups], &vec![kernel; rank][..]].concat();
            let taps = kernel.pow(rank as u32);
            let (inputs, middle) = (channels / groups * taps, taps / 2);
            // Each output channel is a copy of an input channel.
            let weights: Vec<f64> = (0..channels * inputs)
                .map(|i| {
                    let (to, from, tap) = (i / inputs, i % inputs / taps, i % taps);
                    f64::from(tap == middle && (groups == channels || to == from))
                })
                .collect();
            let w = Tensor::from_slice(&weights, &size, Device::Cpu).unwrap();
            let [narrow, wide] = rounded(&[x, w], DType::F32).unwrap();
            let op = ConvNormActivation { conv: conv.clone(), norm: norm.clone() };
            let context = Context { precision: crate::Precision::Strict, ..Context::default() };
            let y = run(&op, &[&narrow[0], &narrow[1]], &context).unwrap().outputs.remove(0).to_vec_f64().unwrap();
            let z = conv.reference(&wide).unwrap();
            let expected = norm.reference(&z).unwrap().remove(0);
            let scale = norm.scale(&z, std::slice::from_ref(&expected)).unwrap().remove(0).to_vec_f64().unwrap();
            for ((y, expected), scale) in y.iter().zip(expected.to_vec_f64().unwrap()).zip(scale) {
                let bound = Norm::TOLERANCE * f64::from(f32::EPSILON) / 2.0 * scale;
                assert!((y - expected).abs() <= bound, "{rank} axes, {groups} groups: {y}, not {expected}");
            }
        }
    }
}
