//! Every layer's gradients of its input and its parameters, against central differences in f64.

use proptest::prelude::*;
use tomograd_core::{DType, Device, Result, Seed, Tensor};
use tomograd_kernels::{elementwise::Function, methods::*};
use tomograd_nn::{
    Activation, AdaptiveAveragePool, AdaptiveMaxPool, AveragePool, Conv, ConvNormActivation, ConvTranspose, Dropout,
    Interpolate, Interpolation, LayerNorm, Linear, LogSoftmax, MaxPool, Module, Norm, NormKind, PRelu, Scope,
    Sequential, Softmax, Upsample, gradcheck,
};

/// Layers that take (N, 4, spatial...), by name.
const LAYERS: [&str; 19] = [
    "conv",
    "conv, strided groups",
    "conv, transposed",
    "conv, norm, activation",
    "batch norm",
    "instance norm",
    "group norm",
    "layer norm",
    "linear",
    "prelu",
    "activation",
    "dropout",
    "max pool",
    "average pool",
    "adaptive pools",
    "interpolate",
    "upsample",
    "softmax",
    "sequential",
];

fn layer(name: &str, scope: Scope<'_>, x: &Tensor) -> Result<Box<dyn Module>> {
    let mut scope = scope;
    let (rank, last) = (x.rank() - 2, x.shape()[x.rank() - 1]);
    let (three, two) = (vec![3; rank], vec![2; rank]);
    Ok(match name {
        "conv" => Box::new(Conv::new(scope, 4, 3, &three)?.padding(1).build()?),
        "conv, strided groups" => {
            Box::new(Conv::new(scope, 4, 6, &two)?.stride(2).padding(1).groups(2).bias(false).build()?)
        }
        "conv, transposed" => Box::new(ConvTranspose::new(scope, 4, 3, &two)?.stride(2).build()?),
        "conv, norm, activation" => {
            let conv = Conv::new(scope.at("conv"), 4, 6, &three)?.padding(1).build()?;
            let norm = Norm::new(scope.at("norm"), NormKind::Group(3), 6, Some(Function::Silu))?.epsilon(0.1)?;
            Box::new(ConvNormActivation::new(conv, norm)?)
        }
        "batch norm" => Box::new(Norm::new(scope, NormKind::Batch, 4, None)?.epsilon(0.1)?),
        "instance norm" => Box::new(Norm::new(scope, NormKind::Instance, 4, Some(Function::Gelu))?.epsilon(0.1)?),
        "group norm" => Box::new(Norm::new(scope, NormKind::Group(2), 4, None)?.epsilon(0.1)?),
        "layer norm" => Box::new(LayerNorm::new(scope, &[last])?.epsilon(0.1)?),
        "linear" => Box::new(Linear::new(scope, last, 3, true)?),
        "prelu" => Box::new(PRelu::new(scope, 4)?),
        "activation" => Box::new(Activation(Function::Mish)),
        "dropout" => Box::new(Dropout::new(&scope, 0.3)?),
        "max pool" => Box::new(MaxPool { padding: vec![1; rank], ceil_mode: true, ..MaxPool::new(&two)? }),
        "average pool" => Box::new(AveragePool { padding: vec![1; rank], ..AveragePool::new(&two)? }),
        "adaptive pools" => Box::new(Sequential(vec![
            Box::new(AdaptiveMaxPool { output: three }),
            Box::new(AdaptiveAveragePool { output: two }),
        ])),
        "interpolate" => Box::new(Interpolate { size: vec![4; rank], mode: Interpolation::LinearCorners }),
        "upsample" => Box::new(Upsample::new(&two, Interpolation::Linear)?),
        "softmax" => Box::new(Sequential(vec![Box::new(Softmax { axis: 1 }), Box::new(LogSoftmax { axis: rank + 1 })])),
        "sequential" => Box::new(Sequential(vec![
            Box::new(Conv::new(scope.at("0"), 4, 2, &three)?.padding(1).build()?),
            Box::new(Activation(Function::Softplus)),
            Box::new(Conv::new(scope.at("1"), 2, 1, &vec![1; rank])?.build()?),
        ])),
        _ => unreachable!("{name} is in the list"),
    })
}

/// Numbers in the order of those of `x`, a step apart and as far from 0: differences across a kink mean nothing.
fn spread(x: &Tensor) -> Tensor {
    let values = x.to_vec::<f64>().unwrap();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut spread = vec![0.0; values.len()];
    for (rank, &place) in order.iter().enumerate() {
        spread[place] = (rank as f64 - (values.len() / 2) as f64 + 0.5) * 0.05;
    }
    Tensor::from_slice(&spread, x.shape(), Device::Cpu).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]
    #[test]
    fn of_every_layer(x in gradcheck::images_of(1..=3, 4..=4)) {
        for name in LAYERS {
            let kinks = ["prelu", "max pool", "adaptive pools"].contains(&name);
            let x = if kinks { spread(&x) } else { x.clone() };
            let alone = x.shape()[2..].iter().product::<usize>() == 1;
            if alone && ["batch norm", "instance norm"].contains(&name) {
                // Statistics of a single voxel are refused.
                continue;
            }
            gradcheck::module(|scope| layer(name, scope, &x), &x)
                .map_err(|error| TestCaseError::fail(format!("{name}: {error}")))?;
        }
    }
}

#[test]
fn a_wrong_gradient_is_found() {
    /// A layer that takes its scale out of the graph.
    struct Detached(Linear);
    impl Module for Detached {
        fn forward(&self, x: &tomograd_autodiff::Var, pass: &mut tomograd_nn::Pass) -> Result<tomograd_autodiff::Var> {
            self.0.forward(x, pass)?.mul(&x.detach())
        }
    }
    let x = Tensor::normal(&[2, 3], 0.0, 1.0, Seed::new(2), DType::F64, Device::Cpu).unwrap();
    assert!(gradcheck::module(|scope| Ok(Detached(Linear::new(scope, 3, 3, true)?)), &x).is_err());
}
