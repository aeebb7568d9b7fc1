//! The distributions of initial values: means, deviations and bounds.

use tomograd_core::{DType, Device, Seed, Tensor};
use tomograd_nn::{
    Conv, ConvTranspose, Kernel, Linear, LinearOptions, Norm, NormKind, NormOptions, Params,
    init::{Distribution, Fan, Init},
};

const COUNT: f64 = 96.0 * 32.0 * 9.0;

/// Mean, standard deviation and largest magnitude of a weight of 96 × 32 × 3 × 3 elements.
fn drawn(init: Init, dtype: DType) -> [f64; 3] {
    moments(&init.tensor(&[96, 32, 3, 3], Seed::new(7), dtype, Device::Cpu).unwrap())
}

fn moments(tensor: &Tensor) -> [f64; 3] {
    let values = tensor.to_vec_f64().unwrap();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
    let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    [mean, variance.sqrt(), largest]
}

#[test]
fn deviations_follow_from_the_fans_of_the_shape() {
    let (fan_in, fan_out) = (32.0 * 9.0, 96.0 * 9.0);
    let slope: f64 = 0.01;
    let leaky =
        Init::Scaled { gain: (2.0 / (1.0 + slope * slope)).sqrt(), fan: Fan::In, distribution: Distribution::Normal };
    let root3 = 3f64.sqrt();
    let none = f64::INFINITY;
    // The initialisation, the expected deviation, and the bound in deviations.
    for (init, deviation, bound) in [
        (Init::Normal(0.01), 0.01, none),
        (Init::Uniform(0.5), 0.5 / root3, root3),
        (Init::FanIn(288), (1.0f64 / 288.0 / 3.0).sqrt(), root3),
        (Init::KaimingNormal(288), (2.0f64 / 288.0).sqrt(), none),
        (Init::kaiming_normal(Fan::In), (2.0f64 / fan_in).sqrt(), none),
        (Init::kaiming_normal(Fan::Out), (2.0f64 / fan_out).sqrt(), none),
        (Init::kaiming_uniform(Fan::In), (2.0f64 / fan_in).sqrt(), root3),
        (Init::kaiming_uniform(Fan::Out), (2.0f64 / fan_out).sqrt(), root3),
        (Init::xavier_normal(), (2.0f64 / (fan_in + fan_out)).sqrt(), none),
        (Init::xavier_uniform(), (2.0f64 / (fan_in + fan_out)).sqrt(), root3),
        (Init::lecun_normal(), (1.0f64 / fan_in).sqrt(), 2.0 / 0.8796),
        (Init::TruncatedNormal(0.02), 0.02 * 0.879_625_661, 2.0 / 0.8796),
        (leaky, (2.0f64 / (1.0 + 1e-4) / fan_in).sqrt(), none),
    ] {
        for dtype in [DType::F32, DType::F64] {
            let [mean, found, largest] = drawn(init, dtype);
            // Five standard errors; a deviation's is at most 1 / √(2n) of it.
            let error = 5.0 / COUNT.sqrt();
            assert!(mean.abs() < error * deviation, "{init:?}: a mean of {mean}");
            assert!((found / deviation - 1.0).abs() < error / 2f64.sqrt(), "{init:?}: {found}, not {deviation}");
            assert!(largest <= bound * deviation * (1.0 + 1e-4), "{init:?}: up to {largest}");
        }
    }
}

#[test]
fn layers_take_an_initialisation() {
    let mut params = Params::new(Device::Cpu, Seed::new(1));
    let mut root = params.root();
    let kernel = || Kernel::d2(3).weight(Init::kaiming_normal(Fan::Out)).bias_filled(Init::Constant(0.5));
    Conv::new(root.at("conv"), 64, 128, kernel().groups(2)).unwrap();
    ConvTranspose::new(root.at("up"), 64, 128, kernel()).unwrap();
    let options = LinearOptions::new(128).weight(Init::kaiming_normal(Fan::In));
    Linear::new(root.at("linear"), 200, options).unwrap();
    Norm::new(root.at("norm"), 3, NormOptions::new(NormKind::Batch).weight(Init::Constant(0.0))).unwrap();
    // As PyTorch has it, the first axis of the weight decides the outgoing fan, also of a transposed convolution.
    for (name, fan) in [("conv", 128 * 9), ("up", 64 * 9), ("linear", 200)] {
        let weight = params.get(&format!("{name}.weight")).unwrap();
        let [_, deviation, _] = moments(weight);
        let ratio = deviation / (2.0 / fan as f64).sqrt();
        assert!((ratio - 1.0).abs() < 5.0 / (2.0 * weight.count() as f64).sqrt(), "{name}: {ratio}");
    }
    for (name, value) in [("conv.bias", 0.5), ("up.bias", 0.5), ("norm.weight", 0.0), ("norm.bias", 0.0)] {
        let values = params.get(name).unwrap().to_vec_f64().unwrap();
        assert!(values.iter().all(|&found| found == value), "{name}: {values:?}");
    }
    // A bias that is turned off and on again has PyTorch's initialisation.
    Conv::new(params.root().at("again"), 1, 8, kernel().bias(false).bias(true)).unwrap();
    let bias = params.get("again.bias").unwrap().to_vec_f64().unwrap();
    assert!(bias.iter().all(|value| value.abs() <= 1.0 / 3.0) && bias.windows(2).any(|pair| pair[0] != pair[1]));
}

#[test]
fn a_shape_without_a_fan_is_refused() {
    let init = Init::kaiming_normal(Fan::In);
    for shape in [&[][..], &[5], &[5, 0], &[4, 3, 0]] {
        let error = init.tensor(shape, Seed::new(1), DType::F32, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("a fan of"), "{error}");
    }
    let negative = Init::Scaled { gain: -1.0, fan: Fan::Out, distribution: Distribution::Uniform };
    let error = negative.tensor(&[2, 2], Seed::new(1), DType::F32, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("0 at least"), "{error}");
}

#[test]
fn numbers_around_a_mean_have_it() {
    let [mean, deviation, _] = drawn(Init::NormalAround { mean: 1.0, deviation: 0.02 }, DType::F64);
    let error = 5.0 / COUNT.sqrt();
    assert!((mean - 1.0).abs() < error * 0.02 && (deviation / 0.02 - 1.0).abs() < error, "{mean}, {deviation}");
    let init = Init::NormalAround { mean: f64::MAX, deviation: 1.0 };
    assert!(init.tensor(&[2], Seed::new(1), DType::F32, Device::Cpu).is_err());
}

#[test]
fn icnr_copies_whole_outputs() {
    let init = Init::Icnr { copies: 4 };
    for device in [Device::Cpu, Device::Meta] {
        assert_eq!(init.tensor(&[8, 3, 3, 3], Seed::new(7), DType::F32, device).unwrap().shape(), [8, 3, 3, 3]);
    }
    let weight = init.tensor(&[96, 32, 3, 3], Seed::new(7), DType::F64, Device::Cpu).unwrap();
    let values = weight.to_vec_f64().unwrap();
    let outputs: Vec<&[f64]> = values.chunks(32 * 9).collect();
    for group in outputs.chunks(4) {
        assert!(group.iter().all(|output| output == &group[0]));
    }
    assert!(outputs.chunks(4).zip(outputs.chunks(4).skip(1)).all(|(one, next)| one[0] != next[0]));
    let [mean, deviation, _] = moments(&weight);
    let (expected, error) = ((2.0 / (32.0 * 9.0f64)).sqrt(), 10.0 / COUNT.sqrt());
    assert!(mean.abs() < error * expected && (deviation / expected - 1.0).abs() < error, "{mean}, {deviation}");
    for (copies, shape) in [(0, &[8, 3, 3][..]), (3, &[8, 3, 3]), (4, &[]), (4, &[8])] {
        assert!(
            Init::Icnr { copies }.tensor(shape, Seed::new(1), DType::F32, Device::Cpu).is_err(),
            "{copies} {shape:?}"
        );
    }
}
